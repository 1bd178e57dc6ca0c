"""To whom belongs what is open: tests and fixtures as owners. The leak check of the pytest plugin.

Whatever is made carries the owner that its context names (the context variable ``_core.owner``),
so that tests which run at the same time are told apart by the objects made inside of them. What
carries none was made in a thread that inherited no context: it belongs to the one owner that is
active, unless the thread is older than that owner. With several active ones it is a *stray*: nobody
is blamed, and what of it is open at the end is told then.
"""

from __future__ import annotations

import fnmatch
import gc
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hardsock import _core
from hardsock._fork_locks import renew_in_child
from hardsock._records import DroppedRecord
from hardsock.leaks.snapshot import Change, Snapshot, changes, rebased, snapshot
from hardsock.leaks.tracer import Trace, Tracer
from hardsock.pool.pool import living_pools
from hardsock.pool.records import Site, site_at

__all__ = ["KINDS", "Finding", "Owner", "Owners"]

KINDS = {
    "connections": frozenset({"connection", "lent", "pool", "dropped"}),
    "descriptors": frozenset({"socket", "pipe", "file", "directory"}),
    "all": frozenset(
        {"connection", "lent", "pool", "dropped", "socket", "pipe", "file", "directory"}
        | {"device", "event", "other", "closed", "thread", "live"}
    ),
}
_FD_KINDS = frozenset({"socket", "pipe", "file", "directory", "device", "event", "other"})
_COMPARED = _FD_KINDS | {"closed", "thread", "live"}
_FIRST_PAUSE = 0.001
_YOUNG = 1  # the generations of the garbage collector up to this one
_VERBS = {"lent": "borrowed and not returned, ", "listen": "listening, "}
_SOCKETS_OF_A_DIAL = 6


@dataclass(frozen=True)
class Finding:
    """Something that was left behind."""

    kind: str
    text: str
    site: Site | None = None
    name: str = ""
    """A descriptor's target, or the name of a thread or pool."""

    def matches(self, patterns: Iterable[str]) -> bool:
        """Whether one of the shell patterns is for its site (``file:line in function``) or name."""
        names = [self.name] if self.name else []
        if self.site is not None:
            names += [str(self.site), f"{self.site.file}:{self.site.line}", self.site.file]
        return any(fnmatch.fnmatchcase(name, p) for name in names for p in patterns)


@dataclass(eq=False)
class Owner:
    """A test, or a fixture that outlives tests."""

    name: str
    began: int = field(default_factory=time.monotonic_ns)
    before: Snapshot = field(default_factory=Snapshot)
    old_threads: dict[int, threading.Thread | None] = field(default_factory=dict)
    alone: bool = True
    """No other was active at any moment of its life."""
    only_named: bool = False
    """It has only what names it: a fixture, whose time is that of many tests."""

    def has(self, owner: object, since: int, thread: int) -> bool:
        """Whether something is its own that was made then, there, with that owner."""
        if owner is not None or self.only_named or not self.alone:
            return owner is self
        return since >= self.began and not self._is_older(thread)

    def _is_older(self, ident: int) -> bool:
        if ident not in self.old_threads:
            return False
        thread = self.old_threads[ident]
        return thread is None or thread.is_alive()  # Or the number is another thread's by now.


_users = 0
_users_lock = threading.Lock()
renew_in_child(sys.modules[__name__], "_users_lock")


def _use(change: int) -> list[DroppedRecord]:
    """Owners are noted as long as somebody uses them: a test may run pytest inside of itself."""
    global _users
    with _users_lock:
        _users += change
        dropped = _core._tell_owners(_users > 0)
        if _users == 0:
            dropped.clear()
        return dropped


