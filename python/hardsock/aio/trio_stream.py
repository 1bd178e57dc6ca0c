"""A connection as ``trio.abc.HalfCloseableStream``, for code written against trio's streams.

Import it where trio is installed: ``from hardsock.aio import trio_stream``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

from hardsock._errors import Busy, Cancelled, Closed, DeadlineExceeded, HardsockError
from hardsock.aio._connection import Connection
from hardsock.aio._factories import connect
from hardsock.connecting.connect import Address

__all__ = ["Stream", "open_stream"]

_CHUNK = 65536


@contextmanager
def _as_trio() -> Iterator[None]:
    try:
        yield
    except (DeadlineExceeded, Cancelled):
        raise
    except Busy as exc:
        raise trio.BusyResourceError(str(exc)) from exc
    except Closed as exc:
        raise trio.ClosedResourceError(str(exc)) from exc
    except HardsockError as exc:
        raise trio.BrokenResourceError(str(exc)) from exc


class Stream(trio.abc.HalfCloseableStream):
    """A ``trio.abc.HalfCloseableStream`` over an ``aio.Connection``, which it owns.

    Everything that takes a stream takes it, ``trio.SSLStream`` too. ``conn`` may go on being used
    beside it: one reader and one writer, as ever.

    Errors are trio's: ``BusyResourceError``, ``ClosedResourceError``, and ``BrokenResourceError``
    for all that ends a connection; ``__cause__`` is hardsock's error, with what it knows.
    ``DeadlineExceeded`` and ``Cancelled`` of hardsock's own scopes and tokens stay what they are.
    """

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self._sending = self._ended = False

    @contextmanager
    def _sender(self) -> Iterator[None]:
        if self._sending:
            raise trio.BusyResourceError("another task is sending through this stream")
        self._sending = True
        try:
            with _as_trio():
                yield
        finally:
            self._sending = False

    def _check_open(self) -> None:
        if self.conn.closed or self._ended:
            raise trio.ClosedResourceError("this side of the stream is closed")

    async def send_all(self, data: Any) -> None:
        """Send *data*; see ``trio.abc.SendStream``."""
        with self._sender():
            self._check_open()
            if len(data):
                await self.conn.sendall(data)
            else:
                await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room in the kernel's buffer; see ``trio.abc.SendStream``."""
        with self._sender():
            await trio.lowlevel.checkpoint()
            self._check_open()
            await trio.lowlevel.wait_writable(self.conn.fileno())

    async def send_eof(self) -> None:
        """End this direction, once; see ``trio.abc.HalfCloseableStream``."""
        with self._sender():
            if self._ended:
                await trio.lowlevel.checkpoint()
                return
            await self.conn.close_write()
            self._ended = True

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has arrived, at most *max_bytes*; empty at the end of the stream.

        ValueError: *max_bytes* is not more than 0.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, got {max_bytes}")
        with _as_trio():
            return await self.conn.recv(_CHUNK if max_bytes is None else max_bytes)

    async def aclose(self) -> None:
        """Close the connection; tasks that wait on it raise ``trio.ClosedResourceError``."""
        fd = self.conn.fileno()
        if fd >= 0:
            trio.lowlevel.notify_closing(fd)
        self.conn.close()
        await trio.lowlevel.checkpoint()


async def open_stream(address: Address, **options: Any) -> Stream:
    """``aio.connect`` with its parameters, and a `Stream` over what it returns.

    Raises:
        As ``aio.connect`` does: errors of hardsock.
    """
    return Stream(await connect(address, **options))
