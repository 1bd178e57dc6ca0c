"""The question of a pool that asks the server itself whether it is there: a round trip."""

from __future__ import annotations

import socket

from ..model import Target
from ._common import DEADLINE, MESSAGE


class Pinged:
    """A connection to a peer that answers at once, with less work than any database has."""

    def __init__(self, target: Target) -> None:
        self.sock = socket.create_connection((target.host, target.port), DEADLINE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ping(self) -> None:
        self.sock.sendall(MESSAGE)
        if self.sock.recv(len(MESSAGE), socket.MSG_WAITALL) != MESSAGE:
            raise ConnectionError("another answer than the echo")

    def close(self) -> None:
        self.sock.close()
