"""The account of a server's connections: what is active, and how all others ended.

Each connection is admitted once and settled once, no matter who is first. No locks, no threads: a driver
whose calls may overlap guards every call.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from enum import Enum

from hardsock import _core
from hardsock._core import CancelToken, Connection
from hardsock._errors import HardsockError
from hardsock.serving.records import DelayCounts, ServerStats

__all__ = ["LEFT", "Ledger", "Outcome", "Phase", "Served", "served", "tell_given_up"]

logger = logging.getLogger("hardsock.serve")

READ_LATE, WRITE_LATE, LEFT, IDLE_FOR_LONG, NO_MORE = 1, 2, 4, 8, 16
"""Bits of ``Connection._marks``."""


class Phase(Enum):
    """Where a connection is. In the order that the core has, as ``Connection._set_phase``."""

    WAITING = "waiting"
    PARKED = "parked"
    HANDLER = "handler"
    LINGERING = "lingering"

    number: int

    def __init__(self, _name: str) -> None:
        self.number = len(type(self).__members__)


class Outcome(Enum):
    """How a connection ended."""

    COMPLETED = "completed"
    TOLD = "told"
    FAILED = "failed"
    IDLE_TIMEOUT = "idle timeout"
    EVICTED = "evicted"
    IDLE = "idle"
    CANCELLED = "cancelled"
    ABORTED = "aborted"


_HANDLED = (Outcome.COMPLETED, Outcome.TOLD)
_CUT = (
    Outcome.IDLE_TIMEOUT,
    Outcome.EVICTED,
    Outcome.IDLE,
    Outcome.CANCELLED,
    Outcome.ABORTED,
)


_COUNTED = {
    **dict.fromkeys(_HANDLED, 1),
    Outcome.FAILED: 2,
    **dict.fromkeys(_CUT, 3),
}
"""As ``Service.count`` has it."""


class Served:
    """One accepted connection."""

    __slots__ = ("_phase", "_service", "conn", "ended_by", "error", "handled", "left", "outcome", "overran", "peer", "runner", "token")  # fmt: skip

    def __init__(self, conn: Connection, peer: str, token: CancelToken | None) -> None:
        self.conn = conn
        self.peer = peer
        self.token = token
        """All its calls end with it. A driver may have one only while a handler runs."""
        self._phase = Phase.WAITING
        self._service = 0
        self.runner: object = None
        """Whatever the driver needs to find the one that runs the handler."""
        self.ended_by: Outcome | None = None
        """Why the server cancelled its token, if it did."""
        self.handled: Outcome | None = None
        """How its handler ended, while it lingers: its answer is out, so nothing of it is cut."""
        self.error: str | None = None
        """The same: the class of the exception that its handler failed with, if it did."""
        self.outcome: Outcome | None = None
        self.overran = False
        """Its handler ran for longer than ``handler_timeout``."""
        self.left = False
        """Nobody works on it any more."""

    @property
    def phase(self) -> Phase:
        """Where it is; reports, which need no interpreter, know it from the connection."""
        return self._phase

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._phase = phase
        self.conn._set_phase(self._service + phase.number)

    def belongs(self, service: int) -> None:
        """Whose it is: the number of its server's ``Service``, times 8."""
        self._service = service
        self.conn._set_phase(service + self._phase.number)

    @property
    def accepted(self) -> float:
        """When, as ``time.monotonic()`` has it."""
        return self.conn.created

    @property
    def over(self) -> Outcome | None:
        """How the server has ended it, or the connection itself since nothing came; or None."""
        if self.ended_by is None and (marks := self.conn._marks & (IDLE_FOR_LONG | NO_MORE)):
            return Outcome.IDLE if marks & NO_MORE else Outcome.IDLE_TIMEOUT
        return self.ended_by


def served(conn: Connection, server: CancelToken | None) -> Served:
    """Take a connection on: its token is *server*'s child, and bears the peer's name."""
    peer = _peer_name(conn)
    return Served(conn, peer, None if server is None else server.child(name=peer))


def tell_given_up() -> None:
    """Log that an accepted connection was aborted for want of memory, if there is some for that."""
    try:
        logger.error("no memory for a connection that was accepted: it was aborted")
    except MemoryError:
        pass


def _peer_name(conn: Connection) -> str:
    """The peer as ``HardsockError.peer`` names it."""
    try:
        peer = conn.getpeername()
    except HardsockError:
        return "unknown"
    if isinstance(peer, tuple):
        return _core.parse_address(peer)
    if isinstance(peer, bytes):
        return "unix:@" + peer[1:].decode(errors="backslashreplace")
    return f"unix:{peer}"


def _counts(delays: _core.Delays) -> dict[str, DelayCounts]:
    return {
        name: DelayCounts(tuple(edge / 1e9 for edge in edges), counts, total / 1e9)
        for name, (edges, counts, total) in delays.read().items()
    }


