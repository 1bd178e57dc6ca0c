"""hardsock.aio beyond the contract of streams: connecting, listening, and the life of event loops."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import socket
import sys
import time
import weakref
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock import aio
from hardsock._core import _live
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.threads import Call, run_threaded
from support.echo import EchoServer
from support.loops import RUNS, Run, is_parked, task_parked
from support.require import need_module, require

pytestmark = pytest.mark.usefixtures("event_loops")


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest) -> Run:
    """asyncio.run on each asyncio loop, with a limit."""
    chosen = RUNS[request.param]

    async def limited(main: Coroutine[Any, Any, Any]) -> Any:
        return await asyncio.wait_for(main, 60)

    return lambda main: chosen(limited(main))


def pair() -> tuple[aio.Connection, aio.Connection]:
    left, right = socket.socketpair()
    return aio.adopt(left), aio.adopt(right)


def count_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


# ---- connecting


def test_connects_to_every_form_of_address(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        host, port = echo.address[:2]
        for address in (
            (host, port),
            f"{host}:{port}",
            ("localhost", port),
            f"unix:{unix.address}",
        ):
            async with await aio.connect(address, timeout=30) as conn:
                await conn.sendall(b"hi")
                assert await conn.recv_exactly(2, timeout=30) == b"hi"

    with EchoServer() as echo, EchoServer(path=str(tmp_path / "s")) as unix:
        run(main())


def test_a_refusal_tells_its_attempts(run: Run) -> None:
    async def main() -> None:
        with hs.listen(("127.0.0.1", 0)) as listener:
            address = listener.address
        with pytest.raises(hs.ConnectError) as caught:
            await aio.connect(address, timeout=30)
        assert isinstance(caught.value, ConnectionRefusedError)
        assert [a.phase for a in caught.value.attempts] == ["connect"]

    run(main())


def test_a_black_hole_ends_at_the_deadline_with_its_phase(run: Run) -> None:
    async def main() -> None:
        began = time.monotonic()
        with pytest.raises(hs.DeadlineExceeded) as caught:
            await aio.connect(hole.address, timeout=0.05)
        assert 0.05 <= time.monotonic() - began < 5
        assert (caught.value.phase, caught.value.op) == ("connect", "connect")

    with BlackHole() as hole:
        run(main())


def test_an_unusable_address_fails_before_it_is_awaited_on(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="port"):
            await aio.connect("127.0.0.1")
        with pytest.raises(TypeError):
            await aio.connect(("127.0.0.1", 1), timeout="soon")  # type: ignore[arg-type]

    run(main())


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with require(Namespace()) as made:
        yield made


def _race(loop: str) -> dict[str, Any]:
    from hardsock.lab.inside import bind_mount_file

    hosts = ("127.0.1.1", "127.0.1.2", "127.0.1.3")

    async def main() -> dict[str, Any]:
        with BlackHole(hosts) as holes:
            port = holes.address[1]
            async with (
                await aio.listen(("127.0.1.9", port)) as listener,
                await aio.connect(("many.test", port), timeout=60, attempt_delay=0.03) as conn,
                await listener.accept(timeout=30),
            ):
                return {"won": conn.getpeername()[0]}

    bind_mount_file("/etc/hosts", "".join(f"{h} many.test\n" for h in (*hosts, "127.0.1.9")))
    bind_mount_file("/etc/nsswitch.conf", "hosts: files\n")
    return RUNS[loop](main())  # type: ignore[no-any-return]


@pytest.mark.net
@pytest.mark.parametrize("loop", RUNS)
def test_a_live_address_wins_over_black_holes(namespace: Namespace, loop: str) -> None:
    assert namespace.run(_race, loop)["won"] == "127.0.1.9"


def _dead_dns(loop: str) -> dict[str, Any]:
    from hardsock.lab.dns import DeadDNS, use_dns

    async def main() -> dict[str, Any]:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        counting = asyncio.ensure_future(count())
        began = time.monotonic()
        try:
            await aio.connect("nobody.test:80", timeout=0.3)
        except hs.DeadlineExceeded as exc:
            phase = exc.phase
        took = time.monotonic() - began
        task = asyncio.ensure_future(aio.resolve("nobody.test:80"))
        await task_parked(task)
        task.cancel()
        await asyncio.wait({task, counting}, timeout=30, return_when="FIRST_COMPLETED")
        counting.cancel()
        return {"phase": phase, "took": took, "turns": turns, "cancelled": task.cancelled()}

    with DeadDNS("127.0.0.1", 53):
        use_dns("127.0.0.1", timeout=20, attempts=2)
        return RUNS[loop](main())  # type: ignore[no-any-return]


@pytest.mark.net
@pytest.mark.parametrize("loop", RUNS)
def test_a_dead_name_server_stops_neither_the_task_nor_the_loop(
    namespace: Namespace, loop: str
) -> None:
    result = namespace.run(_dead_dns, loop)
    assert result["phase"] == "resolve"
    assert 0.3 <= result["took"] < 15  # of forty that the resolver would take
    assert result["turns"] > 1
    assert result["cancelled"]


# ---- listening


def test_a_batch_of_accepts(run: Run) -> None:
    async def main() -> None:
        async with await aio.listen("localhost:0", timeout=20) as listener:
            ours = [await aio.connect(listener.address, timeout=30) for _ in range(5)]
            theirs: list[aio.Connection] = []
            while len(theirs) < 5:
                theirs += await listener.accept_many(3, timeout=30)
            assert {c.getpeername() for c in theirs} == {c.getsockname() for c in ours}
            for conn in (*ours, *theirs):
                conn.close()

    run(main())


def test_a_crowd_that_accepts_gets_each_connection_once(run: Run) -> None:
    """More tasks than one look at the kernel's events brings."""

    async def main() -> None:
        async with await aio.listen(("127.0.0.1", 0)) as listener:
            tasks = [asyncio.ensure_future(listener.accept()) for _ in range(200)]
            await task_parked(tasks[-1])
            ours = [await aio.connect(listener.address, timeout=30) for _ in range(100)]
            done: set[asyncio.Task[aio.Connection]] = set()
            while len(done) < 100:
                done = {task for task in tasks if task.done()}
                await asyncio.sleep(0)
            listener.close()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            theirs = [end for end in ends if isinstance(end, aio.Connection)]
            assert len(theirs) == len({c.getpeername() for c in theirs}) == 100
            assert sum(isinstance(end, hs.Closed) for end in ends) == 100
            for conn in (*ours, *theirs):
                conn.close()

    run(main())


