"""Tasks of a server, on whichever event loop runs.

Both kinds can start a coroutine in a given context, cancel it by itself, and say where it is. A task
of asyncio that ignores its cancellation can be left behind; one of trio cannot, since its nursery
waits for it.
"""

from __future__ import annotations

import asyncio
import io
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, Protocol, cast

from hardsock._core import Hub

__all__ = ["Tasks", "tasks_for"]


class Tasks(Protocol):
    """The tasks of one server. A runner is one of them, known by nothing but this."""

    async def open(self) -> None:
        """Before the first start."""

    def start(
        self, context: Context, function: Callable[..., Awaitable[object]], *args: object, name: str
    ) -> object:
        """Run ``function(*args)`` in a task, in *context*, and return its runner, to be held."""

    def cancel(self, runner: object) -> None:
        """Cancel it, as the event loop does."""

    def keep(self, runner: object) -> None:
        """Hold it until it ends: nobody else does any more."""

    def tell_end(self, runner: object, tell: Callable[[object], object]) -> None:
        """Call *tell* with the runner after its end, if it may have one without a first step."""

    def look(self, runner: object) -> tuple[str | None, str | None]:
        """Return its name, and where it is now."""

    def is_cancel(self, exc: BaseException) -> bool:
        """Whether *exc* says that the running task was cancelled, and has to leave it."""

    async def breathe(self) -> None:
        """Let others run."""

    async def close(self, *exc_info: Any) -> None:
        """After the last; waits as far as the event loop insists."""


def tasks_for(hub: Hub) -> Tasks:
    """Return those for the loop that *hub* belongs to."""
    if hub.is_asyncio:
        return AsyncioTasks()
    from hardsock.aio._trio import TrioTasks

    return TrioTasks()


class AsyncioTasks:
    """A runner is the task itself."""

    def __init__(self) -> None:
        self._kept: set[asyncio.Task[object]] = set()

    async def open(self) -> None:
        pass

    def start(
        self, context: Context, function: Callable[..., Any], *args: object, name: str
    ) -> asyncio.Task[object]:
        loop = asyncio.get_running_loop()
        coroutine = function(*args)
        try:
            if sys.version_info >= (3, 11) and type(loop).create_task is _PLAIN:
                return loop.create_task(coroutine, name=name, context=context)
            task: asyncio.Task[object] = context.run(loop.create_task, coroutine)
        except MemoryError:
            coroutine.close()  # Nobody is going to await it, which is no mistake of the caller's.
            raise
        task.set_name(name)
        return task

    def cancel(self, runner: object) -> None:
        cast("asyncio.Task[object]", runner).cancel()

    def keep(self, runner: object) -> None:
        task = cast("asyncio.Task[object]", runner)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    def tell_end(self, runner: object, tell: Callable[[object], object]) -> None:
        cast("asyncio.Task[object]", runner).add_done_callback(tell)

    def look(self, runner: object) -> tuple[str | None, str | None]:
        task = cast("asyncio.Task[object]", runner)
        if task.done():
            return task.get_name(), None
        text = io.StringIO()
        for frame in task.get_stack():
            text.write("".join(traceback.format_stack(frame, limit=1)))
        return task.get_name(), text.getvalue()

    def is_cancel(self, exc: BaseException) -> bool:
        if not isinstance(exc, asyncio.CancelledError):
            return False
        task = asyncio.current_task()
        # A task raises it, too, when it awaits another one that was cancelled. Python 3.10 does not
        # tell the two apart.
        cancelling = getattr(task, "cancelling", None)
        return cancelling is None or cancelling() > 0

    async def breathe(self) -> None:
        await asyncio.sleep(0)

    async def close(self, *exc_info: Any) -> None:
        pass


_PLAIN = asyncio.BaseEventLoop.create_task
"""Takes a context: a loop that has its own may not."""
