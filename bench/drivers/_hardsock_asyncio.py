"""How tasks are started under asyncio, on whatever loop; as a task group of Python 3.11 does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ._hardsock_aio import Works
from ._hardsock_aio_tls import TLSWorks


class TaskSet:
    """Keeps its tasks as long as they run."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        task = asyncio.get_running_loop().create_task(function(*args))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def __aenter__(self) -> TaskSet:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)


def works_with(run: Callable[[Coroutine[Any, Any, Any]], Any]) -> Works:
    return Works(lambda main: run(main()), TaskSet)


def tls_works_with(run: Callable[[Coroutine[Any, Any, Any]], Any]) -> TLSWorks:
    return TLSWorks(lambda main: run(main()), TaskSet)
