"""hardsock.aio under trio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import trio

from . import hardsock
from ._hardsock_aio import Works


class Nursery:
    """What the works want of a trio.Nursery."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        self._nursery.start_soon(function, *args)

    def cancel(self) -> None:
        self._nursery.cancel_scope.cancel()


@asynccontextmanager
async def _tasks() -> AsyncIterator[Nursery]:
    async with trio.open_nursery() as nursery:
        yield Nursery(nursery)


_works = Works(trio.run, _tasks)
request_reply = _works.request_reply
lines = _works.lines
frames_1k = _works.frames_1k
frames_1m = _works.frames_1m
crowd_churn = _works.crowd_churn
crowd_echo = _works.crowd_echo
idle_memory_awaited = _works.idle_memory_awaited
idle_memory_served = _works.idle_memory_served


def version() -> str:
    return f"{hardsock.version()} on trio {trio.__version__}"
