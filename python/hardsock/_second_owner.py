"""What to do when ``detach()`` is refused after somebody has taken the number already.

``ssl.SSLContext.wrap_socket`` makes an ``SSLSocket`` of ``sock.fileno()`` first and calls
``sock.detach()`` after: when that raises, two objects own one descriptor, and the SSLSocket closes
it when it dies. Nothing says who calls, so the objects themselves are looked through, which takes
a few milliseconds in a program with very many; it happens only when ``detach()`` has failed.
"""

from __future__ import annotations

import gc
import socket


def disown(number: int) -> int:
    """Take the descriptor *number* from every ``socket.socket`` that has it; returns how many."""
    found = 0
    for one in gc.get_objects():
        # type(), since an object may claim any __class__.
        if issubclass(type(one), socket.socket) and socket.socket.fileno(one) == number:
            socket.socket.detach(one)
            found += 1
    return found
