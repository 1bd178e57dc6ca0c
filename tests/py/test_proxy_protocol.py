"""Listeners behind proxies: who the peer is, and who may say so."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock import aio
from hardsock.lab.endpoint import connect_to
from hardsock.lab.threads import Call
from hardsock.lab.waits import poll_until
from support.conversation import Handlers
from support.require import require
from support.servers import haproxy, nginx_stream
from support.serving import DRIVERS, serving
from support.tls import Identities

LOOPBACK = hs.ProxyProtocol(["127.0.0.0/8"])
CLIENT = ("192.0.2.1", 1234)
V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n"
V1_SIX = b"PROXY TCP6 2001:db8::1 2001:db8::2 1234 443\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2 = SIGNATURE + b"\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x04\xd2\x01\xbb"
LOCAL = SIGNATURE + b"\x20\0\0\0"
TIMEOUT = 60


@contextlib.contextmanager
def listening(**settings: Any) -> Iterator[hs.Listener]:
    settings.setdefault("proxy_protocol", LOOPBACK)
    with hs.listen(("127.0.0.1", 0), **settings) as listener:
        yield listener


def proxy_stats(listener: hs.Listener) -> hs.ProxyStats:
    stats = listener.stats().proxy
    assert stats is not None
    return stats


@pytest.mark.parametrize(
    ("header", "peer"),
    [(V1, CLIENT), (V2, CLIENT), (V1_SIX, ("2001:db8::1", 1234, 0, 0))],
    ids=["v1", "v2", "v1-ipv6"],
)
def test_the_client_is_the_peer(header: bytes, peer: tuple[Any, ...]) -> None:
    with listening() as listener, connect_to(listener.address) as sock:
        sock.sendall(header + b"request")
        with listener.accept(timeout=TIMEOUT) as conn:
            assert peer == conn.getpeername()
            assert conn.proxy == sock.getsockname()
            assert conn.recv(100, timeout=TIMEOUT) == b"request"
        assert proxy_stats(listener) == (1, 0, 0, 0, 0)


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_a_header_may_come_byte_by_byte(header: bytes) -> None:
    with listening() as listener, connect_to(listener.address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with Call(listener.accept, timeout=TIMEOUT) as accepting:
            for i in range(len(header)):
                sock.sendall(header[i : i + 1])
            sock.sendall(b"request")
            with accepting.result() as conn:
                assert conn.getpeername() == CLIENT
                assert conn.recv_exactly(7, timeout=TIMEOUT) == b"request"


def test_a_proxy_may_speak_for_itself() -> None:
    """A health check: the peer is the proxy, and the connection is as any other."""
    with listening() as listener, connect_to(listener.address) as sock:
        sock.sendall(LOCAL + b"ping")
        with listener.accept(timeout=TIMEOUT) as conn:
            assert conn.getpeername() == sock.getsockname()
            assert conn.proxy is None
            assert conn.recv(100, timeout=TIMEOUT) == b"ping"
        assert proxy_stats(listener) == (0, 1, 0, 0, 0)


def test_others_are_taken_at_their_own_address() -> None:
    """A header from who is not trusted is what it sent, and nothing more."""
    elsewhere = hs.ProxyProtocol(["10.0.0.0/8", "2001:db8::/32", "unix"])
    with listening(proxy_protocol=elsewhere) as listener, connect_to(listener.address) as sock:
        sock.sendall(V1)
        with listener.accept(timeout=TIMEOUT) as conn:
            assert conn.getpeername() == sock.getsockname()
            assert conn.proxy is None
            assert conn.recv_exactly(len(V1), timeout=TIMEOUT) == V1
        assert proxy_stats(listener) == (0, 0, 0, 0, 0)


def test_an_ipv4_proxy_is_known_on_an_ipv6_listener() -> None:
    with hs.listen(("", 0), proxy_protocol=LOOPBACK) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(V1)
            with listener.accept(timeout=TIMEOUT) as conn:
                assert conn.getpeername() == CLIENT


def test_peers_of_a_unix_socket_can_be_trusted(tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/s"
    with hs.listen(path, proxy_protocol=hs.ProxyProtocol(["unix"])) as listener:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(f"{tmp_path}/s")
            sock.sendall(V2)
            with listener.accept(timeout=TIMEOUT) as conn:
                assert conn.getpeername() == CLIENT
                assert conn.family == socket.AF_UNIX


@contextlib.contextmanager
def accepting_all(listener: hs.Listener) -> Iterator[None]:
    def accept() -> None:
        with contextlib.suppress(hs.Closed):
            while True:
                listener.accept(timeout=60).close()

    with Call(accept):
        try:
            yield
        finally:
            listener.close()


@pytest.mark.parametrize(
    ("sent", "ends", "field"),
    [
        (b"GET / HTTP/1.1\r\n", False, "malformed"),
        (V2[:-1] + b"", False, "timeout"),
        (V1[:20], True, "ended"),
        (b"", True, "ended"),
        (b"", False, "timeout"),
    ],
    ids=["malformed", "half", "leaves-in-the-middle", "leaves", "silent"],
)
def test_a_proxy_without_a_header_is_cut_and_counted(sent: bytes, ends: bool, field: str) -> None:
    """Others are accepted meanwhile."""
    impatient = hs.ProxyProtocol(["127.0.0.1/32"], timeout=0.2)
    with listening(proxy_protocol=impatient) as listener, accepting_all(listener):
        with connect_to(listener.address) as sock:
            sock.settimeout(TIMEOUT)
            sock.sendall(sent)
            if ends:
                sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""
        poll_until(lambda: getattr(proxy_stats(listener), field) == 1, timeout=TIMEOUT)
        assert sum(proxy_stats(listener)) == 1


def test_a_silent_proxy_does_not_keep_others_waiting() -> None:
    with listening() as listener:
        with connect_to(listener.address), connect_to(listener.address) as sock:
            sock.sendall(V1)
            with listener.accept(timeout=TIMEOUT) as conn:
                assert conn.getpeername() == CLIENT


def hello_of(ids: Identities) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=str(ids.ca))
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return tls, incoming, outgoing


def shake(sock: socket.socket, parts: tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]) -> None:
    tls, incoming, outgoing = parts
    while True:
        incoming.write(sock.recv(65536))
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
            sock.sendall(outgoing.read())
            return


def test_the_header_and_the_client_hello_in_one_segment(ids: Identities) -> None:
    with listening(tls=ids.server()) as listener, connect_to(listener.address) as sock:
        parts = hello_of(ids)
        sock.sendall(V2 + parts[2].read())
        with Call(shake, sock, parts), listener.accept(timeout=TIMEOUT) as conn:
            assert conn.tls is not None
            assert conn.getpeername() == CLIENT


@contextlib.contextmanager
def telling(driver: str, **settings: Any) -> Iterator[hs.Listener]:
    """A server that tells each client who it is."""

    def handler(conn: hs.Connection) -> None:
        conn.sendall(repr((conn.getpeername(), conn.proxy is not None)).encode())

    async def awaited(conn: aio.Connection) -> None:
        await conn.sendall(repr((conn.getpeername(), conn.proxy is not None)).encode())

    def on_message(conn: hs.Connection) -> None:
        conn.recv(100)
        handler(conn)
        conn.close_write()

    async def awaited_on_message(conn: aio.Connection) -> None:
        await conn.recv(100)
        await awaited(conn)
        await conn.close_write()

    handlers = Handlers(handler, awaited, on_message, awaited_on_message)
    with serving(driver, handlers, **settings) as server:
        yield server.listener


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("word", ["send-proxy", "send-proxy-v2"])
def test_behind_haproxy(word: str, driver: str, secured: bool, ids: Identities) -> None:
    """haproxy passes TLS through: its header stands in front of the client's."""
    settings, config = settings_behind(secured, ids)
    with telling(driver, **settings) as listener:
        with require(haproxy(listener.getsockname(), send_proxy=word)) as front:
            for _ in range(20):
                with hs.connect(front.address, tls=config, timeout=TIMEOUT) as conn:
                    if driver.endswith(
                        "messages"
                    ):  # Its handler is called for what the client says.
                        conn.sendall(b"who am I?")
                    assert read_all(conn) == repr((conn.getsockname(), True))
        assert proxy_stats(listener).headers >= 20


