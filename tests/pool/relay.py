"""What stands between a pool and a real server: TCP passed on, and things done to it on purpose.

    with Relay(redis.address) as relay:
        pool = make_pool(relay.address)
        relay.cut()

A connection is two threads that copy. With *tls* the client's side is TLS, so that any server can
be had behind TLS 1.3. Runs beside the pool in one process: not for measuring speed.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from typing import Any

from hardsock.lab.endpoint import address_of, listen, shut

_CHUNK = 65536


class Relay:
    """Passes connections on to *backend* for as long as the block runs.

    Attributes:
        address: Where to connect.
        accepted: How many connections there were.
    """

    def __init__(self, backend: tuple[str, int], tls: ssl.SSLContext | None = None) -> None:
        self._backend, self._tls = backend, tls
        self._lock = threading.Lock()
        self._replies = threading.Event()
        self._replies.set()
        self._delay = 0.0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.accepted = 0

    def __enter__(self) -> Relay:
        self._listener = listen()
        host, port = address_of(self._listener)
        self.address = (str(host), int(port))
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_details: object) -> None:
        shut(self._listener)
        self._listener.close()
        self._replies.set()
        self.cut()

    def delay_next(self, seconds: float) -> None:
        """The next connection is accepted at once, but nothing is said on it for so long."""
        self._delay = seconds

    def hold_replies(self) -> None:
        """From now on nothing that the server says reaches the clients."""
        self._replies.clear()

    def let_replies_go(self) -> None:
        self._replies.set()

    def cut(self) -> None:
        """End every connection there is, in order: the clients receive a FIN."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for sock in pair:
                shut(sock)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.accepted += 1
                delay, self._delay = self._delay, 0.0
            threading.Thread(target=self._serve, args=(client, delay), daemon=True).start()

    def _serve(self, client: socket.socket, delay: float) -> None:
        time.sleep(delay)  # The peer is slow: that is the thing under test.
        with contextlib.suppress(OSError), client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            with client, socket.create_connection(self._backend) as server:
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._pairs.append((client, server))
                back = threading.Thread(target=self._copy_back, args=(server, client), daemon=True)
                back.start()
                _copy(client, server)
                shut(server)
                back.join()

    def _copy_back(self, server: socket.socket, client: Any) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(_CHUNK):
                self._replies.wait()
                client.sendall(data)
        shut(client)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
