"""Names for descriptors that something else owns, so that an inventory can tell what they are.

A note is void when the number stands for another file: the kernel's own identity of what was open
then is compared, since nobody tells when a foreign library closes.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import Protocol

from hardsock import _core
from hardsock._fork_locks import renew_in_child
from hardsock.pool.records import Site, site_at

__all__ = ["Note", "note", "note_of"]


class HasFileno(Protocol):
    """What ``select`` takes for a descriptor."""

    def fileno(self) -> int: ...


@dataclass(frozen=True)
class Note:
    """What somebody said about a descriptor that is not hardsock's.

    Attributes:
        name: What it is.
        site: Where that was said: the innermost frame outside of hardsock and of registered
            libraries.
        since: When, as ``time.monotonic()`` tells time.
    """

    name: str
    site: Site
    since: float

    def __str__(self) -> str:
        return f"{self.name}, noted at {self.site}"


_lock = threading.RLock()  # A handler of a signal may take a snapshot while its thread holds it.
renew_in_child(sys.modules[__name__], make=threading.RLock)
_notes: dict[int, tuple[tuple[int, int], Note]] = {}
"""By number: what the kernel had open there, and the note. One for each number at most."""


def note(fd: int | HasFileno, name: str | None) -> None:
    """Say what the descriptor *fd*, which another library owns, is for.

    ``fd_snapshot()`` and ``fd_watch()`` tell it, with the line that said so. Nothing else changes:
    hardsock does not own the descriptor, and neither waits for it nor closes it. A note is
    forgotten when the number is something else.

    Args:
        fd: A number, or what has a ``fileno()``.
        name: For people: ``"libpq orders"``. ``None`` takes a note back.

    Raises:
        OSError: Nothing is open there (EBADF).
        TypeError, ValueError: *fd* or *name* is something else.
    """
    number = fd.fileno() if hasattr(fd, "fileno") else fd
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"fd must be a descriptor or have a fileno(), not {type(fd).__name__}")
    if name is None:
        with _lock:
            _notes.pop(number, None)
        return
    if not isinstance(name, str):
        raise TypeError(f"name must be a str or None, not {type(name).__name__}")
    if not name:
        raise ValueError("name must not be empty: None takes a note back")
    found = os.fstat(number)
    said = Note(name, site_at(*_core._here()), time.monotonic())
    with _lock:
        _notes[number] = ((found.st_dev, found.st_ino), said)


def note_of(fd: int, device: int, inode: int) -> Note | None:
    """The note on what is open there now; one on something else is dropped."""
    kept = _notes.get(fd)
    if kept is None or kept[0] == (device, inode):
        return None if kept is None else kept[1]
    with _lock:
        if _notes.get(fd) is kept:
            del _notes[fd]
    return None
