"""The phases of a drain: what is due now, and when to look again.

0. Who waits in the kernel's queue is accepted as room comes free, until only the grace is left.
1. Connections that are idle at two looks are cancelled, and closed if that does not make their
   handlers leave. Those on which nothing has come yet have a second since they were accepted. Busy
   ones become idle, so this is looked at again and again. They were told, by the token
   ``draining``.
2. When only the grace is left, the tokens of all others are cancelled.
   Those that only linger are closed: they have been answered.
3. When a quarter of the grace is left, the connections are reset under their handlers.
4. At the end of the time, or as soon as nobody works on a connection any more, it is over.

No threads, no locks, no waiting: a driver asks, does what it is told to, and waits as long as it is
told to, or until a connection is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hardsock.serving.idle import SteadyIdle
from hardsock.serving.ledger import Ledger, Outcome, Phase, Served
from hardsock.serving.records import CutConnection, DrainReport
from hardsock.serving.turn import Turn

__all__ = ["Drain", "Limit", "seconds_to_begin"]

_LOOK = 0.02
"""Seconds between two looks for connections that have become idle; half of it at the least. A reader
that has just taken a request looks idle until it has counted it, and steps follow each other at once
while connections end."""
_NEWCOMER = 1.0
"""Seconds that a client has for its first byte. It has just connected and is about to send; closing
it is losing it, where one that has had an answer can ask again elsewhere."""
_IDLE = "the server is draining and this connection was idle"
_TIME_IS_UP = "the server is draining and the time is up"


class Limit(NamedTuple):
    """By when a drain shall be over, and how many seconds of that are the grace."""

    end: float
    grace: float


class Drain:
    """One drain, from now on."""

    def __init__(self, ledger: Ledger, now: float, limit: Limit) -> None:
        self._ledger = ledger
        self._idle = SteadyIdle(ledger)
        self._next_look = now
        self._began = now
        self._set_limit(limit)
        self._closing: list[Served] = []

    def _set_limit(self, limit: Limit) -> None:
        self.end = limit.end
        self._cut_at = limit.end - limit.grace
        self._abort_at = limit.end - limit.grace / 4

    @property
    def cut_at(self) -> float:
        """When only the grace is left: nobody else is served from then on."""
        return self._cut_at

    def tighten(self, limit: Limit) -> None:
        """Somebody else wants it to be over earlier; later is not listened to."""
        if limit.end < self.end:
            self._set_limit(limit)

    def step(self, now: float) -> Turn:
        """Say what is due."""
        close = [served for served in self._closing if not served.left]
        cancel = [(served, _IDLE) for served in self._find_idle(now)]
        self._closing = [served for served, _ in cancel]
        abort: list[Served] = []
        if now >= self._cut_at:
            cancel += [(served, _TIME_IS_UP) for served in self._find_unfinished()]
            close += self._find_answered()
        if now >= self._abort_at:
            abort = self._give_up()
        return Turn(cancel, close, abort, self._until_next(now))

    def _until_next(self, now: float) -> float | None:
        working = self._ledger.active or any(
            not s.left and s.runner is not None for s in self._ledger.cut
        )
        if not working or now >= self.end:
            return None
        if now >= self._abort_at:
            return self.end - now
        due = self._abort_at if now >= self._cut_at else self._cut_at
        return min(_LOOK, max(0.0, due - now))

    def _find_idle(self, now: float) -> list[Served]:
        if now < min(self._next_look, self._cut_at):
            return []
        self._next_look = now + _LOOK / 2
        found = list(self._idle.look(once=now >= self._cut_at))
        if now < self._cut_at:
            found = [served for served in found if seconds_to_begin(served, now) <= 0]
        for served in found:
            served.ended_by = Outcome.IDLE
        return found

    def _find_unfinished(self) -> list[Served]:
        found = [
            served
            for served in self._ledger.active
            if served.ended_by is None and served.handled is None
        ]
        for served in found:
            served.ended_by = Outcome.CANCELLED
        return found

    def _find_answered(self) -> list[Served]:
        """Those that only linger: what was sent arrives all the same, so they are not cut."""
        found = [served for served in self._ledger.active if served.handled is not None]
        for served in found:
            assert served.handled is not None
            self._ledger.settle(served, served.handled, error=served.error, ending="closed")
        return found

    def _give_up(self) -> list[Served]:
        found = list(self._ledger.active)
        for served in found:
            served.ended_by = Outcome.ABORTED
            self._ledger.settle(served, Outcome.ABORTED, ending="aborted")
        return found

    def report(
        self,
        now: float,
        *,
        reason: str | None,
        unaccepted: int | None,
        handshakes: int = 0,
        look: Callable[[object], tuple[str | None, str | None]],
    ) -> DrainReport:
        """Sum up; *look* returns the name and the stack of a runner."""
        ended = self._ledger.drained
        cut = tuple(_cut_connection(served, now, look) for served in self._ledger.cut)
        self._ledger.cut.clear()
        return DrainReport(
            reason=reason,
            completed=ended[Outcome.COMPLETED],
            told=ended[Outcome.TOLD],
            failed=ended[Outcome.FAILED],
            idle_closed=ended[Outcome.IDLE] + ended[Outcome.IDLE_TIMEOUT] + ended[Outcome.EVICTED],
            cancelled=ended[Outcome.CANCELLED],
            aborted=ended[Outcome.ABORTED],
            unaccepted=unaccepted,
            handshakes=handshakes,
            elapsed=now - self._began,
            cut=cut,
        )


def seconds_to_begin(served: Served, now: float) -> float:
    """Return how many seconds are left for its first byte; not above 0: it has had its time."""
    return served.accepted + _NEWCOMER - now if served.conn.bytes_received == 0 else 0.0


def _cut_connection(
    served: Served, now: float, look: Callable[[object], tuple[str | None, str | None]]
) -> CutConnection:
    running = served.phase is Phase.HANDLER and not served.left
    name, stack = (None, None) if served.runner is None else look(served.runner)
    return CutConnection(
        peer=served.peer,
        how="aborted" if served.ended_by is Outcome.ABORTED else "cancelled",
        phase=served.phase.value,
        age=now - served.accepted,
        bytes_received=served.conn.bytes_received,
        bytes_sent=served.conn.bytes_sent,
        running=running,
        runner=name,
        stack=stack if running else None,
    )
