"""Sockets in a queue.LifoQueue: the pool that one writes oneself. Nothing looks after them."""

from __future__ import annotations

import platform
import queue
import socket
from typing import Any

from ..model import Target
from . import _pools, stdlib


def version() -> str:
    return f"queue of Python {platform.python_version()}"


class Subject:
    def __init__(self, target: Target, size: int) -> None:
        self.queue: queue.LifoQueue[Any] = queue.LifoQueue()
        self.target = target
        for _ in range(size):
            self.queue.put(None)

    def cycle(self, n: int) -> None:
        items = self.queue
        for _ in range(n):
            items.put(items.get())

    def take(self) -> Any:
        return self.queue.get() or stdlib.connect(self.target)

    def give(self, held: Any) -> None:
        self.queue.put(held)


class Used(Subject):
    def take(self) -> socket.socket:
        sock: socket.socket = super().take()
        stdlib.exchange(sock)
        return sock


pool_checkout, pool_checkout_8, pool_fairness = _pools.works(Subject)
pool_idle_memory, pool_lent_memory, pool_watching = _pools.works_of_many(Used)
