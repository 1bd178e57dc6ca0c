"""Messages between a parent and its children, over a socket pair, without ever waiting unasked.

A process may be stopped or killed in the middle of a message. So what has arrived is kept until the
rest comes, what does not go out is kept until there is room, and nobody is held up by the other.
A message is a tuple that was pickled, behind its length. Both ends run the same program and trust
each other.
"""

from __future__ import annotations

import pickle
import select
import socket
import struct
import time
from typing import Any

__all__ = ["Channel", "Message"]

Message = tuple[Any, ...]

_LENGTH = struct.Struct("!I")
_LONGEST = 1 << 28
"""More is no message: a report names what was cut, with its stack, a few KB each."""
_PIECE = 1 << 16
_PIECES = 64
"""Read at one time: one who never stops talking is not all that there is."""


class Channel:
    """One end of it. For one thread at a time.

    Args:
        sock: Its own from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._in = bytearray()
        self._out = bytearray()

    def fileno(self) -> int:
        """For waiting: readable when there may be something to receive."""
        return self._sock.fileno()

    @property
    def unsent(self) -> bool:
        """Whether something has still to go out, for which ``flush`` has to be called again."""
        return bool(self._out)

    def send(self, *message: object) -> None:
        """Send as much as goes out now.

        Raises:
            OSError: The other end is gone, or this one was closed.
        """
        data = pickle.dumps(message)
        self._out += _LENGTH.pack(len(data)) + data
        self.flush()

    def flush(self, timeout: float = 0.0) -> bool:
        """Send what has not gone out: True; False if some has not within *timeout* seconds.

        Raises:
            OSError: As for ``send``.
        """
        end = time.monotonic() + timeout
        while self._out:
            try:
                del self._out[: self._sock.send(self._out)]
            except BlockingIOError:
                if not self._wait(select.POLLOUT, end - time.monotonic()):
                    return False
        return True

    def receive(self) -> list[Message]:
        """Return the messages that are here as a whole, perhaps none.

        Raises:
            EOFError: The other end is gone, and there are no more.
            OSError: So it is, or what came is no message.
        """
        try:
            for _ in range(_PIECES):
                if not (piece := self._sock.recv(_PIECE)):
                    raise EOFError("the other end was closed")
                self._in += piece
        except BlockingIOError:
            pass
        except (EOFError, OSError):
            if messages := self._whole():
                return messages
            raise
        return self._whole()

    def _whole(self) -> list[Message]:
        found: list[Message] = []
        while len(self._in) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._in)
            if length > _LONGEST:
                raise OSError(f"a message of {length} bytes, which is none of ours")
            end = _LENGTH.size + length
            if len(self._in) < end:
                break
            try:
                found.append(pickle.loads(bytes(self._in[_LENGTH.size : end])))
            except Exception as exc:
                raise OSError(f"what came is no message of ours: {exc}") from exc
            del self._in[:end]
        return found

    def wait(self, timeout: float) -> bool:
        """Wait until there may be something to receive: True; False after *timeout* seconds."""
        return self._wait(select.POLLIN, timeout)

    def _wait(self, events: int, timeout: float) -> bool:
        if timeout <= 0:
            return False
        poll = select.poll()
        poll.register(self._sock, events)
        return bool(poll.poll(timeout * 1000))

    def close(self) -> None:
        """Close it; what has not gone out is lost."""
        self._sock.close()
