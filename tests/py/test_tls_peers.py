"""TLS with programs that nobody here wrote, as client and as server, by TLS 1.2 and 1.3."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import Call
from hardsock.lab.waits import poll_until
from support.echo import EchoServer
from support.pki import CLIENT, Identity, make_authority
from support.programs import openssl_s_client, psql
from support.require import available, require
from support.servers import haproxy, nginx, openssl_s_server, postgres, stunnel
from support.tls_peers import VERSIONS, client_context, server_context

NAME = "localhost"
Address = tuple[str, int]
BULK = bytes(range(251)) * 4000
CRLF = hs.Line("\r\n")


class World:
    """An authority that both sides trust."""

    def __init__(self, directory: Any) -> None:
        self.root = make_authority(directory)
        self.server = self.root.issue()
        self.client = self.root.issue(["alice"], usages=CLIENT, file="alice")

    def config(self, version: str, **settings: Any) -> hs.TLSConfig:
        """A client's."""
        only = {"min_version": version, "max_version": version}
        return hs.TLSConfig(**{"ca": self.root.certificate, **only, **settings})

    def server_config(self, version: str, **settings: Any) -> hs.TLSConfig:
        only = {"min_version": version, "max_version": version}
        own = certificate(self.server)
        return hs.TLSConfig(**{"role": "server", "certificates": own, **only, **settings})


def certificate(who: Identity) -> hs.Certificate:
    return hs.Certificate(chain=who.certificate, key=who.key)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    with available():
        return World(tmp_path_factory.mktemp("peers"))


both_versions = pytest.mark.parametrize("version", VERSIONS)


# ---- servers that send everything back

Echo = Callable[[World, str], AbstractContextManager[Address]]


def tcp(server: EchoServer) -> Address:
    assert not isinstance(server.address, str)
    return server.address


@contextlib.contextmanager
def python_echo(world: World, version: str) -> Iterator[Address]:
    with EchoServer(tls=server_context(world.server, version)) as server:
        yield tcp(server)


@contextlib.contextmanager
def stunnel_echo(world: World, version: str) -> Iterator[Address]:
    pinned = f"sslVersionMin = {version}\nsslVersionMax = {version}"
    with EchoServer() as back, stunnel(tcp(back), world.server, extra=pinned) as server:
        yield server.address


@contextlib.contextmanager
def haproxy_echo(world: World, version: str) -> Iterator[Address]:
    pinned = f"ssl-min-ver {version} ssl-max-ver {version}"
    with EchoServer() as back, haproxy(tcp(back), certificate=world.server, bind=pinned) as server:
        yield server.address


ECHOES: dict[str, Echo] = {
    "python": python_echo,
    "stunnel": stunnel_echo,
    "haproxy": haproxy_echo,
}


@both_versions
@pytest.mark.parametrize("program", ECHOES)
def test_bulk_through_a_server(program: str, version: str, world: World) -> None:
    """Both directions at once, then an end in one while the other goes on, then a clean end."""
    with require(ECHOES[program](world, version)) as address, hs.timeout(30):
        with hs.connect(address, tls=world.config(version), server_name=NAME) as conn:
            assert conn.tls is not None
            assert (version, True) == (conn.tls.version, conn.tls.verified)
            with Call(conn.sendall, BULK, timeout=30):
                assert BULK == conn.recv_exactly(len(BULK))
            conn.sendall(b"the end")
            conn.close_write()
            assert b"the end" == conn.recv_exactly(7)
            assert b"" == conn.recv(1)


@both_versions
@pytest.mark.parametrize("program", ECHOES)
def test_second_connection_resumes(program: str, version: str, world: World) -> None:
    config = world.config(version)
    resumed = []
    with require(ECHOES[program](world, version)) as address, hs.timeout(30):
        for _ in range(3):
            with hs.connect(address, tls=config, server_name=NAME) as conn:
                conn.sendall(b"abc")
                assert b"abc" == conn.recv_exactly(3)
                assert conn.tls is not None
                resumed.append(conn.tls.resumed)
    assert [False, True, True] == resumed


@both_versions
@pytest.mark.parametrize("program", ECHOES)
def test_write_only_client_loses_nothing(program: str, version: str, world: World) -> None:
    """Session tickets that nobody has read must not cost what was sent."""
    with require(ECHOES[program](world, version)) as address, hs.timeout(30):
        with hs.connect(address, tls=world.config(version), server_name=NAME) as conn:
            with Call(drain, conn):
                conn.sendall(BULK)
                conn.close_write()


