"""asyncio's clients of a cluster, and those that ask Sentinel; see the package."""

from __future__ import annotations

from typing import Any

import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError

from hardsock._dial_limits import DialLimits
from hardsock._errors import DeadlineExceeded, HardsockError
from hardsock._scope import timeout
from hardsock.adapters._causes import handled, raise_if_cancelled
from hardsock.adapters._dial import checked_limits
from hardsock.adapters.redis._asyncio import AsyncConnection, AsyncRedis, AsyncSSLConnection
from hardsock.adapters.redis._sentinel import ClientsOverHardsock
from hardsock.adapters.redis._sync import ScopeEnded, raise_if_ended

__all__ = ["AsyncCluster", "AsyncSentinel", "async_cluster", "async_sentinel"]


async def _within(total: float | None, what: str, call: Any, *args: Any, **kwargs: Any) -> Any:
    """Await it in *total* seconds; that nothing can be reached any more is nobody's outage then."""
    before = handled()
    try:
        with timeout(total, name=f"total of the {what}"):
            try:
                return await call(*args, **kwargs)
            except (RedisClusterException, RedisConnectionError) as exc:
                raise_if_cancelled(exc, before)
                raise_if_ended("look for a node", exc)
                raise
    except DeadlineExceeded as exc:
        raise ScopeEnded(str(exc)) from exc


def _kind(given: Any) -> Any:
    """Ours in the place of redis-py's."""
    secured = isinstance(given, type) and issubclass(given, redis.asyncio.SSLConnection)
    return AsyncSSLConnection if secured else AsyncConnection


class _Pipeline(redis.asyncio.cluster.ClusterPipeline):
    total: float | None = None

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        return await _within(self.total, "pipeline", super().execute, *args, **kwargs)

    async def reset(self) -> None:
        """As redis-py has it; a connection that could not be told UNWATCH is closed and given back."""
        transaction: Any = getattr(self, "_execution_strategy", None)
        connection = getattr(transaction, "_transaction_connection", None)
        try:
            await super().reset()
        except (RedisError, HardsockError):
            if connection is None:
                raise
            await connection.disconnect(nowait=True)
            transaction._watching = False
            await super().reset()


class AsyncCluster(redis.asyncio.RedisCluster):
    """``redis.asyncio.RedisCluster`` each of whose commands takes ``total`` seconds at most.

    Looking for the nodes belongs to the command that needs it, or to ``await client.initialize()``.
    """

    total: float | None = None

    def __init__(self, *args: Any, dial_limits: DialLimits | None = None, **kwargs: Any) -> None:
        limits = checked_limits(dial_limits)
        super().__init__(*args, **kwargs)
        # Each node is made with these, those that are found later, too.
        settings: dict[str, Any] = self.connection_kwargs
        settings["connection_class"] = _kind(settings.get("connection_class"))
        settings["dial_limits"] = limits
        for node in self.nodes_manager.startup_nodes.values():
            node.connection_class = settings["connection_class"]
            node.connection_kwargs["dial_limits"] = limits

    async def initialize(self, *args: Any, **kwargs: Any) -> Any:
        """As redis-py has it, within ``total``."""
        return await _within(self.total, "look for nodes", super().initialize, *args, **kwargs)

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """As redis-py has it, within ``total``, redirections and looking for nodes included."""
        return await _within(self.total, "command", super().execute_command, *args, **kwargs)

    def pipeline(self, *args: Any, **kwargs: Any) -> Any:
        """As redis-py has it; ``execute()`` takes ``total`` seconds at most."""
        made = super().pipeline(*args, **kwargs)
        if type(made) is redis.asyncio.cluster.ClusterPipeline:
            made.__class__ = _Pipeline
            made.total = self.total
        return made


class _Connection(AsyncConnection, redis.asyncio.sentinel.SentinelManagedConnection):
    pass


class _SSLConnection(AsyncSSLConnection, redis.asyncio.sentinel.SentinelManagedSSLConnection):
    pass


class _Client(AsyncRedis):
    """A command, with asking for the address that it needs."""

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        call = super(AsyncRedis, self).execute_command
        return await _within(self.total, "command", call, *args, **kwargs)


class AsyncSentinel(ClientsOverHardsock, redis.asyncio.Sentinel):
    """``redis.asyncio.Sentinel`` whose clients take ``total`` seconds for a command at most.

    Asking the sentinels, and looking for a new master, belongs to the command that needs it.
    """

    client_class = _Client
    connection_classes = (_Connection, _SSLConnection)

    def _asking_class(self, given: Any) -> Any:
        return _kind(given)


def async_cluster(url: str, *, total: float | None = None, **settings: Any) -> AsyncCluster:
    """Make an asyncio client of a cluster each of whose commands takes *total* seconds at most.

    Nothing is asked before the first command, or ``await client.initialize()``. ``await
    client.aclose()`` closes its connections.

    Args:
        url: ``redis://`` or ``rediss://``, of any node.
        total: Seconds; ``None``: the ambient scope alone decides.
        settings: Further ones of ``redis.asyncio.RedisCluster``; and ``dial_limits``, as
            ``hardsock.connect(limits=)``, for connections to all nodes.
    """
    made: AsyncCluster = AsyncCluster.from_url(url, **settings)
    made.total = total
    return made


def async_sentinel(
    addresses: list[tuple[str, int]], *, total: float | None = None, **settings: Any
) -> AsyncSentinel:
    """Make an ``AsyncSentinel``; its ``master_for(name)`` and ``slave_for(name)`` give the clients.

    Args:
        addresses: Those of the sentinels.
        total: Seconds for each command of such a client; ``None``: the ambient scope alone decides.
        settings: Further ones of ``redis.asyncio.Sentinel``; and ``dial_limits``, as
            ``hardsock.connect(limits=)``, for connections to sentinels and servers.
    """
    made = AsyncSentinel(addresses, **settings)
    made.total = total
    return made
