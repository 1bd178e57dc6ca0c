"""Operations under trio: a system task watches the Hub, each wait can be aborted.

As trio asks of every call: a cancel is looked for first, and a call that never had to wait gives
others a turn before it returns. What it returns is never lost to a cancel.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from typing import Any, cast

import trio

from hardsock._core import Hub, Operation
from hardsock.aio import _host
from hardsock.aio._host_scope import HostScope

_hub: trio.lowlevel.RunVar[Hub] = trio.lowlevel.RunVar("hardsock hub")


def current_hub() -> Hub:
    try:
        return _hub.get()
    except LookupError:
        hub = Hub(drive=_drive, find=_host.current_hub, told=_host.tell_scopes)
        _hub.set(hub)
        trio.lowlevel.spawn_system_task(_watch, hub)
        return hub


async def _watch(hub: Hub) -> None:
    try:
        while True:
            await trio.lowlevel.wait_readable(hub.fileno())
            if not hub.run():
                await trio.sleep(_host.UNHEARD_PAUSE)
    finally:
        hub.close()


async def _drive(operation: Operation) -> Any:
    waited = False
    try:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not (ended := operation.step()):
            if ended is None:
                await trio.lowlevel.checkpoint()
            else:
                await _wait(operation)
            waited = True
    except BaseException:
        operation.close()
        raise
    value = operation.value()
    if not waited:
        await trio.lowlevel.cancel_shielded_checkpoint()
    return value


async def _wait(operation: Operation) -> None:
    task = trio.lowlevel.current_task()

    def resume(_operation: Operation) -> None:
        trio.lowlevel.reschedule(task)

    def abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
        operation.unpark()
        return trio.lowlevel.Abort.SUCCEEDED

    operation.add_done_callback(resume)
    await trio.lowlevel.wait_task_rescheduled(abort)


class _TrioRunner:
    def __init__(self, name: str) -> None:
        self.name = name
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None

    async def run(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        self.task = trio.lowlevel.current_task()
        with self.scope:
            await function(*args)
        self.task = None


class TrioTasks:
    """Tasks in a nursery of their own; see ``hardsock.aio._tasks``."""

    def __init__(self) -> None:
        self._manager: AbstractAsyncContextManager[trio.Nursery, bool | None] = trio.open_nursery()
        self._nursery: trio.Nursery

    async def open(self) -> None:
        self._nursery = await self._manager.__aenter__()

    def start(
        self, context: Context, function: Callable[..., Awaitable[object]], *args: object, name: str
    ) -> _TrioRunner:
        runner = _TrioRunner(name)
        context.run(lambda: self._nursery.start_soon(runner.run, function, *args, name=name))
        return runner

    def cancel(self, runner: object) -> None:
        cast("_TrioRunner", runner).scope.cancel()

    def keep(self, runner: object) -> None:
        pass  # The nursery does.

    def tell_end(self, runner: object, tell: Callable[[object], object]) -> None:
        pass  # A task of trio is cancelled where it waits: it always has a first step.

    def look(self, runner: object) -> tuple[str | None, str | None]:
        it = cast("_TrioRunner", runner)
        if it.task is None:
            return it.name, None
        frames = traceback.StackSummary.extract(it.task.iter_await_frames())
        return it.name, "".join(frames.format())

    def is_cancel(self, exc: BaseException) -> bool:
        subgroup = getattr(exc, "subgroup", None)  # of an exception group, on Python 3.10 as well
        return isinstance(exc, trio.Cancelled) or (
            subgroup is not None and subgroup(trio.Cancelled) is not None
        )

    async def breathe(self) -> None:
        await trio.lowlevel.checkpoint()

    async def close(self, *exc_info: Any) -> None:
        await self._manager.__aexit__(*exc_info)


class _Scope(HostScope):
    """A block of a task of trio."""

    __slots__ = ("_entered", "_scope", "_trio")

    @trio.lowlevel.enable_ki_protection  # As trio's own methods have it.
    def _begin(self) -> None:
        self._entered = False
        self._scope = trio.CancelScope()
        self._trio = trio.lowlevel.current_trio_token()
        self._scope.__enter__()
        self._entered = True

    def _soon(self, function: Callable[[], object]) -> None:
        # Tasks that are resumed now run in the next batch, in any order: this comes after it.
        self._trio.run_sync_soon(self._trio.run_sync_soon, function)

    def _wake_call(self) -> bool:
        return False  # trio does not tell what a task waits for.

    def _cancel(self) -> None:
        self._scope.cancel()

    @trio.lowlevel.enable_ki_protection
    def _is_own_cancel(self, *exc_info: Any) -> bool:
        self._entered = False
        return bool(self._scope.__exit__(*exc_info)) and self._scope.cancelled_caught

    def _is_cancel(self, exc: BaseException) -> bool:
        return isinstance(exc, trio.Cancelled)

    def _forget(self) -> None:
        if getattr(self, "_entered", False):
            self._entered = False
            self._scope.__exit__(None, None, None)


def host_scope_here() -> tuple[type[HostScope], trio.lowlevel.Task, Hub]:
    """What makes a block of the task that runs, the task, and its Hub."""
    return _Scope, trio.lowlevel.current_task(), current_hub()
