"""Times that are not idle: of one message, one answer, one handler.

The first two are deadlines of the connection, the third is one of the handler's token: each ends the
call that waits beyond it. A handler that waits for something else does not see its token; a driver
that can end it all the same asks `Overdue`.
"""

from __future__ import annotations

from hardsock._core import CancelToken
from hardsock.serving.ledger import Phase, Served
from hardsock.serving.options import ServeOptions

__all__ = [
    "Overdue",
    "bound_handler",
    "bound_turns",
    "look_interval",
    "note_overrun",
    "unbound_turns",
]

_SHORTEST_LOOK = 0.01
_LONGEST_LOOK = 5.0


def bound_turns(served: Served, options: ServeOptions) -> None:
    """Bound what its handler will receive and send, and how long it waits for a message."""
    if options.idle_timeout is not None:
        served.conn._set_idle_timeout(options.idle_timeout)
    if options.read_timeout is not None or options.write_timeout is not None:
        served.conn._set_turns(options.read_timeout, options.write_timeout)


def unbound_turns(served: Served, options: ServeOptions) -> None:
    """Its handler is over: what is left has other bounds."""
    if options.read_timeout is not None or options.write_timeout is not None:
        served.conn._set_turns(None, None)


def bound_handler(served: Served, options: ServeOptions) -> CancelToken:
    """Return the token that is the handler's scope."""
    assert served.token is not None
    if options.handler_timeout is None:
        return served.token
    return served.token.child(options.handler_timeout, name=served.peer)


def note_overrun(served: Served, scope: CancelToken | None, options: ServeOptions) -> None:
    """Its handler has left."""
    if options.handler_timeout is not None and scope is not None and scope.remaining == 0.0:
        served.overran = True


def look_interval(seconds: float | None) -> float | None:
    """How often to look for what is over after so many seconds: it is at most that late."""
    return None if seconds is None else min(max(seconds / 4, _SHORTEST_LOOK), _LONGEST_LOOK)


class Overdue:
    """Looks for handlers that are there though their time is over; at most an interval late."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self.interval = look_interval(seconds)
        self._next = 0.0
        self._begun: dict[Served, float] = {}  # in that order; not those that were found

    def begin(self, served: Served, now: float) -> None:
        """A call of its handler begins."""
        if self._seconds is not None:
            self._begun[served] = now

    def end(self, served: Served) -> None:
        """It is over."""
        self._begun.pop(served, None)

    def step(self, now: float) -> list[Served]:
        """Return, once each, those that had an interval to leave by themselves, and did not."""
        if self._seconds is None or self.interval is None or now < self._next:
            return []
        self._next = now + self.interval
        due = []
        for served, begun in self._begun.items():
            if now - begun < self._seconds + self.interval:
                break
            due.append(served)
        for served in due:
            del self._begun[served]
        found = [s for s in due if s.phase is Phase.HANDLER and s.ended_by is None]
        for served in found:
            served.overran = True
        return found
