"""What this process has open: by kind, by the line that made it, and how near the limit is."""

from __future__ import annotations

import math
import os
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hardsock import _core
from hardsock._errors import DescriptorWarning
from hardsock.leaks.foreign import ForeignSocket, describe
from hardsock.leaks.notes import Note, note_of
from hardsock.leaks.tracer import installed, trace_sockets
from hardsock.pool.pool import living_pools
from hardsock.pool.records import Site, site_at, thread_name

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "Descriptor",
    "FdAlarm",
    "FdGrowth",
    "FdSnapshot",
    "FdWatch",
    "OpenConnection",
    "fd_snapshot",
    "fd_watch",
    "open_connections",
]

_LISTED = 5  # sites in a message
_NEVER_REACHED = 2**31 - 2
_MAX_OPENINGS = 64  # from one count to the next
_FEW = 64  # descriptors, whose growth is nothing to speak of


@dataclass(frozen=True)
class OpenConnection:
    """A connection or a listener of hardsock that is open.

    Attributes:
        how: ``"connect"``, ``"accept"``, ``"adopt"``, ``"listen"``; ``"lent"`` or ``"idle"``: a
            pool's.
        fd: Its descriptor.
        local: This end as text; ``None`` when it is not known, as of what pools have.
        peer: The other end as text; ``None`` of a listener, or when it is not known.
        age: Seconds since it was made, or lent; of an idle one: since its pool was made.
        site: The innermost frame outside of hardsock that made or borrowed it; of an idle one, that
            made the pool; of what a ``Server`` accepted, that made the listener.
        thread: The thread in which that was.
    """

    how: str
    fd: int
    local: str | None
    peer: str | None
    age: float
    site: Site
    thread: str

    def __str__(self) -> str:
        ends = " -> ".join(end for end in (self.local, self.peer) if end is not None)
        return f"{self.how} {ends} at {self.site}, {self.age:.3f} s ago"


def open_connections() -> list[OpenConnection]:
    """All connections and listeners of hardsock that are open, the oldest first.

    With where each was made: noted at that moment for about a tenth of a microsecond, and put into
    words only here. What pools lend and hold idle is included.
    """
    return sorted(_open_ones().values(), key=lambda one: -one.age)


def _open_ones() -> dict[int, OpenConnection]:
    """By descriptor."""
    found: dict[int, OpenConnection] = {}
    now = time.monotonic()
    for pool in living_pools():
        if pool.closed and not pool._stats()["lent"]:
            continue
        made = pool._made
        for idle in pool._sockets():
            if idle.fd >= 0 and not idle.lent:
                by = thread_name(made.thread)
                age = now - made.at
                found[idle.fd] = OpenConnection(
                    "idle", idle.fd, None, idle.peer, age, made.site, by
                )
        for lease in pool.lent():
            if lease.fd >= 0:
                found[lease.fd] = OpenConnection(
                    "lent", lease.fd, None, lease.endpoint, lease.age, lease.site, lease.thread
                )
    # Ten thousand of these are made in one go: each line and each thread is named once, and the
    # attributes are set past the frozen class, which would do it one by one.
    sites: dict[tuple[Any, int], Site] = {}
    threads = {thread.ident: thread.name for thread in threading.enumerate()}
    new, put = object.__new__, object.__setattr__
    for raw in _core._opened():
        if raw.how == "lent":
            continue
        call_site = (raw.code, raw.offset)
        if (site := sites.get(call_site)) is None:
            site = sites[call_site] = site_at(*call_site)
        one = new(OpenConnection)
        put(
            one,
            "__dict__",
            {
                "how": raw.how,
                "fd": raw.fd,
                "local": raw.local,
                "peer": raw.peer,
                "age": max(0.0, now - raw.since_ns / 1e9),
                "site": site,
                "thread": threads.get(raw.thread) or thread_name(raw.thread),
            },
        )
        found[raw.fd] = one
    return found


# ---- snapshots


