"""asyncio streams on any event loop: what the drivers asyncio and uvloop share."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ..model import Target
from . import _cancel, _common
from ._common import DEADLINE, FRAMES_PER_CLOCK_READ, LINES_PER_CLOCK_READ, MESSAGE
from ._crowd import Crowd

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


async def _lines(target: Target, seconds: float) -> dict[str, Any]:
    reader, writer = await connect(target)

    async def take() -> int:
        for _ in range(LINES_PER_CLOCK_READ):
            await reader.readline()
        return LINES_PER_CLOCK_READ

    result = await _common.flow_async(take, seconds)
    await close(writer)
    return result


async def _frames(target: Target, seconds: float) -> dict[str, Any]:
    reader, writer = await connect(target)

    async def take() -> int:
        for _ in range(FRAMES_PER_CLOCK_READ):
            await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
        return FRAMES_PER_CLOCK_READ

    result = await _common.flow_async(take, seconds)
    await close(writer)
    return result


async def _serve_crowd(target: Target, ask: Callable[[Crowd, int], Any]) -> dict[str, Any]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionResetError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, backlog=4096)
    result = await run_crowd(target, server.sockets[0].getsockname()[1], ask)
    server.close()
    while len(asyncio.all_tasks()) > 1:  # The crowd has left; its handlers are about to.
        await asyncio.sleep(0.01)
    return result


async def run_crowd(target: Target, port: int, ask: Callable[[Crowd, int], Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    crowd = Crowd(target)
    result: dict[str, Any] = await loop.run_in_executor(None, ask, crowd, port)
    crowd.close()
    return result


async def _idle_memory_awaited(target: Target, count: int) -> dict[str, Any]:
    async def open_one() -> object:
        reader, writer = await connect(target)
        await by_deadline(exchange(reader, writer))
        task = asyncio.ensure_future(reader.read(64))
        await asyncio.sleep(0)
        return writer, task

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

    def lines(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(_lines(target, seconds))
        return result

    def frames(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(_frames(target, seconds))
        return result

    def accept_crowd(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        n = _common.allowed_connections(count)
        result: dict[str, Any] = self._run(
            _serve_crowd(target, lambda crowd, port: crowd.accept(port, n))
        )
        return result

    def echo_crowd(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        n = _common.allowed_connections(count)
        result: dict[str, Any] = self._run(
            _serve_crowd(target, lambda crowd, port: crowd.echo(port, n, seconds))
        )
        return result

    def idle_memory_awaited(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(_idle_memory_awaited(target, count))
        return result