class Ledger:
    """All connections of one server.

    Args:
        limit: How many may be active.
        draining: The token that is cancelled when the server begins to drain.
        delays: Where delays are counted, if they are.
        service: Where reports find the state of the server; ``None``: they do not.
    """

    def __init__(
        self,
        limit: int,
        draining: CancelToken,
        delays: _core.Delays | None = None,
        service: _core.Service | None = None,
    ) -> None:
        self._service = service
        self._service_number = 0 if service is None else service.id << 3
        self._limit = limit
        self._delays = delays
        self._draining = draining
        self.active: dict[Served, None] = {}
        """In the order of arrival."""
        self._lingering: dict[Served, None] = {}
        """Of these, those that only linger, the oldest first."""
        self._outcomes: Counter[Outcome] = Counter()
        self.drained: Counter[Outcome] = Counter()
        """Those of connections that ended since the drain began."""
        self.cut: list[Served] = []
        """The cancelled and the aborted, for the drain's report; empty until the drain begins, so
        that nothing is kept of a connection that has ended before."""
        self._accepted = self._peak = 0
        self.refused = 0
        """How many were reset as a guard wanted it, and never admitted."""
        self._errors: Counter[str] = Counter()
        self._endings: Counter[str] = Counter()
        self._departed = self._read_timeouts = self._write_timeouts = self._overran = 0
        self._started = 0
        self._delay_sum = self._delay_max = 0.0
        self._full_count = 0
        self._full_seconds = 0.0
        self._full_since: float | None = None

    @property
    def accepted(self) -> int:
        """How many were admitted so far."""
        return self._accepted

    @property
    def room(self) -> int:
        """How many more may be accepted; those that only linger make room."""
        return self._limit - len(self.active) + len(self._lingering)

    def refuse(self) -> None:
        """One was reset as a guard wanted it."""
        self.refused += 1
        if self._service is not None:
            self._service.count(4)

    def admit(self, served: Served) -> Served | None:
        """A connection was accepted. Returns one that lingered and had to make room: to be closed.

        It was answered, and the kernel goes on delivering.
        """
        self.active[served] = None
        self._accepted += 1
        if self._service is not None:
            served.belongs(self._service_number)
            self._service.count(0)
        oldest = None
        if len(self.active) > self._limit and self._lingering:
            oldest = next(iter(self._lingering))
            assert oldest.handled is not None
            self.settle(oldest, oldest.handled, error=oldest.error, ending="closed")
        self._peak = max(self._peak, len(self.active))
        return oldest

    def start(self, served: Served, runner: object, now: float) -> bool:
        """Its handler is about to run; whether it may."""
        if served.outcome is not None:
            return False
        served.runner = runner
        if served.ended_by is not None:
            return False
        served.phase = Phase.HANDLER
        delay = max(0.0, now - served.accepted)
        self._started += 1
        self._delay_sum += delay
        self._delay_max = max(self._delay_max, delay)
        if self._delays is not None:
            self._delays.started(delay)
        return True

    def linger(self, served: Served, outcome: Outcome, error: str | None = None) -> None:
        """Its handler has ended, and its peer's end is waited for."""
        served.phase = Phase.LINGERING
        served.error = error
        if served.outcome is None:
            served.handled = outcome
            self._lingering[served] = None

    def settle(
        self, served: Served, outcome: Outcome, *, error: str | None = None, ending: str
    ) -> bool:
        """It is over; False if that was known already."""
        if served.outcome is not None:
            return False
        served.outcome = outcome
        del self.active[served]
        self._lingering.pop(served, None)
        self._outcomes[outcome] += 1
        if self._service is not None:
            self._service.count(_COUNTED[outcome])
        if self._draining.cancelled:
            self.drained[outcome] += 1
        self._endings[ending] += 1
        marks = served.conn._marks
        self._read_timeouts += marks & READ_LATE
        self._write_timeouts += (marks & WRITE_LATE) >> 1
        if served.phase is not Phase.PARKED:  # Else there was no handler to be left.
            self._departed += (marks & LEFT) >> 2
        self._overran += served.overran
        if outcome is Outcome.FAILED:
            self._errors[error or "unknown"] += 1
        elif self._draining.cancelled and outcome in (Outcome.CANCELLED, Outcome.ABORTED):
            self.cut.append(served)
        return True

    def give_up(self, served: Served | None) -> None:
        """There is no memory for it; it is aborted, and fails if it was admitted."""
        if served is not None and served in self.active:
            self.settle(served, Outcome.FAILED, error="MemoryError", ending="aborted")

    def full(self, now: float) -> None:
        """Accepting stands still for want of room."""
        if self._full_since is None:
            self._full_since = now
            self._full_count += 1

    def not_full(self, now: float) -> None:
        """Accepting goes on."""
        if self._full_since is not None:
            self._full_seconds += now - self._full_since
            self._full_since = None

    def stats(self, now: float, *, workers: int, shed: Mapping[str, int]) -> ServerStats:
        """Return the counters as they are now."""
        full = 0.0 if self._full_since is None else now - self._full_since
        return ServerStats(
            accepted=self._accepted,
            active=len(self.active),
            waiting=sum(served.phase is Phase.WAITING for served in self.active),
            parked=sum(served.phase is Phase.PARKED for served in self.active),
            peak_active=self._peak,
            handled=sum(self._outcomes[outcome] for outcome in _HANDLED),
            failed=self._outcomes[Outcome.FAILED],
            cut=sum(self._outcomes[outcome] for outcome in _CUT),
            idle_timeouts=self._outcomes[Outcome.IDLE_TIMEOUT],
            evicted=self._outcomes[Outcome.EVICTED],
            read_timeouts=self._read_timeouts,
            write_timeouts=self._write_timeouts,
            handler_timeouts=self._overran,
            clients_left=self._departed,
            shed=sum(shed.values()),
            shed_reasons=dict(shed),
            errors=dict(self._errors),
            endings=dict(self._endings),
            workers=workers,
            start_delay_max=self._delay_max,
            start_delay_mean=self._delay_sum / self._started if self._started else 0.0,
            full_count=self._full_count,
            full_seconds=self._full_seconds + full,
            draining=self._draining.cancelled,
            delays={} if self._delays is None else _counts(self._delays),
        )
