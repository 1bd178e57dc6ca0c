"""Text files on a connection.

``io.TextIOWrapper`` drops the beginning of a line, and what was written but not passed on, when the
layer below raises. Here both stay: what was decoded waits in this file for the next call, what was
not decoded yet in the decoder, and a write that fails has left nothing behind, in the encoder
neither.
"""

from __future__ import annotations

import codecs
import io
import sys
import threading
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from hardsock.files.binary import ConnectionReader, busy

_PASSED = 1e-9  # seconds: a deadline that is over, while 0 would mean to try once


def _line_end(text: str, start: int, newline: str | None) -> int:
    """Return where the line that begins at *start* ends, or -1: its end is not here."""
    if newline != "":
        mark = newline or "\n"
        at = text.find(mark, start)
        return -1 if at < 0 else at + len(mark)
    feed = text.find("\n", start)
    back = text.find("\r", start, feed if feed >= 0 else len(text))
    if back < 0:
        return -1 if feed < 0 else feed + 1
    return back + (2 if text.startswith("\r\n", back) else 1)


class TextConnectionFile(io.TextIOBase):
    """A text file; ``buffer`` is the binary one below it.

    One thread may read while another writes. A second thread in the same direction gets Busy.
    """

    def __init__(
        self, buffer: ConnectionReader, mode: str, reference: io.TextIOWrapper, newline: str | None
    ) -> None:
        """Take over what *reference*, which the standard library made, says of the parameters."""
        super().__init__()
        self._buffer = buffer
        self._mode = mode
        self._encoding = reference.encoding
        self._errors = reference.errors or "strict"
        self._newline = newline
        self._text = ""  # decoded, and from _at on not returned yet
        self._at = 0
        self._undecoded = b""  # received, and not decodable
        self._mark = None if newline == "" else newline or "\n"  # None: any line's end
        self._reading = threading.Lock()  # around these and the decoder; never waited for
        self._writing = threading.Lock()  # around the encoder
        codec = codecs.lookup(self._encoding)
        assert codec.incrementaldecoder is not None
        assert codec.incrementalencoder is not None
        self._encoder = codec.incrementalencoder(self._errors)
        self._decoder: Any = codec.incrementaldecoder(self._errors)
        if not newline:
            self._decoder = io.IncrementalNewlineDecoder(self._decoder, newline is None)

    @property
    def buffer(self) -> Any:
        """The binary file below."""
        return self._buffer

    @property
    def mode(self) -> str:
        """As it was given."""
        return self._mode

    @property
    def name(self) -> int:
        """The descriptor's number, or -1 when closed."""
        return self._buffer.name

    @property
    def encoding(self) -> str:  # type: ignore[override] # settable, says typeshed; it is not
        """The name of the encoding."""
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override] # settable, says typeshed; it is not
        """What to do about characters that cannot be encoded or decoded."""
        return self._errors

    @property
    def newlines(self) -> Any:  # type: ignore[override] # settable, says typeshed; it is not
        """The line endings seen so far, where they are translated or recognized."""
        return getattr(self._decoder, "newlines", None)

    @property
    def line_buffering(self) -> bool:
        """False: a line is sent when the file is flushed."""
        return False

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._buffer.closed

    def __repr__(self) -> str:
        return (
            f"<hardsock.TextConnectionFile name={self.name} mode={self._mode!r} "
            f"encoding={self.encoding!r}>"
        )

    def fileno(self) -> int:
        return self._buffer.fileno()

    def readable(self) -> bool:
        return self._buffer.readable()

    def writable(self) -> bool:
        return self._buffer.writable()

    def seekable(self) -> bool:
        return self._buffer.seekable()

    def flush(self) -> None:
        self._buffer.flush()

    def close(self) -> None:
        self._text, self._at = "", 0
        self._buffer.close()

    def __del__(self) -> None:
        """Leave it to the file below, which does not wait."""

    # ---- Reading

    def read(self, size: int | None = -1, /) -> str:
        """Return *size* characters, or all up to the peer's end."""
        return self._alone(self._read, -1 if size is None or size < 0 else size)

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        """Return a line with its end, or *size* characters, or what comes before the peer's end."""
        if not self._reading.acquire(blocking=False):
            raise busy("reading from")
        try:
            if self._mark is not None and size == -1:  # Mostly it is here already.
                end = self._text.find(self._mark, self._at) + len(self._mark)
                if end >= len(self._mark):
                    line = self._text[self._at : end]
                    self._at = end
                    return line
            return self._read_lines(1, sys.maxsize if size is None or size < 0 else size)
        finally:
            self._reading.release()

    def readlines(self, hint: int | None = -1, /) -> list[str]:  # type: ignore[override]
        """Return all lines up to the peer's end, or the first that exceed *hint* characters."""
        if hint is None or hint <= 0:
            text = self._alone(self._read, -1)
        else:
            text = self._alone(self._read_lines, hint + 1, sys.maxsize)
        lines, at = [], 0
        while at < len(text):
            end = _line_end(text, at, self._newline)
            lines.append(text[at : end if end >= 0 else len(text)])
            at += len(lines[-1])
        return lines

    def _alone(self, call: Callable[..., str], *args: Any) -> str:
        if not self._reading.acquire(blocking=False):
            raise busy("reading from")
        try:
            return call(*args)
        finally:
            self._reading.release()

    def _read(self, size: int) -> str:
        if size < 0:
            return self._read_all()
        until = self._deadline()
        while len(self._text) - self._at < size and self._receive(until):
            pass
        return self._take(min(self._at + size, len(self._text)))

    def _read_lines(self, least: int, limit: int) -> str:
        """Return whole lines of *least* characters or more, but never more than *limit*."""
        until = self._deadline()
        done = 0  # of what was decoded: lines that are whole, but too few
        searched = 0
        more = True
        while True:
            while 0 <= done < least:
                end = _line_end(self._text, self._at + max(done, searched), self._newline)
                if end < 0:
                    break
                done = end - self._at
            have = len(self._text) - self._at
            if done >= least or have >= limit or not more:
                return self._take(self._at + min(done if done >= least else have, limit))
            searched = max(have - 1, 0)  # A line's end may be two characters.
            more = self._receive(until)

    def _read_all(self) -> str:
        """One call below, which keeps all bytes if it fails."""
        if not self._undecoded:
            self._undecoded = self._buffer._readline(-1, sys.maxsize)
        if self._undecoded:
            self._decode()
        self._decode()
        return self._take(len(self._text))

    def _take(self, end: int) -> str:
        text = self._text[self._at : end]
        self._at = end
        if end == len(self._text):
            self._text, self._at = "", 0
        return text

    def _deadline(self) -> float | None:
        """Return when a call that begins now must end; None: its calls below know."""
        self._buffer._require("r")
        timeout = self._buffer._handle.gettimeout()
        return monotonic() + timeout if timeout else None

    def _receive(self, until: float | None) -> bool:
        """Receive and decode some bytes; whether the peer has not ended."""
        if not self._undecoded:
            # As much as there is already: a long line is copied a few times, not each time.
            size = max(io.DEFAULT_BUFFER_SIZE, len(self._text) - self._at)
            left = None if until is None else max(until - monotonic(), _PASSED)
            self._undecoded = self._buffer._handle.recv(size, timeout=left)
        return self._decode()

    def _decode(self) -> bool:
        more = bool(self._undecoded)
        # What is not in its encoding stays, and is told to each later call: nothing is skipped.
        text = self._decoder.decode(self._undecoded, not more)
        self._undecoded = b""
        self._text = self._text[self._at :] + text
        self._at = 0
        return more

    # ---- Writing

    def write(self, text: str, /) -> int:
        """Write *text*; if it raises, nothing of it was taken, or sending is poisoned."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        ended = text.replace("\n", self._newline) if self._newline else text
        if not self._writing.acquire(blocking=False):
            raise busy("writing to")
        try:
            before = self._encoder.getstate()
            try:
                self._buffer.write_whole(self._encoder.encode(ended))
            except BaseException:
                self._encoder.setstate(before)
                raise
        finally:
            self._writing.release()
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:  # type: ignore[override]
        """Write all *lines* as one."""
        self.write("".join(lines))
