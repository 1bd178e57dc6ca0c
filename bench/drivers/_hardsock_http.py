"""aio.serve as an HTTP server, on any event loop of asyncio's kind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import hardsock as hs
from hardsock import aio

from . import _common, _http
from ._crowd import Announce


async def _raw(conn: aio.Connection) -> None:
    with contextlib.suppress(hs.Reset, hs.EndOfStream):
        while True:
            await conn.recv_until(_http.END, token=hs.draining())
            await conn.sendall(_http.ANSWER)


async def _parsed(conn: aio.Connection) -> None:
    request = _http.Request()
    with contextlib.suppress(hs.Reset):
        while data := await conn.recv(_http.RECEIVE_SIZE, token=hs.draining()):
            if request.feed(data):
                await conn.sendall(_http.ANSWER)


async def _raw_message(conn: aio.Connection) -> None:
    await conn.recv_until(_http.END)
    await conn.sendall(_http.ANSWER)


async def _parsed_message(conn: aio.Connection) -> None:
    state: Any = conn  # Of a connection that is served per message.
    request = state.state
    if request is None:
        request = state.state = _http.Request()
    if request.feed(await conn.recv(_http.RECEIVE_SIZE)):
        await conn.sendall(_http.ANSWER)


async def _serve(
    handler: Callable[[aio.Connection], Any], announce: Announce, per: str = "connection"
) -> None:
    settings: dict[str, Any] = {} if per == "connection" else {"per": per}
    async with aio.serve(
        handler,
        ("127.0.0.1", 0),
        drain_timeout=5,
        max_connections=_http.MOST_CONNECTIONS,
        backlog=_common.BACKLOG,
        **settings,
    ) as server:
        announce(server.address[1])
        await server.wait()


def http_works_with(run: Callable[[Coroutine[Any, Any, Any]], Any]) -> _http.Works:
    return _http.Works(
        raw=lambda announce: run(_serve(_raw, announce)),
        parsed=lambda announce: run(_serve(_parsed, announce)),
    )


def http_message_works_with(run: Callable[[Coroutine[Any, Any, Any]], Any]) -> _http.Works:
    return _http.Works(
        raw=lambda announce: run(_serve(_raw_message, announce, "message")),
        parsed=lambda announce: run(_serve(_parsed_message, announce, "message")),
    )