def drain(conn: hs.Connection) -> None:
    total = 0
    while data := conn.recv(65536, timeout=30):
        total += len(data)
    assert len(BULK) == total


@both_versions
def test_s_server_reverses_lines(version: str, world: World) -> None:
    option = "-tls1_2" if version == "TLSv1.2" else "-tls1_3"
    with require(openssl_s_server(world.server, [option])) as server, hs.timeout(20):
        for _ in range(3):  # it serves one after the other: it has to see the end of each
            with hs.connect(server.address, tls=world.config(version), server_name=NAME) as conn:
                conn.sendall(b"abc\n")
                assert b"cba\n" == conn.recv_exactly(4)


@both_versions
@pytest.mark.parametrize("shown", [True, False])
def test_s_server_asks_for_a_certificate(shown: bool, version: str, world: World) -> None:
    options = ["-Verify", "2", "-verify_return_error", "-CAfile", str(world.root.certificate)]
    options += ["-tls1_2" if version == "TLSv1.2" else "-tls1_3"]
    own = {"certificates": certificate(world.client)} if shown else {}
    config = world.config(version, **own)
    with require(openssl_s_server(world.server, options)) as server, hs.timeout(20):
        if shown:
            with hs.connect(server.address, tls=config, server_name=NAME) as conn:
                conn.confirm()
                conn.sendall(b"abc\n")
                assert b"cba\n" == conn.recv_exactly(4)
            return
        with pytest.raises(hs.TLSError, match="alert") as caught:
            with hs.connect(server.address, tls=config, server_name=NAME) as conn:
                conn.confirm()
        assert "alert" == caught.value.failure


# ---- nginx


