"""The inspect socket: where it is, and switching it on."""

from __future__ import annotations

import atexit
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

from hardsock import _core

__all__ = ["inspect"]

_state: dict[str, str] = {}


def directories() -> Iterator[Path]:
    """Where sockets of this user may be, the preferred place first."""
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "hardsock")
    if os.geteuid() == 0:
        yield Path("/run/hardsock")
    yield Path(f"/tmp/hardsock-{os.geteuid()}")


def start_time(pid: int) -> str:
    """When a process began, in ticks since the machine did: with its number it has one name.

    Raises:
        OSError: If there is no such process.
    """
    text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    return text.rpartition(")")[2].split()[19]


def socket_name(pid: int) -> str:
    """The name of a process's socket, in whichever directory."""
    return f"{pid}-{start_time(pid)}.sock"


def _private(directory: Path) -> bool:
    """Make it if there is none; whether it is this user's own, and nobody else can enter."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
    except OSError:
        return False
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return mine and not found.st_mode & 0o077


def first_private(places: list[Path]) -> Path:
    """The first of these that can be had as a directory of this user's own.

    Raises:
        PermissionError: If there is none.
    """
    for place in places:
        if _private(place):
            return place
    raise PermissionError(
        f"{', '.join(map(str, places))}: must be a directory of this user's own with mode 0700"
    )


def current() -> str | None:
    """The path of this process's socket; ``None``: it has none."""
    if directory := _state.get("directory"):
        return str(Path(directory, socket_name(os.getpid())))
    return None


def inspect(enabled: bool = True, *, directory: str | os.PathLike[str] | None = None) -> str | None:
    """Let ``hardsock top`` and others look at this process, through a unix socket.

    A native thread serves it: it answers while Python code holds the GIL, and at the limit of
    descriptors. It only reads, for the same user and root (``SO_PEERCRED``), out of a directory of
    mode 0700. A forked child serves its own. ``HARDSOCK_INSPECT=1`` in the environment does the
    same when hardsock is imported.

    A request is a line with the name of a report (see ``report()``), its answer a line of JSON.

    Args:
        enabled: ``False``: no more.
        directory: Where; by default ``$XDG_RUNTIME_DIR/hardsock``, else ``/run/hardsock`` for root,
            else ``/tmp/hardsock-UID``. It is made if it is not there.

    Returns:
        The socket's path, or ``None`` when it is no more.

    Raises:
        PermissionError: If no directory is there that only this user can enter.
        OSError: If the socket or the thread could not be made.
    """
    if not enabled:
        _state.clear()
        _core._inspect(None)
        return None
    place = first_private([Path(directory)] if directory is not None else list(directories()))
    path = place / socket_name(os.getpid())
    _core._inspect(os.fsencode(path))
    if not _state:
        _register()
    _state["directory"] = str(place)
    return str(path)


_registered: list[bool] = []


def _register() -> None:
    if _registered:
        return
    _registered.append(True)
    atexit.register(_core._inspect, None)
    os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    """A child that cannot have one goes on without."""
    if directory := _state.get("directory"):
        try:
            inspect(directory=directory)
        except OSError as error:
            warnings.warn(f"hardsock: cannot be inspected: {error}", RuntimeWarning, stacklevel=2)


def by_environment() -> None:
    """At import: a program that cannot be inspected runs all the same."""
    if os.environ.get("HARDSOCK_INSPECT", "0") not in ("", "0"):
        try:
            inspect()
        except OSError as error:
            warnings.warn(f"HARDSOCK_INSPECT: {error}", RuntimeWarning, stacklevel=2)
