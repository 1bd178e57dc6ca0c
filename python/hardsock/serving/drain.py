"""The phases of a drain: what is due now, and when to look again.

0. Who waits in the kernel's queue is accepted as room comes free, until only the grace is left.
1. Connections that are quiet stay for ``drain_idle`` seconds: a request may be on its way. Then all
   are told to wait for no further message; those on which nothing has come yet have a second since
   they were accepted for a first one. Each decides by itself, when it would wait, and
   asks the kernel last: what has arrived is answered. Handlers heard of it by the token ``draining``.
   One that ignores the end of its call has its connection closed.
2. When only the grace is left, the tokens of all others are cancelled.
   Those that only linger are closed: they have been answered.
3. When a quarter of the grace is left, the connections are reset under their handlers.
4. At the end of the time, or as soon as nobody works on a connection any more, it is over.

No threads, no locks, no waiting: a driver asks, does what it is told to, and waits as long as it is
told to, or until a connection is over.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from hardsock.serving.actions import Actions
from hardsock.serving.ledger import Ledger, Outcome, Phase, Served
from hardsock.serving.records import CutConnection, DrainReport

__all__ = ["NO_MEMORY_PAUSE", "Drain", "Limit", "seconds_to_begin"]

_LOOK = 0.02
"""Seconds between two looks for handlers that ignore that their calls were ended."""
NO_MEMORY_PAUSE = 0.02
"""Seconds until a driver tries again that had no memory for a step; a plain sleep needs none."""
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

    def __init__(self, ledger: Ledger, now: float, limit: Limit, idle: float = 0.0) -> None:
        self._ledger = ledger
        self._told = 0  # how many of those admitted
        self._next_look = now
        self._began = now
        self._idle = idle
        self._set_limit(limit)
        self._closing: list[Served] = []
        self._aborting: list[Served] = []
        self._failed = False

    def _set_limit(self, limit: Limit) -> None:
        self.end = limit.end
        self._cut_at = limit.end - limit.grace
        self._abort_at = limit.end - limit.grace / 4

    @property
    def quiet_at(self) -> float:
        """When those that are quiet end: nobody waits for another message from then on.

        In the first half of the time that is not the grace, so that the last answers have theirs.
        """
        return min(self._began + self._idle, (self._began + self._cut_at) / 2)

    def make_room(self) -> None:
        """Somebody waits in the kernel's queue, and those that are quiet have the places."""
        self._idle = 0.0

    @property
    def cut_at(self) -> float:
        """When only the grace is left: nobody else is served from then on."""
        return self._cut_at

    def tighten(self, limit: Limit) -> None:
        """Somebody else wants it to be over earlier; later is not listened to."""
        if limit.end < self.end:
            self._set_limit(limit)
            self._next_look = min(self._next_look, self._cut_at)

    def step(self, now: float) -> Actions:
        """Say what is due."""
        # What was aborted in the last step is gone, unless that step failed.
        if self._aborting and not self._failed:
            self._aborting = []
        self._failed = False
        # 1. After a while who is new hears that there will be no further message; a first one has
        # its time.
        last = self._find_new() if now >= self.quiet_at else []
        close: list[Served] = []
        cancel: list[tuple[Served, str]] = []
        if now >= self._next_look:
            self._set_next_look(now)
            # 2. Quiet ones end; who ignores that, and was told in the last look, is closed.
            close = [served for served in self._closing if not served.left]
            self._closing = self._find_ended()
            cancel = [(served, _IDLE) for served in self._closing]
            # 3. Only the grace is left: the others' tokens too, and those that only linger close.
            if now >= self._cut_at:
                quiet, others = self._find_unfinished()
                last += [(served, 0.0) for served in quiet]
                cancel += [(served, _TIME_IS_UP) for served in others]
                close += self._find_answered()
        # 4. Most of the grace is over: the connections are reset under their handlers.
        if now >= self._abort_at:
            self._give_up()
        return Actions(last, cancel, close, self._aborting, self._until_next(now))

    def forget_what_was_said(self) -> None:
        """A step, or doing what it said, failed for want of memory: the next says it again.

        Tokens that were to be cancelled may stay as they are; such connections are aborted later.
        """
        self._failed = True
        self._told = 0
        self._next_look = 0.0

    def _set_next_look(self, now: float) -> None:
        """Steps follow each other at once while connections end, looks do not."""
        self._next_look = now + _LOOK / 2
        if now < self._cut_at:
            self._next_look = min(self._next_look, self._cut_at)

    def _until_next(self, now: float) -> float | None:
        working = self._ledger.active or any(
            not s.left and s.runner is not None for s in self._ledger.cut
        )
        if not working or now >= self.end:
            return None
        if now >= self._abort_at:
            return self.end - now
        due = self._abort_at if now >= self._cut_at else self._cut_at
        if now < self.quiet_at:
            due = self.quiet_at
        return min(_LOOK, max(0.0, due - now))

    def _find_new(self) -> list[tuple[Served, float]]:
        """Those that nobody told yet: the latest."""
        count = self._ledger.accepted - self._told
        self._told += count
        return [(served, _NEWCOMER) for served in islice(reversed(self._ledger.active), count)]

    def _find_ended(self) -> list[Served]:
        """Those whose calls have ended, and whose handlers are still there."""
        found = []
        for served in self._ledger.active:
            if served.ended_by is None and served.handled is None and served.over is not None:
                served.ended_by = served.over
                found.append(served)
        return found

    def _find_unfinished(self) -> tuple[list[Served], list[Served]]:
        """Those that are quiet, as far as can be seen, and may end by that; and all others."""
        quiet, others = [], []
        for served in self._ledger.active:
            if served.ended_by is None and served.handled is None:
                if served.phase is Phase.HANDLER and served.conn.idle:
                    quiet.append(served)
                else:
                    served.ended_by = Outcome.CANCELLED
                    others.append(served)
        return quiet, others

    def _find_answered(self) -> list[Served]:
        """Those that only linger: what was sent arrives all the same, so they are not cut."""
        found = [served for served in self._ledger.active if served.handled is not None]
        for served in found:
            assert served.handled is not None
            self._ledger.settle(served, served.handled, error=served.error, ending="closed")
        return found

    def _give_up(self) -> None:
        for served in list(self._ledger.active):
            self._aborting.append(served)  # First: settled ones are not found again.
            served.ended_by = Outcome.ABORTED
            self._ledger.settle(served, Outcome.ABORTED, ending="aborted")

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
    name, stack = look(served.runner) if running and served.runner is not None else (None, None)
    return CutConnection(
        peer=served.peer,
        how="aborted" if served.ended_by is Outcome.ABORTED else "cancelled",
        phase=served.phase.value,
        age=now - served.accepted,
        bytes_received=served.conn.bytes_received,
        bytes_sent=served.conn.bytes_sent,
        running=running,
        runner=name,
        stack=stack,
    )
