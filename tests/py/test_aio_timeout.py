"""A scope in a task ends whatever the task awaits, and a pause ends with its scope."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import sniffio

import hardsock as hs
from hardsock import aio
from hardsock.aio import _host, _host_scope
from hardsock.aio import loop as hsloop
from hardsock.lab.threads import run_threaded
from support.loops import RUNS
from support.require import need_module

pytestmark = pytest.mark.usefixtures("event_loops")

LOOPS = [*RUNS, "trio"]
FIRST = 0.02
LATE = 60.0  # Nothing here may take so long; it only has to be later than FIRST.


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def run(loop: str, main: Callable[[], Awaitable[Any]]) -> Any:
    if loop == "trio":
        need_module("trio")
        import trio

        return trio.run(main)
    if loop == "uvloop":
        need_module("uvloop")  # Before there is a coroutine that nobody awaits.
    return RUNS[loop](main())  # type: ignore[arg-type]


async def forever() -> None:
    """Wait for what only the host knows of."""
    if sniffio.current_async_library() == "trio":
        import trio

        await trio.Event().wait()
    else:
        await asyncio.get_running_loop().create_future()


async def turn() -> None:
    if sniffio.current_async_library() == "trio":
        import trio

        await trio.lowlevel.checkpoint()
    else:
        await asyncio.sleep(0)


def host_cancelled() -> type[BaseException]:
    if sniffio.current_async_library() == "trio":
        import trio

        return trio.Cancelled
    return asyncio.CancelledError


def test_a_future_of_the_host_ends_with_the_deadline(loop: str) -> None:
    async def main() -> None:
        with pytest.raises(hs.DeadlineExceeded) as caught:
            async with aio.timeout(FIRST, name="the request"):
                await forever()
        assert caught.value.reason == "the request"
        assert isinstance(caught.value.__cause__, host_cancelled())
        assert hs.current() is None
        await turn()  # Nothing is left of the cancellation.

    run(loop, main)


def test_so_do_the_plain_scopes_in_a_task(loop: str) -> None:
    async def main() -> None:
        with pytest.raises(hs.DeadlineExceeded), hs.timeout(FIRST):
            await forever()
        with pytest.raises(hs.DeadlineExceeded), hs.scope(hs.CancelToken(FIRST)):
            await forever()

    run(loop, main)


def test_another_thread_cancels_the_block(loop: str) -> None:
    async def main() -> None:
        with pytest.raises(hs.Cancelled, match="stop it"):
            async with aio.timeout(LATE) as token:
                thread = threading.Thread(target=token.cancel, args=("stop it",))
                thread.start()
                await forever()
        thread.join()

    run(loop, main)


def test_an_outer_scope_ends_the_inner_block(loop: str) -> None:
    async def main() -> None:
        with pytest.raises(hs.DeadlineExceeded) as caught:
            async with aio.timeout(FIRST, name="outer"):
                async with aio.timeout(LATE, name="inner"):
                    await forever()
        assert caught.value.reason == "outer"
        with pytest.raises(hs.DeadlineExceeded) as caught:
            async with aio.timeout(LATE, name="outer"):
                async with aio.timeout(FIRST, name="inner"):
                    await forever()
        assert caught.value.reason == "inner"

    run(loop, main)


def test_an_inner_block_may_end_and_the_outer_one_goes_on(loop: str) -> None:
    async def main() -> None:
        async with aio.timeout(LATE):
            with pytest.raises(hs.DeadlineExceeded):
                async with aio.timeout(FIRST):
                    await forever()
            await turn()

    run(loop, main)


def test_a_call_of_hardsock_ends_first_and_says_more(loop: str) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        theirs.sendall(b"half")
        async with aio.adopt(ours) as conn:
            for _ in range(10):  # Whatever the order in which the two become due.
                with pytest.raises(hs.DeadlineExceeded) as caught:
                    async with aio.timeout(0.2):
                        await conn.recv_exactly(8)
                assert caught.value.op == "recv_exactly"
                assert caught.value.bytes_done == 4
                await turn()
        theirs.close()

    run(loop, main)


def test_a_task_that_was_told_by_a_call_tidies_up_undisturbed(loop: str) -> None:
    async def main() -> None:
        tidied = []
        ours, theirs = socket.socketpair()
        async with aio.adopt(ours) as conn:
            with pytest.raises(hs.DeadlineExceeded):
                async with aio.timeout(FIRST), aio.timeout(LATE):
                    try:
                        await conn.recv(1)
                    finally:
                        for _ in range(10):
                            await turn()
                        tidied.append(True)
        theirs.close()
        assert tidied == [True]

    run(loop, main)


def test_a_task_that_ignores_what_it_was_told_is_cancelled_after_a_while(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_host_scope, "GRACE", FIRST)

    async def main() -> None:
        ours, theirs = socket.socketpair()
        async with aio.adopt(ours) as conn:
            with pytest.raises(hs.DeadlineExceeded) as caught:
                async with aio.timeout(FIRST):
                    with pytest.raises(hs.DeadlineExceeded):
                        await conn.recv(1)
                    await forever()
            assert isinstance(caught.value.__cause__, host_cancelled())
        theirs.close()

    run(loop, main)


def test_a_time_limit_of_one_call_tells_the_scope_nothing(loop: str) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        async with aio.adopt(ours) as conn:
            with pytest.raises(hs.DeadlineExceeded) as caught:
                async with aio.timeout(FIRST):
                    with pytest.raises(hs.DeadlineExceeded):
                        await conn.recv(1, timeout=0)
                    await forever()
            assert isinstance(caught.value.__cause__, host_cancelled())
        theirs.close()

    run(loop, main)


def test_a_fault_in_what_tells_the_scopes_keeps_the_error_of_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: seen.append(found.exc_type))

    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(_host, "scope_told", [fail])

    async def main() -> None:
        ours, theirs = socket.socketpair()
        async with aio.adopt(ours) as conn:
            with pytest.raises(hs.DeadlineExceeded) as caught:
                await conn.recv(1, timeout=0)
            assert caught.value.op == "recv"
        theirs.close()

    asyncio.run(main())
    assert seen == [ZeroDivisionError]


def test_a_block_that_is_late_but_done_is_not_disturbed(loop: str) -> None:
    async def main() -> None:
        async with aio.timeout(0) as token:
            with pytest.raises(hs.DeadlineExceeded):
                token.check()
        await turn()
        await turn()

    run(loop, main)


def test_what_is_over_before_it_begins_ends_at_the_first_wait(loop: str) -> None:
    async def main() -> None:
        with pytest.raises(hs.DeadlineExceeded):
            async with aio.timeout(0):
                await forever()

    run(loop, main)


def test_an_error_of_the_block_stays_what_it_is(loop: str) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with aio.timeout(FIRST):
                try:
                    await forever()
                except BaseException:
                    raise ZeroDivisionError from None
        await turn()

    run(loop, main)


@pytest.mark.parametrize("explicit", [False, True], ids=["while it handled", "from"])
def test_an_error_that_came_of_the_cancellation_says_what_cancelled(
    loop: str, explicit: bool
) -> None:
    """A library's rollback finds its connection gone, and that is what it raises."""

    async def main() -> None:
        with pytest.raises(ZeroDivisionError) as met:
            async with aio.timeout(FIRST):
                try:
                    await forever()
                except BaseException as exc:
                    try:
                        raise KeyError from exc if explicit else None
                    except KeyError:
                        raise ZeroDivisionError  # noqa: B904
        between = met.value.__context__
        assert isinstance(between, KeyError)
        why = between.__context__
        assert isinstance(why, hs.DeadlineExceeded)
        assert why.__cause__ is not None
        assert not isinstance(why.__cause__, (Exception, hs.DeadlineExceeded))
        assert between.__cause__ is (why if explicit else None)
        await turn()

    run(loop, main)


