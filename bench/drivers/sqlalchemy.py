"""SQLAlchemy's QueuePool, with connections that are empty."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy.pool import QueuePool

from ..model import Target
from . import _pools


def version() -> str:
    return f"SQLAlchemy {sqlalchemy.__version__}"


class Connection:
    """What the pool asks of a connection."""

    def rollback(self) -> None:
        pass

    def close(self) -> None:
        pass


class Subject:
    def __init__(self, target: Target, size: int) -> None:
        make: Any = Connection
        self.pool = QueuePool(make, pool_size=size, max_overflow=0, timeout=60)

    def cycle(self, n: int) -> None:
        pool = self.pool
        for _ in range(n):
            pool.connect().close()

    def take(self) -> Any:
        return self.pool.connect()

    def give(self, held: Any) -> None:
        held.close()


pool_checkout, pool_checkout_8, pool_fairness = _pools.works(Subject)
