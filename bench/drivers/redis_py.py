"""redis-py's BlockingConnectionPool; its connections say nothing when they connect."""

from __future__ import annotations

from typing import Any

import redis

from ..model import Target
from . import _pools


def version() -> str:
    return f"redis-py {redis.__version__}"


class Quiet(redis.Connection):
    def on_connect_check_health(self, check_health: bool = True) -> None:
        pass


class Subject:
    def __init__(self, target: Target, size: int) -> None:
        self.pool = redis.BlockingConnectionPool(
            host=target.host,
            port=target.port,
            max_connections=size,
            timeout=60,
            connection_class=Quiet,
        )

    def cycle(self, n: int) -> None:
        pool = self.pool
        for _ in range(n):
            pool.release(pool.get_connection())

    def take(self) -> Any:
        return self.pool.get_connection()

    def give(self, held: Any) -> None:
        self.pool.release(held)


pool_checkout, pool_checkout_8, pool_fairness = _pools.works(Subject)
pool_idle_memory, pool_lent_memory, _ = _pools.works_of_many(Subject)