@pytest.mark.parametrize("how", ["plain", "tls", "tls in one segment"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_behind_nginx(how: str, driver: str, ids: Identities) -> None:
    """It sends version 1. If it reads the hello first, it writes both at once."""
    settings, config = settings_behind(how != "plain", ids)
    extra = "ssl_preread on;" if how == "tls in one segment" else ""
    with telling(driver, **settings) as listener:
        with require(nginx_stream(listener.getsockname(), extra=extra)) as front:
            for _ in range(20):
                with hs.connect(front.address, tls=config, timeout=TIMEOUT) as conn:
                    if driver.endswith(
                        "messages"
                    ):  # Its handler is called for what the client says.
                        conn.sendall(b"who am I?")
                    assert read_all(conn) == repr((conn.getsockname(), True))
        stats = proxy_stats(listener)
    assert stats.headers >= 20
    assert stats.malformed == 0


def settings_behind(secured: bool, ids: Identities) -> tuple[dict[str, Any], hs.TLSConfig | bool]:
    """Of the server behind a proxy, and of its clients."""
    settings: dict[str, Any] = {"proxy_protocol": LOOPBACK}
    if not secured:
        return settings, False
    return settings | {"tls": ids.server()}, ids.client()


def read_all(conn: hs.Connection) -> str:
    said = b""
    while piece := conn.recv(4096, timeout=TIMEOUT):
        said += piece
    return said.decode()


Make = Callable[[], hs.ProxyProtocol]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: hs.ProxyProtocol("10.0.0.0/8"), TypeError, "give \\('10.0.0.0/8',\\)"),
        (lambda: hs.ProxyProtocol([]), ValueError, "at least one network"),
        (lambda: hs.ProxyProtocol(["10.0.0.1/8"]), ValueError, "has host bits set"),
        (lambda: hs.ProxyProtocol(["proxy.test"]), ValueError, "'proxy.test' does not appear"),
        (lambda: hs.ProxyProtocol([10]), TypeError, "networks as str, not int"),
        (lambda: hs.ProxyProtocol(["unix"], timeout=0), ValueError, "timeout must be in 0.001"),
        (lambda: hs.ProxyProtocol(["unix"], timeout=None), ValueError, "a silent proxy"),
        (lambda: hs.listen(("127.0.0.1", 0), proxy_protocol=True), TypeError, "ProxyProtocol"),
    ],
)
def test_what_is_wrong_is_named(make: Make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_proxy_that_is_silent_leaves_its_place_to_the_next_and_counts_as_ended() -> None:
    patient = hs.ProxyProtocol(["127.0.0.0/8"], timeout=60)
    with listening(proxy_protocol=patient, max_handshakes=2) as listener:
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(connect_to(listener.address))
            sock = stack.enter_context(connect_to(listener.address))
            sock.sendall(V1)
            with listener.accept(timeout=TIMEOUT) as conn:
                assert conn.getpeername() == CLIENT
            stats = proxy_stats(listener)
            assert (stats.ended, stats.headers) == (1, 1)


def test_a_proxy_that_has_begun_its_header_is_not_evicted() -> None:
    patient = hs.ProxyProtocol(["127.0.0.0/8"], timeout=60)
    with listening(proxy_protocol=patient, max_handshakes=1) as listener:
        with connect_to(listener.address) as slow, connect_to(listener.address) as next_one:
            slow.sendall(V1[:20])
            next_one.sendall(V2)
            with pytest.raises(hs.DeadlineExceeded):
                listener.accept(timeout=0.6)
            assert proxy_stats(listener).ended == 0
            slow.sendall(V1[20:])
            for _ in range(2):
                with listener.accept(timeout=TIMEOUT) as conn:
                    assert conn.getpeername() == CLIENT