@dataclass(frozen=True)
class Descriptor:
    """One open descriptor.

    Attributes:
        fd: Its number.
        kind: As in ``fd_inventory()``: ``"socket"``, ``"pipe"``, ``"file"``, ...
        target: What the kernel calls it, such as ``"socket:[4711]"`` or a path; cut when it is
            long.
        connection: What of hardsock it belongs to, with the line that made it; ``None``: nothing of
            it.
        note: What ``hardsock.note()`` said about it; ``None``: nothing.
        foreign: Of a socket that is not hardsock's: what it is, and who made it if that is traced.
    """

    fd: int
    kind: str
    target: str
    connection: OpenConnection | None = field(default=None, compare=False)
    note: Note | None = field(default=None, compare=False)
    foreign: ForeignSocket | None = field(default=None, compare=False)
    _identity: tuple[int, int] = (0, 0)

    @property
    def site(self) -> Site | None:
        """The line that made it, if that is known."""
        if self.connection is not None:
            return self.connection.site
        return None if self.foreign is None else self.foreign.site

    def __str__(self) -> str:
        if self.connection is not None:
            return f"descriptor {self.fd}: {self.connection}"
        if self.note is not None:
            return f"descriptor {self.fd}: {self.target}: {self.note}"
        if self.foreign is not None:
            return f"descriptor {self.fd}: {self.foreign}"
        return f"descriptor {self.fd}: {self.target}"


@dataclass(frozen=True)
class FdSnapshot:
    """What is open at one moment; two of them can be subtracted.

    Attributes:
        descriptors: In the order of their numbers.
        limit: RLIMIT_NOFILE; ``None`` when there is none.
        taken: When, as ``time.monotonic()`` tells time.
    """

    descriptors: tuple[Descriptor, ...]
    limit: int | None
    taken: float

    @property
    def by_kind(self) -> dict[str, int]:
        """How many of each kind; kinds that there are none of are left out."""
        return dict(Counter(one.kind for one in self.descriptors))

    @property
    def connections(self) -> tuple[OpenConnection, ...]:
        """Those that are connections or listeners of hardsock."""
        return tuple(one.connection for one in self.descriptors if one.connection is not None)

    def __len__(self) -> int:
        return len(self.descriptors)

    def __sub__(self, earlier: FdSnapshot) -> FdGrowth:
        """What came and what went since *earlier*.

        A number that is something else now counts as both. Descriptors of the kind ``"event"``
        (epoll, eventfd, timerfd) look all alike to the kernel: there only the number tells.
        """
        if not isinstance(earlier, FdSnapshot):
            return NotImplemented
        before, now = set(earlier.descriptors), set(self.descriptors)
        return FdGrowth(
            opened=tuple(one for one in self.descriptors if one not in before),
            closed=tuple(one for one in earlier.descriptors if one not in now),
            seconds=self.taken - earlier.taken,
        )


@dataclass(frozen=True)
class FdGrowth:
    """The difference between two snapshots.

    Attributes:
        opened: Open now, and not before.
        closed: Open before, and not now.
        seconds: Between the two.
    """

    opened: tuple[Descriptor, ...]
    closed: tuple[Descriptor, ...]
    seconds: float

    @property
    def net(self) -> int:
        """How many more are open than before."""
        return len(self.opened) - len(self.closed)

    @property
    def by_kind(self) -> dict[str, int]:
        """The same by kind; kinds that are as before are left out."""
        counts = Counter(one.kind for one in self.opened)
        counts.subtract(one.kind for one in self.closed)
        return {kind: count for kind, count in counts.items() if count}

    @property
    def by_site(self) -> dict[Site, int]:
        """How many of ``opened`` each line of the program made, the most first: of hardsock's, and
        of all sockets once they are traced (``fd_watch``)."""
        return dict(Counter(one.site for one in self.opened if one.site is not None).most_common())

    def __str__(self) -> str:
        lines = [f"{self.net:+d} descriptors in {self.seconds:.1f} s"]
        lines += [f"  {count:+d} {kind}" for kind, count in sorted(self.by_kind.items())]
        lines += [f"  {count} made at {site}" for site, count in self.by_site.items()]
        return "\n".join(lines)


def fd_snapshot() -> FdSnapshot:
    """List what is open, by descriptor; works when descriptors have run out, since it opens none.

    A picture, not a ledger: what other threads open or close meanwhile may be missed. Costs about
    2 microseconds for each open descriptor, 10 for a socket that is not hardsock's. At most the
    first 65,536 numbers are looked at.
    """
    ours, tracer = _open_ones(), installed()
    theirs = {} if tracer is None else tracer.of_sockets()
    found = []
    for fd, kind, device, inode, target in _core._fd_list():
        ours_there = ours.get(fd) if kind == "socket" else None
        is_foreign = kind == "socket" and ours_there is None
        foreign = describe(fd, theirs.get(fd)) if is_foreign else None
        note = note_of(fd, device, inode)
        found.append(Descriptor(fd, kind, target, ours_there, note, foreign, (device, inode)))
    return FdSnapshot(tuple(found), limit=_usage()[1], taken=time.monotonic())


