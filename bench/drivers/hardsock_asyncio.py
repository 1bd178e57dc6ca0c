"""hardsock.aio on the standard library's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ._aio import AioWorks
from .hardsock import version

__all__ = [
    "accept_crowd",
    "echo_crowd",
    "frames",
    "idle_memory_awaited",
    "lines",
    "request_reply",
    "version",
]


async def _in_thread(function: Callable[..., Any], *args: object) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


async def _spawn(function: Callable[..., Any], *args: object) -> object:
    task = asyncio.ensure_future(function(*args))
    await asyncio.sleep(0)
    return task


_works = AioWorks(lambda main: asyncio.run(main()), _in_thread, _spawn)
request_reply = _works.request_reply
lines = _works.lines
frames = _works.frames
accept_crowd = _works.accept_crowd
echo_crowd = _works.echo_crowd
idle_memory_awaited = _works.idle_memory_awaited
