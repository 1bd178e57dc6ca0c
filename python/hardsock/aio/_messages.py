"""The awaited server whose handler is called per message: quiet connections have no task.

They are parked in C, as those of the threaded one (``hardsock.serving.quiet``). One task waits for
news of all of them, and starts one for each message that has begun.
"""

from __future__ import annotations

import logging
import time

from hardsock import _core
from hardsock._errors import Closed, HardsockError
from hardsock._scope import current
from hardsock.aio._connection import Connection
from hardsock.aio._server import Background, Server
from hardsock.aio._wait import pause
from hardsock.serving.disposition import Disposition, End
from hardsock.serving.ledger import Outcome, Phase, Served, served, tell_given_up
from hardsock.serving.lingering import News
from hardsock.serving.overdue import note_overrun
from hardsock.serving.quiet import MESSAGE, NEWCOMER, PARKED, QuietConnections

__all__ = ["MessageServer"]

_FAILED_WAIT_PAUSE = 0.1
_BATCH = 16  # of Parking.poll


class MessageServer(QuietConnections, Server):
    """A server in an event loop; ``hardsock.aio.serve(per="message")`` makes it."""

    def _begin_tending(self) -> Background:
        self._begin_parking()
        self._handlers = 0
        return {**super()._begin_tending(), "news": self._tend_parked}

    def _count_workers(self) -> int:
        return self._handlers

    # ---- accepting

    def _served(self, conn: _core.Connection) -> Served:
        conn._set_served(self._options.drain_idle > 0)
        return served(conn, None)  # Each message has a token of its own.

    def _look(self) -> None:
        super()._look()
        self._look_for_room()

    def _look_again(self, *, full: bool = False) -> float | None:
        seconds = super()._look_again()  # Of the quiet, news come by themselves.
        if not full:
            return seconds
        return NEWCOMER if seconds is None else min(NEWCOMER, seconds)

    # ---- news

    async def _tend_parked(self) -> None:
        while True:
            try:
                news = await self._parking._op_poll(self._hub)
            except Closed:
                return
            except (HardsockError, MemoryError) as exc:
                self._seldom.log("news", logging.ERROR, "waiting for messages failed: %s", exc)
                await pause(self._ended, _FAILED_WAIT_PAUSE)
                continue
            whole = len(news) == _BATCH
            while news:  # None of them is kept alive while this waits.
                self._hear_one(news.pop(0))
            if whole:  # There may be no end of them: let those run that were started.
                await self._tasks.breathe()

    def _hear_one(self, news: News) -> None:
        served, what, ending, _ = news
        if what != MESSAGE:
            self._hear(served, what, ending)
            return
        try:
            self._start(served)
        except MemoryError:
            served.conn.abort()
            with self._lock:
                self._ledger.give_up(served)
                served.left = True
            tell_given_up()

    def _start(self, served: Served) -> None:
        if served.outcome is not None or served.ended_by is not None:
            self._finish(served, Disposition(served.ended_by or Outcome.CANCELLED, End.ABORT))
            return
        # One for each message: a quiet connection would keep half a KiB for it.
        seconds = self._options.handler_timeout
        served.token = scope = self._token.child(seconds, name=served.peer)
        served.phase = Phase.HANDLER
        self._watch(served)
        self._start_task(served, self._message, scope)
        self._handlers += 1
        self._overdue.begin(served, time.monotonic())

    def _end_not_begun(self, served: Served) -> None:
        self._handlers -= 1
        super()._end_not_begun(served)

    # ---- serving, in the tasks

    async def _message(self, served: Served) -> None:
        """Run the handler once."""
        self._not_begun.discard(served)
        scope, over = current(), False
        try:
            failure: BaseException | None = None
            try:
                await self._handler(Connection(served.conn))
            except BaseException as exc:
                if self._is_for_the_task(exc):
                    raise
                failure = exc
            over = True
        finally:
            self._handlers -= 1
            self._overdue.end(served)
            if not over:  # The event loop, or somebody's cancel(), ended this task.
                self._leave(served)
                self._end_now(served, self._judge_cancelled(served))
                self._left(served)
        note_overrun(served, scope, self._options)
        if failure is None and served.over is None:
            self._park(served)
        else:
            self._finish(served, self._judge(served, failure))
        del failure  # Its traceback leads back to this frame.

    def _park(self, served: Served) -> None:
        served.conn._leave_departures()
        served.phase = Phase.PARKED
        served.runner = served.token = None
        try:
            answer = self._parking.park(served.conn, served, self._options.idle_timeout)
        except (HardsockError, MemoryError) as exc:
            self._finish(served, self._judge(served, exc))
            return
        if answer != PARKED:
            self._finish(served, self._refused(served, answer))

    # ---- the end

    def _abandon(self) -> None:
        self._cut_parked()

    def _end_tending(self) -> None:
        self._parking.close()
