"""The threaded server whose handler is called per message: quiet connections cost no thread.

They are parked in C, with their idle timeouts; so are those that only linger. Workers wait there
for the next message, whosever it is, and park what they were given again: one call from end to end,
in which nothing of Python runs. The thread that accepts looks at what has ended meanwhile only when
no worker may be free to: now and then, when it is full, and when it drains.

What is done with news that are no messages is in ``hardsock.serving.quiet``.
"""

from __future__ import annotations

import os
import threading

from hardsock._errors import HardsockError
from hardsock.serving.disposition import Disposition, End
from hardsock.serving.drain import Drain
from hardsock.serving.ledger import Outcome, Phase, Served
from hardsock.serving.lingering import News
from hardsock.serving.overdue import look_interval
from hardsock.serving.quiet import MESSAGE, NEWCOMER, PARKED, QuietConnections
from hardsock.serving.server import Server
from hardsock.serving.workers import Crew

__all__ = ["MessageServer"]


class MessageServer(QuietConnections, Server):
    """A running server; ``hardsock.serve(per="message")`` makes it."""

    def _begin_workers(self) -> None:
        options = self._options
        self._crew = self._workers = Crew(options.workers, options.name, self._seldom, self._work)

    def _end_workers(self, until: float) -> None:
        self._end_news()
        self._crew.join(until)

    # ---- in the thread that accepts ----------------------------------------------------------

    def _begin(self, served: Served) -> None:
        self._watch(served)
        super()._begin(served)

    def _look(self) -> None:
        self._look_for_ends()
        self._look_for_room()

    def _look_for_ends(self) -> None:
        if not self._crew.count:  # The last one had no memory to go on.
            self._crew.grow()
        super()._look_for_ends()

    def _look_again(self, *, full: bool = False) -> float | None:
        # How late an idle timeout may be noticed: the times themselves are the parking's.
        seconds = look_interval(self._options.idle_timeout)
        if not full:
            return seconds
        return NEWCOMER if seconds is None else min(NEWCOMER, seconds)

    def _look_in_drain(self, drain: Drain) -> None:
        super()._look_in_drain(drain)
        if self._parking.counts()[1]:  # What has arrived is not to wait for who is slow.
            self._crew.grow()

    # ---- in the workers ----------------------------------------------------------------------

    def _turn(
        self, me: threading.Thread, served: Served, news: int, ending: str | None, alone: bool
    ) -> News | None:
        """Do what there is to do, and wait for the next."""
        if alone:
            self._crew.grow()
        if news != MESSAGE:
            self._over(served, news, ending)
        elif (disposition := self._message(me, served)) is None:
            served.phase = Phase.PARKED
            try:
                answer = self._parking.turn(served.conn, served, self._options.idle_timeout)
            except (HardsockError, MemoryError) as exc:
                self._finish(served, self._judge(served, exc))
            else:
                if not isinstance(answer, int):
                    return answer
                if answer != PARKED:  # Else it is somebody else's, and next() says what failed.
                    self._finish(served, self._refused(served, answer))
        elif os.getpid() != self._pid:
            return None
        else:
            self._finish(served, disposition)
        del served  # Nothing is kept alive while the thread waits.
        return self._parking.next()

    def _message(self, me: threading.Thread, served: Served) -> Disposition | None:
        """Run the handler once; None: it is to be parked again."""
        served.runner = me
        served.phase = Phase.HANDLER
        if served.outcome is not None or served.ended_by is not None:
            return Disposition(served.ended_by or Outcome.CANCELLED, End.ABORT)
        failed = self._call(served)
        if os.getpid() != self._pid:
            return Disposition(Outcome.CANCELLED, End.CLOSE)  # The child's thread ends with this.
        if failed is None and served.over is not None:
            return self._judge(served, None)
        return failed
