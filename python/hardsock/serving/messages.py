"""The threaded server whose handler is called per message: quiet connections cost no thread.

They are parked in C, with their idle timeouts; so are those that only linger. Workers wait there
for the next message, whosever it is, and park what they were given again: one call from end to end,
in which nothing of Python runs. The thread that accepts looks at what has ended meanwhile only when
no worker may be free to: now and then, when it is full, and when it drains.

Whoever was given a connection owns it until it parks it: nothing here needs the lock for that.
"""

from __future__ import annotations

import logging
import os
import threading
import time

from hardsock._core import Parking
from hardsock._errors import HardsockError
from hardsock.serving.drain import Drain, seconds_to_begin
from hardsock.serving.ledger import Outcome, Phase, Served, tell_given_up
from hardsock.serving.options import MAX_BATCH
from hardsock.serving.overdue import look_interval
from hardsock.serving.records import ServerStats
from hardsock.serving.server import Server
from hardsock.serving.verdict import End, Verdict, judge_lingering, quiet_end
from hardsock.serving.workers import Crew

__all__ = ["MessageServer"]

_News = tuple[Served, int, str | None, bool]

# As enum hs_parked_news and enum hs_parking_answer have them.
_MESSAGE, _ENDED, _EXPIRED, _QUIET, _FINISHED = range(5)
_PARKED, _NOTHING_CAME, _CLOSED, _ENDING, _UNFIT, _UNREAD = range(6)

_NEWCOMER = 0.25
"""Seconds that a client has to say something when the server drains, or is full and others wait:
its first message comes right behind the end of TCP's handshake."""

_FAILED_WAIT_PAUSE = 0.1


