"""Plain values that servers return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from hardsock._typing import NamedTuple

__all__ = ["CutConnection", "DelayCounts", "DrainReport", "ServerStats", "add_stats"]


class DelayCounts(NamedTuple):
    """How many delays were how long.

    Attributes:
        edges: Seconds, from 10 us to 10 s; they never change.
        counts: How many were at most as long as each edge and longer than the one before; and,
            last, how many were longer than all edges.
        seconds: All together.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    seconds: float

    @property
    def total(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def above(self, edge: float) -> int:
        """How many were longer than *edge*, which is one of ``edges``.

        Raises:
            ValueError: It is none of them.
        """
        if edge not in self.edges:
            raise ValueError(f"edge must be one of edges, got {edge!r}")
        return sum(self.counts[self.edges.index(edge) + 1 :])


class ServerStats(NamedTuple):
    """Counters of a server since it was made: ``accepted == active + handled + failed + cut``.

    Attributes:
        accepted: Connections that became the server's.
        active: Accepted and not finished: waiting for a worker, parked, in the handler, or
            lingering.
        waiting: Of these, accepted but not given to the handler yet; with ``per="message"``: whose
            message no worker has taken yet.
        parked: Of these, quiet, and without a thread: only with ``per="message"``.
        peak_active: The most that were active at a time.
        handled: The handler returned, and the connection was ended in an orderly way or by its
            peer.
        failed: The handler raised; see ``errors``.
        cut: Ended by the server: idle for too long, or idle, cancelled or aborted in a drain.
        idle_timeouts: Of these, idle for longer than ``idle_timeout``.
        evicted: Of these, closed for others who waited, when ``max_connections`` were reached: they
            had not sent a byte. Only with ``per="message"``.
        read_timeouts: Connections on which a message was not here ``read_timeout`` after its first
            byte.
        write_timeouts: Connections on which an answer was not out ``write_timeout`` after its first
            byte.
        handler_timeouts: Handlers that ran for longer than ``handler_timeout``. All three are
            counted when the connection is over, as well as in the way that it ended.
        clients_left: Clients that reset their connection, or died, before the handler had returned;
            or ended their side where the handler had called ``cancel_on_end``. Counted as their
            handlers ended.
        shed: Clients that were sent away before they were a connection of the server: the sum of
            ``shed_reasons``. Those who wait in the kernel's queue are not among them.
        shed_reasons: ``"descriptors"``: there was none left, or no memory. ``"peer connections"``,
            ``"peer network"``, ``"peer rate"``: over ``peer_limits``. ``"silent"``: the places for
            handshakes were taken, and it had said nothing. ``"slow handshake"``, ``"slow header"``:
            out of time. ``"bad header"``: behind a proxy, and no PROXY header.
        errors: Failed connections by the name of the exception's class.
        endings: How connections ended: ``"clean"``, ``"deadline"``, ``"reset"`` and ``"dead peer"``
            as in ``CloseReport``; ``"closed"``: by the handler, or by the server without waiting
            for the peer; ``"aborted"``: by the server, with a reset.
        workers: Threads that run handlers, wait for a slot, or for a connection.
        start_delay_max: Seconds from accept to the start of the handler, at most; not known with
            ``per="message"``.
        start_delay_mean: The same, on average. Both in seconds.
        full_count: Times that accepting stood still because ``max_connections`` were active.
        full_seconds: How long, all together, in seconds.
        draining: Whether a drain has begun.
        delays: With ``measure_delays=True``, else empty. ``"queue"``: how long the beginning of a
            message lay in the kernel's queue before a thread or task looked at it, by the kernel's
            own stamps (a sample, one of seven; not on unix sockets, whose kernel has none).
            ``"start"``: from accept to the start of the handler, for each connection; none with
            ``per="message"``. ``"loop"``: how late a timer of the event loop was, ten times a
            second. ``"lock"``: how long threads that came back from waiting waited for the
            interpreter's lock, for all of the interpreter since measuring began.
    """

    accepted: int
    active: int
    waiting: int
    parked: int
    peak_active: int
    handled: int
    failed: int
    cut: int
    idle_timeouts: int
    evicted: int
    read_timeouts: int
    write_timeouts: int
    handler_timeouts: int
    clients_left: int
    shed: int
    shed_reasons: Mapping[str, int]
    errors: Mapping[str, int]
    endings: Mapping[str, int]
    workers: int
    start_delay_max: float
    start_delay_mean: float
    full_count: int
    full_seconds: float
    draining: bool
    delays: Mapping[str, DelayCounts] = MappingProxyType({})


def add_stats(each: Sequence[ServerStats], *, draining: bool) -> ServerStats:
    """Return the counters of several servers together; all are 0 without any."""
    if not each:
        zeros: dict[str, Any] = dict.fromkeys(ServerStats._fields, 0)
        nothing: dict[str, Any] = {name: {} for name in _MAPPINGS}
        return ServerStats(**zeros | nothing | {"draining": draining})
    total = {name: _add([getattr(stats, name) for stats in each]) for name in ServerStats._fields}
    accepted = sum(stats.accepted for stats in each)
    total["start_delay_max"] = max(stats.start_delay_max for stats in each)
    total["start_delay_mean"] = sum(
        stats.start_delay_mean * stats.accepted / accepted for stats in each if accepted
    )
    return ServerStats(**total | {"draining": draining})


_MAPPINGS = ("shed_reasons", "errors", "endings", "delays")


def _add(values: Sequence[object]) -> Any:
    first = values[0]
    if isinstance(first, Mapping):
        maps: Any = values
        names = dict.fromkeys(name for each in maps for name in each)
        return {name: _add([each[name] for each in maps if name in each]) for name in names}
    numbers: Any = values
    if isinstance(first, DelayCounts):
        counts = tuple(map(sum, zip(*(delays.counts for delays in numbers), strict=True)))
        return DelayCounts(first.edges, counts, sum(delays.seconds for delays in numbers))
    return sum(numbers)


class CutConnection(NamedTuple):
    """A connection that did not end by itself in a drain.

    Attributes:
        peer: The client's address as text.
        how: ``"cancelled"``: its calls were ended by its token and its handler left. ``"aborted"``:
            the handler did not leave in time, so the connection was reset under it.
        phase: Where it was: ``"waiting"`` for a worker, ``"parked"``, in the ``"handler"``, or
            ``"lingering"``.
        age: Seconds since it was accepted.
        bytes_received: From the client, over the whole connection.
        bytes_sent: To the client, over the whole connection.
        running: Whether the handler still ran when the drain was over.
        runner: The name of the thread or task that ran its handler when the drain was over, if any
            did.
        stack: Where the handler was when the drain was over, if it still ran.
    """

    peer: str
    how: str
    phase: str
    age: float
    bytes_received: int
    bytes_sent: int
    running: bool
    runner: str | None
    stack: str | None

    def __str__(self) -> str:
        text = (
            f"{self.peer} {self.how} in phase {self.phase} after {self.age:.3f} s, "
            f"{self.bytes_received} bytes received, {self.bytes_sent} sent"
        )
        if self.running:
            text += f"; {self.runner} still runs its handler:\n{self.stack or '(no stack)'}"
        return text.rstrip()


class DrainReport(NamedTuple):
    """How the connections ended that were there when a drain began.

    Attributes:
        reason: Why it drained, in the words of who began it; ``None``: nothing was said.
        completed: The handler returned by itself, told by ``draining`` or not.
        told: The handler was left by the ``Cancelled`` of ``draining``, which it had waited under.
        failed: The handler raised something else.
        idle_closed: Ended by the server while nothing was asked of it.
        cancelled: Time was up, their tokens were cancelled, and their handlers left.
        aborted: The handler did not leave in time.
        unaccepted: Clients that were never a connection of the server, and were reset: for whom
            there was no room before time was up, who came after the drain had begun, or who had not
            sent a byte of their TLS handshake. None if unknown (unix sockets).
        handshakes: TLS handshakes that had begun and were cut because time was up.
        elapsed: Seconds from its beginning to the last connection's end.
        cut: The cancelled and the aborted.
    """

    reason: str | None
    completed: int
    told: int
    failed: int
    idle_closed: int
    cancelled: int
    aborted: int
    unaccepted: int | None
    handshakes: int
    elapsed: float
    cut: tuple[CutConnection, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing was cut."""
        return self.cancelled == self.aborted == self.handshakes == 0

    @property
    def running(self) -> int:
        """Handlers that would not leave, and still ran when the drain was over."""
        return sum(cut.running for cut in self.cut)

    def __str__(self) -> str:
        head = (
            f"drained in {self.elapsed:.3f} s: {self.completed} completed, {self.told} told, "
            f"{self.failed} failed, {self.idle_closed} idle closed, {self.cancelled} cancelled, "
            f"{self.aborted} aborted, {self.handshakes} handshakes cut, "
            f"{'unknown' if self.unaccepted is None else self.unaccepted} not accepted"
        )
        return "\n".join([head, *map(str, self.cut)])