# ---- sharing, adopting, giving away


def test_a_connection_is_shared_with_a_thread(run: Run) -> None:
    async def main() -> None:
        left, right = socket.socketpair()
        with right, hs.adopt(left) as conn:
            shared = aio.adopt(conn)
            assert shared.blocking is conn
            writing = asyncio.ensure_future(shared.sendall(b"x" * (4 << 20)))
            await task_parked(writing)
            with Call(conn.recv_exactly, 2, timeout=60) as reading:
                reading.wait_until_blocked()
                with pytest.raises(hs.Busy):
                    await shared.recv(1)
                right.sendall(b"ok")
                assert reading.result() == b"ok"
            conn.close()
            with pytest.raises(hs.Closed):
                await writing
        with pytest.raises(ValueError, match="options"):
            aio.adopt(conn, options=hs.SocketOptions())

    run(main())


def test_a_detached_descriptor_may_come_back(run: Run) -> None:
    async def main() -> None:
        ours, theirs = pair()
        for _ in range(5):
            reading = asyncio.ensure_future(ours.recv(10))
            await task_parked(reading)
            with pytest.raises(hs.Busy):
                ours.detach()
            await theirs.sendall(b"one")
            assert await reading == b"one"
            fd = ours.detach()
            assert ours.closed
            await theirs.sendall(b"two")
            ours = aio.adopt(fd)
            assert await ours.recv_exactly(3, timeout=30) == b"two"
        ours.close()
        theirs.close()

    run(main())


