"""Files on a connection, as ``socket.makefile`` makes them.

A file has no receive buffer of its own: it reads out of the connection's. So what a call had
received and could not return is there for the next one, whichever it is, and two files and the
connection itself may take turns. Each call of a file is one call of the connection, with one
deadline: that of ``settimeout()`` at the moment, and those of the scope.

What is written is kept until it is flushed. A flush, or a write that does not fit, is one send;
when it fails, either none of the message is out, and the file is as it was before the call, or a
part is, and the connection's sending is poisoned. A message ends where a flush has succeeded.
"""

from __future__ import annotations

import errno
import io
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from socket import MSG_PEEK, MSG_WAITALL
from typing import IO, Any, NoReturn

from hardsock._core import Connection
from hardsock._errors import Busy, Cancelled, DeadlineExceeded


def _refuse_closed(*_: object) -> NoReturn:
    raise ValueError("I/O operation on closed file")


def _refuse_reading(*_: object) -> NoReturn:
    raise io.UnsupportedOperation("not readable")


def _refuse_writing(*_: object) -> NoReturn:
    raise io.UnsupportedOperation("not writable")


def would_block(what: str, written: int) -> BlockingIOError:
    """Return the error of a call that would have to wait while the timeout is 0."""
    return BlockingIOError(errno.EAGAIN, f"{what} could not complete without blocking", written)


def busy(doing: str) -> Busy:
    """Return the error of a second thread in the same direction, as the connection has it."""
    return Busy(None, f"another thread is {doing} this file")


class _Common:
    """What both kinds of binary files have: one handle of the connection, which they close."""

    _handle: Connection
    _mode: str
    closed: bool

    @property
    def mode(self) -> str:
        """``"rb"``, ``"wb"`` or ``"rwb"``."""
        return self._mode

    @property
    def name(self) -> int:
        """The descriptor's number, or -1 when this file or its connection was closed."""
        return -1 if self.closed else self._handle.fileno()

    def fileno(self) -> int:
        """Return the descriptor's number; raise ValueError when this file was closed."""
        return _refuse_closed() if self.closed else self._handle.fileno()

    def readable(self) -> bool:
        return _refuse_closed() if self.closed else "r" in self._mode

    def writable(self) -> bool:
        return _refuse_closed() if self.closed else "w" in self._mode

    def seekable(self) -> bool:
        return _refuse_closed() if self.closed else False

    def _require(self, letter: str) -> None:
        if self.closed:
            _refuse_closed()
        if letter not in self._mode:
            _ = _refuse_reading() if letter == "r" else _refuse_writing()

    def __repr__(self) -> str:
        return f"<hardsock.{type(self).__name__} name={self.name} mode={self._mode!r}>"


def _all_that_is_there(handle: Connection) -> bytes | None:
    """Return what a read to the end has got so far without waiting, or None."""
    there = handle.buffered
    return handle.recv(there) if there else None


class RawConnectionFile(_Common, io.RawIOBase):
    """An unbuffered file (``buffering=0``): each read is one receive, each write one send.

    It is what other layers (``io.BufferedReader``, ``io.TextIOWrapper``) are put on, and those
    drop what they have gathered when a read fails. So after a deadline or a cancel it refuses to
    be read again, as the file of a ``socket`` does. The connection has lost nothing and can be
    read; so can another file of it.
    """

    def __init__(self, conn: Connection, mode: str) -> None:
        super().__init__()
        self._mode = mode
        self._gave_up = False
        self._handle = conn._share()

    def _reading(self, call: Callable[..., Any], *args: Any) -> Any:
        self._require("r")
        if self._gave_up:
            raise OSError(
                errno.EIO,
                "cannot read from timed out object: an earlier read of this unbuffered file was "
                "given up. Read from the connection, or from a new file",
            )
        try:
            return call(*args)
        except (DeadlineExceeded, Cancelled):
            self._gave_up = True
            raise

    def readinto(self, buffer: Any, /) -> int | None:
        try:
            return int(self._reading(self._handle.recv_into, buffer))
        except BlockingIOError:
            return None

    def readall(self) -> bytes | None:  # type: ignore[override] # typeshed forgets None
        try:
            return bytes(self._reading(self._handle._file_readline, -1, sys.maxsize))
        except BlockingIOError:
            return _all_that_is_there(self._handle)

    def readline(self, size: int | None = -1, /) -> bytes:
        return bytes(self._reading(self._handle._file_readline, size))

    def write(self, data: Any, /) -> int | None:
        self._require("w")
        try:
            return self._handle.send(data)
        except BlockingIOError:
            return None

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._handle.close()


