"""A pytest plugin: redis-py's own suite, unchanged, over hardsock's adapter.

Its own classes are asked for by name, and are defaults of parameters, so they stay, and take the
adapter's way of connecting. What the adapter adds to them (pauses, totals for a reply) is not in it.
"""

from __future__ import annotations

import redis.asyncio.connection
import redis.connection

from hardsock.adapters import redis as over
from hardsock.adapters.redis._asyncio import _Over

kinds = (
    (redis.connection.Connection, over.Connection),
    (redis.connection.SSLConnection, over.SSLConnection),
    (redis.connection.UnixDomainSocketConnection, over.UnixConnection),
)
for theirs, ours in kinds:
    theirs._connect = ours._connect
async_kinds = (
    (redis.asyncio.connection.Connection, over.AsyncConnection),
    (redis.asyncio.connection.SSLConnection, over.AsyncSSLConnection),
    (redis.asyncio.connection.UnixDomainSocketConnection, over.AsyncUnixConnection),
)
for theirs, ours in async_kinds:
    theirs._connect = _Over._connect
    theirs._target = ours._target
