"""trio's SocketStream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from ..model import Target
from . import _cancel, _common
from ._common import DEADLINE, FRAMES_PER_CLOCK_READ, LINES_PER_CLOCK_READ, MESSAGE
from ._crowd import Crowd


def version() -> str:
    return f"trio {trio.__version__}"


async def connect(target: Target) -> trio.SocketStream:
    with trio.fail_after(DEADLINE):
        return await trio.open_tcp_stream(target.host, target.port)


async def exchange(stream: trio.SocketStream) -> None:
    with trio.fail_after(DEADLINE):
        await stream.send_all(MESSAGE)
        reply = bytes(await stream.receive_some(64))
        while len(reply) < 64:
            more = await stream.receive_some(64 - len(reply))
            if not more:
                raise EOFError("the peer closed")
            reply += more


def connect_close(target: Target, seconds: float, count: int) -> dict[str, Any]:
    async def operation() -> None:
        stream = await connect(target)
        await stream.aclose()

    return trio.run(_common.rate_async, operation, seconds)


def request_reply(target: Target, seconds: float, count: int) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with await connect(target) as stream:
            return await _common.rate_async(lambda: exchange(stream), seconds)

    return trio.run(run)


def cancel_latency(target: Target, seconds: float, count: int) -> dict[str, Any]:
    async def receive(stream: trio.SocketStream, blocked: _cancel.Blocked) -> None:
        loop = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            blocked.announce(lambda: trio.from_thread.run_sync(scope.cancel, trio_token=loop))
            try:
                await stream.receive_some(64)
            except trio.Cancelled:
                blocked.caught()
                raise

    async def body(blocked: _cancel.Blocked) -> None:
        async with await connect(target) as stream:
            while blocked.more():
                await receive(stream, blocked)

    return _cancel.measure(lambda blocked: trio.run(body, blocked), seconds)


def idle_memory(target: Target, seconds: float, count: int) -> dict[str, Any]:
    async def open_one() -> trio.SocketStream:
        stream = await connect(target)
        await exchange(stream)
        return stream

    return trio.run(_common.hold_async, open_one, count)


class _Buffered:
    """What users of trio write around a stream: a buffer to split."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._start = 0

    async def _fill(self) -> None:
        del self._buffer[: self._start]
        self._start = 0
        self._buffer += await self._stream.receive_some(65536)

    async def line(self) -> bytes:
        while (end := self._buffer.find(b"\n", self._start)) < 0:
            await self._fill()
        line = bytes(self._buffer[self._start : end])
        self._start = end + 1
        return line

    async def exactly(self, n: int) -> bytes:
        while len(self._buffer) - self._start < n:
            await self._fill()
        part = bytes(self._buffer[self._start : self._start + n])
        self._start += n
        return part


def lines(target: Target, seconds: float, count: int) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with await connect(target) as stream:
            buffered = _Buffered(stream)

            async def take() -> int:
                for _ in range(LINES_PER_CLOCK_READ):
                    await buffered.line()
                return LINES_PER_CLOCK_READ

            return await _common.flow_async(take, seconds)

    return trio.run(run)


def frames(target: Target, seconds: float, count: int) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with await connect(target) as stream:
            buffered = _Buffered(stream)

            async def take() -> int:
                for _ in range(FRAMES_PER_CLOCK_READ):
                    await buffered.exactly(int.from_bytes(await buffered.exactly(4), "big"))
                return FRAMES_PER_CLOCK_READ

            return await _common.flow_async(take, seconds)

    return trio.run(run)


def _serve_crowd(target: Target, ask: Callable[[Crowd, int], Any]) -> dict[str, Any]:
    async def echo(stream: trio.SocketStream) -> None:
        try:
            async for data in stream:
                await stream.send_all(data)
        except trio.BrokenResourceError:
            pass

    async def run() -> dict[str, Any]:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=4096)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, echo, listeners)
            crowd = Crowd(target)
            port = listeners[0].socket.getsockname()[1]
            result: dict[str, Any] = await trio.to_thread.run_sync(ask, crowd, port)
            crowd.close()
            nursery.cancel_scope.cancel()
        return result

    return trio.run(run)


def accept_crowd(target: Target, seconds: float, count: int) -> dict[str, Any]:
    n = _common.allowed_connections(count)
    return _serve_crowd(target, lambda crowd, port: crowd.accept(port, n))


def echo_crowd(target: Target, seconds: float, count: int) -> dict[str, Any]:
    n = _common.allowed_connections(count)
    return _serve_crowd(target, lambda crowd, port: crowd.echo(port, n, seconds))
