"""Which line made a socket or opened a file that is not hardsock's.

An audit hook (sys.addaudithook) hears of each socket that Python code makes, whatever library it is
in. It cannot be taken out again, so it is installed only where somebody asks: a test runner,
``fd_watch()``, ``hardsock run``. It costs 2 microseconds for each socket or file, and a call of
a Python function for each other event that is audited.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NamedTuple

from hardsock import _core
from hardsock._fork_locks import renew_in_child

__all__ = ["Trace", "Tracer", "installed", "trace_sockets"]

_MAX_FILES = 4096  # the latest; a file that was opened long ago and is open yet has no site
_STDLIB = os.path.dirname(os.__file__) + os.sep
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
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
    """Notes the makers of sockets, and with *files* the openers of files, from ``install()`` on."""

    def __init__(self, *, files: bool = True) -> None:
        self._sockets: dict[int, tuple[weakref.ref[Any], Trace]] = {}
        self._files: OrderedDict[str, Trace] = OrderedDict()
        # Without a GIL an ordered dictionary that two threads change is destroyed. The same thread
        # may come again: an object that is freed meanwhile may open something.
        self._lock = threading.RLock()
        renew_in_child(self, make=threading.RLock)
        self._with_files = files
        self._made: Callable[[], object] | None = None

    def install(self) -> None:
        """Begin, for the life of the process."""
        hear = self._hear

        def hook(event: str, args: tuple[Any, ...]) -> None:
            # A plain function: the interpreter takes four times as long to call a method.
            if event == "socket.__new__" or event == "open":
                hear(event, args)

        sys.addaudithook(hook)

    def on_socket(self, made: Callable[[], object] | None) -> None:
        """Have it called when a socket is about to be made, in whatever thread; it raises nothing."""
        self._made = made

    def of(self, fd: int, target: str) -> Trace | None:
        """The latest that made descriptor *fd*, which the kernel calls *target*."""
        if not target.startswith("socket:"):
            with self._lock:
                return self._files.get(target)
        return self.of_sockets().get(fd)

    def of_sockets(self) -> dict[int, Trace]:
        """Who made the sockets that are open, by descriptor."""
        found = {}
        for reference, trace in list(self._sockets.values()):
            sock = reference()
            if sock is not None and (fd := sock.fileno()) >= 0:
                found[fd] = trace
        return found

    def of_socket(self, sock: Any) -> Trace | None:
        """Who made *sock*."""
        kept = self._sockets.get(id(sock))
        return None if kept is None else kept[1]

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.__new__":
            self._note_socket(args[0])
            if self._made is not None:
                self._made()
        elif (
            event == "open" and self._with_files and isinstance(args[0], str | os.PathLike | bytes)
        ):
            self._note_file(args[0])

    def _note_socket(self, sock: Any) -> None:
        # By the object's id: the reference tells when it is free to be another's.
        number = id(sock)
        try:
            reference = weakref.ref(sock, functools.partial(self._forget, number))
        except TypeError:  # _socket.socket itself, which hardly anybody uses.
            return
        self._sockets[number] = (reference, _trace())

    def _forget(self, number: int, reference: weakref.ref[Any]) -> None:
        kept = self._sockets.get(number)
        if kept is not None and kept[0] is reference:
            del self._sockets[number]

    def _note_file(self, path: str | os.PathLike[str] | bytes) -> None:
        name = os.fsdecode(path)
        if not name.startswith("/"):
            name = os.path.abspath(name)
        trace = _trace()
        with self._lock:
            self._files[name] = trace
            self._files.move_to_end(name)
            while len(self._files) > _MAX_FILES:
                self._files.popitem(last=False)


_lock = threading.Lock()
renew_in_child(sys.modules[__name__])
_installed: Tracer | None = None


def trace_sockets(*, files: bool = False) -> Tracer:
    """Begin to note who makes sockets in this process, if that has not begun: one for all."""
    global _installed
    with _lock:
        if _installed is None:
            _installed = Tracer(files=files)
            _installed.install()
        _installed._with_files = _installed._with_files or files
        return _installed


def installed() -> Tracer | None:
    """The one that ``trace_sockets()`` began."""
    return _installed


def _trace() -> Trace:
    code, offset = _core._here()
    if code is None or _is_inside(code.co_filename):
        frame = _outside(sys._getframe(4))
        if frame is not None:
            code, offset = frame.f_code, frame.f_lasti
    return Trace(code, offset, time.monotonic_ns(), threading.get_ident(), _core.owner.get(None))


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
