"""Clients that ask Sentinel for the address; see the package."""

from __future__ import annotations

from typing import Any

import redis
import redis.sentinel
from redis.exceptions import ConnectionError as RedisConnectionError

from hardsock._dial_limits import DialLimits
from hardsock.adapters._dial import checked_limits
from hardsock.adapters.redis._sync import Connection, Redis, SSLConnection, raise_if_ended

__all__ = ["Sentinel", "sentinel"]


class _Asking:
    def connect(self) -> None:
        """As redis-py has it; no answer of a sentinel in time is a time-out."""
        try:
            super().connect()  # type: ignore[misc]
        except RedisConnectionError as exc:
            raise_if_ended("ask", exc)
            raise

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """As of other connections: one whose reply was given up is closed.

        redis-py keeps those of Sentinel, and the next command got the reply to the one before.
        """
        kwargs.setdefault("disconnect_on_error", True)
        return super().read_response(*args, **kwargs)  # type: ignore[misc]


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
    sentinels: list[Any]

    def __init__(self, *args: Any, dial_limits: DialLimits | None = None, **kwargs: Any) -> None:
        limits = {} if checked_limits(dial_limits) is None else {"dial_limits": dial_limits}
        super().__init__(*args, **kwargs)
        self.connection_kwargs.update(limits)
        for one in self.sentinels:
            pool = one.connection_pool
            pool.connection_class = self._asking_class(pool.connection_class)
            pool.connection_kwargs.update(limits)

    def _asking_class(self, given: Any) -> Any:
        """What a question to a sentinel goes through, in the place of redis-py's."""
        raise NotImplementedError

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

    def _asking_class(self, given: Any) -> Any:
        return SSLConnection if issubclass(given, redis.SSLConnection) else Connection


def sentinel(
    addresses: list[tuple[str, int]], *, total: float | None = None, **settings: Any
) -> Sentinel:
    """Make a ``Sentinel``; its ``master_for(name)`` and ``slave_for(name)`` give the clients.

    Args:
        addresses: Those of the sentinels.
        total: Seconds for each command of such a client; ``None``: the ambient scope alone decides.
        settings: Further ones of ``redis.sentinel.Sentinel``; and ``dial_limits``, as
            ``hardsock.connect(limits=)``, for connections to sentinels and servers.
    """
    made = Sentinel(addresses, **settings)
    made.total = total
    return made
