"""System calls that fail in one thread, as a full or a broken kernel would have it (seccomp(2))."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

from hardsock.lab.unavailable import Unavailable

__all__ = ["refuse_epoll_wait"]

_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2
_LOAD_NUMBER, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPOLL_WAITS = {"x86_64": (232, 281), "aarch64": (22,)}


def _instruction(code: int, jump_true: int, jump_false: int, value: int) -> bytes:
    return struct.pack("HBBI", code, jump_true, jump_false, value)


def refuse_epoll_wait(error: int) -> None:
    """From now on epoll_wait(2) fails in the calling thread, which should end soon.

    Raises:
        Unavailable: This kernel, or this machine's architecture, has no such filter.
    """
    numbers = _EPOLL_WAITS.get(platform.machine())
    if numbers is None:
        raise Unavailable(f"the numbers of system calls on {platform.machine()} are not known")
    program = _instruction(_LOAD_NUMBER, 0, 0, 0)
    for left, number in zip(range(len(numbers), 0, -1), numbers, strict=True):
        program += _instruction(_IF_EQUAL, left, 0, number)
    program += _instruction(_RETURN, 0, 0, _ALLOW) + _instruction(_RETURN, 0, 0, _ERRNO | error)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.prctl(_SECCOMP, _FILTER, header) != 0:
        raise Unavailable(f"seccomp: {os.strerror(ctypes.get_errno())}")