@pytest.mark.parametrize("loop", list(RUNS))  # trio has the whole block cancelled first.
def test_an_error_that_knows_why_already_is_told_no_more(loop: str) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError) as met:
            async with aio.timeout(FIRST):
                try:
                    await forever()
                finally:
                    try:
                        await aio.sleep(LATE)
                    except hs.DeadlineExceeded as exc:
                        first = exc
                        raise ZeroDivisionError from exc
        assert met.value.__context__ is first
        assert not isinstance(first.__context__, hs.DeadlineExceeded)
        await turn()

    run(loop, main)


def test_a_deadline_moves_while_the_block_waits(loop: str) -> None:
    async def main() -> None:
        with pytest.raises(hs.DeadlineExceeded):
            async with aio.timeout(LATE) as token:
                thread = threading.Thread(target=token.set_timeout, args=(FIRST,))
                thread.start()
                await forever()
        thread.join()

    run(loop, main)


def test_a_shield_holds_the_cancellation_until_it_ends(loop: str) -> None:
    async def main() -> None:
        passed = []
        with pytest.raises(hs.DeadlineExceeded):
            async with aio.timeout(FIRST) as token:
                with hs.shield(LATE):
                    assert await aio.wait(token, LATE)
                    for _ in range(3):
                        await turn()
                    passed.append("shield")
                await forever()
        assert passed == ["shield"]

    run(loop, main)