class MessageServer(Server):
    """A running server; ``hardsock.serve(per="message")`` makes it."""

    def _begin_workers(self) -> None:
        options = self._options
        self._parking = Parking()
        self._drains = False
        self._look_at = look_interval(options.idle_timeout)  # The times are the parking's.
        self._crew = self._workers = Crew(options.workers, options.name, self._seldom, self._work)

    def _end_workers(self, until: float) -> None:
        self._parking.close()
        self._crew.join(until)

    def stats(self) -> ServerStats:
        """Return its counters."""
        counted = super().stats()
        due = min(self._parking.counts()[1], counted.parked)
        return counted._replace(waiting=due, parked=counted.parked - due)

    # ---- in the thread that accepts ----------------------------------------------------------

    def _begin(self, served: Served) -> None:
        served.phase = Phase.PARKED
        seconds = self._options.idle_timeout
        if self._drains:
            seconds = _NEWCOMER if seconds is None else min(seconds, _NEWCOMER)
        try:
            answer = self._parking.park(served.conn, served, seconds, self._drains)
        except (HardsockError, MemoryError) as exc:
            self._finish(served, self._judge(served, exc))
            return
        if answer == _NOTHING_CAME:  # The drain has begun.
            self._drop(served, Outcome.IDLE)
        elif answer != _PARKED:
            self._finish(served, self._refused(served, answer))

    def _look(self) -> None:
        if not self._crew.count:  # The last one had no memory to go on.
            self._crew.grow()
        while ended := self._parking.tend():
            for served, news, ending, _ in ended:
                try:
                    self._over(served, news, ending)
                except MemoryError:  # The drain reports it; the others have their news, too.
                    tell_given_up()
        with self._lock:
            full = self._ledger.room == 0
        if full and not self._drains:
            self._make_room()

    def _make_room(self) -> None:
        """Whoever says nothing keeps a place only while nobody else wants it."""
        try:
            waiting = self._listener.stats().queue_length or 0
        except HardsockError:
            return  # It was closed, which the next accept tells.
        for _ in range(min(waiting, MAX_BATCH)):
            if (served := self._parking.evict(_NEWCOMER)) is None:
                return
            self._drop(served, Outcome.EVICTED)

    def _look_again(self, *, full: bool = False) -> float | None:
        if not full:
            return self._look_at
        return _NEWCOMER if self._look_at is None else min(_NEWCOMER, self._look_at)

    def _look_in_drain(self, drain: Drain) -> None:
        if not self._drains:
            self._drains = True
            self._parking.drain()
        self._look()
        if self._parking.counts()[1]:  # What has arrived is not to wait for who is slow.
            self._crew.grow()
        if time.monotonic() >= drain.cut_at or self._token.cancelled:
            self._cut_parked()

    def _cut_parked(self) -> None:
        """Time is up: of some nothing has come, others have asked for what nobody began."""
        silent, _ = self._parking.counts()
        while (served := self._parking.take()) is not None:
            if served.handled is not None or served.outcome is not None:
                self._drop(served, served.handled or served.outcome or Outcome.COMPLETED)
            elif silent > 0 and not served.conn.buffered:
                self._drop(served, Outcome.IDLE)
            else:
                served.conn.abort()
                served.ended_by = served.ended_by or Outcome.CANCELLED
                self._settle(served, served.ended_by, "aborted")
            silent -= 1

    # ---- in the workers ----------------------------------------------------------------------

    def _work(self) -> None:
        me = threading.current_thread()
        news: _News | None = None
        while True:
            waits = news is None
            try:
                news = self._parking.next() if news is None else self._turn(me, *news)
                if news is None:
                    return
            except BaseException as exc:  # Ours, or no memory: handlers' are judged.
                news = None
                self._go_on(exc)
                if waits:  # It may fail again at once.
                    time.sleep(_FAILED_WAIT_PAUSE)

    def _go_on(self, exc: BaseException) -> None:
        """Tell of it, if there is memory for that; in a forked child it is raised."""
        try:
            if os.getpid() == self._pid:
                self._seldom.log(
                    "worker", logging.CRITICAL, "a worker failed, and goes on", exc_info=exc
                )
                return
        except MemoryError:
            return
        raise exc

    def _turn(
        self, me: threading.Thread, served: Served, news: int, ending: str | None, alone: bool
    ) -> _News | None:
        """Do what there is to do, and wait for the next."""
        if alone:
            self._crew.grow()
        if news != _MESSAGE:
            self._over(served, news, ending)
        elif (verdict := self._message(me, served)) is None:
            served.phase = Phase.PARKED
            try:
                answer = self._parking.turn(served.conn, served, self._options.idle_timeout)
            except (HardsockError, MemoryError) as exc:
                self._finish(served, self._judge(served, exc))
            else:
                if not isinstance(answer, int):
                    return answer
                if answer != _PARKED:  # Else it is somebody else's, and next() says what failed.
                    self._finish(served, self._refused(served, answer))
        elif os.getpid() != self._pid:
            return None
        else:
            self._finish(served, verdict)
        del served  # Nothing is kept alive while the thread waits.
        return self._parking.next()

    def _message(self, me: threading.Thread, served: Served) -> Verdict | None:
        """Run the handler once; None: it is to be parked again."""
        served.runner = me
        served.phase = Phase.HANDLER
        if served.outcome is not None or served.ended_by is not None:
            return Verdict(served.ended_by or Outcome.CANCELLED, End.ABORT)
        exc = self._call(served)
        if os.getpid() != self._pid:
            if exc is not None:
                raise exc
            return Verdict(Outcome.CANCELLED, End.CLOSE)  # The child's thread ends with this.
        if exc is None and served.over is None:
            return None
        return self._judge(served, exc)

    def _refused(self, served: Served, answer: int) -> Verdict:
        """Why one is not parked again, or for the first time."""
        if answer == _UNREAD:
            error = RuntimeError(
                "the handler returned without reading a byte of the message that it was called for"
            )
            return self._judge(served, error)
        end = {_CLOSED: End.CLOSE, _UNFIT: End.ABORT}.get(answer, End.FINISH)
        if answer == _NOTHING_CAME:
            end = quiet_end(served)
        verdict = Verdict(Outcome.COMPLETED, end)
        self._lingers_by(served, verdict)
        return verdict

    def _over(self, served: Served, news: int, ending: str | None) -> None:
        if news == _FINISHED:
            # None: a drain settled it while its handler returned.
            outcome = served.handled or served.outcome or Outcome.COMPLETED
            self._drop(served, outcome, ending or "closed")
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
        if answer not in (_PARKED, _NOTHING_CAME):
            self._finish(served, self._refused(served, answer))
        return answer != _NOTHING_CAME

    def _end_quiet(self, served: Served, outcome: Outcome) -> None:
        verdict = Verdict(outcome, quiet_end(served))
        self._lingers_by(served, verdict)
        self._finish(served, verdict)

    def _drop(self, served: Served, outcome: Outcome, ending: str = "closed") -> None:
        served.conn.close()
        self._settle(served, outcome, ending, error=served.error)

    def _finish(self, served: Served, verdict: Verdict) -> None:
        """End it by the verdict; lingering is parked, too."""
        self._leave(served)
        if verdict.end is not End.FINISH:
            self._end(served, verdict)
            return
        try:
            ending = self._parking.linger(served.conn, served, self._options.linger)
        except (HardsockError, MemoryError) as exc:
            if isinstance(exc, HardsockError):
                verdict, _ = judge_lingering(served, verdict, exc)
            self._end(served, verdict._replace(end=End.ABORT))
            return
        if ending is not None:
            self._drop(served, verdict.outcome, ending)

    def _settle(
        self, served: Served, outcome: Outcome, ending: str, *, error: str | None = None
    ) -> None:
        super()._settle(served, outcome, ending, error=error)
        served.conn.state = None  # Freed with the connection, whoever still has that.
