"""The works over TLS with hardsock.aio on any event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import hardsock as hs
from hardsock import aio

from ..model import Target
from . import _common, _crowd, _tls
from ._common import BACKLOG, DEADLINE
from ._hardsock_aio import StartTasks, exchange
from ._hardsock_tls import client_config, server_config


async def connect(target: Target, config: hs.TLSConfig) -> aio.Connection:
    return await aio.connect(
        (target.host, target.port), tls=config, server_name=_tls.SERVER_NAME, timeout=DEADLINE
    )


async def run_handshake(target: Target, config: hs.TLSConfig, wanted: bytes | None) -> None:
    async with await connect(target, config) as conn:
        _tls.check(await conn.recv(1, timeout=DEADLINE), wanted)


async def _handshake(target: Target, seconds: float) -> dict[str, Any]:
    config = client_config(sessions=False)
    return await _common.rate_async(lambda: run_handshake(target, config, _tls.FULL), seconds)


async def _resume(target: Target, seconds: float) -> dict[str, Any]:
    config = client_config()
    await run_handshake(target, config, None)
    return await _common.rate_async(lambda: run_handshake(target, config, _tls.RESUMED), seconds)


async def _request_reply(target: Target, seconds: float) -> dict[str, Any]:
    async with await connect(target, client_config()) as conn:
        return await _common.rate_async(lambda: exchange(conn), seconds)


async def _receive(target: Target, seconds: float) -> dict[str, Any]:
    mebibytes = _tls.Mebibytes()
    buffer = bytearray(_tls.CALL)
    async with await connect(target, client_config()) as conn:

        async def take() -> int:
            while not mebibytes.add(await conn.recv_into(buffer, timeout=DEADLINE)):
                pass
            return 1

        return await _common.rate_of_async(take, seconds)


async def _send(target: Target, seconds: float) -> dict[str, Any]:
    data = _tls.bulk()
    async with await connect(target, client_config()) as conn:

        async def take() -> int:
            for _ in range(_tls.MEBIBYTE // _tls.CALL):
                await conn.sendall(data, timeout=DEADLINE)
            return 1

        return await _common.rate_of_async(take, seconds)


async def _idle_memory(target: Target, count: int) -> dict[str, Any]:
    config = client_config(sessions=False)

    async def open_one() -> aio.Connection:
        conn = await connect(target, config)
        await exchange(conn)
        return conn

    return await _common.hold_async(open_one, count)


async def _greet(conn: aio.Connection) -> None:
    async with conn:
        with suppress(hs.Reset):
            await conn.sendall(_tls.GREETING, timeout=DEADLINE)


async def _echo(conn: aio.Connection) -> None:
    async with conn:
        with suppress(hs.Reset):
            while data := await conn.recv(_common.RECEIVE_SIZE):
                await conn.sendall(data)


class TLSWorks:
    """The works over TLS on one kind of loop."""

    def __init__(
        self,
        run: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any],
        tasks: StartTasks,
    ) -> None:
        self._run = run
        self._tasks = tasks

    def tls_handshake(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(lambda: _handshake(target, seconds))
        return result

    def tls_resume(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(lambda: _resume(target, seconds))
        return result

    def tls_request_reply(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(lambda: _request_reply(target, seconds))
        return result

    def tls_receive(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(lambda: _receive(target, seconds))
        return result

    def tls_send(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(lambda: _send(target, seconds))
        return result

    def tls_idle_memory(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(lambda: _idle_memory(target, count))
        return result

    async def _serve(
        self,
        handle: Callable[[aio.Connection], Coroutine[Any, Any, None]],
        announce: _crowd.Announce,
    ) -> None:
        listening = aio.listen(("127.0.0.1", 0), tls=server_config(), backlog=BACKLOG)
        async with await listening as listener:
            announce(listener.address[1])
            async with self._tasks() as tasks:
                while True:
                    for conn in await listener.accept_many(256):
                        tasks.start(handle, conn)

    def tls_accept(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        def serve(announce: _crowd.Announce) -> None:
            self._run(lambda: self._serve(_greet, announce))

        return _tls.accept(target, seconds, serve)

    def tls_idle_memory_server(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        def serve(announce: _crowd.Announce) -> None:
            self._run(lambda: self._serve(_echo, announce))

        return _crowd.hold(target, count, serve)
