"""Connecting through proxies: CONNECT and SOCKS5, under one deadline."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import hardsock as hs
from support import Call, PeerScript
from support.echo import EchoServer
from support.tls import Identities


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return Identities(tmp_path_factory.mktemp("via"))


class Proxy:
    """A proxy that works: CONNECT or SOCKS5, told apart by the first byte; for one connection."""

    def __init__(self, user: bytes = b"", tls: ssl.SSLContext | None = None) -> None:
        self._user, self._tls = user, tls
        self.targets: list[tuple[str, int]] = []

    def __enter__(self) -> Proxy:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(30)
        self.address = "{}:{}".format(*self._listener.getsockname())
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._listener.close()
        self._thread.join(30)

    def _main(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            sock, _ = self._listener.accept()
            sock.settimeout(30)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with sock:
                first = self._exactly(sock, 1)
                server = self._socks(sock) if first == b"\x05" else self._http(sock, first)
                with server:
                    self._pass_on(sock, server)

    @staticmethod
    def _exactly(sock: socket.socket, size: int) -> bytes:
        got = b""
        while len(got) < size:
            data = sock.recv(size - len(got))
            if not data:
                raise EOFError
            got += data
        return got

    def _open(self, host: str, port: int) -> socket.socket:
        self.targets.append((host, port))
        return socket.create_connection(("127.0.0.1", port), 30)

    def _http(self, sock: socket.socket, got: bytes) -> socket.socket:
        while not got.endswith(b"\r\n\r\n"):
            got += self._exactly(sock, 1)
        secret = base64.b64encode(self._user + b":secret")
        if self._user and b"Proxy-Authorization: Basic " + secret not in got:
            sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            raise EOFError
        host, _, port = got.split()[1].decode().rpartition(":")
        server = self._open(host.strip("[]"), int(port))
        sock.sendall(b"HTTP/1.1 100 wait\r\n\r\nHTTP/1.1 200 yes\r\nVia: x\r\n\r\n")
        return server

    def _socks(self, sock: socket.socket) -> socket.socket:
        methods = self._exactly(sock, self._exactly(sock, 1)[0])
        if self._user:
            sock.sendall(b"\x05\x02" if b"\x02" in methods else b"\x05\xff")
            user = self._exactly(sock, self._exactly(sock, 2)[1])
            password = self._exactly(sock, self._exactly(sock, 1)[0])
            good = (user, password) == (self._user, b"secret")
            sock.sendall(b"\x01\x00" if good else b"\x01\x01")
        else:
            sock.sendall(b"\x05\x00")
        kind = self._exactly(sock, 4)[3]
        if kind == 3:
            host = self._exactly(sock, self._exactly(sock, 1)[0]).decode()
        else:
            family = socket.AF_INET if kind == 1 else socket.AF_INET6
            host = socket.inet_ntop(family, self._exactly(sock, 4 if kind == 1 else 16))
        server = self._open(host, int.from_bytes(self._exactly(sock, 2), "big"))
        sock.sendall(b"\x05\x00\x00\x03\x04here\x00\x50")
        return server

    @staticmethod
    def _pass_on(sock: socket.socket, server: socket.socket) -> None:
        def back() -> None:
            with contextlib.suppress(OSError):
                while data := server.recv(65536):
                    sock.sendall(data)

        thread = threading.Thread(target=back, daemon=True)
        thread.start()
        with contextlib.suppress(OSError):
            while data := sock.recv(65536):
                server.sendall(data)
        server.shutdown(socket.SHUT_RDWR)
        thread.join(30)


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    with EchoServer() as server:
        yield server


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
@pytest.mark.parametrize("host", ["name.test", "127.0.0.1", "::1"])
def test_the_proxy_connects_and_looks_the_name_up(scheme: str, host: str, echo: EchoServer) -> None:
    with Proxy() as proxy, hs.timeout(30):
        port = echo.address[1]
        with hs.connect((host, port), via=f"{scheme}://{proxy.address}") as conn:
            conn.sendall(b"through")
            assert conn.recv_exactly(7) == b"through"
    assert proxy.targets == [(host, port)]


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_user_and_password_are_told(scheme: str, echo: EchoServer) -> None:
    address = ("name.test", echo.address[1])
    with Proxy(b"al ice") as proxy, hs.timeout(30):
        with hs.connect(address, via=f"{scheme}://al%20ice:secret@{proxy.address}") as conn:
            conn.sendall(b"x")
            assert conn.recv(1) == b"x"
    for wrong in ("", "al%20ice:wrong@"):
        with Proxy(b"al ice") as proxy, hs.timeout(30), pytest.raises(hs.ProxyError) as caught:
            hs.connect(address, via=f"{scheme}://{wrong}{proxy.address}")
        assert caught.value.phase == "proxy"
        assert caught.value.host == f"name.test:{echo.address[1]}"
        assert caught.value.status == (407 if scheme == "http" else None)
        assert "wrong@" not in str(caught.value)


def test_tls_is_with_the_target(ids: Identities) -> None:
    def handler(conn: hs.Connection) -> None:
        conn.sendall(conn.recv(100).upper())

    with hs.serve(handler, ("127.0.0.1", 0), tls=ids.server(), drain_timeout=5) as server:
        with Proxy() as proxy, hs.timeout(30):
            target = ("localhost", server.address[1])
            with hs.connect(target, tls=ids.client(), via=f"http://{proxy.address}") as conn:
                conn.sendall(b"secret")
                assert conn.recv(100) == b"SECRET"
                assert conn.tls is not None
                assert conn.tls.server_name == "localhost"
        with Proxy() as proxy, hs.timeout(30), pytest.raises(hs.CertificateError):
            hs.connect(
                ("other.test", server.address[1]),
                tls=ids.client(),
                via=f"socks5://{proxy.address}",
            )


@pytest.mark.parametrize(
    ("scheme", "said", "why"),
    [
        ("http", b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "502 Bad Gateway"),
        ("http", b"SSH-2.0-x\r\n\r\n", "does not speak HTTP"),
        ("http", b"HTTP/1.1 2x0 ok\r\n\r\n", "does not speak HTTP"),
        ("http", b"HTTP/1.1 100 again\r\n\r\n" * 20, "100 again"),
        ("http", b"HTTP/1.1 200", "ended the connection"),
        ("socks5", b"\x05\xff", "wants a user"),
        ("socks5", b"\x05\x02", "wants a user"),
        ("socks5", b"\x05\x07", "method 7, which was not offered"),
        ("socks5", b"\x04\x00", "does not speak SOCKS5"),
        ("socks5", b"\x05\x00\x05\x05\x00\x01", "connection refused"),
        ("socks5", b"\x05\x00\x05\x63\x00\x01", "reply 99"),
        ("socks5", b"\x05\x00\x05\x00\x00\x09", "kind 9"),
        ("socks5", b"\x05", "ended the connection"),
    ],
)
def test_what_a_proxy_says_instead_is_told(scheme: str, said: bytes, why: str) -> None:
    script = [("recv", 1), ("send", said), ("half_close",), ("stall",)]
    with PeerScript(script, check=False) as peer:  # the client may be gone before its end
        via = "{}://{}:{}".format(scheme, *peer.address)
        with pytest.raises(hs.ProxyError, match=why) as caught:
            hs.connect(("name.test", 80), via=via, timeout=30)
    assert isinstance(caught.value, hs.ConnectError)


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
def test_a_silent_proxy_ends_at_the_deadline_and_by_a_cancel(scheme: str) -> None:
    for by_token in (False, True):
        with PeerScript([("stall",)]) as peer:
            via, token = "{}://{}:{}".format(scheme, *peer.address), hs.CancelToken()
            if not by_token:
                with pytest.raises(hs.DeadlineExceeded):
                    hs.connect(("name.test", 80), via=via, timeout=0.1)
                continue
            with Call(lambda: hs.connect(("name.test", 80), via=via, token=token)) as call:  # noqa: B023
                call.wait_until_blocked()
                token.cancel()
                with pytest.raises(hs.Cancelled):
                    call.result(20)
    assert not [one for one in hs.open_connections() if one.how == "connect"]


def test_a_drip_of_a_head_buys_no_time() -> None:
    drip = [("drip", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2000, 0.01)]
    with PeerScript(drip, check=False) as peer, pytest.raises(hs.DeadlineExceeded):
        hs.connect(("name.test", 80), via="http://{}:{}".format(*peer.address), timeout=0.2)


@pytest.mark.parametrize(
    ("via", "named"),
    [
        ("ftp://x:1", "must begin with"),
        ("http://", "must be a proxy's URL"),
        ("http://x:1/path", "must be a proxy's URL"),
        ("http://x:99999", "no good port"),
        ("http://user:secret@x:y", "no good port"),
        (7, "via must be a URL"),
    ],
)
def test_what_is_no_proxy_is_refused(via: Any, named: str) -> None:
    with pytest.raises((ValueError, TypeError), match=named) as caught:
        hs.connect(("name.test", 80), via=via)
    assert "secret" not in str(caught.value)


def test_what_contradicts_a_proxy_is_refused(ids: Identities) -> None:
    with pytest.raises(ValueError, match="TLS within TLS"):
        hs.connect(("x.test", 1), via="https://x:1", tls=ids.client())
    with pytest.raises(ValueError, match="commit='tls'"):
        hs.connect(("x.test", 1), via="http://x:1", tls=ids.client(), commit="tls")
    with pytest.raises(ValueError, match="server_name has no use"):
        hs.connect(("x.test", 1), via="http://x:1", server_name="y")
    with pytest.raises(ValueError, match="must be a host and a port"):
        hs.connect("unix:/x", via="http://x:1")
