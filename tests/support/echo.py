"""Plain well-behaved servers in threads: one that sends everything back, one that swallows it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable

from hardsock.lab.endpoint import Address, address_of, listen, listen_unix, shut

_CHUNK = 65536


class _Server:
    """Accepts any number of connections, each served by a thread; all are joined at the end."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._listener = listen(host, port) if path is None else listen_unix(path)
        self.address: Address = address_of(self._listener)
        self._tls = tls
        self._changed = threading.Condition()
        self._stopping = False
        self._accepted = 0
        self._bytes = 0
        self._socks: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    @property
    def accepted(self) -> int:
        """How many connections there were."""
        with self._changed:
            return self._accepted

    @property
    def received(self) -> int:
        """How many bytes came in, over all connections."""
        with self._changed:
            return self._bytes

    @property
    def open(self) -> int:
        """How many connections are open now."""
        with self._changed:
            return len(self._socks)

    def wait_for(
        self,
        *,
        accepted: int = 0,
        received: int = 0,
        max_open: int | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Wait until there were so many connections and bytes, and at most *max_open* are left."""

        def reached() -> bool:
            few = max_open is None or len(self._socks) <= max_open
            return self._accepted >= accepted and self._bytes >= received and few

        with self._changed:
            if not self._changed.wait_for(reached, timeout):
                seen = f"{self._accepted} connections, {len(self._socks)} open, {self._bytes} bytes"
                raise AssertionError(f"in {timeout} s only: {seen}")

    def __enter__(self) -> _Server:
        self._start(self._accept_all)
        return self

    def __exit__(self, *_details: object) -> None:
        with self._changed:
            self._stopping = True
            shut(self._listener)
            for sock in self._socks:
                shut(sock)
        while self._threads:
            self._threads.pop().join()
        self._listener.close()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        name = type(self).__name__
        thread = threading.Thread(target=target, args=args, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept_all(self) -> None:
        while True:
            try:
                sock, _peer = self._listener.accept()
            except OSError:
                return
            with self._changed:
                if self._stopping:
                    sock.close()
                    return
                self._accepted += 1
                self._socks.add(sock)
                self._start(self._serve, sock)
                self._changed.notify_all()

    def _serve(self, raw: socket.socket) -> None:
        sock = raw
        try:
            if self._tls is not None:
                sock = self._handshake(self._tls, raw)
            while data := sock.recv(_CHUNK):
                with self._changed:
                    self._bytes += len(data)
                    self._changed.notify_all()
                self._on_data(sock, data)
            if isinstance(sock, ssl.SSLSocket):
                sock.unwrap()  # says goodbye, as the client has
        except OSError:
            pass  # A client may go as it likes.
        finally:
            with self._changed:
                self._socks -= {raw, sock}
                sock.close()
                self._changed.notify_all()

    def _handshake(self, tls: ssl.SSLContext, raw: socket.socket) -> ssl.SSLSocket:
        sock = tls.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        with self._changed:
            self._socks.discard(raw)
            self._socks.add(sock)
            if self._stopping:
                shut(sock)
        sock.do_handshake()
        return sock

    def _on_data(self, sock: socket.socket, data: bytes) -> None:
        raise NotImplementedError


class EchoServer(_Server):
    """Sends everything back; ends its side when the client has ended its own."""

    def __enter__(self) -> EchoServer:
        super().__enter__()
        return self

    def _on_data(self, sock: socket.socket, data: bytes) -> None:
        sock.sendall(data)


class SinkServer(_Server):
    """Reads everything and never sends a byte."""

    def __enter__(self) -> SinkServer:
        super().__enter__()
        return self

    def _on_data(self, sock: socket.socket, data: bytes) -> None:
        pass
