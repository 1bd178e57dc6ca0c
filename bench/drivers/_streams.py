"""asyncio streams on any event loop: what the drivers asyncio and uvloop share."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ..model import Target
from . import _cancel, _common, _crowd
from ._common import DEADLINE, FRAMES_PER_CLOCK_READ, LINES_PER_CLOCK_READ, MESSAGE
from ._crowd import Announce

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


async def _idle_memory_awaited(target: Target, count: int) -> dict[str, Any]:
    tasks = []

    async def open_one() -> Streams:
        reader, writer = await connect(target)
        await by_deadline(exchange(reader, writer))
        return reader, writer

    def wait_on(streams: Streams) -> Streams:
        tasks.append(asyncio.create_task(streams[0].read(_common.RECEIVE_SIZE)))
        return streams

    result = await _common.hold_waiting(open_one, wait_on, count)
    for task in tasks:
        task.cancel()
    return result


async def _lines(target: Target, seconds: float) -> dict[str, Any]:
    reader, writer = await connect(target)
    result = await _common.rate_of_async(
        lambda: _common.all_of_async(reader, LINES_PER_CLOCK_READ), seconds
    )
    await close(writer)
    return result


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(4)
    return await reader.readexactly(int.from_bytes(header, "big"))


async def _frames(target: Target, seconds: float, count: int) -> dict[str, Any]:
    reader, writer = await connect(target)

    async def take() -> int:
        for _ in range(count):
            await read_frame(reader)
        return count

    result = await _common.rate_of_async(take, seconds)
    await close(writer)
    return result


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionResetError), contextlib.closing(writer):
        while data := await reader.read(_common.RECEIVE_SIZE):
            writer.write(data)
            await writer.drain()


async def _serve(announce: Announce) -> None:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0, backlog=_common.BACKLOG)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


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

    def lines(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(_lines(target, seconds))
        return result

    def frames_1k(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        frames = _frames(target, seconds, FRAMES_PER_CLOCK_READ["frames_1k"])
        result: dict[str, Any] = self._run(frames)
        return result

    def frames_1m(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        frames = _frames(target, seconds, FRAMES_PER_CLOCK_READ["frames_1m"])
        result: dict[str, Any] = self._run(frames)
        return result

    def crowd_churn(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        return _crowd.of(target, count, lambda announce: self._run(_serve(announce))).churn(seconds)

    def crowd_echo(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        return _crowd.of(target, count, lambda announce: self._run(_serve(announce))).echo(seconds)

    def idle_memory_served(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        return _crowd.hold(target, count, lambda announce: self._run(_serve(announce)))

    def idle_memory_awaited(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(_idle_memory_awaited(target, count))
        return result

    def idle_memory(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(_idle_memory(target, count))
        return result
