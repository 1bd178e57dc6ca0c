"""trio's SocketStream."""

from __future__ import annotations

import contextlib
from typing import Any

import trio

from ..model import Target
from . import _cancel, _common, _crowd, _importing
from ._common import DEADLINE, FRAMES_PER_CLOCK_READ, MESSAGE
from ._crowd import Announce

importing = _importing.of("import trio")


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


async def receive_more(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some()
    if not data:
        raise EOFError("the peer closed")
    return bytes(data)


def lines(target: Target, seconds: float, count: int) -> dict[str, Any]:
    """trio has no lines: what comes is split, and the last piece waits for its rest."""

    async def run() -> dict[str, Any]:
        async with await connect(target) as stream:
            rest = b""

            async def take() -> int:
                nonlocal rest
                messages = (rest + await receive_more(stream)).split(b"\n")
                rest = messages.pop()
                return _common.each(messages)

            return await _common.rate_of_async(take, seconds)

    return trio.run(run)


class Buffered:
    """What everybody writes who reads messages from trio."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def exactly(self, n: int) -> bytes:
        while len(self._buffer) < n:
            self._buffer += await receive_more(self._stream)
        data = bytes(self._buffer[:n])
        del self._buffer[:n]
        return data


def _frames(target: Target, seconds: float, count: int) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with await connect(target) as stream:
            buffered = Buffered(stream)

            async def take() -> int:
                for _ in range(count):
                    await buffered.exactly(int.from_bytes(await buffered.exactly(4), "big"))
                return count

            return await _common.rate_of_async(take, seconds)

    return trio.run(run)


def frames_1k(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _frames(target, seconds, FRAMES_PER_CLOCK_READ["frames_1k"])


def frames_1m(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _frames(target, seconds, FRAMES_PER_CLOCK_READ["frames_1m"])


async def echo(stream: trio.SocketStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        while data := await stream.receive_some(_common.RECEIVE_SIZE):
            await stream.send_all(data)


async def serve(announce: Announce) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=_common.BACKLOG)
    announce(listeners[0].socket.getsockname()[1])
    await trio.serve_listeners(echo, listeners)


def crowd_churn(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _crowd.of(target, count, lambda announce: trio.run(serve, announce)).churn(seconds)


def crowd_echo(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _crowd.of(target, count, lambda announce: trio.run(serve, announce)).echo(seconds)


def idle_memory_served(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _crowd.hold(target, count, lambda announce: trio.run(serve, announce))


def idle_memory_awaited(target: Target, seconds: float, count: int) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async def open_one() -> trio.SocketStream:
            stream = await connect(target)
            await exchange(stream)
            return stream

        async with trio.open_nursery() as nursery:

            def wait_on(stream: trio.SocketStream) -> trio.SocketStream:
                nursery.start_soon(stream.receive_some, _common.RECEIVE_SIZE)
                return stream

            result = await _common.hold_waiting(open_one, wait_on, count)
            nursery.cancel_scope.cancel()
        return result

    return trio.run(run)


def idle_memory(target: Target, seconds: float, count: int) -> dict[str, Any]:
    async def open_one() -> trio.SocketStream:
        stream = await connect(target)
        await exchange(stream)
        return stream

    return trio.run(_common.hold_async, open_one, count)
