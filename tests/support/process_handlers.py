"""Handlers of servers with several processes: they have to be where another interpreter finds them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import hardsock as hs
from hardsock import aio
from hardsock.serving.channel import Channel


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


def which_message(conn: hs.Connection) -> None:
    """One line, for a server per message."""
    line = conn.recv_until(b"\n", timeout=20)
    obey(line)
    conn.sendall(line + b" %d\n" % os.getpid())


async def which_message_awaited(conn: aio.Connection) -> None:
    """The same in an event loop."""
    line = await conn.recv_until(b"\n", timeout=20)
    obey(line)
    await conn.sendall(line + b" %d\n" % os.getpid())


def obey(line: bytes) -> None:
    """What a handler should not do."""
    if line == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    if line == b"exit":
        os._exit(3)
    if line.startswith(b"stop"):
        stop_in_the_middle_of_a_message(Path(line.split()[1].decode()))


def stop_in_the_middle_of_a_message(mark: Path) -> None:
    """Of the next to the parent: half of it has gone out, and then nobody runs here any more."""
    flush = Channel.flush

    def half(channel: Channel, timeout: float = 0.0) -> bool:
        if channel.unsent:
            Channel.flush = flush  # type: ignore[method-assign]
            del channel._out[: channel._sock.send(channel._out[: len(channel._out) // 2])]
            mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        return flush(channel, timeout)

    Channel.flush = half  # type: ignore[method-assign]


def orphans(conn: hs.Connection) -> None:
    """End, and leave a program, or a copy of this one, that holds what it has inherited."""
    how, path = bytes(conn.recv_line(timeout=20)).decode().split()
    if how == "program":
        os.system(f"sleep 600 >/dev/null 2>&1 & echo $! >{path}.new; mv {path}.new {path}")
    elif (pid := os.fork()) == 0:
        time.sleep(600)
    else:
        Path(path).write_text(f"{pid}\n")
    os._exit(1)


def never_answers(conn: hs.Connection) -> None:
    """Waits for more than its client will say, for as long as its token lets it."""
    conn.recv_until(b"\n", timeout=600)


async def never_answers_awaited(conn: aio.Connection) -> None:
    """The same in an event loop."""
    await conn.recv_until(b"\n", timeout=600)


def closes_all(conn: hs.Connection) -> None:
    """Close what it did not open."""
    conn.recv_line(timeout=20)
    os.closerange(3, 1024)
    time.sleep(600)


def never(_conn: hs.Connection) -> None:
    """Ignores all that tells it to leave."""
    hs._core.scope.set(None)
    while True:
        hs.CancelToken().wait(60)


if os.environ.get("HARDSOCK_TEST_BREAKS_IMPORT") == str(os.getppid()):
    raise RuntimeError("this module cannot be imported in a child")
