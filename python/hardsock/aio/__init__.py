"""hardsock for event loops: the same names, parameters and exceptions, awaited.

Runs under asyncio (also on uvloop) and trio (``pip install hardsock[trio]``). No thread per
operation: the loop watches one descriptor, whatever the number of connections. The loop's own
cancelling works, and so do tokens and ambient scopes, from other threads as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hardsock.aio._connection import Connection
from hardsock.aio._factories import adopt, connect, listen, resolve
from hardsock.aio._listener import Listener
from hardsock.aio._pool import Pool
from hardsock.aio._serve import serve
from hardsock.aio._server import Server
from hardsock.aio._timeout import sleep, timeout
from hardsock.aio._wait import wait

if TYPE_CHECKING:
    from hardsock.aio.loop import EventLoop as EventLoop

__all__ = [
    "Connection",
    "Listener",
    "Pool",
    "Server",
    "adopt",
    "connect",
    "listen",
    "resolve",
    "serve",
    "sleep",
    "timeout",
    "wait",
]


def __getattr__(name: str) -> Any:
    """``EventLoop``, imported when it is asked for: it loads what only asyncio's protocols need."""
    if name != "EventLoop":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hardsock.aio.loop import EventLoop

    return EventLoop
