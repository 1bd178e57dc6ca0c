"""Sending a file object that has no descriptor: read a piece, send it, under one deadline.

Between two pieces nobody else may write, and after a failure nobody may go on behind the part that
is out: the direction is poisoned as if it had been one call of the core.
"""

from __future__ import annotations

import io
import time
from typing import IO, TYPE_CHECKING, Any

from hardsock import _core
from hardsock._errors import HardsockError

if TYPE_CHECKING:
    from hardsock import aio
    from hardsock._core import CancelToken

_PIECE = 65536


def must_be_read(file: Any) -> bool:
    """Whether *file* has no descriptor that the kernel could copy from."""
    if isinstance(file, int):
        return False
    try:
        file.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return hasattr(file, "read")
    return False


class _Reading:
    """One call: what is still to be sent, until when, and how far it has come."""

    def __init__(
        self, file: IO[bytes], offset: int | None, count: int | None, timeout: float | None
    ) -> None:
        self.began = time.monotonic()
        self.sent = 0
        self._file, self._timeout = file, timeout
        self._offset = _natural("offset", offset) or 0
        self._count = _natural("count", count)
        if self._offset:
            file.seek(self._offset)

    def piece(self) -> bytes:
        """What is to be sent next; empty at the end."""
        size = _PIECE if self._count is None else min(_PIECE, self._count - self.sent)
        data = self._file.read(size) if size > 0 else b""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise ValueError(f"file must be a binary file: read() gave {type(data).__name__}")
        return bytes(data)

    def left(self) -> float | None:
        """Seconds until the deadline of the whole call."""
        if self._timeout is None:
            return None
        return max(0.0, self.began + self._timeout - time.monotonic())

    def failed(self, conn: _core.Connection, exc: BaseException) -> None:
        """Make of the failure of a piece that of the whole."""
        if isinstance(exc, HardsockError):
            exc.op = "sendfile"
            self.sent += exc.bytes_done
            exc.bytes_done = self.sent
            exc.elapsed = time.monotonic() - self.began
        if self.sent > 0:
            conn._lost_output()

    def settle(self) -> None:
        """Leave the file's position behind what was sent."""
        if self.sent > 0 and hasattr(self._file, "seek"):
            self._file.seek(self._offset + self.sent)


def _natural(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    return value


def send_by_reading(
    conn: _core.Connection,
    file: IO[bytes],
    offset: int | None,
    count: int | None,
    timeout: float | None,
    token: CancelToken | None,
) -> int:
    """``conn.sendfile`` for a file object without a descriptor."""
    if timeout is None:
        timeout = conn.gettimeout()
        if timeout == 0:
            raise ValueError(
                "sendfile of an object without a descriptor has to wait: not allowed "
                "after settimeout(0)"
            )
    reading = _Reading(file, offset, count, timeout)
    try:
        while data := reading.piece():
            conn.sendall(data, timeout=reading.left(), token=token)
            reading.sent += len(data)
    except BaseException as exc:
        reading.failed(conn, exc)
        raise
    finally:
        reading.settle()
    return reading.sent


async def send_by_reading_async(
    conn: aio.Connection,
    file: IO[bytes],
    offset: int,
    count: int | None,
    timeout: float | None,
    token: CancelToken | None,
) -> int:
    """``aio.Connection.sendfile`` for a file object without a descriptor."""
    reading = _Reading(file, offset, count, timeout)
    try:
        while data := reading.piece():
            await conn.sendall(data, timeout=reading.left(), token=token)
            reading.sent += len(data)
    except BaseException as exc:
        reading.failed(conn.blocking, exc)
        raise
    finally:
        reading.settle()
    return reading.sent
