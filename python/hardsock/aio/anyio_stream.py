"""A connection as ``anyio.abc.ByteStream``, and addresses as connectables, on asyncio and trio.

Import it where anyio (4 or later) is installed: ``from hardsock.aio import anyio_stream``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel

from hardsock._errors import Busy, Cancelled, Closed, DeadlineExceeded, HardsockError
from hardsock.aio._connection import Connection
from hardsock.aio._factories import connect
from hardsock.connecting.connect import Address

__all__ = ["Connectable", "Stream"]


@contextmanager
def _as_anyio(verb: str) -> Iterator[None]:
    try:
        yield
    except (DeadlineExceeded, Cancelled):
        raise
    except Busy as exc:
        raise anyio.BusyResourceError(verb) from exc
    except Closed as exc:
        raise anyio.ClosedResourceError(str(exc)) from exc
    except HardsockError as exc:
        raise anyio.BrokenResourceError(str(exc)) from exc


class Stream(anyio.abc.ByteStream):
    """An ``anyio.abc.ByteStream`` over an ``aio.Connection``, which it owns.

    Everything that takes a byte stream takes it, ``anyio.streams.tls.TLSStream`` too. Errors are
    anyio's, with hardsock's as ``__cause__``; ``DeadlineExceeded`` and ``Cancelled`` of hardsock's
    own scopes and tokens stay what they are. Each call is a checkpoint.
    """

    def __init__(self, conn: Connection) -> None:
        self.conn = conn

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """What has arrived, at most *max_bytes*.

        Raises:
            anyio.EndOfStream: The peer has ended its direction.
            ValueError: *max_bytes* is not more than 0.
        """
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, got {max_bytes}")
        await anyio.lowlevel.checkpoint_if_cancelled()
        with _as_anyio("reading from"):
            data = await self.conn.recv(max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """Send all of *item*."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        with _as_anyio("writing to"):
            await self.conn.sendall(item)

    async def send_eof(self) -> None:
        """End this direction; the other one goes on."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        with _as_anyio("writing to"):
            await self.conn.close_write()

    async def aclose(self) -> None:
        """Close the connection; tasks that wait on it raise ``anyio.ClosedResourceError``."""
        self.conn.close()
        await anyio.lowlevel.checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Family and addresses, under the names of ``anyio.abc.SocketAttribute``.

        No ``raw_socket``: a descriptor has one owner.
        """
        known = anyio.abc.SocketAttribute
        conn = self.conn
        found: dict[Any, Callable[[], Any]] = {
            known.family: lambda: conn.family,
            known.local_address: lambda: _address(conn.getsockname()),
            known.remote_address: lambda: _address(conn.getpeername()),
        }
        if isinstance(conn.getsockname(), tuple):
            found[known.local_port] = lambda: conn.getsockname()[1]
            found[known.remote_port] = lambda: conn.getpeername()[1]
        return found


def _address(value: Any) -> Any:
    """As anyio has it: of IPv6 addresses host and port alone."""
    return value[:2] if isinstance(value, tuple) else value


class Connectable:
    """An address with the parameters of ``aio.connect``: an ``anyio.abc.ByteStreamConnectable``.

    May be used any number of times, by any task.

    ``await Connectable(("example.org", 443), tls=True, timeout=5).connect()``.
    """

    def __init__(self, address: Address, **options: Any) -> None:
        self._address, self._options = address, options

    async def connect(self) -> Stream:
        """Return a `Stream` to the address.

        Raises:
            anyio.ConnectionFailed: It cannot be had; ``__cause__`` has every attempt.
            DeadlineExceeded, Cancelled: The timeout, token or scope of hardsock ended first.
        """
        try:
            return Stream(await connect(self._address, **self._options))
        except (DeadlineExceeded, Cancelled):
            raise
        except HardsockError as exc:
            raise anyio.ConnectionFailed(str(exc)) from exc


if hasattr(anyio.abc, "ByteStreamConnectable"):  # anyio 4.10
    anyio.abc.ByteStreamConnectable.register(Connectable)
