"""A pytest plugin: redis-py's own suite, unchanged, over hardsock's adapter.

Its own classes are asked for by name, and are defaults of parameters, so they stay, and take the
adapter's way of connecting. What the adapter adds to them (pauses, totals for a reply) is not in it.
"""

from __future__ import annotations

from typing import Any

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
    theirs._connect, theirs._dial, theirs.dial_limits = ours._connect, ours._dial, None
async_kinds = (
    (redis.asyncio.connection.Connection, over.AsyncConnection),
    (redis.asyncio.connection.SSLConnection, over.AsyncSSLConnection),
    (redis.asyncio.connection.UnixDomainSocketConnection, over.AsyncUnixConnection),
)
for theirs, ours in async_kinds:
    theirs._connect, theirs._target, theirs.dial_limits = _Over._connect, ours._target, None


def _asking(plain: Any) -> Any:
    """What has come is with the kernel: see ``_Over.can_read``."""

    async def can_read(self: Any) -> bool:
        return (self._reader is not None and not self._reader.is_quiet()) or await plain(self)

    return can_read


kind = redis.asyncio.connection.AbstractConnection
kind.can_read = _asking(kind.can_read)
