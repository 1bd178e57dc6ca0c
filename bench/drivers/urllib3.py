"""urllib3's HTTPConnectionPool, by the two methods with which its requests borrow and return.

The connections are connected, and no request is sent.
"""

from __future__ import annotations

from typing import Any

import urllib3

from ..model import Target
from . import _pools


def version() -> str:
    return f"urllib3 {urllib3.__version__}"


class Subject:
    def __init__(self, target: Target, size: int) -> None:
        self.pool = urllib3.HTTPConnectionPool(
            target.host, target.port, maxsize=size, block=True, timeout=5.0
        )

    def cycle(self, n: int) -> None:
        pool = self.pool
        for _ in range(n):
            conn = pool._get_conn()
            if not conn.is_connected:
                conn.connect()
            pool._put_conn(conn)

    def take(self) -> Any:
        conn = self.pool._get_conn()
        if not conn.is_connected:
            conn.connect()
        return conn

    def give(self, held: Any) -> None:
        self.pool._put_conn(held)


pool_checkout, pool_checkout_8, pool_fairness = _pools.works(Subject)
pool_idle_memory, pool_lent_memory, _ = _pools.works_of_many(Subject)
