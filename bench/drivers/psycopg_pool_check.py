"""psycopg_pool with check=, as its check_connection: a round trip at each lend."""

from __future__ import annotations

from typing import Any

import psycopg_pool

from ..model import Target
from . import _pools
from . import psycopg_pool as unchecked
from ._pinged import Pinged

version = unchecked.version


class Connection(Pinged, unchecked.Connection):
    @classmethod
    def connect(cls, *_args: object, target: Target, **_kwargs: object) -> Connection:
        return cls(target)


class Subject(unchecked.Subject):
    def __init__(self, target: Target, size: int) -> None:
        connection_class: Any = Connection
        self.pool = psycopg_pool.ConnectionPool(
            connection_class=connection_class,
            kwargs={"target": target},
            min_size=size,
            max_size=size,
            timeout=60,
            check=connection_class.ping,
            open=True,
        )
        self.pool.wait()


pool_checkout, pool_checkout_8, pool_fairness = _pools.works(Subject)
