"""Several processes that serve one address: started, watched, replaced and ended by this one.

The parent opens the listening socket and never accepts from it. Each child is a fresh interpreter
(``multiprocessing``'s spawn), which is given the socket and runs ``serve`` or ``aio.serve`` on it.
One thread of the parent watches them. Between parent and child there is a channel, on which neither
waits for the other: the child says that it is ready, how it is doing once a second, and its report
at the end; the parent tells it to leave, and what tickets are sealed with. A child whose channel
ends has no parent any more, and drains.

docs/adr/0021 says why processes are spawned and share one socket.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hardsock._core import CancelToken, Listener, Service
from hardsock._typing import NamedTuple
from hardsock.serving.channel import Channel
from hardsock.serving.records import DrainReport, ServerStats, add_stats
from hardsock.serving.signals import handling
from hardsock.tls.config import TICKET_KEY_SIZE, TLSConfig

if TYPE_CHECKING:
    from multiprocessing.context import SpawnContext
    from multiprocessing.process import BaseProcess

    from typing_extensions import Self

__all__ = ["ProcessInfo", "ProcessServer", "ProcessesReport"]

logger = logging.getLogger("hardsock.serve")

_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_WELL = 60.0
"""Seconds after which one that ends is started again at once."""
_MORE = 5.0
"""Seconds beyond its drain that a child has to end; and to end when it cannot be told any more."""
_SOON = 0.02
"""Seconds after which one that seems to end is looked at again."""


class ProcessInfo(NamedTuple):
    """One process of a server.

    Attributes:
        pid: Its process id.
        state: ``"starting"``, ``"ready"`` or ``"leaving"``.
        age: Seconds since it was started.
        stats: Its ``ServerStats``, at most a second or so old; empty while it starts.
    """

    pid: int
    state: str
    age: float
    stats: dict[str, Any]


class ProcessesReport(NamedTuple):
    """How all processes that ever were ended: ``accepted == handled + failed + cut + lost``.

    Attributes:
        reason: Why it drained, in the words of who began it; ``None``: nothing was said.
        started: Processes, in all.
        died: Of these, those that ended without being told to.
        reloads: Times that all processes were replaced.
        accepted: Connections of all processes.
        handled: Of these, whose handler returned.
        failed: Of these, whose handler raised.
        cut: Of these, ended by the server.
        lost: Connections that were open in a process when it died; as it last said, up to a second
            before, and so an estimate, as is its part of the other numbers.
        elapsed: Seconds from the first word to the end of the last one.
        reports: Of those that were there at the end and ended in time.
    """

    reason: str | None
    started: int
    died: int
    reloads: int
    accepted: int
    handled: int
    failed: int
    cut: int
    lost: int
    elapsed: float
    reports: tuple[DrainReport, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing was cut or lost since the end began."""
        return all(report.clean for report in self.reports)

    def __str__(self) -> str:
        return (
            f"{self.started} processes ended in {self.elapsed:.3f} s ({self.died} died, "
            f"{self.reloads} reloads): {self.accepted} accepted, {self.handled} handled, "
            f"{self.failed} failed, {self.cut} cut, {self.lost} lost"
        )


@dataclass(frozen=True)
class Plan:
    """What each child is to do; it is pickled."""

    handler: Callable[..., object]
    listening: dict[str, Any]
    serving: dict[str, Any]
    drain_timeout: float


class _Child:
    """One process, as its parent sees it."""

    def __init__(self, number: int, process: BaseProcess, channel: Channel, now: float) -> None:
        self.number = number
        self.process = process
        self.channel = channel
        self.started = now
        self.ready = False
        self.leaving = False
        self.kill_at: float | None = None
        self.cancelled = False
        self.killed = False
        self.lost = False
        self.replaces: _Child | None = None
        self.stats: ServerStats | None = None
        self.report: DrainReport | None = None

    @property
    def ended(self) -> bool:
        """Asked of the kernel: its channel and the sentinel may be held by others, or closed early."""
        if self.process.exitcode is not None:
            return True
        if not self.lost or self.process.pid is None:
            return False
        try:
            os.kill(self.process.pid, 0)
        except ProcessLookupError:  # Somebody else has waited for it.
            return True
        except PermissionError:  # It has become another user's.
            pass
        return False

    @property
    def state(self) -> str:
        return "leaving" if self.leaving else "ready" if self.ready else "starting"

    def tell(self, *message: object) -> None:
        with suppress(OSError):  # It is gone, which is seen elsewhere.
            self.channel.send(*message)

    def tell_the_rest(self) -> None:
        """What it had no room for: it was stopped for long, or is."""
        with suppress(OSError):
            self.channel.flush()

    def hear(self) -> bool:
        """Take in what it has said; False: it will say no more."""
        try:
            for kind, value in self.channel.receive():
                if kind == "ready":
                    self.ready = True
                elif kind == "stats":
                    self.stats = value
                elif kind == "report":
                    self.report = value
        except (EOFError, OSError):
            return False
        return True


