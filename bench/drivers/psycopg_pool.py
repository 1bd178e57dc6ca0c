"""psycopg_pool's ConnectionPool, with connections that are empty."""

from __future__ import annotations

from typing import Any

import psycopg_pool
from psycopg.pq import TransactionStatus

from ..model import Target
from . import _pools


def version() -> str:
    return f"psycopg_pool {psycopg_pool.__version__}"


class Status:
    transaction_status = TransactionStatus.IDLE


class Connection:
    """What the pool asks of a connection."""

    closed = False
    pgconn = Status()

    @classmethod
    def connect(cls, *_args: object, **_kwargs: object) -> Connection:
        return cls()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_details: object) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Subject:
    def __init__(self, target: Target, size: int) -> None:
        connection_class: Any = Connection
        self.pool = psycopg_pool.ConnectionPool(
            connection_class=connection_class, min_size=size, max_size=size, timeout=60, open=True
        )
        self.pool.wait()

    def cycle(self, n: int) -> None:
        pool = self.pool
        for _ in range(n):
            with pool.connection():
                pass

    def take(self) -> Any:
        return self.pool.getconn()

    def give(self, held: Any) -> None:
        self.pool.putconn(held)


pool_checkout, pool_checkout_8, pool_fairness = _pools.works(Subject)
