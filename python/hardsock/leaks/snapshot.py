"""What a process holds (descriptors, threads, live objects), and how that changed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from hardsock import _core

__all__ = ["Change", "Snapshot", "changes", "rebased", "snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """The state of the process at one moment.

    Attributes:
        fds: What each open descriptor refers to, such as ``socket:[4711]``.
        kinds: Its kind, as in ``fd_inventory()``.
        threads: The name of each thread that the kernel knows, by its id.
        live: hardsock's counts of its own objects.
    """

    fds: dict[int, str] = field(default_factory=dict)
    kinds: dict[int, str] = field(default_factory=dict)
    threads: dict[int, str] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One difference between two snapshots."""

    kind: str
    """The kind of a descriptor that was left open; ``"closed"``: of one that is gone;
    ``"thread"``, ``"live"``."""
    name: str
    """What it is: a descriptor's target, a thread's or a counter's name."""
    text: str
    fd: int = -1
    is_more: bool = True
    """False: there is less of it, which something from before may have left only now."""


def snapshot(*, threads: bool = True) -> Snapshot:
    """Look at the process as it is now; opens no descriptor but for the *threads*."""
    listed = _core._fd_list()
    return Snapshot(
        fds={one.fd: one.target for one in listed},
        kinds={one.fd: one.kind for one in listed},
        threads=_threads() if threads else {},
        live=dict(_core._live()),
    )


def changes(before: Snapshot, after: Snapshot) -> list[Change]:
    """What *after* has and *before* has not, or the other way round."""
    found = []
    for fd, target in sorted(after.fds.items() - before.fds.items()):
        text = f"descriptor {fd} left open: {target}"
        found.append(Change(after.kinds[fd], target, text, fd))
    for fd, target in sorted(before.fds.items() - after.fds.items()):
        text = f"descriptor {fd} closed that was open before: {target}"
        found.append(Change("closed", target, text, fd))
    for tid in sorted(after.threads.keys() - before.threads.keys()):
        name = after.threads[tid]
        found.append(Change("thread", name, f"thread {tid} left running: {name}"))
    for name, count in sorted(after.live.items()):
        was = before.live.get(name, 0)
        if count != was:
            text = f"live {name}: {was} before, {count} after"
            found.append(Change("live", name, text, is_more=count > was))
    return found


def rebased(base: Snapshot, before: Snapshot, after: Snapshot) -> Snapshot:
    """*base* as it would be if what happened between *before* and *after* had been before it."""
    new_fds = dict(after.fds.items() - before.fds.items())
    new_threads = dict(after.threads.items() - before.threads.items())
    return Snapshot(
        fds={**base.fds, **new_fds},
        kinds={**base.kinds, **{fd: after.kinds[fd] for fd in new_fds}},
        threads={**base.threads, **new_threads},
        live={
            name: base.live.get(name, 0) + count - before.live.get(name, 0)
            for name, count in after.live.items()
        },
    )


def _threads() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{name}/comm") as file:
                found[int(name)] = file.read().rstrip("\n")
        except (FileNotFoundError, ProcessLookupError):
            pass  # Ended since.
    return found
