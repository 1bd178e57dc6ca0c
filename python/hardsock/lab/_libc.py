"""The system calls for namespaces and mounts that Python 3.10 does not offer."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces, see unshare(2)."""
    native = getattr(os, "unshare", None)  # Python 3.12
    if native is not None:
        native(flags)
    else:
        _check(_libc.unshare(flags), "unshare")


def setns(fd: int, flags: int) -> None:
    """Move the calling process into the namespace that *fd* stands for, see setns(2)."""
    native = getattr(os, "setns", None)  # Python 3.12
    if native is not None:
        native(fd, flags)
    else:
        _check(_libc.setns(fd, flags), "setns")


def mount(source: str, target: str, flags: int, kind: str | None = None) -> None:
    """Mount *source* on *target*, see mount(2)."""
    fstype = None if kind is None else kind.encode()
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), fstype, ctypes.c_ulong(flags), None
    )
    _check(result, f"mount on {target}")
