"""SQLAlchemy's QueuePool with pool_pre_ping: a round trip at each lend."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.pool import QueuePool

from ..model import Target
from . import _pools
from . import sqlalchemy as unchecked
from ._pinged import Pinged

version = unchecked.version


class Connection(Pinged, unchecked.Connection):
    pass


class Dialect(DefaultDialect):
    def do_ping(self, dbapi_connection: Any) -> bool:
        dbapi_connection.ping()
        return True


class Subject(unchecked.Subject):
    def __init__(self, target: Target, size: int) -> None:
        make: Any = lambda: Connection(target)  # noqa: E731
        self.pool = QueuePool(
            make, pool_size=size, max_overflow=0, timeout=60, pre_ping=True, dialect=Dialect()
        )


pool_checkout, pool_checkout_8, pool_fairness = _pools.works(Subject)
