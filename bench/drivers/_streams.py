"""asyncio streams on any event loop: what the drivers asyncio and uvloop share."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ..model import Target
from . import _cancel, _common
from ._common import DEADLINE, MESSAGE

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
RunLoop = Callable[[Coroutine[Any, Any, Any]], Any]

if sys.version_info >= (3, 11):

    async def by_deadline(work: Awaitable[Any]) -> Any:
        async with asyncio.timeout(DEADLINE):
            return await work

else:

    async def by_deadline(work: Awaitable[Any]) -> Any:
        return await asyncio.wait_for(work, DEADLINE)


async def connect(target: Target) -> Streams:
    streams: Streams = await by_deadline(asyncio.open_connection(target.host, target.port))
    return streams


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(MESSAGE)
    await writer.drain()
    _common.checked(await reader.readexactly(64))


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionResetError):  # the peer answers the end with a reset
        await writer.wait_closed()


async def _connect_close(target: Target, seconds: float) -> dict[str, Any]:
    async def operation() -> None:
        _, writer = await connect(target)
        await close(writer)

    return await _common.rate_async(operation, seconds)


async def _request_reply(target: Target, seconds: float) -> dict[str, Any]:
    reader, writer = await connect(target)
    result = await _common.rate_async(lambda: by_deadline(exchange(reader, writer)), seconds)
    await close(writer)
    return result


async def _cancelled_again_and_again(target: Target, blocked: _cancel.Blocked) -> None:
    loop = asyncio.get_running_loop()
    reader, writer = await connect(target)

    async def receive() -> None:
        task = asyncio.current_task()
        assert task is not None
        blocked.announce(lambda: loop.call_soon_threadsafe(task.cancel))
        try:
            await reader.read(64)
        except asyncio.CancelledError:
            blocked.caught()

    while blocked.more():
        await asyncio.create_task(receive())
    await close(writer)


async def _idle_memory(target: Target, count: int) -> dict[str, Any]:
    async def open_one() -> Streams:
        reader, writer = await connect(target)
        await by_deadline(exchange(reader, writer))
        return reader, writer

    return await _common.hold_async(open_one, count)


class StreamWorks:
    """The works on one kind of loop; `run` runs a coroutine on a new loop of that kind."""

    def __init__(self, run: RunLoop) -> None:
        self._run = run

    def connect_close(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(_connect_close(target, seconds))
        return result

    def request_reply(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(_request_reply(target, seconds))
        return result

    def cancel_latency(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        return _cancel.measure(
            lambda blocked: self._run(_cancelled_again_and_again(target, blocked)), seconds
        )

    def idle_memory(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(_idle_memory(target, count))
        return result
