"""What pools tell, as plain values."""

from __future__ import annotations

import sys
import threading
import traceback
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

__all__ = [
    "Histogram",
    "Lent",
    "PoolAudit",
    "PoolCloseReport",
    "PoolStats",
    "Site",
]


def _line(code: CodeType, offset: int) -> int:
    """The line of an offset in bytecode, which may fall between two entries of the table."""
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= offset < end and number is not None:
            return number
        if start <= offset and number is not None:
            line = number
    return line


@dataclass(frozen=True)
class Site:
    """A place in the program that borrows, and what came of it.

    Attributes:
        file: The file's name, or ``"?"`` when the place is not known.
        line: Its number in the file; 0 when the place is not known.
        function: The function's name.
        lent: Connections that it holds now.
        acquired: Connections that it has borrowed in all.
        lost: Thrown away instead of returned.
        overdue: Held for longer than ``leak_after``.
        dirty: Closed at their return because bytes went after the last ``mark_clean()``.
        held_max: The longest that it kept one that it has returned, in seconds.
        held_sum: The same of all, together, in seconds.
    """

    file: str
    line: int
    function: str
    lent: int = 0
    acquired: int = 0
    lost: int = 0
    overdue: int = 0
    dirty: int = 0
    held_max: float = 0.0
    held_sum: float = 0.0

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


def site_at(code: CodeType | None, offset: int, **numbers: Any) -> Site:
    """The place of a code object and an offset in it."""
    if code is None:
        return Site("?", 0, "?", **numbers)
    return Site(code.co_filename, _line(code, offset), code.co_name, **numbers)


@dataclass(frozen=True)
class Lent:
    """A connection that is lent, and who holds it.

    Attributes:
        id: The number of the lease; never used again.
        site: Where it was borrowed: the innermost frame outside of hardsock.
        age: Seconds since then, those in which the machine was suspended included.
        thread: The borrower's thread.
        task: The borrower's task, in an event loop; ``None``: a thread borrowed it.
        reused: Whether it had been lent before.
        bytes_sent: Since it was lent.
        bytes_received: Since it was lent.
        endpoint: Which of the pool's it leads to.
        fd: -1: closed already.
        overdue: Whether it has been lent for longer than ``leak_after``.
        stack: Where the borrower came from, innermost first, as far as ``trace_frames`` reaches.
    """

    id: int
    site: Site
    age: float
    thread: str
    task: str | None
    reused: bool
    bytes_sent: int
    bytes_received: int
    endpoint: str
    fd: int
    overdue: bool
    stack: tuple[Site, ...] = ()
    _thread_id: int = field(default=0, repr=False)
    _task: Any = field(default=None, repr=False, compare=False)

    def current_stack(self) -> list[str]:
        """What the holder is doing at this moment, as ``traceback`` formats it; may be empty."""
        task = None if self._task is None else self._task()
        if task is not None and hasattr(task, "get_stack"):
            frames = task.get_stack()
            return [line for frame in frames for line in traceback.format_stack(frame, limit=1)]
        if self.task is not None:
            return []
        frame = sys._current_frames().get(self._thread_id)
        return [] if frame is None else traceback.format_stack(frame)

    def __str__(self) -> str:
        who = self.thread if self.task is None else f"{self.task} in {self.thread}"
        return f"{self.site} by {who}, {self.age:.3f} s ago"


def thread_name(ident: int) -> str:
    """The name of a thread that Python knows, or its number."""
    for thread in threading.enumerate():
        if thread.ident == ident:
            return thread.name
    return f"thread {ident}"


