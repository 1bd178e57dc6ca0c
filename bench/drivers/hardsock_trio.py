"""hardsock.aio on trio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from ._aio import AioWorks
from .hardsock import version

__all__ = ["accept_crowd", "echo_crowd", "frames", "lines", "request_reply", "version"]


async def _in_thread(function: Callable[..., Any], *args: object) -> Any:
    return await trio.to_thread.run_sync(function, *args)


async def _spawn(function: Callable[..., Any], *args: object) -> object:
    task = trio.lowlevel.spawn_system_task(function, *args)
    await trio.lowlevel.checkpoint()
    return task


_works = AioWorks(trio.run, _in_thread, _spawn)
request_reply = _works.request_reply
lines = _works.lines
frames = _works.frames
accept_crowd = _works.accept_crowd
echo_crowd = _works.echo_crowd
