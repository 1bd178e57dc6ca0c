"""What tests of servers of threads share: a handler, one that is held, and plain clients."""

from __future__ import annotations

import socket
import threading
from typing import Any

import hardsock as hs
from hardsock.lab.endpoint import connect_to
from hardsock.lab.waits import poll_until

LOCAL = ("127.0.0.1", 0)


def echo(conn: hs.Connection) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


def ask(address: Any, message: bytes = b"hello") -> bytes:
    """What the server answers to a client that ends its side."""
    with connect_to(address) as client:
        client.settimeout(60)
        client.sendall(message)
        client.shutdown(socket.SHUT_WR)
        return rest_of(client)


def rest_of(client: socket.socket) -> bytes:
    client.settimeout(60)
    parts = []
    while data := client.recv(65536):
        parts.append(data)
    return b"".join(parts)


def settled(server: hs.Server) -> hs.ServerStats:
    """The statistics once nothing is active; the sum must be right."""
    assert poll_until(lambda: server.stats().active == 0, 60)
    stats = server.stats()
    assert stats.accepted == stats.handled + stats.failed + stats.cut
    return stats


class Gate:
    """A handler that says when it runs, and returns when it is let go."""

    def __init__(self) -> None:
        self.running = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self, conn: hs.Connection) -> None:
        self.running.release()
        self.go.wait(30)

    def wait_until_running(self, n: int = 1) -> None:
        for _ in range(n):
            assert self.running.acquire(timeout=60)
