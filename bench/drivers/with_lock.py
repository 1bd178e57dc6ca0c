"""A with statement on a threading.Lock: what the statement alone costs. Nothing is lent."""

from __future__ import annotations

import platform
import threading

from ..model import Target
from . import _pools


def version() -> str:
    return f"threading of Python {platform.python_version()}"


class Subject:
    def __init__(self, target: Target, size: int) -> None:
        self.lock = threading.Lock()

    def cycle(self, n: int) -> None:
        lock = self.lock
        for _ in range(n):
            with lock:
                pass

    def take(self) -> threading.Lock:
        return self.lock

    def give(self, held: threading.Lock) -> None:
        pass


pool_checkout, _, _ = _pools.works(Subject)
