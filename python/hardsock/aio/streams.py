"""asyncio's StreamReader and StreamWriter over connections of hardsock, on any loop of asyncio.

    reader, writer = await streams.open_connection(("example.org", 443), tls=True, timeout=5)
    reader, writer = streams.wrap(conn)

The classes are asyncio's own, so whatever takes a pair of streams takes these. Their waits are those of
the event loop: a scope (``hs.timeout``) in the task ends them. ``writer.start_tls`` wants asyncio's
loop or hardsock's, not uvloop's; ``tls=`` works on all.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import Any

from hardsock._errors import Busy, Closed
from hardsock.aio._connection import Connection
from hardsock.aio._factories import connect
from hardsock.aio._host import current_hub
from hardsock.aio._transport import Transport
from hardsock.connecting.connect import Address

__all__ = ["open_connection", "wrap"]

if not hasattr(asyncio.StreamReader, "_wait_for_data"):
    raise ImportError(f"asyncio of Python {sys.version.split()[0]} has no _wait_for_data")

_LIMIT = 65536  # asyncio's own default
_CHUNK = 262144


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
    return reader, _writer_beside(reader, conn, loop)


def _writer_beside(
    reader: asyncio.StreamReader, conn: Connection, loop: asyncio.AbstractEventLoop
) -> asyncio.StreamWriter:
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport = Transport(loop, current_hub(), conn.blocking, protocol)
    protocol.connection_made(transport)
    if isinstance(reader, AskingReader):
        transport.pause_reading()
    else:
        transport.go_on()
    return asyncio.StreamWriter(transport, protocol, reader, loop)


class AskingReader(asyncio.StreamReader):
    """asyncio's, but it receives when somebody waits for bytes, and nothing ahead.

    For a client that asks and reads the answer: the task that waits is woken by the bytes themselves,
    where a transport that reads ahead wakes it in the loop's next turn, and asks the kernel once more.
    What it does not see by itself is what comes between: ``is_quiet`` asks. As everywhere in this
    module the loop ends its waits, and no scope but by the loop.
    """

    def __init__(self, conn: Connection, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=_LIMIT, loop=loop)
        self._asked, self._hub = conn.blocking, current_hub()
        self._outside = contextvars.Context()  # of all scopes

    def set_transport(self, transport: Any) -> None:
        """The writer's, which is told of a failure; as there is nothing ahead, it is never paused."""
        self._beside: Transport = transport

    def is_quiet(self) -> bool:
        """Whether nothing is there to be read, nor the peer's end."""
        return not self._buffer and self._asked._is_quiet()  # type: ignore[attr-defined]

    async def _wait_for_data(self, _function: str) -> None:
        data = b""
        try:
            data = await self._outside.run(self._asked._op_recv, self._hub, _CHUNK)
        except Closed:  # By its writer; connection_lost() has said why.
            if (failure := self.exception()) is not None:
                raise failure from None
        except (Busy, TimeoutError):  # Of this call, not of the connection.
            raise
        except OSError as exc:
            self._beside.fail(exc)
            raise
        if data and not self._eof:  # type: ignore[attr-defined]
            self.feed_data(data)
        else:
            self.feed_eof()


def asking(conn: Connection) -> tuple[AskingReader, asyncio.StreamWriter]:
    """As ``wrap``, with an ``AskingReader``."""
    loop = asyncio.get_running_loop()
    reader = AskingReader(conn, loop)
    return reader, _writer_beside(reader, conn, loop)
