"""What tests of event loops share: running a coroutine on each asyncio loop, and parked tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from hardsock._core import Operation
from hardsock.lab.threads import Hung
from support.require import need_module

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def _run_uvloop(main: Coroutine[Any, Any, Any]) -> Any:
    need_module("uvloop")
    import uvloop

    return uvloop.run(main)


RUNS: dict[str, Run] = {"asyncio": asyncio.run, "uvloop": _run_uvloop}

RunMain = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


def _run_trio(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    import trio

    return trio.run(main)


MAINS: dict[str, RunMain] = {
    "asyncio": lambda main: asyncio.run(main()),
    "uvloop": lambda main: _run_uvloop(main()),
    "trio": _run_trio,
}
"""Each event loop, for a coroutine function."""


def is_parked(task: asyncio.Task[Any]) -> bool:
    """Whether the task waits for one of our operations."""
    return isinstance(task._fut_waiter, Operation)  # type: ignore[attr-defined]


async def task_parked(task: asyncio.Task[Any], timeout: float = 30.0) -> None:
    """Return when the task waits for one of our operations."""
    end = time.monotonic() + timeout
    while not is_parked(task):
        if task.done() or time.monotonic() > end:
            raise Hung(f"it does not wait for an operation: {task!r}")
        await asyncio.sleep(0)
