"""The works over TLS with asyncio streams on any event loop."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

from ..model import SkipWork, Target
from . import _common, _crowd, _tls
from ._common import BACKLOG
from ._crowd import Announce
from ._streams import RunLoop, Streams, by_deadline, close, exchange

READ_LIMIT = _tls.CALL  # of the StreamReader; its default would cut each call to 128 KiB


async def connect(target: Target, context: ssl.SSLContext) -> Streams:
    opening = asyncio.open_connection(
        target.host, target.port, ssl=context, server_hostname=_tls.SERVER_NAME, limit=READ_LIMIT
    )
    streams: Streams = await by_deadline(opening)
    return streams


async def _handshake(target: Target, seconds: float) -> dict[str, Any]:
    context = _tls.client_context()

    async def operation() -> None:
        reader, writer = await connect(target, context)
        _tls.check(await by_deadline(reader.readexactly(1)), _tls.FULL)
        await close(writer)

    return await _common.rate_async(operation, seconds)


async def _request_reply(target: Target, seconds: float) -> dict[str, Any]:
    reader, writer = await connect(target, _tls.client_context())
    result = await _common.rate_async(lambda: by_deadline(exchange(reader, writer)), seconds)
    await close(writer)
    return result


async def _receive(target: Target, seconds: float) -> dict[str, Any]:
    reader, writer = await connect(target, _tls.client_context())
    mebibytes = _tls.Mebibytes()

    async def take() -> int:
        while not mebibytes.add(len(await by_deadline(reader.read(_tls.CALL)))):
            pass
        return 1

    result = await _common.rate_of_async(take, seconds)
    writer.transport.abort()  # an orderly end would wait for the peer's, which never comes
    return result


async def _send(target: Target, seconds: float) -> dict[str, Any]:
    _, writer = await connect(target, _tls.client_context())
    data = _tls.bulk()

    async def take() -> int:
        for _ in range(_tls.MEBIBYTE // _tls.CALL):
            writer.write(data)
            await by_deadline(writer.drain())
        return 1

    result = await _common.rate_of_async(take, seconds)
    writer.transport.abort()
    return result


async def _idle_memory(target: Target, count: int) -> dict[str, Any]:
    context = _tls.client_context()

    async def open_one() -> Streams:
        reader, writer = await connect(target, context)
        await by_deadline(exchange(reader, writer))
        return reader, writer

    return await _common.hold_async(open_one, count)


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError), contextlib.closing(writer):
        writer.write(_tls.GREETING)
        await writer.drain()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError), contextlib.closing(writer):
        while data := await reader.read(_common.RECEIVE_SIZE):
            writer.write(data)
            await writer.drain()


async def _serve(handle: Any, announce: Announce) -> None:
    server = await asyncio.start_server(
        handle, "127.0.0.1", 0, backlog=BACKLOG, ssl=_tls.server_context()
    )
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


class StreamTLSWorks:
    """The works over TLS on one kind of loop; `run` runs a coroutine on a new loop of that kind."""

    def __init__(self, run: RunLoop) -> None:
        self._run = run

    def tls_handshake(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(_handshake(target, seconds))
        return result

    def tls_resume(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        raise SkipWork("its streams have no way to resume a session")

    def tls_request_reply(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(_request_reply(target, seconds))
        return result

    def tls_receive(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(_receive(target, seconds))
        return result

    def tls_send(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(_send(target, seconds))
        return result

    def tls_idle_memory(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        result: dict[str, Any] = self._run(_idle_memory(target, count))
        return result

    def tls_accept(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        return _tls.accept(target, seconds, lambda announce: self._run(_serve(_greet, announce)))

    def tls_idle_memory_server(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        return _crowd.hold(target, count, lambda announce: self._run(_serve(_echo, announce)))
