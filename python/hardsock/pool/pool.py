"""Pools of connections: who borrows, waits, holds and returns is known at every moment."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
import warnings
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from hardsock import _core
from hardsock._core import CancelToken, Connection
from hardsock._dial_limits import DialLimits, dial_queue
from hardsock._errors import (
    Closed,
    DeadlineExceeded,
    HardsockError,
    PoolRefused,
    PoolTimeout,
    PoolWarning,
)
from hardsock._greenlets import warn_of_greenlets
from hardsock._names import advice
from hardsock._observe import events
from hardsock._options import SocketOptions, kernel_settings
from hardsock._records import LeaseRecord
from hardsock.connecting.connect import Address, tls_settings, warn_of_changes
from hardsock.pool.hooks import Hooks, time_left
from hardsock.pool.options import PoolOptions
from hardsock.pool.records import (
    Lent,
    PoolAudit,
    PoolCloseReport,
    PoolStats,
    Site,
    histogram_of,
    site_at,
    thread_name,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from hardsock._core import Breaker
    from hardsock.tls.config import TLSConfig

__all__ = ["Pool", "PoolManager"]

_log = logging.getLogger("hardsock.pool")
_TCP_CLOSED_BY_PEER = (7, 8, 9)  # CLOSE, CLOSE_WAIT, LAST_ACK
_HISTOGRAMS = ("wait", "dial", "usage")


class Made(NamedTuple):
    """Where and when a pool was made."""

    site: Site
    at: float
    """``time.monotonic()``."""
    thread: int
    owner: object
    """Of the context; for leak checks."""


_living: weakref.WeakSet[Pool] = weakref.WeakSet()
_living_lock = threading.RLock()  # A finalizer may make a pool while its own thread holds it.


def _after_fork() -> None:
    global _living_lock
    _living_lock = threading.RLock()
    _core._resume_alarms()


os.register_at_fork(after_in_child=_after_fork)


def living_pools() -> list[Pool]:
    """Every pool that somebody still has, closed ones too."""
    with _living_lock:
        return list(_living)


def _addresses(address: Address | list[Address]) -> tuple[Address, ...]:
    addresses = tuple(address) if isinstance(address, list) else (address,)
    if not addresses:
        raise ValueError("address must be an address or a list of one or more, got []")
    for one in addresses:
        _core.parse_address(one)
    return addresses


_EVENTS_TOLD = 8  # of the flight recorder, with the alarm of a leak


def _log_leak(lent: Lent) -> None:
    _log.warning("connection lent for %.1f s and not returned: %s%s", lent.age, lent, _stacks(lent))


def _stacks(lent: Lent) -> str:
    text = ""
    if lent.stack:
        text += "\nborrowed from:\n" + "\n".join(f"  {site}" for site in lent.stack)
    if now := lent.current_stack():
        text += "\nthe holder is at:\n" + "".join(now)
    before = [one for one in events() if one.kind != "overdue"][-_EVENTS_TOLD:]
    if before:
        text += "\nwhat went wrong before:\n" + "\n".join(f"  {one}" for one in before)
    return text


def _described(options: object) -> str:
    """What was given instead of options, and where it should have been given."""
    name = type(options).__name__
    return f"{name}: give these as socket_options" if isinstance(options, SocketOptions) else name


class Pool(_core.Pool):
    """Connections to one endpoint, or to several that are equals, lent to one caller at a time.

    ``with pool.connection(timeout=1.0) as conn:`` borrows and returns. Callers are served in the
    order of arrival; what comes free is handed to the first who still wants it. Dials run in the
    background: a caller takes what is there first. Usable from any number of threads; in a forked
    child it is empty and never touches the parent's connections.

    Args:
        address: See ``Address``; a list of them for several endpoints that are equals.
        options: A ``PoolOptions``; or give its fields as keywords.
        socket_options: As ``connect(options=)``; tls, server_name, source, family, breaker and
            limits are as ``connect`` has them.
        on_connect: ``on_connect(conn)`` is called by the first borrower of each connection, before
            it gets it, for example to log in. If it raises, the connection is closed and
            ``acquire`` raises that.
        check: ``check(conn)`` is called before a connection is lent again that was idle for
            *check_after* seconds. If it raises or returns ``False`` the connection is closed, and
            another one is tried.
        reset: ``reset(conn)`` is called before a connection is returned that could be lent again,
            for at most *reset_timeout* seconds. If it raises, the connection is closed.
        on_leak: ``on_leak(lent)`` is called once for each lease that lasts longer than
            ``leak_after``. It runs in the notifier's thread: one native thread for each interpreter,
            for all pools and for callbacks of tokens whose deadline passes. So one that takes long
            holds up the others. The default logs to ``hardsock.pool``, with the borrower's stack and
            the holder's present one.
        name: For messages; the address by default.

    Hooks run in the borrower's thread, under its deadline, and with no lock held.
    """

    _hooks: Hooks[Callable[[Connection], object]]
    _name: str
    _options: PoolOptions
    _endpoints: tuple[str, ...]
    _tasks: dict[int, Any]
    _told: bool
    _warned: bool
    _made: Made

    def __new__(
        cls,
        address: Address | list[Address],
        options: PoolOptions | None = None,
        *,
        socket_options: SocketOptions | None = None,
        tls: bool | TLSConfig = False,
        server_name: str | None = None,
        source: tuple[str, int] | None = None,
        family: int = 0,
        breaker: Breaker | None = None,
        limits: DialLimits | None = None,
        on_connect: Callable[[Connection], object] | None = None,
        check: Callable[[Connection], object] | None = None,
        check_after: float = 1.0,
        reset: Callable[[Connection], object] | None = None,
        reset_timeout: float = 5.0,
        on_leak: Callable[[Lent], object] | None = None,
        name: str | None = None,
        **settings: Any,
    ) -> Pool:
        """Make it; nothing is dialled before it is needed, unless there is ``min_idle``."""
        if options is not None and settings:
            raise TypeError(f"options and {', '.join(settings)} were given: give one of the two")
        if options is None:
            options = PoolOptions(**settings)
        elif not isinstance(options, PoolOptions):
            raise TypeError(f"options must be PoolOptions, not {_described(options)}")
        if on_leak is not None and options.leak_after is None:
            raise ValueError("on_leak has no use without leak_after")
        addresses = _addresses(address)
        hooks = Hooks(on_connect, check, check_after, reset, reset_timeout)
        warn_of_greenlets()
        endpoints = tuple(_core.parse_address(one) for one in addresses)
        title = name if name is not None else ", ".join(endpoints)
        self = super().__new__(
            cls,
            addresses,
            options._for_core(),
            {
                "sockopts": kernel_settings(socket_options),
                "source": source,
                "family": family,
                "breaker": breaker,
                "limits": dial_queue(limits),
                **tls_settings(tls, server_name, "tcp"),
            },
            hooked=cls.acquire is not _core.Pool.acquire or cls.release is not _core.Pool.release,
            prepares=hooks.any(),
            trace_frames=options.trace_frames,
            trace_every=options.trace_every,
            name=title,
            named=name is not None,
        )
        self._hooks = hooks
        self._options = options
        self._endpoints = endpoints
        self._name = title
        self._tasks = {}
        self._told = self._warned = False
        self._made = Made(
            site_at(*_core._here()), time.monotonic(), threading.get_ident(), _core.owner.get(None)
        )
        with _living_lock:
            _living.add(self)
        if options.leak_after is not None:
            _watch_leaks(self, on_leak if on_leak is not None else _log_leak)
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle or copy a Pool: make one in each process")

    @property
    def _where(self) -> str:
        """For errors: what is dialled."""
        return ", ".join(self._endpoints)

    @property
    def name(self) -> str:
        """Its name in messages."""
        return self._name

    @property
    def options(self) -> PoolOptions:
        """What it was made with; ``stats().max_size`` is the size in force."""
        return self._options

    # ---- hooks

    def _acquire_prepared(self, timeout: float | None, token: CancelToken | None) -> Connection:
        """Called by the core, for acquire() of a pool with hooks."""
        deadline = self._deadline(timeout)
        while True:
            conn = self._acquire(timeout=time_left(deadline), token=token)
            with self._hooks.prepare(self, conn, deadline, token) as lease:
                if lease.hook is not None:
                    with lease.limits():
                        lease.result = lease.hook(conn)
            if lease.lendable:
                return conn

    def _release_reset(self, conn: Connection, failed: bool, discard: bool) -> None:
        """Called by the core, for release() of a pool with hooks."""
        due = self._hooks.resetting(self, conn, failed, discard)
        if due is not None:
            with due, due.limits():
                due.hook(conn)
            if not due.returnable:
                return
        self._release(conn, failed=failed, discard=discard)

    # ---- telling

    def stats(self) -> PoolStats:
        """Gauges, counters by reason, and histograms of waiting, dialling and use."""
        raw: dict[str, Any] = self._stats()
        for field in _HISTOGRAMS:
            raw[field] = histogram_of(raw[field])
        return PoolStats(**raw)

    def lent(self) -> list[Lent]:
        """Who holds what, since when, from which line; the longest first."""
        return [self._lent_of(raw) for raw in self._lent()]

    def leaks(self, older_than: float) -> list[Lent]:
        """Those of ``lent()`` that are lent for longer than *older_than* seconds."""
        return [lent for lent in self.lent() if lent.age > older_than]

    def sites(self) -> list[Site]:
        """Every place that ever borrowed, with its counters; who holds most now comes first."""
        sites = [
            site_at(
                one.code,
                one.offset,
                lent=one.lent,
                acquired=one.acquired,
                lost=one.lost,
                overdue=one.overdue,
                dirty=one.dirty,
                held_max=one.held_max_ns / 1e9,
                held_sum=one.held_sum_ns / 1e9,
            )
            for one in self._sites()
        ]
        return sorted(sites, key=lambda site: (-site.lent, -site.acquired))

    def verify(self) -> PoolAudit:
        """Count everything again, and compare with the process's descriptors and the kernel.

        Raises:
            AssertionError: The pool's own books do not agree: a bug in hardsock.
        """
        stats = self.stats()
        sockets = self._sockets()
        open_fds = [one.fd for one in sockets if one.fd >= 0]
        kernel = {}
        for peer in {one.peer for one in sockets if one.peer and one.tcp_state >= 0}:
            counts = _core.tcp_counts(peer)
            kernel[peer] = {state: number for state, number in counts.items() if number}
        return PoolAudit(
            stats=stats,
            descriptors=tuple(open_fds),
            missing=tuple(fd for fd in open_fds if not _is_socket(fd)),
            stale=tuple(
                one.fd for one in sockets if not one.lent and one.tcp_state in _TCP_CLOSED_BY_PEER
            ),
            kernel=kernel,
        )

    def _lent_of(self, raw: LeaseRecord) -> Lent:
        known = self._tasks.get(raw.id) if raw.task else None
        living = known() if known is not None else None
        return Lent(
            id=raw.id,
            site=site_at(raw.code, raw.offset),
            age=raw.age_ns / 1e9,
            thread=thread_name(raw.thread),
            task=None if not raw.task else _task_name(living),
            reused=raw.times_lent > 1,
            bytes_sent=raw.bytes_sent,
            bytes_received=raw.bytes_received,
            endpoint=self._endpoints[raw.endpoint],
            fd=raw.fd,
            overdue=raw.overdue,
            stack=tuple(site_at(*site) for site in self._traces.get(raw.id, ())),
            _thread_id=raw.thread,
            _task=known,
        )

    def _explain(self, exc: HardsockError) -> None:
        """Called by the core for a caller who got nothing: say who holds what."""
        stats, lent = self.stats(), self.lent()
        if isinstance(exc, PoolTimeout):
            exc.holders, exc.stats = tuple(lent), stats
            exc.last_dial_error = stats.last_dial_error
        text = (
            f"pool {self._name}: {stats.lent} of {stats.max_size} lent, {stats.idle} idle, "
            f"{stats.dialing} dialing, {stats.waiting} waiting"
        )
        if stats.handshaking:
            text += (
                f"; {stats.handshaking} of the dials are in the TLS handshake, the longest for "
                f"{stats.handshaking_for:.1f} s"
            )
            if isinstance(exc, PoolTimeout) and stats.handshaking == stats.dialing and not lent:
                exc.phase = "tls"
        if lent:
            text += "; held by " + "; ".join(_by_site(lent))
        if stats.last_dial_error is not None:
            text += f"; last dial error: {stats.last_dial_error}"
        exc.strerror = f"{exc.strerror} ({text})"
        here = threading.get_ident()
        own = [one for one in lent if one.task is None and one._thread_id == here]
        if own:
            exc.hint = (
                f"this thread holds {len(own)} of them itself, the first since {own[0].site}: "
                "return it before borrowing another, or the two wait for each other"
            )
        elif isinstance(exc, PoolTimeout) and lent:
            others = stats.waiting
            who = f"{others} other caller{'' if others == 1 else 's'}" if others else "nobody else"
            exc.hint = (
                f"{who} wait{'' if others > 1 else 's'} for this pool, held by {lent[0].site} "
                f"for {lent[0].age:.0f} s" + (f"; {exc.hint}" if exc.hint else "")
            )

    def _changed(self, conn: Connection) -> None:
        """Called by the core for a new connection with settings that the kernel changed."""
        if not self._warned:
            self._warned = True
            warn_of_changes(conn.audit(), stacklevel=2)

    def _noticed(self, ident: int, why: str, done: bool, late: bool) -> None:
        """Called by the core when a return was not quite as it should be."""
        if late:
            _log.warning("connection %d of pool %s was returned late", ident, self._name)
        if why == "dirty" and done and not self._told:
            self._told = True
            warnings.warn(
                f"pool {self._name}: a used connection was closed at its return, since "
                "conn.mark_clean() was not called after its last byte. Call it when an answer is "
                "complete; or see PoolOptions.reuse",
                PoolWarning,
                stacklevel=2,
            )

    # ---- the end

    def close(self, timeout: float | None = 0.0, *, abort: bool = False) -> PoolCloseReport:
        """Refuse callers, wake those who wait (``Closed``), close what is idle.

        Args:
            timeout: Seconds to wait until what is lent was returned; ``None``: as long as it takes.
            abort: Reset what is still lent after that: its borrowers' calls raise ``Closed``.

        Returns:
            A report that names who still holds what. Those connections are closed at their return.

        Raises:
            Cancelled: The ambient scope was cancelled while it waited. The pool is closed all the same.

        From any thread, as often as one likes; a second call waits as well.
        """
        self._close()
        try:
            self._await_closed(timeout=timeout)
        except DeadlineExceeded:
            report = PoolCloseReport(clean=False, lent=tuple(self.lent()))
            if not report.lent:
                return PoolCloseReport(clean=True, lent=())
            if abort:
                self._abort_lent()
            return report
        return PoolCloseReport(clean=True, lent=())

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

    def __repr__(self) -> str:
        name = getattr(self, "_name", "?")
        return f"<hardsock.Pool {name}{' closed' if self.closed else ''}>"


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


def _task_name(task: Any) -> str:
    if task is None:
        return "a task that has ended"
    name = task.get_name() if hasattr(task, "get_name") else getattr(task, "name", None)
    return str(name) if name is not None else repr(task)


def _by_site(lent: list[Lent], most: int = 3) -> list[str]:
    counts = Counter(str(one.site) for one in lent)
    oldest: dict[str, Lent] = {}
    for one in lent:
        oldest.setdefault(str(one.site), one)
    lines = [
        f"{site} ({count}, the longest for {oldest[site].age:.3f} s by "
        f"{oldest[site].task or oldest[site].thread})"
        for site, count in counts.most_common(most)
    ]
    if len(counts) > most:
        lines.append(f"and {len(counts) - most} other places")
    return lines


# ---- leaks


def _watch_leaks(pool: Pool, on_leak: Callable[[Lent], object]) -> None:
    reference = weakref.ref(pool)

    def tell(raw: LeaseRecord) -> None:
        if (pool := reference()) is None:
            return
        lent = pool._lent_of(raw)
        del pool
        try:
            on_leak(lent)
        except Exception:
            _log.exception("on_leak failed")

    pool._on_overdue(tell)


# ---- several pools


class PoolManager:
    """A pool for each endpoint that is asked for, made on first use with the same settings.

    Thread-safe, as its pools are.

    Args:
        options, settings: As ``Pool`` has them, for every pool.
        max_pools: Pools at most; one more closes the one that was not used for longest, of those
            that lend nothing; if all do, ``PoolRefused`` is raised.
    """

    def __init__(
        self, options: PoolOptions | None = None, *, max_pools: int = 1000, **settings: Any
    ) -> None:
        if isinstance(max_pools, bool) or not isinstance(max_pools, int) or max_pools < 1:
            raise ValueError(f"max_pools must be an int of at least 1, got {max_pools!r}")
        own = Pool.__new__.__kwdefaults__ or {}
        names = ["options", "max_pools", *own, *PoolOptions.__dataclass_fields__]
        for wrong in settings.keys() - names:  # Now, and not when the first pool is made.
            raise TypeError(
                f"PoolManager() got an unexpected keyword argument {wrong!r}{advice(wrong, names)}"
            )
        self._options = options
        self._settings = settings
        self._max_pools = max_pools
        self._pools: OrderedDict[str, Pool] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = False

    def pool(self, address: Address) -> Pool:
        """The pool for *address*, made if there is none.

        Raises:
            Closed: The manager is closed.
            PoolRefused: There are *max_pools*, and all lend something.
        """
        key = _core.parse_address(address)
        unused: Pool | None = None
        with self._lock:
            if self._closed:
                raise Closed(None, "the pool manager is closed")
            pool = self._pools.get(key)
            if pool is None:
                if len(self._pools) >= self._max_pools:
                    unused = self._take_unused()
                pool = Pool(address, self._options, **self._settings)
                self._pools[key] = pool
            self._pools.move_to_end(key)
        if unused is not None:
            unused.close()
        return pool

    def _take_unused(self) -> Pool:
        for key, pool in self._pools.items():
            stats = pool._stats()
            if stats["lent"] == 0 and stats["waiting"] == 0:
                return self._pools.pop(key)
        raise PoolRefused(None, f"max_pools: {self._max_pools} pools are all in use")

    def acquire(
        self,
        address: Address,
        *,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> Connection:
        """As ``Pool.acquire``; give it back with ``release``."""
        return self.pool(address).acquire(timeout=timeout, token=token)

    def connection(
        self,
        address: Address,
        *,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> _core.Borrowing:
        """As ``Pool.connection``."""
        return self.pool(address).connection(timeout=timeout, token=token)

    def release(self, conn: Connection, /, *, failed: bool = False, discard: bool = False) -> None:
        """Give *conn* back to the pool that lent it; parameters as ``Pool.release``.

        ValueError: no pool of this manager has lent it.
        """
        pool = conn.pool
        if pool is None:
            raise ValueError("this connection was not lent by a pool")
        pool.release(conn, failed=failed, discard=discard)

    def pools(self) -> dict[str, Pool]:
        """The pools there are, by address."""
        with self._lock:
            return dict(self._pools)

    def stats(self) -> dict[str, PoolStats]:
        """``Pool.stats`` of each, by address."""
        return {key: pool.stats() for key, pool in self.pools().items()}

    def lent(self) -> list[Lent]:
        """``Pool.lent`` of all together, the longest first."""
        found = [lent for pool in self.pools().values() for lent in pool.lent()]
        return sorted(found, key=lambda lent: -lent.age)

    def close(self, timeout: float | None = 0.0, *, abort: bool = False) -> PoolCloseReport:
        """Close every pool; *timeout* is for all together. See ``Pool.close``."""
        deadline = _core.Pool._deadline(timeout)
        with self._lock:
            self._closed = True
            pools = list(self._pools.values())
            self._pools.clear()
        for pool in pools:
            pool._close()
        reports = [pool.close(time_left(deadline), abort=abort) for pool in pools]
        lent = tuple(one for report in reports for one in report.lent)
        return PoolCloseReport(clean=all(report.clean for report in reports), lent=lent)

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
