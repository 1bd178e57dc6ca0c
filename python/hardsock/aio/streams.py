"""asyncio's StreamReader and StreamWriter over connections of hardsock, on any loop of asyncio.

    reader, writer = await streams.open_connection(("example.org", 443), tls=True, timeout=5)
    reader, writer = streams.wrap(conn)

The classes are asyncio's own, so whatever takes a pair of streams takes these. Their waits are those of
the event loop: a scope (``hs.timeout``) in the task ends them. ``writer.start_tls`` wants asyncio's
loop or hardsock's, not uvloop's; ``tls=`` works on all.
"""

from __future__ import annotations

import asyncio
from typing import Any

from hardsock.aio._connection import Connection
from hardsock.aio._factories import connect
from hardsock.aio._host import current_hub
from hardsock.aio._transport import Transport
from hardsock.connecting.connect import Address

__all__ = ["open_connection", "wrap"]

_LIMIT = 65536  # asyncio's own default


async def open_connection(
    address: Address, *, limit: int = _LIMIT, **options: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """``aio.connect`` with its parameters and errors, and a pair of streams over the connection.

    Args:
        address: See ``hardsock.Address``.
        limit: Bytes that a line may have, and half of what is received ahead.
        options: Those of ``aio.connect``.
    """
    return wrap(await connect(address, **options), limit=limit)


def wrap(
    conn: Connection, *, limit: int = _LIMIT
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A pair of streams over *conn*, which they own from now on: ``writer.close()`` closes it.

    Bytes that *conn* has buffered are the first that are read.

    Raises:
        RuntimeError: No loop of asyncio runs here.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport = Transport(loop, current_hub(), conn.blocking, protocol)
    protocol.connection_made(transport)
    transport.go_on()
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
