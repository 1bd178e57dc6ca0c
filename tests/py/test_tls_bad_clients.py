"""Bad clients at a listener: each is turned away, counted by kind, and keeps nobody else out."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.endpoint import connect_to
from hardsock.lab.threads import Call
from support import tls_raw
from support.pki import CLIENT, Authority, Identity, make_authority, self_signed
from support.require import available

GOOD = tls_raw.ECDHE_ECDSA
FALLBACK_SCSV = 0x5600
HELLO = tls_raw.client_hello([GOOD])


@dataclass(frozen=True)
class World:
    """Who signs here, and who does not."""

    root: Authority
    stranger: Authority
    server: Identity
    clients: dict[str, Identity] = field(default_factory=dict)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    directory = tmp_path_factory.mktemp("clients")
    with available():
        root = make_authority(directory)
        stranger = make_authority(directory, "stranger")
    alice: dict[str, Any] = {"names": ["alice"], "usages": CLIENT}
    clients = {
        "good": root.issue(file="alice", **alice),
        "expired": root.issue(start=-9, days=3, file="expired", **alice),
        "future": root.issue(start=3, file="future", **alice),
        "unknown": stranger.issue(file="unknown", **alice),
        "self-signed": self_signed(directory, **alice),
        "server": root.issue(["alice"], file="a-server"),
        "broken": root.issue(broken_signature=True, file="broken", **alice),
        "revoked": root.issue(file="revoked", **alice),
    }
    return World(root, stranger, root.issue(), clients)


def server_config(world: World, **settings: Any) -> hs.TLSConfig:
    own = hs.Certificate(chain=world.server.certificate, key=world.server.key)
    return hs.TLSConfig(**{"role": "server", "certificates": own, **settings})


@contextlib.contextmanager
def listening(world: World, **settings: Any) -> Iterator[hs.Listener]:
    """A listener that accepts one good client; the block plays the bad ones before that."""
    identity = world.clients["good"]
    own = hs.Certificate(chain=identity.certificate, key=identity.key)
    good = hs.TLSConfig(ca=world.root.certificate, certificates=own)
    with hs.listen(("127.0.0.1", 0), tls=server_config(world, **settings)) as listener:
        with Call(listener.accept, timeout=60) as accepting:
            yield listener
            with hs.connect(listener.address, tls=good, server_name="localhost", timeout=30):
                accepting.result().close()


def failures(listener: hs.Listener) -> dict[str, int]:
    handshakes = listener.stats().handshakes
    assert handshakes is not None
    assert handshakes.started == (
        handshakes.completed + handshakes.in_progress + sum(handshakes.failed.values())
    )
    return {kind: count for kind, count in handshakes.failed.items() if count}


def read_answer(sock: socket.socket) -> bytes:
    """All that the server says before it hangs up, which it has to do soon."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(4096):
            answer += data
    return answer


def alerts(answer: bytes) -> list[int]:
    """The fatal alerts in the answer."""
    found = [one for one in tls_raw.split_records(answer) if one[0] == tls_raw.ALERT]
    return [one[-1] for one in found if one[-2] == 2]


@dataclass(frozen=True)
class Client:
    """What a client sends, the kind of failure, and the alert that it is told."""

    name: str
    sends: bytes
    failure: str
    alert: int | None


# Only compression, in a hello of TLS 1.2: RFC 5246, 7.4.1.2 names no alert. OpenSSL 3.0 says
# decode_error; 3.5 says illegal_parameter, as RFC 8446, 4.1.2 has it for a hello of TLS 1.3.
COMPRESSION_ALERT = 47 if ssl.OPENSSL_VERSION_INFO >= (3, 5) else 50


def hello(name: str, failure: str, alert: int | None, *ciphers: int, **more: Any) -> Client:
    return Client(name, tls_raw.client_hello(ciphers or (GOOD,), **more), failure, alert)


