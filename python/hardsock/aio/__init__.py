"""hardsock for event loops: the same names, parameters and exceptions, awaited.

Runs under asyncio (also on uvloop) and trio (``pip install hardsock[trio]``). No thread per
operation: the loop watches one descriptor, whatever the number of connections. The loop's own
cancelling works, and so do tokens and ambient scopes, from other threads as well.
"""

from __future__ import annotations

from hardsock.aio._connection import Connection
from hardsock.aio._listener import Listener
from hardsock.aio._making import adopt, connect, listen, resolve
from hardsock.aio._pool import Pool
from hardsock.aio._serve import serve
from hardsock.aio._server import Server
from hardsock.aio._timeout import sleep, timeout
from hardsock.aio._wait import wait

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
