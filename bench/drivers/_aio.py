"""hardsock.aio on any event loop; the drivers hardsock-asyncio, hardsock-uvloop, hardsock-trio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hardsock as hs
from hardsock import aio

from ..model import Target
from . import _common
from ._common import DEADLINE, FRAMES_PER_CLOCK_READ, LINES_PER_CLOCK_READ, MESSAGE
from ._crowd import Crowd

FRAME = hs.LengthPrefix(width=4)

Run = Callable[[Callable[[], Any]], Any]
"""Runs a coroutine function on a new loop."""


async def connect(target: Target) -> aio.Connection:
    return await aio.connect((target.host, target.port), timeout=DEADLINE)


async def exchange(conn: aio.Connection) -> None:
    await conn.sendall(MESSAGE, timeout=DEADLINE)
    await conn.recv_exactly(64, timeout=DEADLINE)


async def echo(conn: aio.Connection) -> None:
    try:
        while data := await conn.recv(65536):
            await conn.sendall(data)
    except hs.Reset:
        pass


class AioWorks:
    """The works on one kind of loop.

    Args:
        run: Runs a coroutine function.
        in_thread: Awaits a blocking function in a thread.
        spawn: Starts a coroutine function with arguments in a task.
    """

    def __init__(self, run: Run, in_thread: Callable[..., Any], spawn: Callable[..., Any]) -> None:
        self._run, self._in_thread, self._spawn = run, in_thread, spawn

    def request_reply(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        async def main() -> dict[str, Any]:
            async with await connect(target) as conn:
                return await _common.rate_async(lambda: exchange(conn), seconds)

        result: dict[str, Any] = self._run(main)
        return result

    def lines(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        async def main() -> dict[str, Any]:
            async with await connect(target) as conn:

                async def take() -> int:
                    for _ in range(LINES_PER_CLOCK_READ):
                        await conn.recv_line(timeout=DEADLINE)
                    return LINES_PER_CLOCK_READ

                return await _common.flow_async(take, seconds)

        result: dict[str, Any] = self._run(main)
        return result

    def frames(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        async def main() -> dict[str, Any]:
            async with await connect(target) as conn:

                async def take() -> int:
                    for _ in range(FRAMES_PER_CLOCK_READ):
                        await conn.recv_frame(FRAME, timeout=DEADLINE)
                    return FRAMES_PER_CLOCK_READ

                return await _common.flow_async(take, seconds)

        result: dict[str, Any] = self._run(main)
        return result

    def _serve_crowd(self, target: Target, ask: Callable[[Crowd, int], Any]) -> dict[str, Any]:
        async def main() -> dict[str, Any]:
            async with aio.serve(
                echo, ("127.0.0.1", 0), drain_timeout=30, linger=0, max_connections=15_000
            ) as server:
                crowd = Crowd(target)
                result: dict[str, Any] = await self._in_thread(ask, crowd, server.address[1])
                crowd.close()
                return result

        result: dict[str, Any] = self._run(main)
        return result

    def accept_crowd(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        n = _common.allowed_connections(count)
        return self._serve_crowd(target, lambda crowd, port: crowd.accept(port, n))

    def echo_crowd(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        n = _common.allowed_connections(count)
        return self._serve_crowd(target, lambda crowd, port: crowd.echo(port, n, seconds))

    def idle_memory_awaited(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        async def open_one() -> object:
            conn = await connect(target)
            await exchange(conn)
            return conn, await self._spawn(conn.recv, 64)

        async def main() -> dict[str, Any]:
            return await _common.hold_async(open_one, count)

        result: dict[str, Any] = self._run(main)
        return result