def test_a_shield_that_ends_with_its_block_leaves_no_cancellation_behind(loop: str) -> None:
    async def main() -> None:
        async with aio.timeout(FIRST) as token:
            with hs.shield(LATE):
                assert await aio.wait(token, LATE)
                for _ in range(3):
                    await turn()
        for _ in range(3):
            await turn()

    run(loop, main)


def test_a_shield_of_a_task_inside_does_not_hold_its_creator() -> None:
    async def child() -> None:
        with hs.shield(LATE):
            await forever()

    async def main() -> None:
        with pytest.raises(hs.DeadlineExceeded):
            async with aio.timeout(FIRST):
                task = asyncio.create_task(child())
                await forever()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tasks do not count cancellations")
def test_a_cancel_by_somebody_else_at_the_same_time_wins() -> None:
    async def work() -> None:
        async with aio.timeout(None) as token:
            task = asyncio.current_task()
            assert task is not None
            token.cancel("ours")
            asyncio.get_running_loop().call_later(FIRST, task.cancel)
            try:
                await forever()
            except asyncio.CancelledError:  # Ours. Theirs comes while this one cleans up.
                await asyncio.wait([asyncio.ensure_future(forever())])

    async def main() -> None:
        task = asyncio.create_task(work())
        await asyncio.wait([task])
        assert task.cancelled()
        for other in asyncio.all_tasks() - {asyncio.current_task()}:
            other.cancel()

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout came with 3.11")
def test_it_nests_with_the_timeouts_of_asyncio() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(FIRST):
                async with aio.timeout(LATE):
                    await forever()
        assert not isinstance(caught.value, hs.HardsockError)
        with pytest.raises(hs.DeadlineExceeded):
            async with asyncio.timeout(LATE):
                async with aio.timeout(FIRST):
                    await forever()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(main())


def test_a_scope_of_trio_further_out_is_left_alone() -> None:
    need_module("trio")
    import trio

    async def main() -> None:
        with trio.move_on_after(FIRST) as scope:
            async with aio.timeout(LATE):
                await forever()
        assert scope.cancelled_caught

    trio.run(main)


def test_a_nursery_inside_is_cancelled_as_a_whole() -> None:
    need_module("trio")
    import trio

    ended: list[str] = []

    async def child(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(name)

    async def main() -> None:
        with pytest.raises(hs.DeadlineExceeded):
            async with aio.timeout(FIRST), trio.open_nursery() as nursery:
                nursery.start_soon(child, "a")
                nursery.start_soon(child, "b")
        assert sorted(ended) == ["a", "b"]

    trio.run(main)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="task groups came with 3.11")
