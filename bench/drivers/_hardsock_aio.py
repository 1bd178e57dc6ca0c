"""hardsock.aio on any event loop: a deadline on every call that waits for a message."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Literal, Protocol

import hardsock as hs
from hardsock import aio

from ..model import Target
from . import _common, _crowd
from ._common import DEADLINE, FRAMES_PER_CLOCK_READ, LINES_PER_CLOCK_READ, MESSAGE
from ._crowd import Announce
from .hardsock import FRAMING


class Tasks(Protocol):
    """Where tasks are started that end with their owner."""

    def start(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None: ...

    def cancel(self) -> None: ...


StartTasks = Callable[[], AbstractAsyncContextManager[Tasks]]


async def connect(target: Target) -> aio.Connection:
    return await aio.connect((target.host, target.port), timeout=DEADLINE)


async def exchange(conn: aio.Connection) -> None:
    await conn.sendall(MESSAGE, timeout=DEADLINE)
    await conn.recv_exactly(64, timeout=DEADLINE)


async def _request_reply(target: Target, seconds: float) -> dict[str, Any]:
    async with await connect(target) as conn:
        return await _common.rate_async(lambda: exchange(conn), seconds)


async def _lines(target: Target, seconds: float) -> dict[str, Any]:
    async with await connect(target) as conn:
        messages = conn.lines(timeout=DEADLINE)
        return await _common.rate_of_async(
            lambda: _common.all_of_async(messages, LINES_PER_CLOCK_READ), seconds
        )


async def batches_of_lines(target: Target, seconds: float) -> dict[str, Any]:
    async with await connect(target) as conn:

        async def take() -> int:
            return _common.each(await conn.recv_lines(timeout=DEADLINE))

        return await _common.rate_of_async(take, seconds)


async def _frames(target: Target, seconds: float, count: int) -> dict[str, Any]:
    async with await connect(target) as conn:
        messages = conn.frames(FRAMING, timeout=DEADLINE)
        return await _common.rate_of_async(lambda: _common.all_of_async(messages, count), seconds)


async def batches_of_frames(target: Target, seconds: float) -> dict[str, Any]:
    async with await connect(target) as conn:

        async def take() -> int:
            return _common.each(await conn.recv_frames(FRAMING, timeout=DEADLINE))

        return await _common.rate_of_async(take, seconds)


async def _echo(conn: aio.Connection) -> None:
    async with conn:
        with suppress(hs.Reset):
            while data := await conn.recv(_common.RECEIVE_SIZE):
                await conn.sendall(data)


async def _echo_message(conn: aio.Connection) -> None:
    await conn.sendall(await conn.recv(_common.RECEIVE_SIZE))


async def serve(announce: Announce, per: Literal["connection", "message"]) -> None:
    """aio.serve itself; ``per="message"`` has no task for a connection that is quiet."""
    async with aio.serve(
        _echo if per == "connection" else _echo_message,
        ("127.0.0.1", 0),
        per=per,
        drain_timeout=5,
        max_connections=_common.MOST_SERVED,
        backlog=_common.BACKLOG,
    ) as server:
        announce(server.address[1])
        await server.wait()


class Works:
    """The works on one kind of loop: how to run a coroutine, and how to start tasks there."""

    def __init__(
        self,
        run: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any],
        tasks: StartTasks,
    ) -> None:
        self._run = run
        self._tasks = tasks

    def request_reply(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(lambda: _request_reply(target, seconds))
        return result

    def lines(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(lambda: _lines(target, seconds))
        return result

    def frames_1k(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        per_clock = FRAMES_PER_CLOCK_READ["frames_1k"]
        result: dict[str, Any] = self._run(lambda: _frames(target, seconds, per_clock))
        return result

    def frames_1m(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        per_clock = FRAMES_PER_CLOCK_READ["frames_1m"]
        result: dict[str, Any] = self._run(lambda: _frames(target, seconds, per_clock))
        return result

    async def _serve(self, announce: Announce) -> None:
        """With a task for each connection, as aio.serve would."""
        async with await aio.listen(("127.0.0.1", 0), backlog=_common.BACKLOG) as listener:
            announce(listener.address[1])
            async with self._tasks() as tasks:
                while True:
                    for conn in await listener.accept_many(256):
                        tasks.start(_echo, conn)

    def _crowd(self, target: Target, count: int) -> _crowd.Crowd:
        return _crowd.of(target, count, lambda announce: self._run(lambda: self._serve(announce)))

    def crowd_churn(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        return self._crowd(target, count).churn(seconds)

    def crowd_echo(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        return self._crowd(target, count).echo(seconds)

    def idle_memory_served(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        return _crowd.hold(
            target, count, lambda announce: self._run(lambda: serve(announce, "connection"))
        )

    async def _idle_memory_awaited(self, target: Target, count: int) -> dict[str, Any]:
        async def open_one() -> aio.Connection:
            conn = await connect(target)
            await exchange(conn)
            return conn

        async with self._tasks() as tasks:

            def wait_on(conn: aio.Connection) -> aio.Connection:
                tasks.start(conn.recv, _common.RECEIVE_SIZE)
                return conn

            result = await _common.hold_waiting(open_one, wait_on, count)
            tasks.cancel()
        return result

    def idle_memory_awaited(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(lambda: self._idle_memory_awaited(target, count))
        return result
