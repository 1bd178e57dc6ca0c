"""Which line made a socket or opened a file that is not hardsock's: for leak checks of tests.

An audit hook (sys.addaudithook) hears of each. It cannot be taken out again, so it is installed
only where a test runner asks. It costs a few microseconds for each socket or file, and a call of a
Python function for each other event that is audited.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
import weakref
from collections import OrderedDict
from types import CodeType, FrameType
from typing import Any, NamedTuple

from hardsock import _core

__all__ = ["Trace", "Tracer"]

_MAX_FILES = 4096  # the latest; a file that was opened long ago and is open yet has no site
_STDLIB = os.path.dirname(os.__file__) + os.sep
_OURS = os.path.dirname(__file__) + os.sep
_FOREIGN = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Trace(NamedTuple):
    """Where something was made."""

    code: CodeType | None
    offset: int
    since: int
    """``time.monotonic_ns()``."""
    thread: int
    owner: object


class Tracer:
    """Notes the makers of sockets and the openers of files, from ``install()`` on."""

    def __init__(self) -> None:
        self._sockets: dict[int, tuple[weakref.ref[Any], Trace]] = {}
        self._files: OrderedDict[str, Trace] = OrderedDict()

    def install(self) -> None:
        """Begin, for the life of the process."""
        sys.addaudithook(self._hear)

    def of(self, fd: int, target: str) -> Trace | None:
        """The latest that made descriptor *fd*, which the kernel calls *target*."""
        if not target.startswith("socket:"):
            return self._files.get(target)
        for reference, trace in list(self._sockets.values()):
            sock = reference()
            if sock is not None and sock.fileno() == fd:
                return trace
        return None

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.__new__":
            self._note_socket(args[0])
        elif event == "open" and isinstance(args[0], str | os.PathLike | bytes):
            self._note_file(args[0])

    def _note_socket(self, sock: Any) -> None:
        try:
            reference = weakref.ref(sock, self._forget)
        except TypeError:  # _socket.socket itself, which hardly anybody uses.
            return
        self._sockets[id(reference)] = (reference, _trace())

    def _forget(self, reference: weakref.ref[Any]) -> None:
        self._sockets.pop(id(reference), None)

    def _note_file(self, path: str | os.PathLike[str] | bytes) -> None:
        name = os.fsdecode(path)
        if not name.startswith("/"):
            name = os.path.abspath(name)
        self._files[name] = _trace()
        self._files.move_to_end(name)
        while len(self._files) > _MAX_FILES:
            self._files.popitem(last=False)


def _trace() -> Trace:
    frame = _outside(sys._getframe(3))
    return Trace(
        None if frame is None else frame.f_code,
        0 if frame is None else frame.f_lasti,
        time.monotonic_ns(),
        threading.get_ident(),
        _core.owner.get(None),
    )


def _outside(frame: FrameType | None) -> FrameType | None:
    """The innermost frame outside of the standard library and of hardsock, or else *frame*."""
    innermost = frame
    while frame is not None:
        if not _is_inside(frame.f_code.co_filename):
            return frame
        frame = frame.f_back
    return innermost


@functools.lru_cache(maxsize=4096)
def _is_inside(name: str) -> bool:
    if name.startswith(_STDLIB):
        return not any(part in name for part in _FOREIGN)
    return name.startswith((_OURS, "<frozen "))
