"""An HTTP server on asyncio's streams, on any event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from . import _common, _http
from ._crowd import Announce


async def _raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with (
        contextlib.suppress(ConnectionResetError, asyncio.IncompleteReadError),
        contextlib.closing(writer),
    ):
        while True:
            await reader.readuntil(_http.END)
            writer.write(_http.ANSWER)
            await writer.drain()


async def _parsed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = _http.Request()
    with contextlib.suppress(ConnectionResetError), contextlib.closing(writer):
        while data := await reader.read(_http.RECEIVE_SIZE):
            if request.feed(data):
                writer.write(_http.ANSWER)
                await writer.drain()


async def _serve(handler: Callable[..., Any], announce: Announce) -> None:
    server = await asyncio.start_server(handler, "127.0.0.1", 0, backlog=_common.BACKLOG)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def http_works_with(run: Callable[[Coroutine[Any, Any, Any]], Any]) -> _http.Works:
    return _http.Works(
        raw=lambda announce: run(_serve(_raw, announce)),
        parsed=lambda announce: run(_serve(_parsed, announce)),
    )
