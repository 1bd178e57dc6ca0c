"""Connections of which nobody works on one now: parked in C, with their idle timeouts. What servers
do with the news of them, whatever drives them.

Nothing here waits. The one who was given a connection owns it until it parks it, and needs no lock.
"""

from __future__ import annotations

import time

from hardsock._errors import HardsockError
from hardsock.serving.disposition import Disposition, End, quiet_end
from hardsock.serving.drain import Drain, seconds_to_begin
from hardsock.serving.ledger import Outcome, Phase, Served
from hardsock.serving.lingering import LingeringConnections
from hardsock.serving.options import MAX_BATCH
from hardsock.serving.records import ServerStats

__all__ = ["MESSAGE", "NEWCOMER", "PARKED", "QuietConnections"]

# As enum hs_parked_news and enum hs_parking_answer have them.
MESSAGE, _ENDED, _EXPIRED, _QUIET, _FINISHED = range(5)
PARKED, _NOTHING_CAME, _CLOSED, _ENDING, _UNFIT, _UNREAD = range(6)

NEWCOMER = 0.25
"""Seconds that a client has to say something when the server drains, or is full and others wait:
its first message comes right behind the end of TCP's handshake."""


class QuietConnections(LingeringConnections):
    """The part of a server per message that parks its connections."""

    _drains = False

    def stats(self) -> ServerStats:
        """Return its counters."""
        counted = super().stats()
        due = min(self._parking.counts()[1], counted.parked)
        return counted._replace(waiting=due, parked=counted.parked - due)

    # ---- beginnings

    def _begin(self, served: Served) -> None:
        served.phase = Phase.PARKED
        seconds = self._options.idle_timeout
        if self._drains:
            seconds = NEWCOMER if seconds is None else min(seconds, NEWCOMER)
        try:
            answer = self._parking.park(served.conn, served, seconds, self._drains)
        except (HardsockError, MemoryError) as exc:
            self._finish(served, self._judge(served, exc))
            return
        if answer == _NOTHING_CAME:  # The drain has begun.
            self._drop(served, Outcome.IDLE)
        elif answer != PARKED:
            self._finish(served, self._refused(served, answer))

    # ---- now and then

    def _look_for_room(self) -> None:
        with self._lock:
            full = self._ledger.room == 0
        if full and not self._drains:
            self._make_room()

    def _make_room(self) -> None:
        """The one who says nothing keeps a place only while nobody else wants it."""
        try:
            waiting = self._listener.stats().queue_length or 0
        except HardsockError:
            return  # It was closed, which the next accept tells.
        for _ in range(min(waiting, MAX_BATCH)):
            if (served := self._parking.evict(NEWCOMER)) is None:
                return
            self._drop(served, Outcome.EVICTED)

    # ---- draining

    def _look_in_drain(self, drain: Drain) -> None:
        if not self._drains and time.monotonic() >= drain.quiet_at:
            self._end_waits()
        self._look_for_ends()
        if time.monotonic() >= drain.cut_at or self._token.cancelled:
            self._cut_parked()

    def _end_waits(self) -> None:
        self._drains = True
        self._parking.drain()

    def _look_for_ends(self) -> None:
        """Take the news that are no messages, which those who take messages may not come to."""
        while ended := self._parking.tend():
            for served, news, ending, _ in ended:
                self._hear(served, news, ending)

    def _cut_parked(self) -> None:
        """Time is up: of some nothing has come, others have asked for what nobody began."""
        while (found := self._parking.take()) is not None:
            served, quiet = found[:2]
            if served.handled is not None or served.outcome is not None:
                self._drop(served, served.handled or served.outcome or Outcome.COMPLETED)
            elif quiet:
                self._drop(served, Outcome.IDLE)
            else:
                served.conn.abort()
                served.ended_by = served.ended_by or Outcome.CANCELLED
                self._settle(served, served.ended_by, "aborted")

    # ---- news, and what parking said

    def _refused(self, served: Served, answer: int) -> Disposition:
        """Why one is not parked again, or for the first time."""
        if answer == _UNREAD:
            error = RuntimeError(
                "the handler returned without reading a byte of the message that it was called for"
            )
            return self._judge(served, error)
        end = {_CLOSED: End.CLOSE, _UNFIT: End.ABORT}.get(answer, End.FINISH)
        if answer == _NOTHING_CAME:
            end = quiet_end(served)
        disposition = Disposition(Outcome.COMPLETED, end)
        self._lingers_by(served, disposition)
        return disposition

    def _over(self, served: Served, news: int, ending: str | None) -> None:
        if news == _FINISHED:
            super()._over(served, news, ending)
        elif news == _ENDED and ending == "truncated":
            served.error = "Truncated"
            self._drop(served, Outcome.FAILED, ending)
        elif news == _ENDED:
            self._drop(served, served.ended_by or Outcome.COMPLETED, ending or "closed")
        elif news == _QUIET and self._is_awaited(served):
            pass
        elif news == _QUIET or self._drains:
            self._end_quiet(served, Outcome.IDLE)
        else:
            self._end_quiet(served, Outcome.IDLE_TIMEOUT)

    def _is_awaited(self, served: Served) -> bool:
        """Whether the drain waits for its first message: it has just connected, and may be lost."""
        left = seconds_to_begin(served, time.monotonic())
        if left <= 0:
            return False
        try:
            answer = self._parking.park(served.conn, served, left, True)
        except (HardsockError, MemoryError):
            return False
        if answer not in (PARKED, _NOTHING_CAME):
            self._finish(served, self._refused(served, answer))
        return answer != _NOTHING_CAME

    def _end_quiet(self, served: Served, outcome: Outcome) -> None:
        disposition = Disposition(outcome, quiet_end(served))
        self._lingers_by(served, disposition)
        self._finish(served, disposition)

    def _settle(
        self, served: Served, outcome: Outcome, ending: str, *, error: str | None = None
    ) -> None:
        super()._settle(served, outcome, ending, error=error)
        served.conn.state = None  # Freed with the connection, no matter who still has that.