def _sites() -> Counter[Site]:
    """How many open ones each line has made."""
    found, ours, tracer = Counter[Site](), _open_ones(), installed()
    found.update(one.site for one in ours.values())
    if tracer is not None:
        theirs = tracer.of_sockets().items()
        found.update(site_at(one.code, one.offset) for fd, one in theirs if fd not in ours)
    return found


def _usage() -> tuple[int, int | None]:
    used, limit = _core._fd_usage()
    return used, None if limit < 0 else limit


# ---- the watch


@dataclass(frozen=True)
class FdAlarm:
    """Descriptors are running out.

    Attributes:
        open: How many are open now.
        limit: RLIMIT_NOFILE; ``None`` when there is none.
        threshold: How many make an alarm.
        by_kind: How many of each kind, as in ``fd_inventory()``.
        by_site: How many each line of the program made, the most first: of hardsock's, and of all
            sockets if they are traced.
        grown_from: For an alarm about growth alone: how many were open at the last one, or at the
            beginning.
    """

    open: int
    limit: int | None
    threshold: int
    by_kind: dict[str, int]
    by_site: dict[Site, int]
    grown_from: int | None = None

    def __str__(self) -> str:
        most = ", ".join(
            f"{count} made at {site}" for site, count in list(self.by_site.items())[:_LISTED]
        )
        kinds = ", ".join(
            f"{count} {kind}" for kind, count in sorted(self.by_kind.items(), key=lambda i: -i[1])
        )
        grown = "" if self.grown_from is None else f"grown from {self.grown_from}, "
        return (
            f"{self.open} descriptors are open, {grown}"
            f"of {self.limit or 'unlimited'} (RLIMIT_NOFILE): "
            f"{kinds}" + (f"; {most}" if most else "")
        )


class FdWatch:
    """Tells when descriptors run out; see ``fd_watch``. A context manager that ends it. Thread-safe."""

    def __init__(
        self,
        share: float | None,
        count: int | None,
        growth: float | None,
        on_alarm: Callable[[FdAlarm], object],
    ) -> None:
        self._share = share
        self._count = count
        self._growth = growth
        self._base = max(_usage()[0], _FEW)
        self._on_alarm = on_alarm
        self._armed = True
        self._closed = False

    def check(self) -> FdAlarm | None:
        """Look now; the alarm if there is reason for one, whether or not it was told before.

        It is told (*on_alarm*) if it is a new one. This also learns of a changed RLIMIT_NOFILE, and
        of descriptors that others than hardsock opened.
        """
        used, limit = _usage()
        try:
            return self._look(used, limit)
        finally:
            _arm(used, limit)

    def close(self) -> None:
        """End it. Idempotent."""
        self._closed = True
        with _lock:
            _watches[:] = [one for one in _watches if one is not self]
        _arm(*_usage())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.close()

    def _threshold(self, limit: int | None) -> int | None:
        """How many open ones make an alarm."""
        reasons = []
        if self._share is not None and limit is not None:
            reasons.append(math.ceil(self._share * limit))
        if self._count is not None:
            reasons.append(self._count)
        if self._growth is not None:
            reasons.append(math.ceil(self._growth * self._base))
        return min(reasons, default=None)

    def _grown_from(self, used: int) -> int | None:
        """The base, if they are so many times as many; then the next alarm needs as much again."""
        if self._growth is None:
            return None
        with _lock:
            base = self._base
            if used < self._growth * base:
                return None
            self._base = used
        return base

    def _look(self, used: int, limit: int | None) -> FdAlarm | None:
        threshold = self._threshold(limit)
        if threshold is None or used < threshold:
            if threshold is None or used < threshold * 0.9:
                self._armed = True
            return None
        grown_from = self._grown_from(used)
        beyond = self._threshold(limit)
        by_growth = beyond is None or used < beyond
        alarm = FdAlarm(
            open=used,
            limit=limit,
            threshold=threshold,
            grown_from=grown_from if by_growth else None,
            by_kind={kind: count for kind, count in _core.fd_inventory().items() if count},
            by_site=dict(_sites().most_common()),
        )
        with _lock:
            first, self._armed = self._armed and not self._closed, by_growth
        if first:
            self._on_alarm(alarm)
        return alarm


_lock = threading.RLock()  # A finalizer may open something while its own thread holds it.
_watches: list[FdWatch] = []


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


