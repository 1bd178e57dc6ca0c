"""When a request arrived, for servers whose requests wait for a thread."""

from __future__ import annotations

import time

from hardsock._core import Connection

__all__ = ["arrived"]


def arrived(conn: Connection) -> float:
    """``time.monotonic()`` when the kernel last received data for *conn*, read by now or not.

    Asked when a request is about to be served, before more of it is awaited, that is when it came:
    it may have waited for a thread. Where the kernel does not say, as of a unix socket, it is now.
    """
    try:
        waited = conn.tcp_info()["last_data_recv"]
    except OSError:
        waited = 0
    return time.monotonic() - waited / 1e3
