"""An interrupt (Ctrl-C, an exception from another thread) leaves no scope set, wherever it comes.

It is made to come at every instruction of the library's own Python code, one after the other: no
clock, no luck. Within C it cannot come.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import sys
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

import hardsock as hs
from hardsock import _core, aio
from hardsock.adapters._total import Total, scope_has_ended
from hardsock.aio import _host_scope

pytestmark = pytest.mark.skipif(
    sys.gettrace() is not None, reason="something else traces: a debugger, or coverage"
)

OURS = (os.path.dirname(hs.__file__) + os.sep, contextlib.__file__)
LONG = 600.0


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """It would run what others left, with our trace, in the middle of it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Interrupt(BaseException):
    """What nobody catches."""


def interrupt_at_each_instruction(function: Callable[[], object], judge: Callable[[], None]) -> int:
    """Call *function* until it gets through, with an interrupt one instruction later each time."""
    wanted = 0
    while True:
        wanted += 1
        left = wanted

        def trace(frame: Any, event: str, _arg: object) -> Any:
            nonlocal left
            if not frame.f_code.co_filename.startswith(OURS):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            if event in ("call", "opcode"):
                left -= 1
                if left == 0:
                    raise Interrupt  # Which ends the tracing, too.
            return trace

        sys.settrace(trace)
        try:
            function()
        except Interrupt:
            pass
        finally:
            sys.settrace(None)
        judge()
        if left > 0:
            return wanted


def nothing_is_set() -> None:
    assert hs.current() is None
    assert hs.remaining() is None
    assert _host_scope._innermost.get() is None


def _in_timeout() -> None:
    with hs.timeout(LONG, name="x") as token:
        assert hs.current() is token


def _in_scope() -> None:
    with hs.timeout(LONG), hs.scope(hs.CancelToken()), hs.shield(LONG):
        assert hs.current() is not None


@hs.timeout(LONG)
def _decorated() -> None:
    assert hs.current() is not None


def _in_total() -> None:
    with Total(LONG).enter():
        assert hs.current() is not None
        assert not scope_has_ended()


@pytest.mark.parametrize("block", [_in_timeout, _in_scope, _decorated, _in_total])
def test_no_scope_of_a_thread_is_left_set(block: Callable[[], None]) -> None:
    assert interrupt_at_each_instruction(block, nothing_is_set) > 1


async def _awaited() -> None:
    async with aio.timeout(LONG) as token:
        assert hs.current() is token
        await asyncio.sleep(0)


async def _in_task() -> None:
    with hs.timeout(LONG), hs.shield(LONG):
        await asyncio.sleep(0)


@pytest.mark.parametrize("block", [_awaited, _in_task])
def test_no_scope_of_a_task_is_left_set(block: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Nor is anything of it left in the loop, which would cancel the task later."""
    tokens: list[weakref.ref[hs.CancelToken]] = []

    def drive() -> None:
        """One block in this task, which goes on after the interrupt."""
        steps = block()
        try:
            steps.send(None)
            tokens.append(weakref.ref(hs.current()))  # type: ignore[arg-type]
            steps.send(None)
        except StopIteration:
            pass
        finally:
            steps.close()

    def judge() -> None:
        nothing_is_set()
        assert [one for one in tokens if one() is not None] == []
        tokens.clear()

    async def main() -> int:
        drive()  # What is imported on first use, is now.
        return interrupt_at_each_instruction(drive, judge)

    assert asyncio.run(main()) > 1


@pytest.mark.may_leave  # What is lent in that moment.
@pytest.mark.filterwarnings("ignore::hardsock.LeakWarning")
def test_no_hook_of_a_pool_leaves_its_limits_set() -> None:
    seen: list[object] = []

    def hook(_conn: object) -> None:
        seen.append(hs.current())

    with (
        hs.listen(("127.0.0.1", 0)) as listener,
        hs.Pool(listener.address, max_size=1, on_connect=hook, reset=hook, check=hook) as pool,
    ):

        def borrow() -> None:
            conn = pool.acquire(timeout=LONG, token=hs.CancelToken())
            pool.release(conn, discard=False)

        assert interrupt_at_each_instruction(borrow, nothing_is_set) > 1
    assert seen
    assert None not in seen


def test_a_scope_that_nobody_holds_any_more_takes_back_what_it_set() -> None:
    """The place between entering and the block, where CPython 3.14 lets an interrupt in."""
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=1)
    scope = _core.Scope(None, LONG, beside=(variable, 2))
    scope.__enter__()
    assert hs.current() is not None
    assert variable.get() == 2
    del scope
    nothing_is_set()
    assert variable.get() == 1


def test_a_value_that_nobody_holds_any_more_takes_back_what_it_set() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=1)
    value = _core.ContextValue(variable, 2)
    value.__enter__()
    assert variable.get() == 2
    del value
    assert variable.get() == 1


def test_a_scope_that_another_one_covers_is_not_taken_back() -> None:
    def cover() -> None:
        lower = hs.timeout(LONG)
        lower.__enter__()
        with hs.timeout(LONG) as upper:
            del lower
            assert hs.current() is upper

    contextvars.copy_context().run(cover)


def test_a_block_that_ends_in_another_context_says_so_and_is_over() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=1)
    for block in (hs.timeout(LONG), _core.ContextValue(variable, 2)):
        contextvars.copy_context().run(block.__enter__)
        with pytest.raises(ValueError, match="different Context"):
            block.__exit__(None, None, None)
        with pytest.raises(RuntimeError, match="not"):
            block.__exit__(None, None, None)
        with block, pytest.raises(RuntimeError, match="make another one"):
            block.__enter__()
    nothing_is_set()