def _arm(used: int, limit: int | None) -> int:
    """Tell the core when to call us; returns after how many openings."""
    global _unheard
    with _lock:
        if not _watches:
            _core._fd_watch(None, _MAX_OPENINGS, _check_all)
            return _MAX_OPENINGS
        thresholds = [one._threshold(limit) for one in _watches if one._armed]
        # Those that were told wait for better times, which one of the next looks finds.
        nearest = min((t for t in thresholds if t is not None), default=_NEVER_REACHED)
        due = max(1, min(nearest - used, _MAX_OPENINGS))
        # The core counts hardsock's own openings: half for each, so that none is missed.
        _unheard = due // 2
        # A number of 9 says that ten are open.
        _core._fd_watch(max(0, min(nearest - 1, _NEVER_REACHED)), due, _check_all)
        return due


def _check_all() -> int:
    """Called by the core."""
    used, limit = _usage()
    with _lock:
        watches = list(_watches)
    try:
        for one in watches:
            if one._armed or used < (one._threshold(limit) or 0):
                one._look(used, limit)
    finally:
        due = _arm(used, limit)
    return due


# ---- sockets of others: an audit hook tells of each that is about to be made


class _Hearing(threading.local):
    """What this thread makes while it looks is not counted."""

    looks = False


_hearing = _Hearing()
_unheard = 0  # sockets that may be made until the next look; approximate where threads race


def _heard() -> None:
    """Called by the tracer; what an alarm raises must not fail the call that makes a socket."""
    global _unheard
    if not _watches or _hearing.looks:
        return
    _unheard -= 1
    if _unheard > 0:
        return
    _hearing.looks = True
    try:
        _check_all()
    except Exception as exc:
        _core._unraisable(exc, _heard)
    finally:
        _hearing.looks = False


def _warn(alarm: FdAlarm) -> None:
    here = site_at(*_core._here())
    warnings.warn_explicit(str(alarm), DescriptorWarning, here.file, here.line)


def fd_watch(
    *,
    share: float | None = 0.8,
    count: int | None = None,
    growth: float | None = None,
    on_alarm: Callable[[FdAlarm], object] | None = None,
    trace: bool | None = None,
) -> FdWatch:
    """Give an alarm when so many descriptors are open that they may run out.

    There is no thread for it. It looks when hardsock opens a connection or a listener, and with
    *trace* when any Python code makes a socket: at the
    descriptor's number each time (the kernel gives the lowest free one, so that as many are open at
    least), and at the exact count after as many openings as were missing for an alarm at the last
    one, but at least at each 64th. It also looks when a call finds no descriptor left, and
    ``check()`` looks at once. After an alarm the next one is given when less than nine tenths of
    what gave it had been open in between, at one of these looks.

    Args:
        share: Of RLIMIT_NOFILE, above 0 and at most 1; ``None``: only *count* matters.
        count: So many; for where the limit is out of all proportion.
        growth: So many times as many as there were at the beginning (64 at least), and again as
            many times as at each such alarm: with 2, doubling. For leaks that are far from a limit.
        on_alarm: ``on_alarm(alarm)`` is called in the thread that opened one too many, before that
            has its connection, and with no lock held. What it raises is reported as unraisable. The
            default warns (``DescriptorWarning``).
        trace: Note the line that makes a socket, whatever library makes it, from now on: alarms and
            snapshots then name the lines of all sockets of Python code. That takes an audit hook
            (``sys.addaudithook``), which stays for the life of the process: some 2 microseconds
            for each socket, 0.1 for each other event that is audited. ``None``: unless
            ``HARDSOCK_TRACE=0`` is in the environment.

    Returns:
        The watch, which lasts until its ``close()``.

    Raises:
        ValueError: None of *share*, *count* and *growth* was given, or one makes no sense.
    """
    if share is None and count is None and growth is None:
        raise ValueError("share, count and growth are all None: give one of them")
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share!r}")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise ValueError(f"count must be an int of at least 1, got {count!r}")
    if growth is not None and not (
        isinstance(growth, int | float) and not isinstance(growth, bool) and 1 < growth < math.inf
    ):
        raise ValueError(f"growth must be a number above 1, got {growth!r}")
    watch = FdWatch(share, count, growth, _warn if on_alarm is None else on_alarm)
    if trace or (trace is None and os.environ.get("HARDSOCK_TRACE") != "0"):
        trace_sockets().on_socket(_heard)
    with _lock:
        _watches.append(watch)
    watch.check()
    return watch
