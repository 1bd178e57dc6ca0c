"""What this process holds (descriptors, threads, live objects) and what was left behind."""

from __future__ import annotations

import fnmatch
import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from hardsock.lab.waits import poll_until


class Leak(AssertionError):
    """Something was left behind, or something of somebody else was closed."""


@dataclass(frozen=True)
class Snapshot:
    """The state of the process at one moment.

    Attributes:
        fds: What each open descriptor refers to, such as ``socket:[4711]``.
        threads: The name of each thread that the kernel knows, by its id.
        live: hardsock's counts of its own objects, if it was imported and offers them.
    """

    fds: dict[int, str] = field(default_factory=dict)
    threads: dict[int, str] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)


def snapshot() -> Snapshot:
    """Look at the process as it is now."""
    return Snapshot(_fds(), _threads(), _live())


def differences(
    before: Snapshot,
    after: Snapshot,
    *,
    ignore_fds: Sequence[str] = (),
    ignore_threads: Sequence[str] = (),
) -> list[str]:
    """What *after* has and *before* has not, or the other way round, one line each.

    Args:
        ignore_fds: Shell patterns of targets that may come and go.
        ignore_threads: Shell patterns of thread names that may come and go.
    """
    lines = []
    for fd, target in sorted(after.fds.items() - before.fds.items()):
        if not _matches(target, ignore_fds):
            lines.append(f"descriptor {fd} left open: {target}")
    for fd, target in sorted(before.fds.items() - after.fds.items()):
        if not _matches(target, ignore_fds):
            lines.append(f"descriptor {fd} closed that was open before: {target}")
    for tid in sorted(after.threads.keys() - before.threads.keys()):
        if not _matches(after.threads[tid], ignore_threads):
            lines.append(f"thread {tid} left running: {after.threads[tid]}")
    for name in sorted(after.live):
        if after.live[name] != before.live.get(name, 0):
            lines.append(
                f"live {name}: {before.live.get(name, 0)} before, {after.live[name]} after"
            )
    return lines


def leak_check(
    before: Snapshot,
    *,
    timeout: float = 2.0,
    ignore_fds: Sequence[str] = (),
    ignore_threads: Sequence[str] = (),
) -> None:
    """Raise `Leak` if the process does not come back to *before* within *timeout* seconds.

    Collects garbage first if there is a difference. Waits because the kernel forgets a joined
    thread a moment after the join.
    """

    def changes() -> list[str]:
        return differences(before, snapshot(), ignore_fds=ignore_fds, ignore_threads=ignore_threads)

    if not changes():
        return
    gc.collect()
    if not poll_until(lambda: not changes(), timeout):
        raise Leak("left behind:\n  " + "\n  ".join(changes()))


def _fds() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # listdir's own descriptor, or closed since by another thread.
    return found


def _threads() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{name}/comm") as file:
                found[int(name)] = file.read().rstrip("\n")
        except (FileNotFoundError, ProcessLookupError):
            pass  # Ended since.
    return found


def _live() -> dict[str, int]:
    core = sys.modules.get("hardsock._core")
    counters = getattr(core, "_live", None)
    return {} if counters is None else dict(counters())


def _matches(text: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns)
