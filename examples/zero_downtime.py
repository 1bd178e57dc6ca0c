"""A line server that is replaced without losing a request.

    python examples/zero_downtime.py /run/user/1000/lines 127.0.0.1:7000 [--aio] [--reuse-port]

Start it again with the same arguments, with new code if you like: the new process takes the
listening socket over from the running one, says that it is ready, and the old one answers what it
has and ends. With ``--reuse-port`` each process has a socket of its own instead, and the old one is
ended by SIGTERM once the new one runs; that needs net.ipv4.tcp_migrate_req=1.

Under systemd (Type=notify, and a socket unit with FileDescriptorName=lines) it serves what it is
given, and has systemd keep the socket over a restart if the unit has FileDescriptorStoreMax=1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
from typing import Any

import hardsock as hs
from hardsock import aio


def answer(conn: hs.Connection) -> None:
    """Answer each line with itself and the number of this process."""
    for line in conn.lines(token=hs.draining()):
        conn.sendall(line + b" %d\n" % os.getpid())


async def answer_awaited(conn: aio.Connection) -> None:
    """The same in an event loop."""
    async for line in conn.lines(token=hs.draining()):
        await conn.sendall(line + b" %d\n" % os.getpid())


def replaceable(path: str, server: Any) -> contextlib.AbstractContextManager[object]:
    """Let the next process take over from *server*."""
    return hs.hand_over(path, {"lines": server.listener}, then=server.stop)


def announce(server: Any) -> None:
    """Tell the one who started us."""
    hs.systemd_notify(ready=True, store={"lines": server.listener})
    print(f"ready {server.address[1]}", flush=True)


def serve(listener: hs.Listener, taken: hs.TakenOver, path: str) -> None:
    """Serve in threads."""
    with hs.serve(answer, listener, workers=16, max_connections=128, drain_timeout=20) as server:
        taken.ready()
        with replaceable(path, server):
            announce(server)
            server.wait()
    print(server.report, flush=True)


async def serve_awaited(listener: hs.Listener, taken: hs.TakenOver, path: str) -> None:
    """Serve in an event loop."""
    async with aio.serve(answer_awaited, listener, drain_timeout=20) as server:
        taken.ready()
        with replaceable(path, server):
            announce(server)
            await server.wait()
    print(server.report, flush=True)


def main() -> None:
    """Take over, or begin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", help="of the unix socket for the hand-over")
    parser.add_argument("address")
    parser.add_argument("--aio", action="store_true", help="in an event loop")
    parser.add_argument("--reuse-port", action="store_true", help="a socket of one's own")
    args = parser.parse_args()
    if args.reuse_port:
        with hs.InheritedSockets([]) as own, hs.TakenOver(None, [], 5.0) as taken:
            listener = own.listen("lines", args.address, reuse_port=True)
            path = f"{args.path}.{os.getpid()}"
            run(args.aio, listener, taken, path)
        return
    with hs.systemd_sockets() as given, hs.take_over(args.path, timeout=10) as taken:
        source = given if given.names else taken
        run(args.aio, source.listen("lines", args.address), taken, args.path)


def run(awaited: bool, listener: hs.Listener, taken: hs.TakenOver, path: str) -> None:
    """On either driver."""
    if awaited:
        asyncio.run(serve_awaited(listener, taken, path))
    else:
        serve(listener, taken, path)


if __name__ == "__main__":
    main()
