"""The works of pools with hardsock's."""

from __future__ import annotations

from typing import Any

import hardsock as hs

from ..model import Target
from . import _pools
from ._common import DEADLINE, MESSAGE


class Subject:
    def __init__(self, target: Target, size: int) -> None:
        self.pool = hs.Pool((target.host, target.port), max_size=size)

    def cycle(self, n: int) -> None:
        pool = self.pool
        for _ in range(n):
            with pool.connection(timeout=DEADLINE):
                pass

    def take(self) -> Any:
        return self.pool.acquire()

    def give(self, held: Any) -> None:
        self.pool.release(held)


class Acquired(Subject):
    def cycle(self, n: int) -> None:
        pool = self.pool
        for _ in range(n):
            pool.release(pool.acquire(timeout=DEADLINE))


class Used(Subject):
    def take(self) -> Any:
        conn = self.pool.acquire(timeout=DEADLINE)
        conn.sendall(MESSAGE)
        conn.recv_exactly(len(MESSAGE))
        conn.mark_clean()
        return conn


pool_checkout, pool_checkout_8, pool_fairness = _pools.works(Subject)
pool_idle_memory, pool_lent_memory, pool_watching = _pools.works_of_many(Used)
