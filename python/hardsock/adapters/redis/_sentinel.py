"""Clients that ask Sentinel for the address; see the package."""

from __future__ import annotations

from typing import Any

import redis
import redis.sentinel
from redis.exceptions import ConnectionError as RedisConnectionError

from hardsock._errors import DeadlineExceeded
from hardsock._scope import current
from hardsock.adapters.redis._sync import Connection, Redis, ScopeEnded, SSLConnection

__all__ = ["Sentinel", "sentinel"]


class _Asking:
    def connect(self) -> None:
        """As redis-py has it; no answer of a sentinel in time is a time-out."""
        try:
            super().connect()  # type: ignore[misc]
        except RedisConnectionError as exc:
            token = current()
            if token is not None:
                try:
                    token.check()
                except DeadlineExceeded as late:
                    raise ScopeEnded(f"no time left to ask: {exc}") from late
            raise


class _Connection(_Asking, Connection, redis.sentinel.SentinelManagedConnection):
    pass


class _SSLConnection(_Asking, SSLConnection, redis.sentinel.SentinelManagedSSLConnection):
    pass


class ClientsOverHardsock:
    """Stands before a ``Sentinel`` of redis-py, the blocking or the awaited one: whose clients it makes."""

    total: float | None = None
    client_class: Any
    connection_classes: tuple[Any, Any]
    """Without and with TLS."""
    connection_kwargs: dict[str, Any]

    def _client(self, make: Any, service_name: str, settings: dict[str, Any]) -> Any:
        secured = settings.get("ssl", self.connection_kwargs.get("ssl", False))
        settings.setdefault("connection_class", self.connection_classes[bool(secured)])
        settings.setdefault("redis_class", self.client_class)
        made = make(service_name, **settings)
        if hasattr(made, "total"):  # not one of another redis_class=
            made.total = self.total
        return made

    def master_for(self, service_name: str, **settings: Any) -> Any:
        """As redis-py has it, over hardsock."""
        return self._client(super().master_for, service_name, settings)  # type: ignore[misc]

    def slave_for(self, service_name: str, **settings: Any) -> Any:
        """As redis-py has it, over hardsock."""
        return self._client(super().slave_for, service_name, settings)  # type: ignore[misc]


class Sentinel(ClientsOverHardsock, redis.sentinel.Sentinel):
    """``redis.sentinel.Sentinel`` whose clients take ``total`` seconds for a command at most.

    Asking the sentinels, and looking for a new master, belongs to the command that needs it.
    """

    client_class = Redis
    connection_classes = (_Connection, _SSLConnection)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for one in self.sentinels:
            pool = one.connection_pool
            secured = issubclass(pool.connection_class, redis.SSLConnection)
            pool.connection_class = SSLConnection if secured else Connection


def sentinel(
    addresses: list[tuple[str, int]], *, total: float | None = None, **settings: Any
) -> Sentinel:
    """Make a ``Sentinel``; its ``master_for(name)`` and ``slave_for(name)`` give the clients.

    Args:
        addresses: Those of the sentinels.
        total: Seconds for each command of such a client; ``None``: the ambient scope alone decides.
        settings: Further ones of ``redis.sentinel.Sentinel``.
    """
    made = Sentinel(addresses, **settings)
    made.total = total
    return made