def test_a_task_group_inside_is_cancelled_as_a_whole() -> None:
    async def main() -> None:
        with pytest.raises(hs.DeadlineExceeded):
            async with aio.timeout(FIRST), asyncio.TaskGroup() as group:
                group.create_task(forever())
                group.create_task(forever())

    asyncio.run(main())


def test_blocking_code_in_a_task_keeps_its_scope() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs, hs.adopt(ours) as conn, pytest.raises(hs.DeadlineExceeded) as caught:
            with hs.timeout(FIRST):
                conn.recv(1)
        assert caught.value.op == "recv"
        await turn()

    asyncio.run(main())


def test_a_scope_in_a_callback_of_the_loop_has_no_task_to_end() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def callback() -> None:
            with hs.timeout(LATE) as token, hs.shield(LATE):
                done.set_result(token.remaining)

        loop.call_soon(callback)
        assert await done <= LATE

    asyncio.run(main())


def test_it_wants_a_task_and_is_used_once() -> None:
    async def main() -> None:
        scope = aio.timeout(LATE)
        async with scope:
            with pytest.raises(RuntimeError, match="entered before"):
                await scope.__aenter__()
        with pytest.raises(RuntimeError, match="entered before"):
            await scope.__aenter__()

    asyncio.run(main())
    scope = aio.timeout(LATE)
    with pytest.raises(RuntimeError, match="no running event loop"):
        scope.__aenter__().send(None)

    async def later() -> None:
        async with scope:  # It was not entered, and may be yet.
            pass

    asyncio.run(later())
    plain = hs.timeout(LATE)
    with plain, pytest.raises(RuntimeError, match="entered already"):
        plain.__enter__()
    with plain as token:  # One after the other is fine: each begins anew.
        assert token.remaining is not None


def test_what_comes_between_its_look_and_its_entry_does_not_enter_it_again() -> None:
    """Memory that it asks for may start the collector, which runs anything (until CPython 3.11)."""

    async def main() -> None:
        scope = aio.timeout(LATE)
        entered: list[bool] = []

        def enters(phase: str, _info: object) -> None:
            if phase == "start" and not entered:
                entered.append(True)
                try:
                    scope.__aenter__()
                except RuntimeError:
                    entered[0] = False
                else:
                    scope.__aexit__(None, None, None)

        before = gc.get_threshold()
        gc.callbacks.append(enters)
        try:
            gc.set_threshold(1)
            outer = scope.__aenter__()
        except RuntimeError:
            outer = None
        finally:
            gc.set_threshold(*before)
            gc.callbacks.remove(enters)
        if outer is not None:
            scope.__aexit__(None, None, None)
        assert (outer is not None) + (entered == [True]) == 1

    asyncio.run(main())


def test_of_threads_that_enter_one_at_once_one_does() -> None:
    """Without the GIL two could look, and find that nobody had."""

    def enters(scope: Any, together: threading.Barrier, _index: int) -> bool:
        async def main() -> bool:
            together.wait(LATE)
            try:
                async with scope:
                    return True
            except RuntimeError:
                return False

        return asyncio.run(main())

    for _ in range(50):
        enter = partial(enters, aio.timeout(LATE), threading.Barrier(4))
        assert sum(run_threaded(enter, 4, timeout=LATE)) == 1


def test_subclasses_have_an_init_of_their_own_and_may_be_referred_to_weakly() -> None:
    class Patient(aio.timeout):
        def __init__(self, name: str) -> None:
            super().__init__(3600, name=name)

    class Forgetful(aio.timeout):
        def __init__(self) -> None:
            pass

    async def main() -> None:
        patient = Patient("orders")
        async with patient as token:
            assert token.remaining is not None
            assert token.remaining > 0
        assert patient is weakref.ref(patient)()
        with pytest.raises(RuntimeError, match="was called before"):
            patient.__init__("again")  # type: ignore[misc]
        with pytest.raises(RuntimeError, match="has not been called"):
            async with Forgetful():
                pass

    asyncio.run(main())