class Owners:
    """The books of one test run."""

    def __init__(self, kinds: frozenset[str], tracer: Tracer | None = None) -> None:
        self.kinds = kinds
        self._tracer = tracer
        self._lock = threading.RLock()
        self._active: list[Owner] = []
        self._dropped = _use(+1)
        self._strays: dict[tuple[str, str], Finding] = {}

    def stop(self) -> None:
        """Note owners no more."""
        _use(-1)

    def begin(self, name: str) -> Owner:
        """Make an owner for what is opened from now on."""
        owner = Owner(name, old_threads=_other_threads(), before=self._snapshot())
        with self._lock:
            for other in self._active:
                other.alone = owner.alone = False
            self._active.append(owner)
        return owner

    def end(self, owner: Owner) -> None:
        """Its time is over. What its threads and tasks still make with its name on it is not seen."""
        with self._lock:
            if owner in self._active:
                self._active.remove(owner)

    def outside(self) -> Outside:
        """What happens between this and ``exempt()`` is nothing of the active owners'."""
        return Outside(self._snapshot(), set(_other_threads()))

    def exempt(self, outside: Outside) -> None:
        """See ``outside``."""
        after, threads = self._snapshot(), _other_threads()
        with self._lock:
            for owner in self._active:
                owner.before = rebased(owner.before, outside.before, after)
                for ident in threads.keys() - outside.threads:
                    owner.old_threads[ident] = threads[ident]

    def leftovers(self, owner: Owner, allowed: Sequence[str], wait: float) -> list[Finding]:
        """What it has left. Asks again, with growing pauses, for up to *wait* seconds.

        Garbage is collected before each look but the first: a thread that ends meanwhile may leave
        a cycle behind that holds something closed. At first only what is young: of a large program
        all objects are half a million, which take longer than most tests.
        """

        def look() -> list[Finding]:
            return [one for one in self._look(owner) if not one.matches(allowed)]

        found = look()
        if found:
            gc.collect(_YOUNG)
            found = look()
        pause, end = 0.0, time.monotonic() + wait
        last = False
        while found and not last:
            last = time.monotonic() >= end
            if pause:
                time.sleep(min(pause, max(0.0, end - time.monotonic())))
            pause = pause * 2 or _FIRST_PAUSE
            gc.collect()
            found = look()
        return found + self._claim_dropped(owner, allowed)

    def strays(self) -> list[Finding]:
        """What was left by nobody in particular and is open still."""
        fds = self._snapshot().fds
        living = {f"serial {one.serial}" for one in _core._opened()}
        living |= {f"{fd} {target}" for fd, target in fds.items()}
        return [one for (_, key), one in self._strays.items() if key in living]

    # ---- looking

    def _snapshot(self) -> Snapshot:
        if not self.kinds & _COMPARED:
            return Snapshot()
        return snapshot(threads="thread" in self.kinds)

    def _look(self, owner: Owner) -> list[Finding]:
        opened, ours = self._opened(owner)
        found = opened + self._pools(owner)
        if owner.only_named:
            return [one for one in found if one.kind in self.kinds]
        after = self._snapshot()
        if different := changes(owner.before, after):
            for pool in living_pools():
                ours |= {one.fd for one in pool._sockets()}
            found += self._changes(owner, different, ours, _hidden(after, len(ours)))
        return [one for one in found if one.kind in self.kinds]

    def _opened(self, owner: Owner) -> tuple[list[Finding], set[int]]:
        found, fds = [], set()
        for one in _core._opened():
            fds.add(one.fd)
            kind = "lent" if one.how == "lent" else "connection"
            ends = " -> ".join(end for end in (one.local, one.peer) if end is not None)
            site = site_at(one.code, one.offset)
            verb = _VERBS.get(one.how, "left open, ")
            text = f"{one.how} {ends}, descriptor {one.fd}: {verb}{_made(site, one.thread)}"
            finding = Finding(kind, text, site)
            if owner.has(one.owner, one.since_ns, one.thread):
                found.append(finding)
            elif one.owner is None and not owner.alone and one.since_ns >= owner.began:
                self._strays[kind, f"serial {one.serial}"] = finding
        return found, fds

    def _pools(self, owner: Owner) -> list[Finding]:
        found = []
        for pool in living_pools():
            made = pool._made
            since = int(made.at * 1e9)
            if pool.closed or not owner.has(made.owner, since, made.thread):
                continue
            text = (
                f"pool {pool.name}: not closed, {pool._stats()['idle']} connections idle, "
                f"{_made(made.site, made.thread)}"
            )
            found.append(Finding("pool", text, made.site, pool.name))
        return found

    def _changes(
        self, owner: Owner, found: list[Change], ours: set[int], hidden: int
    ) -> list[Finding]:
        findings, silent = [], []
        for one in found:
            if one.kind not in _FD_KINDS:
                # Of objects there may be fewer: what failed before is garbage, collected by now.
                if owner.alone and one.is_more:
                    findings.append(Finding(one.kind, one.text, None, one.name))
                continue
            if one.fd in ours or _is_for_life(one):
                continue
            trace = None if self._tracer is None else self._tracer.of(one.fd, one.name)
            finding = _finding_of(one, trace)
            if trace is None:
                if not owner.alone:
                    self._strays[one.kind, f"{one.fd} {one.name}"] = finding
                elif one.kind == "socket":
                    silent.append(finding)
                else:
                    findings.append(finding)
            elif owner.has(trace.owner, trace.since, trace.thread):
                findings.append(finding)
        # Sockets that no line of Python made: the core's own, as far as it has that many.
        return findings + (silent if len(silent) > hidden else [])

    def _claim_dropped(self, owner: Owner, allowed: Sequence[str]) -> list[Finding]:
        claimed = []
        for item in list(self._dropped):
            if not owner.has(item.owner, item.since_ns, item.thread):
                continue
            self._dropped.remove(item)
            site = site_at(item.code, item.offset)
            verb = "returned" if item.how == "lent" else "closed"
            text = f"{item.text}: thrown away, not {verb}, {_made(site, item.thread)}"
            finding = Finding("dropped", text, site)
            if "dropped" in self.kinds and not finding.matches(allowed):
                claimed.append(finding)
        return claimed


