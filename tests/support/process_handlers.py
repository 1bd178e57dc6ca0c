"""Handlers of servers with several processes: they have to be where another interpreter finds them."""

from __future__ import annotations

import os
import signal

import hardsock as hs
from hardsock import aio


def which(conn: hs.Connection) -> None:
    """Answer each line with it and the number of the process; obey a few."""
    for line in conn.lines(token=hs.draining()):
        obey(bytes(line))
        conn.sendall(line + b" %d\n" % os.getpid())


async def which_awaited(conn: aio.Connection) -> None:
    """The same in an event loop."""
    async for line in conn.lines(token=hs.draining()):
        obey(bytes(line))
        await conn.sendall(line + b" %d\n" % os.getpid())


def obey(line: bytes) -> None:
    """What a handler should not do."""
    if line == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    if line == b"exit":
        os._exit(3)


def never(_conn: hs.Connection) -> None:
    """Ignores all that tells it to leave."""
    hs._core.scope.set(None)
    while True:
        hs.CancelToken().wait(60)


if os.environ.get("HARDSOCK_TEST_BREAKS_IMPORT") == str(os.getppid()):
    raise RuntimeError("this module cannot be imported in a child")