class ConnectionReader(_Common, io.BufferedIOBase):
    """A buffered binary file for reading; see this module's text for what its calls promise.

    Each answer of an HTTP client is read through one, so what it does to begin and to end is little.
    """

    _mode = "rb"
    closed = True  # until it has its handle

    def __init__(self, conn: Connection) -> None:
        self._handle = conn._share()
        # Called without asking first, so that a line costs one call: close() replaces them.
        self._recv: Callable[..., bytes] = self._handle.recv
        self._read: Callable[..., bytes | None] = self._handle._file_read
        self._readline: Callable[..., bytes] = self._handle._file_readline
        self.read = self._read  # type: ignore[method-assign]
        self.readline = self._readline  # type: ignore[method-assign]
        self.closed = False

    def read(self, size: int | None = -1, /) -> bytes | None:  # type: ignore[override]
        """Return *size* bytes, or all up to the peer's end; without waiting less, or None."""
        return self._read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._readline(size)

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Return all lines up to the peer's end, or the first that exceed *hint* bytes."""
        enough = sys.maxsize if hint is None or hint <= 0 else hint
        return io.BytesIO(self._readline(-1, enough)).readlines()

    def read1(self, size: int = -1, /) -> bytes:
        return self._recv(io.DEFAULT_BUFFER_SIZE if size < 0 else size)

    def readinto(self, buffer: Any, /) -> int | None:  # type: ignore[override]
        return self._read_into(buffer, MSG_WAITALL)

    def readinto1(self, buffer: Any, /) -> int | None:  # type: ignore[override]
        return self._read_into(buffer, 0)

    def _read_into(self, buffer: Any, flags: int) -> int | None:
        self._require("r")
        try:
            return self._handle.recv_into(buffer, 0, flags)
        except BlockingIOError:
            return None

    def peek(self, size: int = 0, /) -> bytes:
        """Return bytes without taking them, as soon as there are any; how many is not promised."""
        try:
            return self._recv(max(size, io.DEFAULT_BUFFER_SIZE), MSG_PEEK)
        except BlockingIOError:
            return b""

    def write(self, data: Any, /) -> int:
        return _refuse_closed() if self.closed else _refuse_writing()

    def write_whole(self, data: bytes, /) -> None:
        self.write(data)

    def flush(self) -> None:
        if self.closed:
            _refuse_closed()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._recv = self._read = self._readline = _refuse_closed
            self.read = self.readline = _refuse_closed  # type: ignore[method-assign]
            self._handle.close()


