"""One deadline for a whole exchange, up to the last byte of a body that is read later.

A `Total` is made when a request is sent. Whatever is done for the request runs in its scope: the
queue, lookup, connect, TLS, headers, and each piece of the body, also when that is read outside of
the block in which the request was sent, in another task or in another thread.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar

from hardsock._core import CancelToken, Scope
from hardsock._core import scope as _ambient
from hardsock._errors import Cancelled, DeadlineExceeded
from hardsock._fork_locks import renew_in_child
from hardsock._scope import current

__all__ = ["Queue", "QueueTimeout", "Total", "scope_has_ended"]


def _has_ended(token: CancelToken | None) -> bool:
    if token is None:
        return False
    try:
        token.check()
    except (DeadlineExceeded, Cancelled):
        return True
    return False


_callers: ContextVar[CancelToken | None] = ContextVar("hardsock caller's token", default=None)
_inside: ContextVar[Total | None] = ContextVar("hardsock total", default=None)


def scope_has_ended() -> bool:
    """Whether the caller's own scope is over, as against a time limit of the library.

    What the caller's scope ends is not an outage: it must not be retried, nor look like one.
    """
    total = _inside.get()
    if total is None:
        return _has_ended(current())
    return _has_ended(total.callers) or _has_ended(total.reading)


class Total:
    """The scope of one exchange.

    Attributes:
        callers: The scope in which the request was sent, which goes on bounding the body.
        token: Its own token, below that one.
    """

    def __init__(self, seconds: float | None) -> None:
        outer = _inside.get()
        self.callers = _ambient.get()
        self.reading: CancelToken | None = None
        if outer is not None:  # A client that uses another one, for authentication say.
            self.callers = outer.callers
        self.token = (
            CancelToken(seconds, name="total")
            if self.callers is None
            else self.callers.child(seconds, name="total")
        )

    def is_entered(self) -> bool:
        """Whether its scope is the ambient one already: `enter` would do nothing."""
        return _ambient.get() is self.token

    def enter(self) -> AbstractContextManager[object]:
        """A context manager, to be entered at once: the scope around some part of the exchange."""
        here = _ambient.get()
        if here is self.token:
            return _NOTHING
        self.reading = here
        return Scope(self.token, beside=(_inside, self))


_NOTHING = nullcontext()


class QueueTimeout(Exception):
    """A place in a queue was waited for as long as the library was told to."""


class Queue:
    """At most *size* at a time, in the order of arrival; a wait ends with its scope, too.

    For threads. A library's own queue of connections waits on what no token can reach.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._lock = threading.Lock()  # Guards all fields; nothing waits under it.
        renew_in_child(self)
        self._waiting: deque[CancelToken] = deque()

    def take(self, timeout: float | None) -> None:
        """Wait for a place.

        Raises:
            QueueTimeout: After *timeout* seconds.
            DeadlineExceeded, Cancelled: The scope has ended.
        """
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return
            turn = CancelToken(name="turn")
            self._waiting.append(turn)
        try:  # From here on its turn may come.
            ambient = current()
            either = turn if ambient is None else CancelToken.linked((turn, ambient))
            either.wait(timeout)
        except BaseException:
            self._leave(turn)
            raise
        if self._leave(turn, keep=True):
            return
        if ambient is not None:
            ambient.check()
        raise QueueTimeout

    def _leave(self, turn: CancelToken, *, keep: bool = False) -> bool:
        """Whether its turn had come; without *keep* the place goes to the next one."""
        with self._lock:
            if not turn.cancelled:
                self._waiting.remove(turn)
                return False
        if not keep:
            self.give()
        return True

    def give(self) -> None:
        """Give a place back."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().cancel()
            else:
                self._free += 1