def test_a_number_that_comes_back_wakes_its_new_owner(run: Run) -> None:
    """A copy of the old socket, in another process say, keeps its events coming."""

    async def main() -> None:
        ours, theirs = pair()
        copy = socket.socket(fileno=os.dup(ours.fileno()))
        number = ours.fileno()
        reading = asyncio.ensure_future(ours.recv(1))
        await task_parked(reading)
        ours.close()
        with pytest.raises(hs.Closed):
            await reading
        again, peer = pair()
        assert number in (again.fileno(), peer.fileno())
        tasks = [asyncio.ensure_future(conn.recv(1)) for conn in (again, peer)]
        await task_parked(tasks[1])
        await theirs.sendall(b"stale")
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        await again.sendall(b"a")
        await peer.sendall(b"p")
        assert await asyncio.gather(*tasks) == [b"p", b"a"]
        assert copy.recv(5) == b"stale"
        copy.close()
        for conn in (again, peer, theirs):
            conn.close()

    run(main())


# ---- the life of loops


async def _talk() -> None:
    ours, theirs = pair()
    async with ours, theirs:
        reading = asyncio.ensure_future(ours.recv(1))
        await task_parked(reading)
        await theirs.sendall(b"x")
        assert await reading == b"x"


def test_fifty_loops_leave_no_descriptor(run: Run) -> None:
    before = count_fds()
    for _ in range(50):
        run(_talk())
        assert count_fds() == before


def _new_loop(name: str) -> asyncio.AbstractEventLoop:
    if name == "asyncio":
        return asyncio.new_event_loop()
    need_module("uvloop")
    import uvloop

    return uvloop.new_event_loop()


@pytest.mark.parametrize("name", RUNS)
def test_a_loop_may_be_closed_without_any_ceremony(name: str) -> None:
    before = count_fds()
    loop = _new_loop(name)
    for _ in range(3):
        loop.run_until_complete(_talk())
    loop.close()
    assert count_fds() == before


@pytest.mark.parametrize("name", RUNS)
def test_generators_that_the_loop_closes_may_still_wait(name: str) -> None:
    said = []

    async def numbers() -> Any:
        ours, theirs = pair()
        try:
            yield 1
        finally:
            reading = asyncio.ensure_future(ours.recv(3))
            await task_parked(reading)
            await theirs.sendall(b"bye")
            said.append(await reading)
            ours.close()
            theirs.close()

    async def main() -> None:
        nonlocal generator
        generator = numbers()
        assert await generator.__anext__() == 1

    generator = None
    RUNS[name](main())
    assert said == [b"bye"]


def test_two_loops_in_two_threads() -> None:
    need_module("uvloop")

    def talk(index: int) -> None:
        for _ in range(50):
            RUNS["asyncio" if index % 2 == 0 else "uvloop"](_talk())

    run_threaded(talk, 4, timeout=60)


def test_a_loop_may_move_to_another_thread() -> None:
    loop = asyncio.new_event_loop()

    async def make() -> tuple[aio.Connection, aio.Connection]:
        return pair()

    async def use() -> None:
        await ours.sendall(b"x")
        assert await theirs.recv(1) == b"x"
        reading = asyncio.ensure_future(theirs.recv(1))
        await task_parked(reading)
        await ours.sendall(b"y")
        assert await reading == b"y"

    ours, theirs = loop.run_until_complete(make())
    for _ in range(3):
        with Call(loop.run_until_complete, use()) as call:
            call.join()
        loop.run_until_complete(use())
    ours.close()
    theirs.close()
    loop.close()


class Canary:
    pass


