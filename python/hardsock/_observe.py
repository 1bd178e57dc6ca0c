"""What this process has and what went wrong last: figures, reports, the flight recorder."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Protocol, cast

from hardsock import _core
from hardsock.pool.records import Site, thread_name

__all__ = ["Event", "dump", "dump_at_fatal_signals", "events", "report"]


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


def report(name: str, id: int | None = None) -> dict[str, Any]:
    """What this process has, as the inspect socket tells it: plain dicts, lists, numbers and str.

    ``"metrics"``, ``"connections"``, ``"sites"``, ``"pools"``, ``"servers"``, ``"breakers"`` or
    ``"events"``; or ``"connection"`` and the *id* of one: its row, and under ``"tcp"`` all that the
    kernel tells of it (TCP_INFO, tcp(7), in the kernel's units). Times are seconds; what is not
    known, or never was, is ``None``. Keys may be added in later versions; ``"version"`` changes
    when one goes or means something else.

    Raises:
        ValueError: For another name.
        LookupError: If no connection with that *id* is open.
        MemoryError: If there is none for it.
    """
    import json  # Not with hardsock: few ask, and each process would wait for it.

    request = name if id is None else f"{name} {id}"
    return cast("dict[str, Any]", json.loads(_core._report(request)))


@dataclass(frozen=True)
class Event:
    """Something that went wrong, or was meant to be noticed.

    Attributes:
        number: In the order in which they happened, from 1 on.
        kind: ``"connect_failed"``, ``"connect_slow"`` (over 2 s), ``"deadline"``, ``"cancelled"``,
            ``"reset"``, ``"dead_peer"``, ``"leaked"``, ``"overdue"``, ``"pool_timeout"``,
            ``"breaker_opened"``, ``"breaker_closed"``, ``"draining"``, ``"drained"``, ``"shed"``,
            ``"no_descriptors"``, ``"forked"`` or ``"fault"``.
        age: Seconds ago.
        what: The peer's address, or the name of the pool or breaker; of one that was shed also why,
            as in ``ServerStats.shed_reasons``; cut at 63 bytes.
        error: What went wrong, in words; ``None``: nothing, or the kind says it.
        errno: 0: none.
        fd: The number that it had then.
        span: How long it had taken until then, or lasts, in seconds.
        site: The line that made the connection or the pool, or borrowed.
        thread: The thread in which it happened, by its name.
    """

    number: int
    kind: str
    age: float
    what: str
    error: str | None
    errno: int
    fd: int | None
    span: float | None
    site: Site | None
    thread: str

    def __str__(self) -> str:
        text = f"{self.age:.3f} s ago: {self.kind} {self.what}".rstrip()
        text += f": {self.error}" if self.error else ""
        text += f", errno {self.errno}" if self.errno else ""
        text += f" after {self.span:.3f} s" if self.span is not None else ""
        return text + (f" at {self.site}" if self.site is not None else "")


def events() -> list[Event]:
    """What the flight recorder keeps, the oldest first: the last 64 of each kind."""
    return [
        Event(
            number=one["number"],
            kind=one["kind"],
            age=one["age"],
            what=one["what"],
            error=one["error"],
            errno=one["errno"],
            fd=one["fd"],
            span=one["span"],
            site=None if one["site"] is None else Site(**one["site"]),
            thread=thread_name(one["thread"]),
        )
        for one in report("events")["events"]
    ]


def dump(file: int | _HasFileno | None = None) -> None:
    """Write what the flight recorder keeps, a line for each event, to a descriptor.

    Args:
        file: A descriptor, or what has one; ``None``: standard error.
    """
    _core._dump(_descriptor(file))


def dump_at_fatal_signals(file: int | _HasFileno | None = None) -> None:
    """From now on ``dump(file)`` when the process dies of SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT.

    Call it after ``faulthandler.enable()``: the dump comes first, then what faulthandler says. Keep
    *file* open. Nothing is allocated in the handler.

    Raises:
        OSError: If a handler could not be set.
    """
    _core._dump_at_fatal_signals(_descriptor(file))


def _descriptor(file: int | _HasFileno | None) -> int:
    if isinstance(file, int):
        return file
    return (sys.stderr if file is None else file).fileno()
