"""Tasks of a server, on whichever event loop runs.

Both kinds can start a coroutine in a given context, cancel it by itself, and say where it is. A task
of asyncio that ignores its cancellation can be left behind; one of trio cannot, since its nursery
waits for it.
"""

from __future__ import annotations

import asyncio
import io
import traceback
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, Protocol

from hardsock._core import Hub

__all__ = ["Runner", "Tasks", "tasks_for"]


class Runner(Protocol):
    """One task."""

    def cancel(self) -> None:
        """Cancel it, as the event loop does."""

    def look(self) -> tuple[str | None, str | None]:
        """Return its name, and where it is now."""


class Tasks(Protocol):
    """The tasks of one server."""

    async def open(self) -> None:
        """Before the first start."""

    def start(
        self, context: Context, function: Callable[..., Awaitable[object]], *args: object, name: str
    ) -> Runner:
        """Run ``function(*args)`` in a task with a copy of *context*."""

    def is_cancel(self, exc: BaseException) -> bool:
        """Whether *exc* says that the running task was cancelled, and has to leave it."""

    async def close(self, *exc_info: Any) -> None:
        """After the last; waits as far as the event loop insists."""


def tasks_for(hub: Hub) -> Tasks:
    """Return those for the loop that *hub* belongs to."""
    if hub.is_asyncio:
        return AsyncioTasks()
    from hardsock.aio._trio import TrioTasks

    return TrioTasks()


class _AsyncioRunner:
    def __init__(self, task: asyncio.Task[object]) -> None:
        self._task = task

    def cancel(self) -> None:
        self._task.cancel()

    def look(self) -> tuple[str | None, str | None]:
        if self._task.done():
            return self._task.get_name(), None
        text = io.StringIO()
        for frame in self._task.get_stack():
            text.write("".join(traceback.format_stack(frame, limit=1)))
        return self._task.get_name(), text.getvalue()


class AsyncioTasks:
    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()  # The loop itself holds tasks only weakly.

    async def open(self) -> None:
        pass

    def start(
        self, context: Context, function: Callable[..., Any], *args: object, name: str
    ) -> Runner:
        coroutine = function(*args)
        try:
            task = context.run(asyncio.get_running_loop().create_task, coroutine)
        except MemoryError:
            coroutine.close()  # Nobody is going to await it, which is no mistake of the caller's.
            raise
        task.set_name(name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return _AsyncioRunner(task)

    def is_cancel(self, exc: BaseException) -> bool:
        if not isinstance(exc, asyncio.CancelledError):
            return False
        task = asyncio.current_task()
        # A task raises it, too, when it awaits another one that was cancelled. Python 3.10 does not
        # tell the two apart.
        cancelling = getattr(task, "cancelling", None)
        return cancelling is None or cancelling() > 0

    async def close(self, *exc_info: Any) -> None:
        pass