class ConnectionFile(ConnectionReader):
    """A buffered binary file that can be written, and perhaps read.

    One thread may read while another writes. A second thread in the same direction gets Busy.
    """

    def __init__(self, conn: Connection, mode: str, size: int) -> None:
        self._mode = mode
        self._size = size
        self._pending = bytearray()
        self._told = 0  # how many bytes that are kept an error has told the caller of
        self._midway = False  # bytes of the message are out, and it is not over
        self._room = size  # -1: it is closed
        self._writing = threading.Lock()  # around these four; never waited for
        super().__init__(conn)
        if "r" not in mode:
            self._recv = self._read = self._readline = _refuse_reading
            self.read = self.readline = _refuse_reading  # type: ignore[method-assign]

    def write(self, data: Any, /) -> int:
        """Keep *data* to be sent, or send all that is kept and *data*; return its length.

        If it raises, *data* was not taken: either nothing of it and of what was kept is out, and
        the same write may be tried again, or sending is poisoned.
        """
        if isinstance(data, bytes):
            return self._write(data)
        with memoryview(data) as view, view.cast("B") as flat:
            return self._write(flat)

    def writelines(self, lines: Iterable[Any], /) -> None:
        """Write all *lines* as one."""
        self.write(b"".join(lines))

    def flush(self) -> None:
        """Send what is kept. If it raises, all of that is still kept, or sending is poisoned."""
        if self.closed:
            _refuse_closed()
        if not self._writing.acquire(blocking=False):
            raise busy("writing to")
        try:
            if self._handle.gettimeout() == 0:
                if not self._send_to_fit(self._size):
                    raise would_block("flush", 0)
            else:
                self._send_all(b"")
            self._midway = False
        finally:
            self._writing.release()

    def write_whole(self, data: bytes, /) -> None:
        """Write *data*; without waiting (timeout 0) take all of it or nothing."""
        self._write(data, whole=True)

    def _write(self, data: Any, whole: bool = False) -> int:
        if not self._writing.acquire(blocking=False):
            raise busy("writing to")
        try:
            size = len(data)
            if len(self._pending) + size <= self._room:
                self._pending += data
                return size
            self._require("w")
            if self._handle.gettimeout() == 0:
                return self._write_without_waiting(data, whole)
            self._send_all(data)
            self._midway = True
            return size
        finally:
            self._writing.release()

    def _send_all(self, data: Any, timeout: float | None = None) -> None:
        """Send what is kept and *data*; that it fails within a message poisons."""
        if self._pending or data:
            try:
                self._handle._file_write(self._pending, data, self._midway, timeout)
            except BaseException:
                self._told = len(self._pending)
                raise
            self._pending.clear()
            self._told = 0

    def _send_some(self) -> bool:
        """Send what the kernel takes of what is kept; whether that is anything."""
        try:
            del self._pending[: self._handle.send(self._pending)]
        except BlockingIOError:
            return False
        self._midway = True
        return True

    def _send_to_fit(self, size: int) -> bool:
        """Send without waiting until *size* bytes more can be kept, or nothing is."""
        while self._pending and len(self._pending) + size > self._size:
            if not self._send_some():
                return False
        return True

    def _write_without_waiting(self, data: Any, whole: bool) -> int:
        """Only what was accepted is sent, so that no record of TLS holds more than that."""
        size, written = len(data), 0
        if whole:
            if not self._send_to_fit(size):
                raise would_block("write", 0)
            self._pending += data
            return size
        room = max(self._size, io.DEFAULT_BUFFER_SIZE)
        while True:
            taken = min(size - written, max(room - len(self._pending), 0))
            self._pending += data[written : written + taken]
            written += taken
            if written == size and len(self._pending) <= self._size:
                return size
            if not self._send_some():
                break
        if written < size:
            raise would_block("write", written)
        return size

    def close(self) -> None:
        """Send what is kept, and close.

        If that raises it is closed all the same, and what was kept is gone: sending is poisoned if
        a part of the message is out.
        """
        if self.closed:
            return
        try:
            if not self._writing.acquire(blocking=False):
                raise busy("writing to")
            try:
                self._send_all(b"")
            finally:
                self._writing.release()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._pending = bytearray()
        self._room = -1
        super().close()

    def __del__(self) -> None:
        """Send what can be sent without waiting; tell of what was lost, unless an error has told."""
        if self.closed:
            return
        kept, told = len(self._pending), self._told
        try:
            self._send_all(b"", timeout=0.0)
        except Exception as exc:
            if kept <= told:
                return
            text = f"unclosed {self!r}: of {kept} bytes that it kept not all could be sent: {exc}"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
        finally:
            self._let_go()


def _buffered(conn: Connection, mode: str, size: int) -> ConnectionReader:
    return ConnectionReader(conn) if mode == "rb" else ConnectionFile(conn, mode, size)


def makefile(
    conn: Connection,
    mode: str = "r",
    buffering: int | None = None,
    *,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> IO[Any]:
    """Make a file on *conn*; the parameters are those of ``socket.makefile``."""
    if mode == "rb" and buffering != 0:  # That of each answer of an HTTP client asks no more.
        return ConnectionReader(conn)  # type: ignore[return-value]
    if not set(mode) <= {"r", "w", "b"}:
        raise ValueError(f"mode must be made of 'r', 'w' and 'b', got {mode!r}")
    binary = "rwb" if {"r", "w"} <= set(mode) else "wb" if "w" in mode else "rb"
    size = io.DEFAULT_BUFFER_SIZE if buffering is None or buffering < 0 else buffering
    result: Any
    if "b" not in mode:
        if size == 0:
            raise ValueError(
                "buffering=0 goes with binary mode only (unbuffered streams must be binary), "
                f"got mode {mode!r}"
            )
        from hardsock.files.text import TextConnectionFile

        reference = io.TextIOWrapper(io.BytesIO(), encoding, errors, newline)
        result = TextConnectionFile(_buffered(conn, binary, size), mode, reference, newline)
    elif size == 0:
        result = RawConnectionFile(conn, binary)
    else:
        result = _buffered(conn, binary, size)
    return result  # type: ignore[no-any-return]