CLIENTS = [
    Client("http", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "http", None),
    Client("http-post", b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", "http", None),
    Client("http-proxy", b"CONNECT localhost:443 HTTP/1.1\r\n\r\n", "http", None),
    Client("ssh", b"SSH-2.0-OpenSSH_9.2\r\n", "not_tls", None),
    Client("zeros", bytes(64), "not_tls", None),
    Client("text", b"hello, is anybody there?\r\n", "not_tls", None),
    Client("ssl-2", tls_raw.ssl2_hello(), "version", 70),
    hello("ssl-3", "version", 40, version=tls_raw.SSL3),
    hello("tls-1.0", "version", 70, version=tls_raw.TLS10),
    hello("tls-1.1", "version", 70, version=tls_raw.TLS11),
    hello("null", "cipher", 40, tls_raw.NULL_SHA256),
    hello("rc4", "cipher", 40, tls_raw.RC4_SHA),
    hello("3des", "cipher", 40, tls_raw.TRIPLE_DES_SHA),
    hello("export", "cipher", 40, tls_raw.EXPORT_RC4),
    hello("static-rsa", "cipher", 40, tls_raw.STATIC_RSA),
    hello("dhe", "cipher", 40, tls_raw.DHE_RSA),
    hello("anonymous", "cipher", 40, tls_raw.ANONYMOUS),
    hello("cbc", "cipher", 40, tls_raw.ECDHE_RSA_CBC),
    # RFC 7507: the client tried 1.3 before, and somebody in the middle did not let it through.
    hello("downgraded", "protocol", 86, GOOD, FALLBACK_SCSV),
    hello("compressing-only", "protocol", COMPRESSION_ALERT, compressions=b"\x01"),
    Client("data-first", tls_raw.record(23, b"hello"), "protocol", 10),
    Client("alert-first", tls_raw.alert(40), "protocol", 10),
    Client("oversize-record", b"\x16\x03\x01\xff\xff" + bytes(99), "protocol", 22),
    Client("broken-message", tls_raw.record(22, tls_raw.message(1, b"\x03")), "protocol", 50),
]


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_bad_client_is_turned_away(client: Client, world: World) -> None:
    with listening(world) as listener:
        with connect_to(listener.address) as sock:
            sock.sendall(client.sends)
            answer = read_answer(sock)
    assert {client.failure: 1} == failures(listener), answer
    if client.alert is not None:
        assert [client.alert] == alerts(answer)


def close(sock: socket.socket) -> None:
    sock.close()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize(
    ("sends", "leave", "kinds"),
    [
        (b"", close, {"empty"}),
        (b"", reset, {"empty", "reset"}),  # as it comes before the handshake begins or after
        (HELLO[:1], close, {"aborted"}),
        (HELLO[:5], close, {"aborted"}),
        (HELLO[:-1], close, {"aborted"}),
        (HELLO[:-1], reset, {"reset"}),
    ],
    ids=["close", "reset", "close-1", "close-5", "close-late", "reset-late"],
)
def test_client_that_leaves_is_counted(
    sends: bytes, leave: Callable[[socket.socket], None], kinds: set[str], world: World
) -> None:
    with listening(world) as listener:
        with connect_to(listener.address) as sock:
            sock.sendall(sends)
            leave(sock)
    (found,) = failures(listener).items()
    assert found in {(kind, 1) for kind in kinds}


def test_silent_and_slow_clients_are_cut_and_delay_nobody(world: World) -> None:
    with contextlib.ExitStack() as stack:
        with listening(world, handshake_timeout=0.2) as listener:
            silent = stack.enter_context(connect_to(listener.address))
            slow = stack.enter_context(connect_to(listener.address))
            slow.sendall(HELLO[:20])
            assert [b"", b""] == [read_answer(silent), read_answer(slow)]
        assert {"timeout": 2} == failures(listener)


VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def stdlib_client(world: World, version: str, who: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(world.root.certificate))
    context.minimum_version = context.maximum_version = VERSIONS[version]
    if who is not None:
        context.load_cert_chain(*world.clients[who])
    return context


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "who", [None, "expired", "future", "unknown", "self-signed", "server", "broken", "revoked"]
)
def test_client_certificate_is_refused(who: str | None, version: str, world: World) -> None:
    settings = {
        "client_certificates": "required",
        "ca": world.root.certificate,
        "crl": world.root.revoke(world.clients["revoked"].leaf),
    }
    context = stdlib_client(world, version, who)
    with listening(world, **settings) as listener:
        with connect_to(listener.address) as sock, pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            with context.wrap_socket(sock, server_hostname="localhost") as secured:
                secured.recv(1)  # TLS 1.3: the handshake ends before the server has judged
    assert {"verify": 1} == failures(listener)


@pytest.mark.parametrize("version", VERSIONS)
def test_optional_client_certificate_may_be_missing_but_not_bad(version: str, world: World) -> None:
    settings = {"client_certificates": "optional", "ca": world.root.certificate}
    server = server_config(world, **settings)
    with hs.listen(("127.0.0.1", 0), tls=server) as listener:
        with Call(listener.accept, timeout=60) as accepting:
            with connect_to(listener.address) as sock:
                bad = stdlib_client(world, version, "unknown")
                with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
                    with bad.wrap_socket(sock, server_hostname="localhost") as secured:
                        secured.recv(1)
            with connect_to(listener.address) as sock:
                none = stdlib_client(world, version, None)
                with none.wrap_socket(sock, server_hostname="localhost"):
                    with accepting.result() as conn:
                        assert conn.tls is not None
                        assert not conn.tls.verified
                        assert () == conn.tls.peer_chain
        assert {"verify": 1} == failures(listener)