def test_the_first_calls_scope_does_not_live_as_long_as_the_loop(run: Run) -> None:
    variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable")

    async def open_hub() -> weakref.ref[Canary]:
        canary = Canary()
        variable.set(canary)
        with hs.timeout(60):
            await _talk()
        return weakref.ref(canary)

    async def main() -> None:
        tokens = _live()["tokens"]
        found = await asyncio.ensure_future(open_hub())
        await asyncio.sleep(0)  # The handle that told us of its end holds the task until now.
        gc.collect()
        assert found() is None
        assert _live()["tokens"] == tokens

    run(main())


def test_works_in_debug_mode() -> None:
    async def main() -> None:
        await _talk()
        ours, theirs = pair()
        with pytest.raises(hs.DeadlineExceeded):
            await ours.recv(1, timeout=0.01)
        task = asyncio.ensure_future(ours.recv(1))
        await task_parked(task)
        assert "recv" in repr(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ours.close()
        theirs.close()

    asyncio.run(main(), debug=True)


def test_adopts_in_a_plain_callback_though_trio_was_imported(run: Run) -> None:
    import trio

    assert trio is sys.modules["trio"]

    async def main() -> None:
        made = asyncio.get_running_loop().create_future()

        def adopt() -> None:
            try:
                made.set_result(pair())
            except BaseException as exc:
                made.set_exception(exc)

        asyncio.get_running_loop().call_soon(adopt)
        ours, theirs = await made
        await ours.sendall(b"x")
        assert await theirs.recv(1, timeout=30) == b"x"
        ours.close()
        theirs.close()

    run(main())


def test_outside_of_any_loop_is_a_clear_error() -> None:
    left, right = socket.socketpair()
    with left, right:
        for what in (left, left.fileno()):
            with pytest.raises(RuntimeError, match="no running event loop"):
                aio.adopt(what)
        right.sendall(b"x")
        assert left.recv(1) == b"x", "it must not be taken on failure"


# ---- asyncio's own tools


def test_wait_for_gather_and_to_thread(run: Run) -> None:
    async def main() -> None:
        ours, theirs = pair()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ours.recv(1), 0.01)
        reading = asyncio.gather(ours.recv_exactly(4), theirs.recv_exactly(4))
        await asyncio.to_thread(ours.blocking.sendall, b"from")
        await theirs.sendall(b"task")
        assert await reading == [b"task", b"from"]
        ours.close()
        theirs.close()

    run(main())


def test_a_shielded_read_goes_on_and_its_waiter_is_cancelled(run: Run) -> None:
    async def main() -> None:
        ours, theirs = pair()
        reading = asyncio.ensure_future(ours.recv_exactly(4))
        waiting = asyncio.ensure_future(_await(asyncio.shield(reading)))
        await task_parked(reading)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert is_parked(reading)
        await theirs.sendall(b"four")
        assert await reading == b"four"
        ours.close()
        theirs.close()

    run(main())


async def _await(future: Any) -> Any:
    return await future


def test_a_cancels_message_arrives(run: Run) -> None:
    async def main() -> None:
        ours, theirs = pair()
        reading = asyncio.ensure_future(ours.recv(1))
        await task_parked(reading)
        reading.cancel("enough")
        with pytest.raises(asyncio.CancelledError) as caught:
            await reading
        if sys.version_info >= (3, 11):
            assert caught.value.args == ("enough",)
        ours.close()
        theirs.close()

    run(main())


