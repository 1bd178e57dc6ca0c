"""What a program under ``hardsock run`` has open, has dropped, and where its limits ended calls.

Told at the exit if asked for, and at any time by a signal. Lines are those of the program, as the
ledger names them. Nothing here raises: the program goes on whatever becomes of a report.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from types import CodeType
from typing import Any

from hardsock import _core
from hardsock._errors import DeadlineExceeded
from hardsock.leaks.descriptors import Descriptor, FdAlarm, fd_snapshot, fd_watch
from hardsock.leaks.tracer import installed
from hardsock.pool.records import Site, site_at
from hardsock.running.settings import Settings

__all__ = ["dropped", "install", "text", "tls_escaped"]

_LISTED = 20  # lines of a part
_STDERR = 2  # itself, whatever the program makes of sys.stderr

_settings = Settings()
_began = time.monotonic()
_leaked: Counter[tuple[CodeType | None, int]] = Counter()
_overran: Counter[tuple[CodeType | None, int]] = Counter()
_tls: Counter[tuple[CodeType | None, int, str]] = Counter()
_MAX_PLACES = 1000  # of which each is counted; a program that makes up code has no end of them
_finished = False


def _count(counter: Counter[Any], place: tuple[Any, ...]) -> None:
    if place in counter or len(counter) < _MAX_PLACES:
        counter[place] += 1


def dropped(sock: Any, conn: Any) -> None:
    """A socket is thrown away: count it if nobody has closed it. Called by finalizers."""
    if _finished or sys.is_finalizing() or getattr(sock, "_closed", True):
        return  # Without _closed it has never been made: its __init__ failed.
    if conn is None and sock.fileno() < 0:
        return
    tracer = installed()
    trace = None if tracer is None else tracer.of_socket(sock)
    if trace is not None:
        _count(_leaked, (trace.code, trace.offset))


def tls_escaped(why: str) -> None:
    """``ssl`` keeps TLS on a connection, which is not hardsock's any more."""
    _count(_tls, (*_core._here(), why))


def _note_deadlines() -> None:
    """Count where calls end at a limit: each of these errors is made there."""
    cls: Any = DeadlineExceeded
    made = cls.__init__

    def init(self: Any, *args: Any) -> None:
        made(self, *args)
        _count(_overran, _core._here())

    cls.__init__ = init


# ---- the text


def text(why: str) -> str:
    """The report as lines; *why* it is made."""
    took = time.monotonic() - _began
    name = " ".join(sys.argv) or "python"
    lines = [f"hardsock run: {name}, process {os.getpid()}, {took:.1f} s: {why}"]
    for part in _parts():
        lines += part
    return "\n".join(lines) + "\n"


def _parts() -> Iterator[list[str]]:
    sockets = [one for one in fd_snapshot().descriptors if one.kind == "socket"]
    ours = [one for one in sockets if one.connection is not None]
    others = [one for one in sockets if one.connection is None]
    yield _part("open, under hardsock", "none", [_line_of(one) for one in ours])
    yield _part(
        "open, not under hardsock: no limit and no cancel reaches them",
        "none",
        map(_line_of, others),
    )
    yield _part("dropped without a close()", "none", _counted(_leaked))
    yield _part("calls that a limit has ended", "none", _counted(_overran))
    if _tls:
        yield _part(
            "TLS that stays with ssl, so that limits end there",
            "none",
            [
                f"{count} at {site_at(code, offset)}: {reason}"
                for (code, offset, reason), count in list(_tls.items())
            ],
        )


def _part(title: str, nothing: str, found: Any) -> list[str]:
    lines = list(found)
    more = len(lines) - _LISTED
    head = f"  {title}: {len(lines) if lines else nothing}"
    rest = [f"    and {more} more"] if more > 0 else []
    return [head, *(f"    {line}" for line in lines[:_LISTED]), *rest]


def _line_of(one: Descriptor) -> str:
    return str(one)


def _counted(counter: Counter[tuple[CodeType | None, int]]) -> list[str]:
    sites: Counter[Site] = Counter()
    for (code, offset), count in list(counter.items()):
        sites[site_at(code, offset)] += count
    return [f"{count} at {site}" for site, count in sites.most_common()]


# ---- when it is told


def _write(report: str) -> None:
    data = report.encode("utf-8", "backslashreplace")
    try:
        if _settings.report in (None, "-"):
            os.write(_STDERR, data)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        number = os.open(_settings.report or "", flags, 0o600)
        try:
            os.write(number, data)
        finally:
            os.close(number)
    except OSError:
        pass  # Nobody reads it, or there is no room.


def _at_exit() -> None:
    global _finished
    if not _finished:
        _finished = True
        _write(text("at the exit"))


def _on_signal(number: int, _frame: object) -> None:
    _write(text(signal.Signals(number).name))


def _on_alarm(alarm: FdAlarm) -> None:
    _write(f"hardsock run: process {os.getpid()}: {alarm}\n")


def _in_child() -> None:
    """A forked child has its own report; one of multiprocessing leaves without atexit."""
    global _began
    _began = time.monotonic()
    for counter in (_leaked, _overran, _tls):
        counter.clear()
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _settings.report is not None:
        util.register_after_fork(_settings, _finalize)


def _finalize(_settings: object) -> None:
    from multiprocessing import util

    util.Finalize(None, _at_exit, exitpriority=-1000)


def install(settings: Settings) -> None:
    """Begin to note, and arrange for the reports."""
    global _settings
    _settings = settings
    fd_watch(growth=2, on_alarm=_on_alarm, trace=True)
    if settings.limits:
        _note_deadlines()
    os.register_at_fork(after_in_child=_in_child)
    if settings.report is not None:
        atexit.register(_at_exit)
    if settings.signal is not None and threading.current_thread() is threading.main_thread():
        number = signal.Signals[settings.signal]
        if signal.getsignal(number) is signal.SIG_DFL:  # A program with a use for it has it.
            signal.signal(number, _on_signal)
