"""hardsock for event loops: the same names, parameters and exceptions, awaited.

Runs under asyncio (also on uvloop) and trio (``pip install hardsock[trio]``). No thread per
operation: the loop watches one descriptor, whatever the number of connections. The loop's own
cancelling works, and so do tokens and ambient scopes, from other threads as well.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from hardsock.aio._connection import Connection
from hardsock.aio._factories import adopt, connect, listen, resolve
from hardsock.aio._listener import Listener
from hardsock.aio._timeout import sleep, timeout
from hardsock.aio._wait import wait

if TYPE_CHECKING:
    from hardsock.aio._pool import Pool
    from hardsock.aio._serve import serve
    from hardsock.aio._server import Server
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


# Imported when they are used: a client pays for no server.
_HOME_OF = {
    "EventLoop": "hardsock.aio.loop",
    "Pool": "hardsock.aio._pool",
    "Server": "hardsock.aio._server",
    "serve": "hardsock.aio._serve",
}

if not TYPE_CHECKING:  # A checker that saw it would take every misspelt name for one of ours.

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(_import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_HOME_OF})