def test_a_task_that_refuses_its_cancel_can_read_on(run: Run) -> None:
    async def main() -> None:
        ours, theirs = pair()

        async def stubborn() -> bytes:
            try:
                await ours.recv(1)
            except asyncio.CancelledError:
                return await ours.recv(1)
            raise AssertionError

        reading = asyncio.ensure_future(stubborn())
        await task_parked(reading)
        reading.cancel()
        await asyncio.sleep(0)
        await task_parked(reading)
        await theirs.sendall(b"x")
        assert await reading == b"x"
        ours.close()
        theirs.close()

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tasks share contexts since Python 3.11")
def test_a_cancel_that_comes_while_the_wake_up_is_scheduled_is_not_lost(run: Run) -> None:
    """A task in a context that is being used is resumed in the next turn; then cancels meet it."""

    async def main() -> None:
        ours, theirs = pair()
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()

        reading = loop.create_task(ours.recv(4), context=context)
        await task_parked(reading)
        await theirs.sendall(b"data")
        context.run(ours._hub.run)
        reading.cancel()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await ours.recv(4, timeout=30) == b"data"
        ours.close()
        theirs.close()

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is of Python 3.11")
def test_timeouts_count_their_cancels(run: Run) -> None:
    async def main() -> None:
        ours, theirs = pair()
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.01):
                await ours.recv(1)
        assert not isinstance(caught.value, hs.HardsockError)
        assert task.cancelling() == 0
        # Of two the outer one has come, and the inner must not take it for its own.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                async with asyncio.timeout(60):
                    await ours.recv_exactly(2)
        assert task.cancelling() == 0

        # Both a timeout and a cancel: the cancel wins.
        async def both() -> None:
            async with asyncio.timeout(60) as scope:
                scope.reschedule(asyncio.get_running_loop().time())
                await ours.recv(1)

        other = asyncio.ensure_future(both())
        await task_parked(other)
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other
        await theirs.sendall(b"x")
        async with asyncio.timeout(60):
            assert await ours.recv(1) == b"x"
        ours.close()
        theirs.close()

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup is of Python 3.11")
def test_a_task_group_cancels_the_others_and_nothing_more(run: Run) -> None:
    async def main() -> None:
        ours, theirs = pair()
        task = asyncio.current_task()
        assert task is not None

        async def fail() -> None:
            await task_parked(reading)
            raise ZeroDivisionError

        with pytest.raises(BaseException) as caught:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(ours.recv(1))
                group.create_task(fail())
                await theirs.recv(1)
        assert [type(e) for e in caught.value.exceptions] == [ZeroDivisionError]
        assert task.cancelling() == 0
        await theirs.sendall(b"x")
        await ours.sendall(b"y")
        assert [await ours.recv(1), await theirs.recv(1)] == [b"x", b"y"]
        ours.close()
        theirs.close()

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of Python 3.12")
def test_eager_tasks() -> None:
    """Not on uvloop, whose create_task gives the factory a keyword that it does not take."""

    async def main() -> None:
        ours, theirs = pair()
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        await theirs.sendall(b"x")
        eager = loop.create_task(ours.recv(1))
        assert eager.done()
        assert await eager == b"x"
        waiting = loop.create_task(ours.recv(1))
        assert is_parked(waiting)
        sending = loop.create_task(theirs.sendall(b"y"))
        assert sending.done()
        assert await waiting == b"y"
        waiting = loop.create_task(ours.recv(1))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        ours.close()
        theirs.close()

    asyncio.run(main())


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exception_that_ends_the_loop_loses_nobodys_wake_up(
    name: str, error: type[BaseException]
) -> None:
    got = []

    async def die(conn: aio.Connection) -> None:
        await conn.recv(1)
        raise error

    async def read(conn: aio.Connection) -> None:
        got.append(await conn.recv(1))

    async def main() -> None:
        calls = [
            asyncio.ensure_future((die if i == 2 else read)(conn))
            for i, (conn, _peer) in enumerate(pairs)
        ]
        for call in calls:
            await task_parked(call)
        for _conn, peer in pairs:
            await peer.sendall(b"x")
        await asyncio.wait(calls, timeout=60)
        dead = [call for call in calls if call.done() and call.exception() is not None]
        assert dead == [calls[2]]

    async def make() -> None:
        pairs.extend(pair() for _ in range(5))

    pairs: list[tuple[aio.Connection, aio.Connection]] = []
    loop = _new_loop(name)
    loop.run_until_complete(make())
    task = loop.create_task(main())
    with pytest.raises(error):
        loop.run_until_complete(task)
    loop.run_until_complete(task)
    assert got == [b"x"] * 4
    for conn in (conn for both in pairs for conn in both):
        conn.close()
    loop.close()