def get(conn: hs.Connection, path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {NAME}", *headers, "", ""]
    conn.sendall("\r\n".join(lines).encode())
    assert b"HTTP/1.1 200 OK" == conn.recv_line(CRLF)
    length = 0
    while line := conn.recv_line(CRLF):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return conn.recv_exactly(length)


@both_versions
def test_nginx_serves(version: str, world: World) -> None:
    files = {"hello.txt": b"hello\n", "big.bin": BULK}
    extra = f"ssl_protocols {version};"
    with require(nginx(files, certificate=world.server, extra=extra)) as server, hs.timeout(20):
        with hs.connect(server.address, tls=world.config(version), server_name=NAME) as conn:
            assert b"hello\n" == get(conn, "/hello.txt")
            assert BULK == get(conn, "/big.bin")
            assert b"hello\n" == get(conn, "/hello.txt", "Connection: close")
            assert b"" == conn.recv(1)  # it says goodbye: no truncation


def test_nginx_and_alpn(world: World) -> None:
    config = world.config("TLSv1.3", alpn=("h2", "http/1.1"))
    extra = "ssl_protocols TLSv1.3;"
    with require(nginx(certificate=world.server, extra=extra)) as server, hs.timeout(20):
        with hs.connect(server.address, tls=config, server_name=NAME) as conn:
            assert conn.tls is not None
            assert "http/1.1" == conn.tls.alpn
            assert b"hello\n" == get(conn, "/hello.txt")


@both_versions
def test_nginx_asks_for_a_certificate(version: str, world: World) -> None:
    ca = world.root.certificate
    extra = f"ssl_protocols {version}; ssl_verify_client on; ssl_client_certificate {ca};"
    config = world.config(version, certificates=certificate(world.client))
    with require(nginx(certificate=world.server, extra=extra)) as server, hs.timeout(20):
        with hs.connect(server.address, tls=config, server_name=NAME) as conn:
            assert b"hello\n" == get(conn, "/hello.txt")


def test_nginx_tells_plain_http_on_its_tls_port(world: World) -> None:
    """And the other way round: our TLS on its port for plain HTTP."""
    with require(nginx()) as server, hs.timeout(20):
        with pytest.raises(hs.TLSError) as caught:
            hs.connect(server.address, tls=world.config("TLSv1.3"), server_name=NAME)
    assert caught.value.failure in {"http", "not_tls"}


# ---- PostgreSQL: an upgrade in the middle of the stream

SSL_REQUEST = struct.pack("!II", 8, 80877103)


def startup() -> bytes:
    body = struct.pack("!I", 196608) + b"user\0postgres\0\0"
    return struct.pack("!I", len(body) + 4) + body


def message(conn: hs.Connection) -> tuple[bytes, bytes]:
    kind = conn.recv_exactly(1)
    (size,) = struct.unpack("!I", conn.recv_exactly(4))
    return kind, conn.recv_exactly(size - 4)


@both_versions
def test_postgres_upgrades(version: str, world: World) -> None:
    pinned = {"ssl_min_protocol_version": version, "ssl_max_protocol_version": version}
    with require(postgres(certificate=world.server, **pinned)) as server, hs.timeout(20):
        with hs.connect(server.address) as conn:
            conn.sendall(SSL_REQUEST)
            assert b"S" == conn.recv_exactly(1)
            conn.upgrade_to_tls(world.config(version), server_name=NAME)
            conn.sendall(startup())
            kinds: list[bytes] = []
            while not kinds or kinds[-1] != b"Z":
                kinds.append(message(conn)[0])
            assert b"R" == kinds[0]
            query = b"select ssl, version from pg_stat_ssl where pid = pg_backend_pid()\0"
            conn.sendall(b"Q" + struct.pack("!I", len(query) + 4) + query)
            rows = {}
            while b"Z" not in rows:
                kind, body = message(conn)
                rows[kind] = body
            assert version.encode() in rows[b"D"]
            conn.sendall(b"X\0\0\0\4")
            with contextlib.suppress(hs.Truncated):  # It ends without a close_notify.
                assert b"" == conn.recv(1)


def test_bytes_behind_the_answer_are_no_tls(world: World) -> None:
    """Somebody in the middle put an answer of their own behind the S (CVE-2021-23222)."""
    with PeerScript([("recv", 8), ("send", b"SEvil answer"), ("recv_until_eof",)]) as peer:
        with hs.connect(peer.address, timeout=30) as conn, hs.timeout(30):
            conn.sendall(SSL_REQUEST)
            assert b"S" == conn.recv_exactly(1)
            with pytest.raises(hs.TLSError) as caught:
                conn.upgrade_to_tls(world.config("TLSv1.3"), server_name=NAME)
            assert "not_tls" == caught.value.failure
            with pytest.raises(hs.Poisoned):
                conn.recv(1)


def test_bytes_read_before_the_upgrade_are_refused(world: World) -> None:
    """The same where lines are read: what is behind the line is here already."""
    answer = b"220 go ahead\r\n250 evil\r\n"
    with PeerScript([("recv", 10), ("send", answer), ("recv_until_eof",)]) as peer:
        with hs.connect(peer.address, timeout=30) as conn, hs.timeout(30):
            conn.sendall(b"STARTTLS\r\n")
            assert b"220 go ahead" == conn.recv_line(CRLF)
            assert len(b"250 evil\r\n") == conn.buffered
            with pytest.raises(hs.TLSError) as caught:
                conn.upgrade_to_tls(world.config("TLSv1.3"), server_name=NAME)
            assert "plaintext" == caught.value.failure
            with pytest.raises(hs.Poisoned):
                conn.recv(1)
            with pytest.raises(hs.Poisoned):
                conn.sendall(b"secret")
    assert b"STARTTLS\r\n" == peer.received


def serve_like_postgres(listener: hs.Listener, config: hs.TLSConfig) -> bytes:
    """As much of its protocol as psql needs for one query that has no answer; the query."""
    with listener.accept() as conn, hs.timeout(60):
        assert SSL_REQUEST == conn.recv_exactly(8)
        conn.sendall(b"S")
        conn.upgrade_to_tls(config)
        (size,) = struct.unpack("!I", conn.recv_exactly(4))
        conn.recv_exactly(size - 4)
        ready = b"Z" + struct.pack("!I", 5) + b"I"
        conn.sendall(b"R" + struct.pack("!II", 8, 0) + ready)
        kind, query = message(conn)
        assert b"Q" == kind
        done = b"BEGIN\0"
        conn.sendall(b"C" + struct.pack("!I", 4 + len(done)) + done + ready)
        assert (b"X", b"") == message(conn)
        return query.rstrip(b"\0")


@both_versions
def test_psql_upgrades(version: str, world: World) -> None:
    how = {
        "host": NAME,
        "hostaddr": "127.0.0.1",
        "user": "postgres",
        "sslmode": "verify-full",
        "sslrootcert": str(world.root.certificate),
        "sslcert": "/nonexistent",
    }
    with hs.listen(("127.0.0.1", 0)) as listener, hs.timeout(20):
        with Call(serve_like_postgres, listener, world.server_config(version)) as serving:
            with require(psql("begin", port=str(listener.address[1]), **how)) as program:
                pass
            assert b"begin" == serving.result(), program.errors
    assert 0 == program.returncode, program.errors


# ---- clients, with our server behind them


def echo(listener: hs.Listener, infos: list[hs.TLSInfo]) -> None:
    """Send everything back on each connection, one after the other, until the listener is closed."""
    with contextlib.suppress(hs.Closed):
        while True:
            with listener.accept(timeout=60) as conn, hs.timeout(30):
                if conn.tls is not None:
                    infos.append(conn.tls)
                with contextlib.suppress(hs.TLSError, hs.Truncated, hs.Reset):
                    while data := conn.recv(65536):
                        conn.sendall(data)
                    conn.close_write()


@contextlib.contextmanager
def our_echo(config: hs.TLSConfig) -> Iterator[tuple[hs.Listener, list[hs.TLSInfo]]]:
    infos: list[hs.TLSInfo] = []
    with hs.listen(("127.0.0.1", 0), tls=config) as listener, Call(echo, listener, infos):
        try:
            yield listener, infos
        finally:
            listener.close()


Front = Callable[[World, str, Address], AbstractContextManager[Address]]


@contextlib.contextmanager
def stunnel_front(world: World, version: str, back: Address) -> Iterator[Address]:
    lines = ["client = yes", f"sslVersionMin = {version}", f"sslVersionMax = {version}"]
    lines += [f"CAfile = {world.root.certificate}", "verifyChain = yes", f"checkHost = {NAME}"]
    lines += [f"sni = {NAME}"]
    with stunnel(back, world.client, extra="\n".join(lines)) as server:
        yield server.address


@contextlib.contextmanager
def haproxy_front(world: World, version: str, back: Address) -> Iterator[Address]:
    words = ["ssl", "verify required", f"ca-file {world.root.certificate}", f"verifyhost {NAME}"]
    words += [f"sni str({NAME})", f"ssl-min-ver {version}", f"ssl-max-ver {version}"]
    with haproxy(back, server=" ".join(words)) as server:
        yield server.address


FRONTS: dict[str, Front] = {"stunnel": stunnel_front, "haproxy": haproxy_front}


@both_versions
@pytest.mark.parametrize("program", FRONTS)
def test_bulk_from_a_client(program: str, version: str, world: World) -> None:
    """A plain client of theirs, TLS between them and our server."""
    with our_echo(world.server_config(version)) as (listener, infos):
        back = listener.address
        with require(FRONTS[program](world, version, back)) as address:
            with socket.create_connection(address, timeout=30) as sock:
                with Call(sock.sendall, BULK):
                    assert BULK == read_exactly(sock, len(BULK))
                sock.shutdown(socket.SHUT_WR)
                assert b"" == sock.recv(1)
    assert (version, NAME) == (infos[-1].version, infos[-1].server_name)


def read_exactly(sock: Any, size: int) -> bytes:
    got = bytearray()
    while len(got) < size and (data := sock.recv(size - len(got))):
        got += data
    return bytes(got)


@both_versions
def test_python_is_the_client(version: str, world: World) -> None:
    """Shows a certificate, resumes its session, and ends with a close_notify both ways."""
    needed = {"client_certificates": "required", "ca": world.root.certificate}
    context = client_context(world.root, version, world.client)
    session = None
    with our_echo(world.server_config(version, **needed)) as (listener, infos):
        for _ in range(2):
            with socket.create_connection(listener.address, timeout=60) as raw:
                sock = context.wrap_socket(raw, server_hostname=NAME, session=session)
                with sock:
                    sock.sendall(BULK[:1000])
                    assert BULK[:1000] == read_exactly(sock, 1000)
                    session = sock.session
                    sock.unwrap().close()
    assert [False, True] == [info.resumed for info in infos]
    assert all(info.verified for info in infos)
    first = infos[0].peer_certificate
    assert first is not None
    assert "CN=alice" == first.subject


@both_versions
def test_s_client_is_the_client(version: str, world: World) -> None:
    options = ["-tls1_2" if version == "TLSv1.2" else "-tls1_3"]
    options += ["-CAfile", str(world.root.certificate), "-alpn", "x,echo"]
    with our_echo(world.server_config(version, alpn=("echo",))) as (listener, infos):
        with require(openssl_s_client(listener.address, NAME, options)) as program:
            for line in (b"hello\n", b"x" * 5000 + b"\n"):
                program.say(line)
                assert line == program.read(len(line))
            program.end_input()
            assert b"" == program.read(1)
    assert 0 == program.returncode, program.errors
    assert ("echo", version) == (infos[0].alpn, infos[0].version)


def test_s_client_updates_its_keys(world: World) -> None:
    """One side, then both, in the middle of the stream (RFC 8446 section 4.6.3)."""
    options = ["-CAfile", str(world.root.certificate)]
    with our_echo(world.server_config("TLSv1.3")) as (listener, _infos):
        with require(openssl_s_client(listener.address, NAME, options, quiet=False)) as program:
            for command in (b"k\n", b"K\n", b"K\n"):
                program.say(command)
                program.say(b"hello\n")
                program.read_until(b"hello\n")
            program.end_input()
    assert 0 == program.returncode, program.errors
    assert 3 == program.errors.count("KEYUPDATE")


def test_s_client_may_not_renegotiate(world: World) -> None:
    """We refuse (RFC 5246 section 7.2.2), which ends it for s_client; nobody else is harmed."""
    options = ["-CAfile", str(world.root.certificate), "-tls1_2"]
    with our_echo(world.server_config("TLSv1.2")) as (listener, _infos):
        with require(openssl_s_client(listener.address, NAME, options, quiet=False)) as program:
            program.say(b"hello\n")
            program.read_until(b"hello\n")
            program.say(b"R\n")
            program.read_to_end()
        assert "RENEGOTIATING" in program.errors
        assert "no renegotiation" in program.errors
        config = world.config("TLSv1.2")
        with hs.connect(listener.address, tls=config, server_name=NAME, timeout=30) as conn:
            conn.sendall(b"abc", timeout=30)
            assert b"abc" == conn.recv_exactly(3, timeout=30)


@both_versions
def test_s_client_reads_what_was_said_before_our_end(version: str, world: World) -> None:
    """We end first: all of it arrives, and the end is a clean one."""

    def say(listener: hs.Listener) -> hs.CloseReport:
        with listener.accept(timeout=60) as conn, hs.timeout(60):
            conn.sendall(BULK)
            return conn.finish()

    options = ["-CAfile", str(world.root.certificate)]
    with hs.listen(("127.0.0.1", 0), tls=world.server_config(version)) as listener:
        with Call(say, listener) as saying:
            with require(openssl_s_client(listener.address, NAME, options)) as program:
                assert BULK == program.read(len(BULK))
                assert b"" == program.read(1)
            assert saying.result().ending in {"clean", "truncated"}
    assert 0 == program.returncode, program.errors


@both_versions
def test_nginx_is_the_client(version: str, world: World) -> None:
    """It passes requests on to our server, over TLS that it verifies."""
    config = world.server_config(version)

    def answer(listener: hs.Listener) -> hs.TLSInfo | None:
        with listener.accept(timeout=20) as conn, hs.timeout(60):
            while conn.recv_line(CRLF):
                pass
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BULK) + BULK)
            conn.finish()
            return conn.tls

    with hs.listen(("127.0.0.1", 0), tls=config) as listener:
        port = listener.address[1]
        extra = f"""location /ours {{
            proxy_pass https://127.0.0.1:{port}; proxy_http_version 1.1; proxy_ssl_name {NAME};
            proxy_ssl_verify on; proxy_ssl_trusted_certificate {world.root.certificate};
            proxy_ssl_server_name on; proxy_ssl_protocols {version}; }}"""
        with require(nginx(extra=extra)) as server, Call(answer, listener) as answering:
            url = f"http://127.0.0.1:{server.port}/ours"
            with urllib.request.urlopen(url, timeout=60) as response:
                assert BULK == response.read()
            info = answering.result()
    assert info is not None
    assert (version, NAME) == (info.version, info.server_name)


def test_client_that_distrusts_us_is_counted(world: World) -> None:
    def alerts() -> int:
        handshakes = listener.stats().handshakes
        assert handshakes is not None
        return handshakes.failed["alert"]

    context = ssl.create_default_context()
    with our_echo(world.server_config("TLSv1.2")) as (listener, infos):
        raw = socket.create_connection(listener.address, timeout=60)
        with raw, pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(raw, server_hostname=NAME)
        assert poll_until(lambda: alerts() == 1, 30)
    assert [] == infos
