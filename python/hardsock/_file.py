"""Files on a connection, as ``socket.makefile`` makes them."""

from __future__ import annotations

import io
from typing import IO, Any, cast

from hardsock._core import Connection


class ConnectionFile(io.RawIOBase):
    """The raw file: reads and writes go to the connection, under its ``settimeout``.

    It owns a handle of the connection, which closes with the last of its handles.
    """

    def __init__(self, conn: Connection, mode: str) -> None:
        super().__init__()
        self._conn = conn
        self._mode = mode
        self.name = conn.fileno()

    @property
    def mode(self) -> str:
        return self._mode

    def readable(self) -> bool:
        return "r" in self._mode

    def writable(self) -> bool:
        return "w" in self._mode

    def fileno(self) -> int:
        return self._conn.fileno()

    def _require(self, able: bool, complaint: str) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if not able:
            raise io.UnsupportedOperation(complaint)

    def readinto(self, buffer: Any) -> int | None:
        self._require(self.readable(), "not readable")
        try:
            return self._conn.recv_into(buffer)
        except BlockingIOError:
            return None

    def write(self, data: Any) -> int | None:
        self._require(self.writable(), "not writable")
        try:
            return self._conn.send(data)
        except BlockingIOError:
            return None

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._conn.close()


def makefile(
    conn: Connection,
    mode: str = "r",
    buffering: int | None = None,
    *,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> IO[Any] | ConnectionFile:
    """Make a file on *conn*; the parameters are those of ``socket.makefile``."""
    if not set(mode) <= {"r", "w", "b"} or not set(mode) & {"r", "w"}:
        raise ValueError(f"mode must be made of 'r', 'w' and 'b', got {mode!r}")
    reading, writing = "r" in mode, "w" in mode
    if buffering == 0 and "b" not in mode:
        raise ValueError("buffering=0 goes with binary mode only")
    raw = ConnectionFile(conn._share(), mode.replace("b", ""))
    if buffering == 0:
        return raw
    size = io.DEFAULT_BUFFER_SIZE if buffering is None or buffering < 0 else buffering
    buffer: Any
    if reading and writing:
        buffer = io.BufferedRWPair(raw, raw, size)
    elif reading:
        buffer = io.BufferedReader(raw, size)
    else:
        buffer = io.BufferedWriter(raw, size)
    if "b" in mode:
        return cast("IO[Any]", buffer)
    text: Any = io.TextIOWrapper(buffer, encoding, errors, newline)
    text.mode = mode
    return cast("IO[Any]", text)
