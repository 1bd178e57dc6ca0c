"""The client of a cluster; see the package."""

from __future__ import annotations

import functools
from typing import Any

import redis
import redis.cluster
from redis.exceptions import RedisClusterException
from redis.exceptions import TimeoutError as RedisTimeout

from hardsock._dial_limits import DialLimits
from hardsock._errors import HardsockError
from hardsock._scope import current, timeout
from hardsock.adapters._causes import handled, raise_if_cancelled
from hardsock.adapters._dial import checked_limits
from hardsock.adapters.redis._sync import Connection, ScopeEnded, SSLConnection, raise_if_ended

__all__ = ["Cluster", "cluster"]


def _telling(name: str) -> Any:
    """The method of that name, whose time-out is ``ScopeEnded`` when it is that of the scope.

    A cluster's client tries again after a ``TimeoutError``, looked up by its very class.
    """

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(super(_OfCluster, self), name)(*args, **kwargs)
        except RedisTimeout as exc:
            token = current()
            if type(exc) is not RedisTimeout or token is None or not token.wait(0):
                raise
            raise ScopeEnded(*exc.args) from exc

    call.__name__ = name
    return call


class _OfCluster:
    connect = _telling("connect")
    send_packed_command = _telling("send_packed_command")
    read_response = _telling("read_response")


class _Connection(_OfCluster, Connection):
    pass


class _SSLConnection(_OfCluster, SSLConnection):
    pass


class _Pool(redis.ConnectionPool):
    """The pool of a node, which redis-py tells by a class whether it is for TLS."""

    def __init__(
        self,
        dial_limits: DialLimits | None = None,
        /,
        connection_class: Any = None,
        **kwargs: Any,
    ) -> None:
        secured = isinstance(connection_class, type) and issubclass(
            connection_class, redis.SSLConnection
        )
        kind = _SSLConnection if secured else _Connection
        super().__init__(kind, dial_limits=dial_limits, **kwargs)


def _within(total: float | None, what: str, call: Any, *args: Any, **kwargs: Any) -> Any:
    """Call it in *total* seconds; a cluster that cannot be reached any more is no cluster's fault."""
    before = handled()
    with timeout(total, name=f"total of the {what}"):
        try:
            return call(*args, **kwargs)
        except RedisClusterException as exc:
            raise_if_cancelled(exc, before)
            raise_if_ended("look for the nodes", exc)
            raise


class _Pipeline(redis.cluster.ClusterPipeline):
    total: float | None = None

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        return _within(self.total, "pipeline", super().execute, *args, **kwargs)

    def reset(self) -> None:
        """As redis-py has it; a connection that could not be told UNWATCH is closed and given back."""
        transaction: Any = getattr(self, "_execution_strategy", None)
        try:
            super().reset()
        except (redis.RedisError, HardsockError):
            connection = getattr(transaction, "_transaction_connection", None)
            if connection is None:
                raise
            connection.disconnect()
            transaction._watching = False
            super().reset()


class Cluster(redis.cluster.RedisCluster):
    """``redis.cluster.RedisCluster`` each of whose commands takes ``total`` seconds at most."""

    total: float | None = None

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """As redis-py has it, within ``total``, redirections and looking for nodes included."""
        return _within(self.total, "command", super().execute_command, *args, **kwargs)

    def pipeline(self, *args: Any, **kwargs: Any) -> Any:
        """As redis-py has it; ``execute()`` takes ``total`` seconds at most."""
        made = super().pipeline(*args, **kwargs)
        if type(made) is redis.cluster.ClusterPipeline:
            made.__class__ = _Pipeline
            made.total = self.total
        return made

    def close(self) -> None:
        """As redis-py has it, and the connections of the nodes, which it leaves to the collector."""
        super().close()
        if getattr(self, "nodes_manager", None) is None:  # It was never made whole.
            return
        for node in self.get_nodes():
            if node.redis_connection is not None:
                node.redis_connection.connection_pool.disconnect()


def cluster(
    url: str,
    *,
    total: float | None = None,
    dial_limits: DialLimits | None = None,
    **settings: Any,
) -> Cluster:
    """Make a client of a cluster each of whose commands takes *total* seconds at most.

    Making it asks a node for the others, which takes *total* seconds at most as well.

    Args:
        url: ``redis://`` or ``rediss://``, of any node.
        total: Seconds; ``None``: the ambient scope alone decides.
        dial_limits: For connections to all nodes: as ``hardsock.connect(limits=)``.
        settings: Further ones of ``redis.cluster.RedisCluster``.
    """
    # redis-py drops the parameters that it does not know on their way to the connections.
    pool = functools.partial(_Pool, checked_limits(dial_limits))
    made: Cluster = _within(
        total, "look for nodes", Cluster, url=url, connection_pool_class=pool, **settings
    )
    made.total = total
    return made
