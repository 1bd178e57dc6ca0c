"""What this process holds (descriptors, threads, live objects) and what was left behind."""

from __future__ import annotations

import fnmatch
import gc
from collections.abc import Sequence

from hardsock.lab.waits import poll_until
from hardsock.leaks.snapshot import Snapshot, changes, snapshot

__all__ = ["Leak", "Snapshot", "differences", "leak_check", "snapshot"]


class Leak(AssertionError):
    """Something was left behind, or something of somebody else was closed."""


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
    ignored = {"thread": ignore_threads, "live": ()}
    return [
        change.text
        for change in changes(before, after)
        if not _matches(change.name, ignored.get(change.kind, ignore_fds))
    ]


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

    Args:
        before: What ``snapshot()`` returned when the work began.
        timeout: Seconds that it may take.
        ignore_fds: Shell patterns of targets that may come and go.
        ignore_threads: Shell patterns of thread names that may come and go.

    Raises:
        Leak: Something is left that was not there before; it lists what.
    """

    def found() -> list[str]:
        return differences(before, snapshot(), ignore_fds=ignore_fds, ignore_threads=ignore_threads)

    if not found():
        return
    gc.collect()
    if not poll_until(lambda: not found(), timeout):
        raise Leak("left behind:\n  " + "\n  ".join(found()))


def _matches(text: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns)
