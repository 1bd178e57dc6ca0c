"""What every server does with its connections, whatever drives it: all that waits for nothing.

One lock guards the ledger. It is never held over a call of a handler, a wait, or anything that runs
code of users. It is reentrant, so that a signal handler may ask for statistics or for a drain. An
event loop's server has it so that any thread may ask for its statistics.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable

from hardsock._core import CancelToken, Connection, Delays, Service
from hardsock._errors import HardsockError
from hardsock.serving.base import ServerBase
from hardsock.serving.closing import LeftOutside
from hardsock.serving.departing import watch_departure
from hardsock.serving.disposition import Disposition, End, judge
from hardsock.serving.drain import Drain, Limit
from hardsock.serving.ledger import Ledger, Outcome, Phase, Served, served, tell_given_up
from hardsock.serving.options import ServeOptions, check_drain
from hardsock.serving.overdue import bound_turns, unbound_turns
from hardsock.serving.records import DrainReport, ServerStats
from hardsock.serving.shedding import count_shed

__all__ = ["FAILED_ACCEPT_PAUSE", "ServerCore"]

logger = logging.getLogger("hardsock.serve")

FAILED_ACCEPT_PAUSE = 1.0


class ServerCore(ServerBase):
    """The part of a server that accounts for its connections and ends them.

    A driver says by ``_begin`` how one is served, and by ``_refuse_to_wait`` who may not wait.
    """

    _kind = "threads"
    """What drives it, as ``Service`` has it."""

    def __init__(self, options: ServeOptions, token: CancelToken | None) -> None:
        super().__init__(options, token)
        self._lock = threading.RLock()
        self._delays = Delays() if options.measure_delays else None
        self._service = Service(self._kind, options.name, options.limit)
        self._ledger = Ledger(  # guarded by lock
            options.limit, self._draining, self._delays, self._service
        )
        self._wakeup: CancelToken | None = None  # guarded by lock; wakes the one that accepts
        self._limit: Limit | None = None  # guarded by lock
        self._refusing = 0  # guarded by lock; how many rules of guards want it
        self._shorter: list[dict[str, float]] = []  # guarded by lock; what rules of guards want
        self._usual: dict[str, float | None] = {}  # guarded by lock; what is shorter meanwhile

    # ---- for drivers -------------------------------------------------------------------------

    def _begin(self, served: Served) -> None:
        """Have it served; from where connections are accepted."""
        raise NotImplementedError

    def _refuse_to_wait(self, what: str) -> None:
        """Raise RuntimeError if it would wait for its caller."""
        raise NotImplementedError

    def _count_workers(self) -> int:
        raise NotImplementedError

    # ---- asking, and being told --------------------------------------------------------------

    def stats(self) -> ServerStats:
        """Return its counters."""
        with self._lock:
            return self._ledger.stats(
                time.monotonic(),
                workers=self._count_workers(),
                shed=count_shed(self._listener, self._ledger.refused),
            )

    def _ask_to_drain(self, timeout: float | None, grace: float | None) -> None:
        seconds, grace = check_drain(
            self._options.drain_timeout if timeout is None else timeout, grace
        )
        self._refuse_to_wait("drain()")
        with self._lock:
            limit = Limit(time.monotonic() + seconds, grace)
            if self._limit is None or limit.end < self._limit.end:
                self._limit = limit
        self._draining.cancel("the server is draining")
        self._ring()

    def _ring(self) -> None:
        """There is room, or the drain may go on."""
        with self._lock:
            wakeup, self._wakeup = self._wakeup, None
        if wakeup is not None:
            wakeup.cancel()

    # ---- for guards ---------------------------------------------------------------------------

    def _refuse_new(self, on: bool) -> None:
        """Reset who is accepted from now on, or serve them again once no rule wants it any more."""
        with self._lock:
            self._refusing += 1 if on else -1

    def _where(self, runner: object) -> tuple[str | None, str | None]:
        """The name and the stack of a runner."""
        raise NotImplementedError

    def _in_handlers(self, most: int) -> list[tuple[Served, str | None, str | None]]:
        """Those that a handler has, the longest first, with its runner's name and stack."""
        with self._lock:
            # Its runner is let go of in another thread: it is asked for once.
            found = [(one, one.runner) for one in self._ledger.active if one.phase is Phase.HANDLER]
        running = [(one, runner) for one, runner in found if runner is not None]
        return [(one, *self._where(runner)) for one, runner in running[:most]]

    def _shorten(self, seconds: dict[str, float]) -> dict[str, float | None]:
        """Let options be so many seconds at most until ``_lengthen``; returns what has changed."""
        with self._lock:
            self._shorter.append(seconds)
            return self._settle_times_locked()

    def _lengthen(self, seconds: dict[str, float]) -> dict[str, float | None]:
        """Take ``_shorten`` back; what another rule wants goes on. Returns what has changed."""
        with self._lock:
            self._shorter.remove(seconds)
            return self._settle_times_locked()

    def _settle_times_locked(self) -> dict[str, float | None]:
        changes: dict[str, float | None] = {}
        for name in ("linger", "idle_timeout"):
            now = getattr(self._options, name)
            usual = self._usual.get(name, now)
            wanted = [one[name] for one in self._shorter if name in one]
            seconds = min([*wanted, *([] if usual is None else [usual])], default=None)
            self._usual[name] = usual
            if not wanted:
                del self._usual[name]
            if seconds != now:
                changes[name] = seconds
        if changes:
            options = copy.copy(self._options)
            for name, value in changes.items():
                object.__setattr__(options, name, value)
            self._options = options
        return changes

    # ---- beginnings and ends -----------------------------------------------------------------

    def _take(self, conns: list[Connection]) -> None:
        """Without memory for one of them the others are served all the same."""
        while conns:
            if self._refusing:
                with self._lock:  # Before its client can see it.
                    self._ledger.refuse()
                conns.pop(0).abort()
                continue
            try:
                self._take_one(conns.pop(0))
            except MemoryError:
                tell_given_up()

    def _take_one(self, conn: Connection) -> None:
        each = None
        try:
            each = self._served(conn)
            with self._lock:
                lingering = self._ledger.admit(each)
            if lingering is not None:
                lingering.conn.close()
            bound_turns(each, self._options)
            if self._delays is not None:
                self._delays.measure(conn)
            self._begin(each)
        except MemoryError:
            conn.abort()
            with self._lock:
                self._ledger.give_up(each)
            raise

    def _tell_failed_accept(self, exc: Exception) -> None:
        self._seldom.log(
            "accept", logging.ERROR, "accepting failed, trying again in a second: %s", exc
        )

    def _served(self, conn: Connection) -> Served:
        conn._set_served(self._options.drain_idle > 0)
        return served(conn, self._token)

    def _watch(self, served: Served) -> None:
        """Have its token cancelled when its client leaves."""
        watch_departure(self._departures, served, self._seldom)

    def _leave(self, served: Served) -> None:
        """Its handler is over: what is left has other bounds, and nobody to be told."""
        served.conn._leave_departures()
        unbound_turns(served, self._options)

    def _judge(self, served: Served, exc: BaseException | None) -> Disposition:
        disposition = judge(
            served, exc, server=self._token, draining=self._draining, seldom=self._seldom
        )
        self._lingers_by(served, disposition)
        return disposition

    def _lingers_by(self, served: Served, disposition: Disposition) -> None:
        """Say so at once if its end is waited for: it makes room."""
        if disposition.end is End.FINISH:
            with self._lock:
                self._ledger.linger(served, disposition.outcome, disposition.error)
            self._ring()

    def _end_now(self, served: Served, disposition: Disposition, ending: str = "closed") -> None:
        """Close it; *ending* tells how, if it has ended."""
        if disposition.end is End.ABORT:
            served.conn.abort()
            ending = "aborted"
        served.conn.close()
        self._settle(served, disposition.outcome, ending, error=disposition.error)

    def _settle(
        self, served: Served, outcome: Outcome, ending: str, *, error: str | None = None
    ) -> None:
        """It is closed, and nobody works on it."""
        with self._lock:
            self._ledger.settle(served, outcome, error=error, ending=ending)
            served.left = True
        self._ring()

    # ---- draining ----------------------------------------------------------------------------

    def _begin_drain(self) -> Drain:
        seconds, grace = check_drain(self._options.drain_timeout, None)
        self._service.drains()
        with self._lock:
            now = time.monotonic()
            self._ledger.not_full(now)
            if self._token.cancelled:  # Everything is cancelled: only the grace is left.
                seconds = grace
            limit = self._limit or Limit(now + seconds, grace)
            return Drain(self._ledger, now, limit, self._options.drain_idle)

    def _make_room_in_drain(self, drain: Drain) -> None:
        """Who has asked and is not accepted yet goes before who may ask."""
        with self._lock:
            full = self._ledger.room == 0
        if not full or self._outside is not None or time.monotonic() >= drain.quiet_at:
            return
        try:
            if self._listener.stats().queue_length != 0:  # None: unknown, on a unix socket.
                drain.make_room()
        except HardsockError:
            pass  # It was closed.

    def _sum_up(
        self,
        drain: Drain,
        outside: LeftOutside,
        look: Callable[[object], tuple[str | None, str | None]],
    ) -> DrainReport:
        with self._lock:
            report = drain.report(
                time.monotonic(),
                reason=self._draining.reason,
                unaccepted=outside.unaccepted,
                handshakes=outside.handshakes,
                look=look,
            )
        self._seldom.flush()
        logger.log(logging.INFO if report.clean else logging.WARNING, "%s", report)
        return report
