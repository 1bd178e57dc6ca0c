"""Operations under trio: a system task watches the Hub, each wait can be aborted.

As trio asks of every call: a cancel is looked for first, and a call that never had to wait gives
others a turn before it returns. What it returns is never lost to a cancel.
"""

from __future__ import annotations

from typing import Any

import trio

from hardsock._core import Hub, Operation

_hub: trio.lowlevel.RunVar[Hub] = trio.lowlevel.RunVar("hardsock hub")


def current_hub() -> Hub:
    try:
        return _hub.get()
    except LookupError:
        hub = Hub(drive=_drive)
        _hub.set(hub)
        trio.lowlevel.spawn_system_task(_watch, hub)
        return hub


async def _watch(hub: Hub) -> None:
    try:
        while True:
            await trio.lowlevel.wait_readable(hub.fileno())
            hub.run()
    finally:
        hub.close()


async def _drive(operation: Operation) -> Any:
    if operation.hub is not current_hub():
        raise RuntimeError("a connection belongs to the trio.run() in which it was made")
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