@dataclass(frozen=True)
class Outside:
    """The beginning of something that is no test's: the setting up of a fixture for several."""

    before: Snapshot
    threads: set[int]


def _finding_of(change: Change, trace: Trace | None) -> Finding:
    if trace is None:
        return Finding(change.kind, change.text, None, change.name)
    site = site_at(trace.code, trace.offset)
    return Finding(change.kind, f"{change.text}, {_made(site, trace.thread)}", site, change.name)


def _made(site: Site, thread: int) -> str:
    if thread == threading.main_thread().ident:
        return f"made at {site}"
    name = next((one.name for one in threading.enumerate() if one.ident == thread), None)
    return f"made at {site} by " + ("a thread that has ended" if name is None else name)


def _hidden(after: Snapshot, seen: int) -> int:
    """How many sockets the core may have that no object of Python stands for: connections that
    are closing, dials of pools, handshakes of listeners."""
    live = after.live
    return (
        max(0, live["conns"] + live["listeners"] - seen)
        + live["lingering"]
        + _SOCKETS_OF_A_DIAL * live["connectors"]
    )


def _is_for_life(one: Change) -> bool:
    """Whether it is one of those that are opened once for the life of a process: by the standard
    library, or by libffi, which keeps its own file for the trampolines that it maps from it (ctypes
    makes the first when it is imported; libffi, src/tramp.c)."""
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if one.fd == getattr(getattr(tracker, "_resource_tracker", None), "_fd", None):
        return True
    return os.path.basename(one.name).startswith("libffi.so.")


def _other_threads() -> dict[int, threading.Thread | None]:
    """Threads by number; with the object if threading has one."""
    found: dict[int, threading.Thread | None] = dict.fromkeys(sys._current_frames())
    for thread in threading.enumerate():
        if thread.ident is not None:
            found[thread.ident] = thread
    found.pop(threading.get_ident(), None)
    return found
