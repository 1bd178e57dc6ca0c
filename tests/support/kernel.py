"""What the kernel says about a socket of ours."""

from __future__ import annotations

import array
import fcntl
import termios


def unread(fd: int) -> int:
    """Bytes that have arrived on the socket and were not read (FIONREAD, tcp(7))."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]