def test_a_scope_decorates_functions_and_begins_with_each_call() -> None:
    seen = []

    @hs.timeout(LATE)
    def work() -> None:
        seen.append(hs.current())

    work()
    work()
    assert None not in seen
    assert seen[0] is not seen[1]


def test_a_block_leaves_no_cycle_behind(loop: str) -> None:
    class Marker:
        pass

    async def main() -> weakref.ref[Marker]:
        marker = Marker()
        try:
            async with aio.timeout(0.001):
                await forever()
        except hs.DeadlineExceeded:
            pass
        return weakref.ref(marker)

    gc.collect()
    gc.disable()
    try:
        known = run(loop, main)
        assert loop == "trio" or known() is None  # trio's own errors hold their frames.
    finally:
        gc.enable()


def test_a_pause_ends_with_its_time_its_scope_or_its_token(loop: str) -> None:
    async def main() -> None:
        await aio.sleep(0.001)
        with pytest.raises(hs.DeadlineExceeded):
            async with aio.timeout(FIRST):
                await aio.sleep(LATE)
        token = hs.CancelToken()
        token.cancel("enough")
        with pytest.raises(hs.Cancelled, match="enough"):
            await aio.sleep(LATE, token=token)
        with pytest.raises(hs.Cancelled, match="enough"), hs.timeout(LATE):
            await aio.sleep(LATE, token=token)
        with pytest.raises(ValueError, match="non-negative"):
            await aio.sleep(-1)

    run(loop, main)


@pytest.mark.parametrize("name", RUNS)
def test_a_call_that_hears_later_of_the_end_than_its_scope_still_tells_it(name: str) -> None:
    """A cancel is told to one after the other: here the call has not heard when the scope acts."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        async with aio.adopt(ours) as conn:
            token = hs.CancelToken()

            def scope_hears_first(turns: int) -> None:
                if turns:  # Until the loop has nothing else to do.
                    asyncio.get_running_loop().call_soon(scope_hears_first, turns - 1)
                    return
                token.cancel("stop button")
                block = _host_scope._innermost.get()
                assert block is not None
                assert block._operation is not None
                block._look(block._operation)

            with pytest.raises(hs.Cancelled, match="stop button") as caught, hs.scope(token):
                asyncio.get_running_loop().call_soon(scope_hears_first, 9)
                await conn.recv(1)
            assert caught.value.op == "recv"
        theirs.close()

    run(name, main)


@pytest.mark.parametrize("end", ["deadline", "cancel", "before"])
def test_a_scope_around_the_run_ends_what_main_awaits(end: str) -> None:
    token = hs.CancelToken(FIRST if end == "deadline" else None)

    async def main() -> None:
        if end == "cancel":
            threading.Timer(0, token.cancel).start()
        await asyncio.get_running_loop().create_future()

    if end == "before":
        token.cancel()
    with pytest.raises(hs.DeadlineExceeded if end == "deadline" else hs.Cancelled):
        with hs.scope(token):
            hsloop.run(main())


def test_a_run_within_a_scope_that_has_time_returns_what_main_does() -> None:
    async def main() -> str:
        await asyncio.sleep(0)
        return "done"

    with hs.timeout(LATE):
        assert hsloop.run(main()) == "done"
        wrong = ValueError if sys.version_info < (3, 14) else TypeError  # As asyncio.run() has it.
        with pytest.raises(wrong, match="coroutine"):
            hsloop.run(main)  # type: ignore[arg-type]


def test_nothing_is_asked_when_the_scope_around_the_run_has_ended() -> None:
    ours, peer = socket.socketpair()

    async def main() -> None:
        _, writer = await asyncio.open_connection(sock=ours)
        token.cancel()
        writer.write(b"in vain")
        await asyncio.get_running_loop().create_future()

    token = hs.CancelToken()
    with peer:
        with pytest.raises(hs.Cancelled), hs.scope(token):
            hsloop.run(main())
        assert peer.recv(1) == b""
    assert hs.open_connections() == []
