"""A server with few descriptors, in a process of its own: ``python -m hardsock.demo.fd_server``.

Keeps every client without a word until it is told ``release``; from then on each gets ``ok``.
Answers the lines of standard input with JSON, and ends with it. The first line tells the port.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import socketserver
import sys
import threading
import time
from typing import Any, Protocol

import hardsock as hs
from hardsock.demo.measure import LIMIT
from hardsock.lab import wait_until_blocked

_LIMIT = 128
_ROOM = 16
_BACKLOG = 128

_released = threading.Event()


class _Server(Protocol):
    port: int

    def run(self) -> None:
        """Accept for ever."""

    def report(self) -> dict[str, int]:
        """Clients taken in, failed accepts, clients that it counted as turned away."""


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        _released.wait(LIMIT)
        self.request.sendall(b"ok")


class _Stdlib(socketserver.ThreadingTCPServer):
    """The standard library's own server, counting its calls of accept."""

    daemon_threads = True
    request_queue_size = _BACKLOG

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port: int = self.server_address[1]
        self._accepted = 0
        self._failures = 0

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            request = super().get_request()
        except OSError:
            self._failures += 1
            raise
        self._accepted += 1
        return request

    def run(self) -> None:
        self.serve_forever()

    def report(self) -> dict[str, int]:
        return {"accepted": self._accepted, "failures": self._failures, "counted": 0}


class _Hardsock:
    def __init__(self) -> None:
        self._listener = hs.listen(("127.0.0.1", 0), backlog=_BACKLOG)
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        for conn in self._listener:
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    @staticmethod
    def _serve(conn: hs.Connection) -> None:
        with conn:
            _released.wait(LIMIT)
            conn.sendall(b"ok")

    def report(self) -> dict[str, int]:
        stats = self._listener.stats()
        return {"accepted": stats.accepted, "failures": stats.exhausted, "counted": stats.shed}


def _fill_up() -> None:
    """Use up this process's descriptors, but for `_ROOM` of them."""
    taken = []
    while True:
        try:
            taken.append(os.dup(0))
        except OSError:
            break
    for fd in taken[-_ROOM:]:
        os.close(fd)


def _answer(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def main(kind: str) -> None:
    """Serve with the listener of *kind*: ``"stdlib"`` or ``"hardsock"``."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (_LIMIT, _LIMIT))
    server: _Server = _Stdlib() if kind == "stdlib" else _Hardsock()
    acceptor = threading.Thread(target=server.run, daemon=True)
    acceptor.start()
    assert acceptor.native_id is not None
    wait_until_blocked(acceptor.native_id)
    _fill_up()
    _answer({"port": server.port})
    for line in sys.stdin:
        if line == "release\n":
            _released.set()
        _answer({"cpu": time.process_time(), **server.report()})


if __name__ == "__main__":
    main(sys.argv[1])