@dataclass(frozen=True)
class Histogram:
    """Durations in seconds: log-linear buckets, each at most a quarter wide.

    Attributes:
        count: How many durations.
        total: Their sum, in seconds.
        maximum: The longest, in seconds.
        buckets: ``(upper bound in seconds, how many)`` for the buckets that hold any, in order.
    """

    count: int
    total: float
    maximum: float
    buckets: tuple[tuple[float, int], ...]

    def quantile(self, q: float) -> float:
        """The upper bound of the bucket in which the *q*-quantile is; 0.0 when there is none.

        ValueError: *q* is not between 0 and 1.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q must be in 0..1, got {q!r}")
        seen = 0
        for bound, count in self.buckets:
            seen += count
            if seen >= q * self.count:
                return min(bound, self.maximum)
        return 0.0


@dataclass(frozen=True)
class PoolStats:
    """What a pool is doing and has done. ``opened == idle + lent + dialing + closing + closed``.

    Attributes:
        max_size: Connections that there may be now.
        idle: Connections that may be lent.
        lent: Connections that are lent.
        dialing: Connections in the making.
        handshaking: Of ``dialing``: connected, and in the TLS handshake.
        handshaking_for: Seconds that the longest of these takes already.
        closing: Connections that are being closed.
        waiting: Callers in the queue.
        opened: Dials begun.
        connected: Dials that succeeded.
        closed: Connections and dials that have ended.
        closed_by_reason: The same, by why.
        acquired: Calls that got a connection.
        acquired_waited: Of these: not at once.
        handed_over: Of these: right from the hands of another, or of a dial.
        timeouts: Calls that got none by their deadline.
        cancelled: Calls that were cancelled.
        refused: Calls that were refused by a limit.
        failed: Calls that got a dial's error, or that the closing of the pool ended.
        expired_skipped: Times that a caller out of time was passed over.
        returned: Leases that have ended; of connections handed back untouched none is counted.
        probes: Times that the kernel was asked before lending.
        overdue: Leases that were reported for lasting longer than ``leak_after``.
        returned_late: Of these, those returned after all.
        dial_failures: In a row, of the endpoint that has most of them.
        last_dial_error: What the last dial that failed said; ``None``: none has.
        wait: How long calls waited: all of them, those that got nothing included.
        dial: How long dials took, failed ones included.
        usage: How long leases lasted that have ended.
    """

    max_size: int
    idle: int
    lent: int
    dialing: int
    handshaking: int
    handshaking_for: float
    closing: int
    waiting: int
    opened: int
    connected: int
    closed: int
    closed_by_reason: dict[str, int]
    acquired: int
    acquired_waited: int
    handed_over: int
    timeouts: int
    cancelled: int
    refused: int
    failed: int
    expired_skipped: int
    returned: int
    probes: int
    overdue: int
    returned_late: int
    dial_failures: int
    last_dial_error: str | None
    wait: Histogram
    dial: Histogram
    usage: Histogram


def histogram_of(raw: tuple[int, int, int, list[tuple[int, int]]]) -> Histogram:
    """From the core's nanoseconds."""
    count, total, maximum, buckets = raw
    return Histogram(
        count,
        total / 1e9,
        maximum / 1e9,
        tuple((bound / 1e9, number) for bound, number in buckets),
    )


@dataclass(frozen=True)
class PoolCloseReport:
    """How a pool ended, as ``Pool.close()`` tells it.

    Attributes:
        clean: Nothing was lent any more.
        lent: Who still holds what; it is closed when it is returned.
    """

    clean: bool
    lent: tuple[Lent, ...]


@dataclass(frozen=True)
class PoolAudit:
    """The pool's books compared with the process and the kernel.

    Attributes:
        stats: The books, as ``Pool.stats()`` has them.
        descriptors: Of idle and lent connections; each is an open socket of this process.
        missing: Descriptors that are in the books, but are no open sockets.
        stale: Idle connections whose peer has left, which the pool worker has not seen to yet.
        kernel: By peer: the kernel's count of TCP sockets towards it by state, of all processes.
    """

    stats: PoolStats
    descriptors: tuple[int, ...]
    missing: tuple[int, ...]
    stale: tuple[int, ...]
    kernel: dict[str, dict[str, int]]

    @property
    def ok(self) -> bool:
        """Nothing is missing, and the kernel knows of every connection."""
        return not self.missing
