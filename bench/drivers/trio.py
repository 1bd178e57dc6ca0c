"""trio's SocketStream."""

from __future__ import annotations

from typing import Any

import trio

from ..model import Target
from . import _cancel, _common
from ._common import DEADLINE, MESSAGE


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