class _Tickets:
    """Keys that are the same in all processes, replaced as a single one replaces its own."""

    def __init__(self, name: str, config: TLSConfig, now: float) -> None:
        self.name = name
        """Of the parameter that has the configuration."""
        self._interval = config.session_lifetime / 2
        self._of_clients = config.client_certificates != "none"
        self._keys = [os.urandom(TICKET_KEY_SIZE)]
        self._coming: bytes | None = None
        self._next = now + self._interval

    @property
    def keys(self) -> list[bytes]:
        """The first one seals."""
        coming = [] if self._coming is None else [self._coming]
        return [self._keys[0], *coming, *self._keys[1:]][:3]

    def step(self, now: float) -> bool:
        """Whether the keys have changed. A new one is known to all for a second before it seals."""
        if now < self._next:
            return False
        if self._coming is None:
            self._coming = os.urandom(TICKET_KEY_SIZE)
            self._next = now + 1.0
        else:
            self._keys = [self._coming, *self._keys][:3]
            self._coming = None
            self._next = now + self._interval
        return True

    def anew(self) -> None:
        """Before a reload: who was trusted before may not be, where clients have certificates."""
        if self._of_clients:
            self._keys, self._coming = [os.urandom(TICKET_KEY_SIZE)], None


class ProcessServer:
    """A server of several processes; ``hardsock.serve_processes`` makes it.

    As a context manager it ends them all at the end of the block, with *drain_timeout*. All methods
    may be called from any thread.
    """

    def __init__(
        self,
        plan: Plan,
        listener: Listener,
        processes: int,
        name: str,
        start_timeout: float,
        token: CancelToken | None = None,
    ) -> None:
        self._plan = plan
        self._listener = listener
        self._address = listener.address
        self._count = processes
        self._name = name
        self._start_timeout = start_timeout
        self._spawn = _spawn_context()
        self._pid = os.getpid()
        self._lock = threading.RLock()  # A signal handler may tell as well.
        self._service = Service("processes", name, 0)
        self._children: list[_Child] = []  # guarded by lock, as the next six
        self._past: ServerStats | None = None
        """Of those that have ended."""
        self._reload_wanted = False
        self._reason: str | None = None
        self._end_at: float | None = None
        self._cancelled = False
        self._kill = False
        self._ready = CancelToken(name=f"{name} ready")
        self._ended = CancelToken(name=f"{name} ended")
        self._report: ProcessesReport | None = None
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._tickets = [
            _Tickets(each, tls, time.monotonic())
            for each in ("tls", "tls_fallback")
            if isinstance(tls := plan.listening.get(each), TLSConfig)
            and tls.ticket_keys is None
            and tls.tickets > 0
        ]
        self._supervisor = _Supervisor(self)
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()
        self._of_token = None if token is None else token.on_cancel(partial(self._cancel, token))

    # ---- asking

    @property
    def address(self) -> Any:
        """The address it listens on, as ``socket`` has it."""
        return self._address

    @property
    def closed(self) -> bool:
        """Whether all have ended."""
        return self._ended.cancelled

    @property
    def ready(self) -> bool:
        """Whether at least one process serves, and they are not told to end."""
        with self._lock:
            serving = any(child.ready and not child.leaving for child in self._children)
            return serving and self._reason is None

    @property
    def report(self) -> ProcessesReport | None:
        """How it went; None until all have ended."""
        return self._report

    def processes(self) -> list[ProcessInfo]:
        """Those that are there now."""
        now = time.monotonic()
        with self._lock:
            return [
                ProcessInfo(
                    child.process.pid or 0,
                    child.state,
                    now - child.started,
                    {} if child.stats is None else child.stats._asdict(),
                )
                for child in self._children
            ]

    def stats(self) -> ServerStats:
        """Return the counters of all processes together, also of those that have ended.

        Each says its own once a second. ``peak_active`` is the sum of all peaks, which need not
        have been at the same time; ``start_delay_max`` is the longest of all. Connections that were
        open in a process when it died are among the ``failed``, with ``"process died"`` for their
        error.
        """
        with self._lock:
            known = [self._past, *(child.stats for child in self._children)]
            draining = self._reason is not None
        return add_stats([each for each in known if each is not None], draining=draining)

    def _tell_service(self) -> None:
        """What the processes have said, for reports."""
        known = self.stats()
        busy = known.active - known.waiting - known.parked
        phases = (known.waiting, known.parked, busy, 0)
        refused = known.shed_reasons.get("guard", 0)
        counts = (known.accepted, known.handled, known.failed, known.cut, refused)
        self._service.tell(phases, counts)

    # ---- telling

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Wait until as many processes serve as were asked for: True; False after *timeout* seconds.

        Raises nothing of its own; scopes and tokens do not reach it. They go on starting.
        """
        return self._ready.wait(timeout)

    def reload(self) -> None:
        """Replace every process by a fresh one, one after the other; returns at once.

        A new one reads the code and the files of certificates again. The old one is told to leave
        when the new one serves; if it does not come up, the reload ends there, and is logged.
        """
        with self._lock:
            self._reload_wanted = True
        self._ring()

    def stop(self, reason: str | None = None) -> None:
        """Have all processes drain and end, and return at once."""
        self._stop(reason or "the server was stopped", None)

    def _stop(self, reason: str, timeout: float | None) -> None:
        seconds = self._plan.drain_timeout if timeout is None else timeout
        end = time.monotonic() + seconds
        with self._lock:
            self._reason = self._reason or reason
            self._end_at = end if self._end_at is None else min(end, self._end_at)
        self._service.drains()
        self._ring()

    def _cancel(self, token: CancelToken) -> None:
        """As a server's token does: only the grace is left."""
        with self._lock:
            self._cancelled = True
        self._stop(token.reason or "the token has ended", min(1.0, self._plan.drain_timeout / 4))

    def _cut(self, _reason: str) -> None:
        with self._lock:
            self._kill = True
        self._ring()

    def drain(self, timeout: float | None = None) -> ProcessesReport:
        """Have all processes drain, and wait until they have ended.

        One that has not *timeout* (by default *drain_timeout*) and 5 seconds later is killed. So it
        ends. Raises nothing of its own; scopes and tokens do not reach it. Callable again, from any
        thread.
        """
        self._stop("the server is draining", timeout)
        self._ended.wait()
        self._thread.join(1.0)
        assert self._report is not None
        return self._report

    def wait(self, timeout: float | None = None) -> bool:
        """Block until all have ended: True; False after *timeout* seconds.

        In the main thread SIGTERM drains meanwhile, a second one kills, and SIGHUP reloads, unless
        handlers for them were installed. Raises nothing of its own; scopes and tokens do not reach it.
        """
        with self._obeying_signals():
            return self._ended.wait(timeout)

    def _obeying_signals(self) -> AbstractContextManager[None]:
        return handling(
            {
                signal.SIGTERM: [lambda: self.stop("SIGTERM"), lambda: self._cut("SIGTERM")],
                signal.SIGHUP: [self.reload],
            }
        )

    def _ring(self) -> None:
        with suppress(OSError):  # Full: it will look anyway.
            os.write(self._waker, b"x")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_details: object) -> None:
        if os.getpid() == self._pid:
            self.drain()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "ending" if self._reason else "serving"
        return f"<hardsock.ProcessServer {self._name} {state} at {self._address!r}>"

    def _main(self) -> None:
        try:
            self._supervisor.run()
        except BaseException:
            logger.critical("supervising %s failed for good", self._name, exc_info=True)
            for child in list(self._children):
                child.process.terminate()
        finally:
            self._listener.close()
            if self._of_token is not None:
                self._of_token.remove()
            self._report = self._supervisor.sum_up()
            logger.info("%s", self._report)
            self._tell_service()
            self._service.ended()
            self._ended.cancel("all processes have ended")
            os.close(self._waker)
            os.close(self._wake)


