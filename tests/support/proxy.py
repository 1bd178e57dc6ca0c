"""A proxy that works, for one connection: HTTP CONNECT and SOCKS5."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import ssl
import threading


class Proxy:
    """A proxy that works: CONNECT or SOCKS5, told apart by the first byte; for one connection.

    tls: what it speaks itself, before all else.
    """

    def __init__(
        self, user: bytes = b"", tls: ssl.SSLContext | None = None, interim: bool = False
    ) -> None:
        self._user, self._tls, self._interim = user, tls, interim
        self.targets: list[tuple[str, int]] = []
        self.client_certificates: list[bytes | None] = []

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
                secured = sock = self._tls.wrap_socket(sock, server_side=True)
                self.client_certificates.append(secured.getpeercert(True))
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
        if self._interim:
            sock.sendall(b"HTTP/1.1 100 wait\r\n\r\n")
        sock.sendall(b"HTTP/1.1 200 yes\r\nVia: x\r\n\r\n")
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
        """One thread for both ways: OpenSSL's objects are not for two at once.

        Before 3.13 CPython locks them for nobody: a write beside a read changes what the read's
        SSL_get_error() finds, and the read fails of nothing.
        """
        watched = [sock, server]
        with contextlib.suppress(OSError):
            while sock in watched:
                waiting = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
                ready = [sock] if waiting else select.select(watched, [], [], 30)[0]
                if not ready:
                    break
                for one in ready:
                    data = _now(one)
                    if data == b"":
                        watched.remove(one)
                    elif data is not None:
                        (server if one is sock else sock).sendall(data)
        server.shutdown(socket.SHUT_RDWR)


def _now(sock: socket.socket) -> bytes | None:
    """What is there; None: nothing yet, as after half a record of TLS."""
    sock.settimeout(0)
    try:
        return sock.recv(65536)
    except (BlockingIOError, ssl.SSLWantReadError):
        return None
    finally:
        sock.settimeout(30)