def test_operations_refuse_what_no_task_does(run: Run) -> None:
    async def main() -> None:
        ours, theirs = pair()
        op = ours.blocking._op_recv(ours._hub, 1)
        assert op.send(None) is op
        with pytest.raises(RuntimeError, match="no value"):
            op.value()
        op.add_done_callback(print)
        with pytest.raises(RuntimeError, match="one task"):
            op.add_done_callback(print)
        with pytest.raises(TypeError, match="BaseException"):
            op.throw(1)
        with pytest.raises(RuntimeError, match="awaited already"):
            await op
        with pytest.raises(RuntimeError, match="has ended"):
            op.step()
        op.close()
        with pytest.raises(ZeroDivisionError):
            ours.blocking._op_recv(ours._hub, 1).throw(ZeroDivisionError)
        with pytest.raises(ZeroDivisionError, match="why"):
            ours.blocking._op_recv(ours._hub, 1).throw(ZeroDivisionError, "why")
        with pytest.raises(TypeError, match="Hub"):
            ours.blocking._op_recv(1)
        await theirs.sendall(b"x")
        assert await ours.recv(1) == b"x"
        ours.close()
        theirs.close()

    run(main())


def test_a_buffer_is_pinned_until_the_call_ends(run: Run) -> None:
    async def main() -> None:
        ours, theirs = pair()
        buffer = bytearray(4)
        reading = asyncio.ensure_future(ours.recv_into(buffer))
        await task_parked(reading)
        with pytest.raises(BufferError):
            buffer.append(1)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        buffer.append(1)
        ours.close()
        theirs.close()

    run(main())


# ---- trio


def test_trio_cancels_are_level_triggered() -> None:
    import trio

    async def main() -> None:
        ours, theirs = pair()
        await theirs.sendall(b"kept")
        with trio.CancelScope() as scope:
            scope.cancel()
            for call in (ours.recv(4), ours.sendall(b"x"), ours.recv(4), ours.finish()):
                with pytest.raises(trio.Cancelled):
                    await call
            with pytest.raises(trio.Cancelled):
                await aio.connect("127.0.0.1:1")
        assert (ours.bytes_sent, ours.poisoned) == (0, False)
        assert await ours.recv(4) == b"kept"
        ours.close()
        theirs.close()

    trio.run(main)


def test_trio_shields_hold() -> None:
    import trio
    import trio.testing

    async def main() -> None:
        ours, theirs = pair()
        got = []

        async def read() -> None:
            with trio.CancelScope(shield=True):
                got.append(await ours.recv_exactly(2))
            await ours.recv(1)
            raise AssertionError("the cancel was lost")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await theirs.sendall(b"ok")
        assert got == [b"ok"]
        ours.close()
        theirs.close()

    trio.run(main)


def test_trio_as_a_guest_of_asyncio() -> None:
    import trio

    async def talk_in_trio() -> bytes:
        ours, theirs = pair()
        async with ours, theirs:
            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(theirs.sendall, b"guest")
                    return await ours.recv_exactly(5)

    async def main() -> bytes:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        outcomes: list[Any] = []

        def end(outcome: Any) -> None:
            outcomes.append(outcome)
            done.set()

        trio.lowlevel.start_guest_run(
            talk_in_trio, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=end
        )
        await _talk()
        await asyncio.wait_for(done.wait(), 30)
        return outcomes[0].unwrap()  # type: ignore[no-any-return]

    assert asyncio.run(main()) == b"guest"