def _spawn_context() -> SpawnContext:
    import multiprocessing  # Not with hardsock: it costs a tenth of a second, and few use it.

    return multiprocessing.get_context("spawn")


class _Supervisor:
    """What the thread does: one step after the other, each for something that has happened."""

    def __init__(self, server: ProcessServer) -> None:
        self._server = server
        self._next_start = [0.0] * server._count
        self._pauses = [0.0] * server._count
        self._reload: list[int] | None = None
        self._began_to_end: float | None = None
        self._totals = dict.fromkeys(("accepted", "handled", "failed", "cut", "lost"), 0)
        self._started = self._died = self._reloads = 0
        self._reports: list[DrainReport] = []

    def run(self) -> None:
        server = self._server
        while True:
            now = time.monotonic()
            self._turn_keys(now)
            if server._reason is None:
                self._fill(now)
                self._go_on_reloading(now)
            else:
                self._end(now)
                if not server._children:
                    return
            self._kill_late(now)
            for child in server._children:
                child.tell_the_rest()
            self._wait()
            for child in list(server._children):
                if child.ended:
                    self._bury(child)

    # ---- starting

    def _fill(self, now: float) -> None:
        """Start what is missing and may be started now."""
        present = {child.number for child in self._server._children if not child.leaving}
        for number in range(self._server._count):
            if number not in present and now >= self._next_start[number]:
                self._start(number, now)

    def _start(self, number: int, now: float, replaces: _Child | None = None) -> None:
        """What fails here, for instance files that cannot be read, must not end those that serve."""
        server = self._server
        try:
            process, channel = self._spawn(number)
        except Exception as exc:
            why = f"{type(exc).__name__}: {exc}"  # A record may be kept, and exc holds frames.
            logger.error("process %d cannot be started: %s", number, why)
            if replaces is None:
                self._pause(number, now)
            else:
                self._end_the_reload()
            return
        self._started += 1
        child = _Child(number, process, channel, now)
        child.replaces = replaces
        child.kill_at = now + server._start_timeout
        with server._lock:
            server._children.append(child)

    def _spawn(self, number: int) -> tuple[BaseProcess, Channel]:
        """The process, and the parent's end of its channel."""
        from hardsock.serving.child import run_child

        server = self._server
        plan = server._plan
        for tickets in server._tickets:
            config = replace(plan.listening[tickets.name], ticket_keys=tickets.keys)
            plan = replace(plan, listening=plan.listening | {tickets.name: config})
        ours, theirs = socket.socketpair()
        try:
            with socket.socket(fileno=os.dup(server._listener.fileno())) as sock:
                process = server._spawn.Process(
                    target=run_child, args=(plan, sock, theirs), name=f"{server._name}-{number}",
                    daemon=True,
                )  # fmt: skip
                process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return process, Channel(ours)

    def _pause(self, number: int, now: float) -> None:
        self._pauses[number] = min(max(2 * self._pauses[number], _SHORTEST_PAUSE), _LONGEST_PAUSE)
        self._next_start[number] = now + self._pauses[number]

    # ---- hearing

    def _wait(self) -> None:
        from multiprocessing.connection import wait

        server = self._server
        waited: list[Any] = [server._wake]
        for child in server._children:
            if not child.lost:
                waited += [child.process.sentinel, child.channel]
        ready: list[Any] = wait(waited, timeout=self._seconds())
        for found in ready:
            if found == server._wake:
                with suppress(BlockingIOError):
                    os.read(server._wake, 4096)
                continue
            for child in list(server._children):
                if found is child.channel:
                    self._hear(child)
                elif found == child.process.sentinel:
                    self._lose(child)

    def _seconds(self) -> float:
        """Until the next time that is known of; a second at most, since one may end unheard."""
        if any(child.lost for child in self._server._children):
            return _SOON
        times = [child.kill_at for child in self._server._children if child.kill_at is not None]
        times += [at for at in self._next_start if at > 0]
        now = time.monotonic()
        return min([1.0, *(max(0.01, at - now) for at in times if at > now)])

    def _hear(self, child: _Child) -> None:
        was_ready = child.ready
        goes_on = child.hear()
        self._server._tell_service()
        if child.ready and not was_ready:
            self._is_ready(child)
        if not goes_on:
            self._lose(child)

    def _lose(self, child: _Child) -> None:
        """It ends, as a rule. One that has only closed what connects it cannot be told anything."""
        if not child.lost:
            child.lost = True
            if not child.leaving:
                child.kill_at = time.monotonic() + _MORE

    def _is_ready(self, child: _Child) -> None:
        server = self._server
        if not child.leaving:  # It has its limit from being told to leave.
            child.kill_at = None
        if child.replaces is not None:
            self._send_away(child.replaces, "replaced", server._plan.drain_timeout)
            child.replaces = None
        if sum(c.ready and not c.leaving for c in server._children) >= server._count:
            server._ready.cancel("ready")

    def _send_away(self, child: _Child, why: str, seconds: float) -> None:
        if not child.leaving:
            child.leaving = True
            child.tell("leave", why, seconds)
            if not child.lost:
                child.kill_at = time.monotonic() + seconds + _MORE

    def _bury(self, child: _Child) -> None:
        server = self._server
        if child not in server._children:
            return
        child.hear()  # Its last words.
        child.channel.close()
        with server._lock:
            server._children.remove(child)
            self._count_locked(child)
        now = time.monotonic()
        if not child.leaving:
            self._died += 1
            logger.error(
                "process %d (pid %s) ended by itself with status %s",
                child.number, child.process.pid, child.process.exitcode,
            )  # fmt: skip
            if now - child.started >= _WELL:
                self._pauses[child.number] = 0.0
                self._next_start[child.number] = now
            else:
                self._pause(child.number, now)
            if child.replaces is not None:
                self._end_the_reload()
        with suppress(ValueError):  # Somebody else has waited for it.
            child.process.close()

    def _count_locked(self, child: _Child) -> None:
        """It is counted among those of the past, as it last said."""
        server = self._server
        if child.report is not None and self._began_to_end is not None:
            self._reports.append(child.report)
        if child.stats is None:
            return
        stats, lost = child.stats, child.stats.active
        for name in ("accepted", "handled", "failed", "cut"):
            self._totals[name] += getattr(stats, name)
        self._totals["lost"] += lost
        stats = stats._replace(active=0, waiting=0, parked=0, workers=0, failed=stats.failed + lost)
        if lost:
            stats = stats._replace(errors={**stats.errors, "process died": lost})
        known = [stats] if server._past is None else [server._past, stats]
        server._past = add_stats(known, draining=False)

    # ---- reloading and keys

    def _go_on_reloading(self, now: float) -> None:
        server = self._server
        with server._lock:
            if server._reload_wanted and self._reload is None:
                server._reload_wanted = False
                self._reload = list(range(server._count))
                self._reloads += 1
                for tickets in server._tickets:
                    tickets.anew()
        if self._reload is None or any(child.replaces for child in server._children):
            return
        if not self._reload:
            self._reload = None
            return
        number = self._reload.pop(0)
        old = next((c for c in server._children if c.number == number and not c.leaving), None)
        if old is not None:
            self._start(number, now, replaces=old)

    def _end_the_reload(self) -> None:
        self._reload = None
        logger.error("the reload ends here: what was to be new did not come up")

    def _turn_keys(self, now: float) -> None:
        for tickets in self._server._tickets:
            if tickets.step(now):
                for child in self._server._children:
                    child.tell("keys", tickets.name, tickets.keys)

    # ---- ending

    def _end(self, now: float) -> None:
        server = self._server
        if self._began_to_end is None:
            self._began_to_end = now
            server._listener.close()  # Who comes when the last of them has closed it, is refused.
        assert server._end_at is not None
        left = max(0.0, server._end_at - now)
        for child in server._children:
            if server._cancelled and not child.cancelled:
                child.cancelled = True
                child.tell("cancel", server._reason)
            self._send_away(child, server._reason or "", left)
            limit = now if server._kill else server._end_at + _MORE
            child.kill_at = limit if child.kill_at is None else min(child.kill_at, limit)

    def _kill_late(self, now: float) -> None:
        for child in self._server._children:
            if not child.killed and child.kill_at is not None and now >= child.kill_at:
                logger.error(
                    "process %d (pid %s) is killed: it did not %s in time",
                    child.number, child.process.pid, "end" if child.leaving or child.lost else "start",
                )  # fmt: skip
                child.killed = True
                child.process.kill()

    def sum_up(self) -> ProcessesReport:
        began = self._began_to_end
        return ProcessesReport(
            reason=self._server._reason,
            started=self._started,
            died=self._died,
            reloads=self._reloads,
            elapsed=0.0 if began is None else time.monotonic() - began,
            reports=tuple(self._reports),
            **self._totals,
        )
