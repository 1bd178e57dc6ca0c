"""An HTTP/1.1 server that does on request what servers must not do.

    with HttpPeer() as peer:
        peer.url("/drip")

Paths:
    /ok?TEXT            200 with TEXT as its body, and the connection kept
    /silent             no answer
    /drip-head, /drip   a byte each 10 ms, of the head or of the body
    /reset              a reset in place of an answer
    /truncated          half of the body that was announced, then the end
    /early              413 without reading the body, and the connection kept until the client ends it
    /to?PATH            302 to PATH
    /busy               503 with Retry-After: 60
    /flaky              503 with Retry-After: 0 the first time, then as /ok
    /chunks             three chunks, the first at once, the others never
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from types import TracebackType

_LIMIT = 60.0
_DRIP = 0.01
_HEAD = b"HTTP/1.1 %d %s\r\nContent-Length: %d\r\n%s\r\n"


class HttpPeer:
    """The server; each connection has a thread.

    Attributes:
        port: Where it listens, at 127.0.0.1.
        seen: The path of each request, and the number of its connection.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.scheme = "http" if tls is None else "https"
        self.seen: list[tuple[str, int]] = []
        self._tls = tls
        self._changed = threading.Condition()
        self._stopping = False
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._count = 0

    def __enter__(self) -> HttpPeer:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._main = threading.Thread(target=self._accept, name="http-peer", daemon=True)
        self._main.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            for one in (self._listener, *self._open):
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(one, socket.SHUT_RDWR)
        for thread in (self._main, *self._threads):
            thread.join(_LIMIT)
        self._listener.close()

    def url(self, path: str) -> str:
        """The address of *path*."""
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"

    def wait_for(self, path: str, count: int = 1, timeout: float = 60.0) -> None:
        """Wait until *path* was asked for *count* times."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: sum(one == path for one, _ in self.seen) >= count, timeout
            ):
                raise AssertionError(f"{path} was not asked for {count} times: {self.seen}")

    # ---- its threads

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._count += 1
            thread = threading.Thread(
                target=self._serve, args=(sock, self._count), name="http-peer", daemon=True
            )
            with self._changed:
                self._threads = [one for one in self._threads if one.is_alive()]
                self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        sock.settimeout(_LIMIT)
        with contextlib.suppress(OSError, ValueError):  # ValueError: ssl's, of what is closed
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            with self._changed:
                self._open.add(sock)
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            while self._answer_one(sock, number):
                pass
            if self._tls is not None and isinstance(sock, ssl.SSLSocket):
                sock.unwrap()
        with self._changed:
            self._open.discard(sock)
            sock.close()

    def _answer_one(self, sock: socket.socket, number: int) -> bool:
        got = b""
        while b"\r\n\r\n" not in got:
            data = sock.recv(65536)
            if not data:
                return False
            got += data
        head, _, body = got.partition(b"\r\n\r\n")
        path, _, query = head.split(b" ")[1].decode().partition("?")
        if path != "/early":
            for line in head.split(b"\r\n"):
                name, _, value = line.partition(b":")
                while name.lower() == b"content-length" and len(body) < int(value):
                    body += sock.recv(65536)
        with self._changed:
            again = any(one == path for one, _ in self.seen)
            self.seen.append((path, number))
            self._changed.notify_all()
        if path == "/flaky":
            path = "/ok" if again else "/flaky"
        act: Callable[..., bool] = getattr(self, "_" + path[1:].replace("-", "_"))
        return act(sock, query.encode())

    def _wait_for_the_end(self, sock: socket.socket) -> bool:
        while sock.recv(65536):
            pass
        return False

    def _drip_bytes(self, sock: socket.socket, data: bytes) -> bool:
        for value in data:
            sock.sendall(bytes([value]))
            with self._changed:
                if self._changed.wait_for(lambda: self._stopping, _DRIP):
                    return False
        return True

    def _say(self, sock: socket.socket, status: int, body: bytes = b"", more: bytes = b"") -> bool:
        sock.sendall(_HEAD % (status, b"X", len(body), more) + body)
        return True

    # ---- what it does

    def _ok(self, sock: socket.socket, query: bytes) -> bool:
        return self._say(sock, 200, query)

    def _silent(self, sock: socket.socket, query: bytes) -> bool:
        return self._wait_for_the_end(sock)

    def _drip_head(self, sock: socket.socket, query: bytes) -> bool:
        return self._drip_bytes(sock, b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 6000)

    def _drip(self, sock: socket.socket, query: bytes) -> bool:
        sock.sendall(_HEAD % (200, b"OK", 6000, b""))
        return self._drip_bytes(sock, b"x" * 6000)

    def _reset(self, sock: socket.socket, query: bytes) -> bool:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        return False

    def _truncated(self, sock: socket.socket, query: bytes) -> bool:
        sock.sendall(_HEAD % (200, b"OK", 100, b"") + b"x" * 50)
        return False

    def _early(self, sock: socket.socket, query: bytes) -> bool:
        self._say(sock, 413, b"too large", b"Connection: close\r\n")
        return self._wait_for_the_end(sock)  # Closed at once, a reset could overtake the answer.

    def _to(self, sock: socket.socket, query: bytes) -> bool:
        return self._say(sock, 302, b"", b"Location: " + query + b"\r\n")

    def _busy(self, sock: socket.socket, query: bytes) -> bool:
        return self._say(sock, 503, b"", b"Retry-After: 60\r\n")

    def _flaky(self, sock: socket.socket, query: bytes) -> bool:
        return self._say(sock, 503, b"", b"Retry-After: 0\r\n")

    def _chunks(self, sock: socket.socket, query: bytes) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        return self._wait_for_the_end(sock)
