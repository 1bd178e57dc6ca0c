"""redis-py over hardsock: the client that blocks, that of asyncio, of a cluster, and of Sentinel.

    import hardsock.adapters.redis

    client = hardsock.adapters.redis.client("rediss://db.example.org", total=1.0, size=16)
    client.get("key")

    client = hardsock.adapters.redis.async_client("redis://db.example.org", total=1.0)
    await client.get("key")

*total* (or a scope) covers a command, or the commands of a pipeline, as a whole: the wait for a
connection of the pool (``size=``), the lookup, connecting, TLS, the greeting, redis-py's tries with
their pauses, a cluster's redirections, and every byte of the reply. ``socket_timeout`` becomes a total
for each reply, so that a reply which drips buys nothing. Pub/sub and blocking commands end with a
scope, too.

At the deadline ``redis.exceptions.TimeoutError`` (in a task, when the scope around the call set it:
``hardsock.DeadlineExceeded``); after a cancel, from any thread, ``hardsock.Cancelled``. Neither is tried
again, and the connection is closed.

For one's own pool: ``connection_class=hardsock.adapters.redis.Connection`` (``SSLConnection``,
``UnixConnection``, or ``AsyncConnection``, ``AsyncSSLConnection``, ``AsyncUnixConnection``), and
``queue_class=hardsock.adapters.redis.ScopedQueue`` for a ``BlockingConnectionPool`` of threads.

TLS is hardsock's, set up by the ``ssl_*`` parameters; those of OCSP are refused (hardsock checks what
is stapled by itself). Lost: ``fork``. ``cluster()``, ``sentinel()`` and their awaited twins
``async_cluster()``, ``async_sentinel()`` make the other clients.

Tested with redis-py 5.1 to 8.1, clusters and Sentinel from 6.0. What is not public there and used
here: ``Connection._connect``, which is redis-py's own seam, ``Retry._backoff``, ``ssl_context`` of
asyncio's connections, ``_reader``, ``_writer`` and ``_socket_is_empty`` of those, the buffer of
redis-py's own parsers, ``connection_kwargs`` and ``nodes_manager`` of asyncio's cluster; of asyncio
itself ``StreamReader._wait_for_data``.
"""

from __future__ import annotations

from importlib.metadata import version

from hardsock.adapters._queue import ScopedQueue
from hardsock.adapters._versions import check
from hardsock.adapters.redis._asyncio import (
    AsyncConnection,
    AsyncRedis,
    AsyncSSLConnection,
    AsyncUnixConnection,
    async_client,
)
from hardsock.adapters.redis._asyncio_many import (
    AsyncCluster,
    AsyncSentinel,
    async_cluster,
    async_sentinel,
)
from hardsock.adapters.redis._cluster import Cluster, cluster
from hardsock.adapters.redis._sentinel import Sentinel, sentinel
from hardsock.adapters.redis._sync import (
    BlockingConnectionPool,
    Connection,
    Redis,
    SSLConnection,
    UnixConnection,
    client,
)

__all__ = [
    "AsyncCluster",
    "AsyncConnection",
    "AsyncRedis",
    "AsyncSSLConnection",
    "AsyncSentinel",
    "AsyncUnixConnection",
    "BlockingConnectionPool",
    "Cluster",
    "Connection",
    "Redis",
    "SSLConnection",
    "ScopedQueue",
    "Sentinel",
    "UnixConnection",
    "async_client",
    "async_cluster",
    "async_sentinel",
    "client",
    "cluster",
    "sentinel",
]

check("redis", version("redis"), "5.1", "8.1")
