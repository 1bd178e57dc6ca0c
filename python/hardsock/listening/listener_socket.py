"""A Listener as server code that was written for ``socket`` wants it."""

from __future__ import annotations

import _socket
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hardsock._errors import DeadlineExceeded

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

    from hardsock._core import Connection, Listener

__all__ = ["ListenerSocket"]


class ListenerSocket(socket.socket):
    """The listening socket that ``socketserver``, ``http.server``, waitress and cheroot expect.

    Made by ``Listener.to_socket()``, and nothing but another face of it: closing either closes
    both, and all that the listener does (its counters, its reserve for want of descriptors, TLS
    handshakes) goes on behind it. What it accepts are Connections.

    A ``socket.socket``, because some servers take nothing else, without a descriptor of its own.

    With TLS ``fileno()`` is not that of the socket, but becomes readable whenever a handshake can
    go on; ``accept()`` then returns the next connection that is secured. So a server that selects
    first should call ``setblocking(False)``: else it waits in ``accept()`` for the slowest client.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._timeout: float | None = None
        number = listener.fileno()
        if number < 0:
            raise OSError(errno.EBADF, "the listener was closed")
        super().__init__(fileno=os.dup(number))  # which asks the socket what it is
        os.close(_socket.socket.detach(self))

    @property
    def listener(self) -> Listener:
        """The Listener behind it."""
        return self._listener

    def accept(self) -> tuple[Connection, Any]:  # type: ignore[override]
        """Wait for a connection, as ``settimeout`` says: the connection, and its peer's address.

        Raises:
            BlockingIOError: After ``settimeout(0)``, when there is none.
            DeadlineExceeded: A ``TimeoutError``.
            Closed: It was closed; an ``OSError`` with EBADF.
        """
        try:
            conn = self._listener.accept(timeout=self._timeout)
        except DeadlineExceeded as exc:
            if self._timeout == 0 and exc.reason is None:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
            raise
        return conn, conn.getpeername()

    def settimeout(self, value: float | None, /) -> None:
        """Seconds that ``accept()`` waits; None: without limit; 0: not at all.

        ValueError: it is negative or no number.
        """
        if value is not None and not value >= 0:
            raise ValueError(f"timeout must be a non-negative number of seconds, got {value!r}")
        self._timeout = None if value is None else float(value)

    def gettimeout(self) -> float | None:
        """What ``settimeout`` set."""
        return self._timeout

    timeout = property(gettimeout)

    def setblocking(self, flag: bool, /) -> None:
        """True is ``settimeout(None)``, False is ``settimeout(0)``."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        """False after ``settimeout(0)``."""
        return self._timeout != 0

    def listen(self, backlog: int = 4096, /) -> None:
        """Change how many connections may wait to be accepted; it listens already."""
        with self._plain() as plain:
            plain.listen(backlog)

    def bind(self, address: Any, /) -> None:
        """Refused, as by any socket that is bound: raises OSError with EINVAL."""
        raise OSError(errno.EINVAL, f"bind to {address!r}: it listens on {self.getsockname()!r}")

    def getsockopt(self, level: int, optname: int, buflen: int = 0, /) -> Any:
        """As ``socket.getsockopt``."""
        with self._plain() as plain:
            return plain.getsockopt(level, optname, *([buflen] if buflen else []))

    def setsockopt(  # type: ignore[override]
        self, level: int, optname: int, value: int | Buffer, /
    ) -> None:
        """As ``socket.setsockopt``; connections inherit most options."""
        with self._plain() as plain:
            plain.setsockopt(level, optname, value)

    def getsockname(self) -> Any:
        """The address it listens on."""
        return self._listener.getsockname()

    def getpeername(self) -> Any:
        """As of any socket that listens: raises OSError with ENOTCONN."""
        with self._plain() as plain:
            return plain.getpeername()

    def fileno(self) -> int:
        """What to select on; -1 when closed."""
        return self._listener._wait_fileno()

    def get_inheritable(self) -> bool:
        """Whether programs that this process starts get the descriptor; False."""
        return os.get_inheritable(self._number())

    def set_inheritable(self, inheritable: bool, /) -> None:
        """See ``get_inheritable``; a program that gets it goes on listening after our close."""
        os.set_inheritable(self._number(), inheritable)

    def dup(self) -> socket.socket:  # type: ignore[override]
        """Give a plain ``socket.socket`` on the same listening socket."""
        return socket.socket(fileno=os.dup(self._number()))

    def shutdown(self, how: int, /) -> None:
        """shutdown(2): the one who accepts raises Closed."""
        with self._plain() as plain:
            plain.shutdown(how)

    def close(self) -> None:
        """Close the Listener. Idempotent."""
        self._listener.close()

    def detach(self) -> int:
        """Give the socket's descriptor to the caller, who must close it."""
        return self._listener.detach()

    def _number(self) -> int:
        number = self._listener.fileno()
        if number < 0:
            raise OSError(errno.EBADF, "the listener was closed")
        return number

    @contextmanager
    def _plain(self) -> Iterator[socket.socket]:
        """The socket itself, for a moment."""
        with socket.socket(fileno=os.dup(self._number())) as plain:
            yield plain

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<hardsock.ListenerSocket of {self._listener!r}>"
