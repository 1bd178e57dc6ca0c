"""aio.Pool: the same core and queue, awaited; cancelling loses nobody's connection."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

import hardsock as hs
from hardsock import aio
from support.echo import EchoServer
from support.kernel import unread
from support.loops import RUNS, Run, task_parked

pytestmark = pytest.mark.usefixtures("event_loops")


@pytest.fixture(params=[*RUNS, "trio"])
def any_run(request: pytest.FixtureRequest) -> Run:
    """asyncio on each of its loops, and trio."""
    if request.param == "trio":
        import trio

        return lambda main: trio.run(_await, main)
    return _limited(RUNS[request.param])


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest) -> Run:
    """asyncio on each of its loops."""
    return _limited(RUNS[request.param])


async def _await(main: Coroutine[Any, Any, Any]) -> Any:
    return await main


def _limited(chosen: Run) -> Run:
    async def limited(main: Coroutine[Any, Any, Any]) -> Any:
        return await asyncio.wait_for(main, 60)

    return lambda main: chosen(limited(main))


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    with EchoServer() as server:
        yield server


async def ask(conn: aio.Connection, text: bytes = b"hello") -> bytes:
    await conn.sendall(text, timeout=30)
    answer = await conn.recv_exactly(len(text), timeout=30)
    conn.mark_clean()
    return answer


async def closed(pool: aio.Pool) -> None:
    report = await pool.close(timeout=30)
    assert report.clean


def test_block_borrows_and_returns(any_run: Run, echo: EchoServer) -> None:
    async def main() -> None:
        pool = aio.Pool(echo.address[:2], max_size=2)
        for _ in range(2):
            async with pool.connection(timeout=30) as conn:
                assert await ask(conn) == b"hello"
        assert conn.closed
        assert pool.stats().opened == 1
        assert pool.verify().ok
        await closed(pool)

    any_run(main())


def answer_with_excess(conn: hs.Connection) -> None:
    excess = b"12345"
    while asked := conn.recv(1, token=hs.draining()):
        conn.sendall(b"<" + asked * 3 + b">" + excess)
        excess = b""


def test_excess_bytes_do_not_reach_the_next_borrower(any_run: Run) -> None:
    async def main(address: Any) -> None:
        async with aio.Pool(address, max_size=1) as pool:
            async with pool.connection(timeout=30) as conn:
                await conn.sendall(b"a")
                assert await conn.recv_exactly(5, timeout=30) == b"<aaa>"
                while unread(conn.fileno()) < 5:
                    pass
                conn.mark_clean()
            async with pool.connection(timeout=30) as conn:
                await conn.sendall(b"b")
                assert await conn.recv_exactly(5, timeout=30) == b"<bbb>"
                conn.mark_clean()
            assert pool.stats().closed_by_reason["unsolicited"] == 1

    with hs.serve(answer_with_excess, ("127.0.0.1", 0), drain_timeout=30) as server:
        any_run(main(server.address))


def test_excess_bytes_do_not_reach_a_task_in_the_queue(run: Run) -> None:
    async def main(address: Any) -> None:
        async with aio.Pool(address, max_size=1) as pool:

            async def borrow() -> bytes:
                async with pool.connection(timeout=60) as conn:
                    await conn.sendall(b"b")
                    answer = await conn.recv_exactly(5, timeout=30)
                    conn.mark_clean()
                    return answer

            async with pool.connection(timeout=30) as conn:
                borrowing = asyncio.ensure_future(borrow())
                await task_parked(borrowing)
                assert pool.stats().waiting == 1
                await conn.sendall(b"a")
                assert await conn.recv_exactly(5, timeout=30) == b"<aaa>"
                while unread(conn.fileno()) < 5:
                    pass
                conn.mark_clean()
            assert await borrowing == b"<bbb>"
            assert pool.stats().closed_by_reason["unsolicited"] == 1

    with hs.serve(answer_with_excess, ("127.0.0.1", 0), drain_timeout=30) as server:
        run(main(server.address))


def test_lent_names_the_task_and_the_line(run: Run, echo: EchoServer) -> None:
    async def holder(pool: aio.Pool, have: asyncio.Event, done: asyncio.Event) -> None:
        conn = await pool.acquire(timeout=30)
        have.set()
        await done.wait()
        await pool.release(conn)

    async def main() -> None:
        pool = aio.Pool(echo.address[:2])
        have, done = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(holder(pool, have, done), name="the holder")
        await have.wait()
        (lent,) = pool.lent()
        assert lent.task == "the holder"
        assert lent.site.function == "holder"
        assert lent.site.file == __file__
        assert any("done.wait" in line for line in lent.current_stack())
        done.set()
        await task
        assert pool.blocking._tasks == {}
        await closed(pool)

    run(main())


def test_cancelled_waiter_passes_on_what_it_was_given(run: Run, echo: EchoServer) -> None:
    async def main() -> None:
        pool = aio.Pool(echo.address[:2], max_size=1)
        conn = await pool.acquire(timeout=30)
        first = asyncio.create_task(pool.acquire(timeout=30))
        await task_parked(first)
        second = asyncio.create_task(pool.acquire(timeout=30))
        await task_parked(second)
        await pool.release(conn)  # It is the first one's, who has not run since ...
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await pool.release(await second)  # ... and is passed on.
        assert pool.stats().opened == 1
        assert pool.stats().lent == 0
        await closed(pool)

    run(main())


def test_timeout_around_acquire_is_not_swallowed(run: Run, echo: EchoServer) -> None:
    """psycopg 1401: the cancel of wait_for was caught, and the call went on."""

    async def main() -> None:
        pool = aio.Pool(echo.address[:2], max_size=1)
        async with pool.connection(timeout=30):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(pool.acquire(), 0.01)
            with pytest.raises(hs.PoolTimeout, match="1 of 1 lent"):
                await pool.acquire(timeout=0.01)
        await closed(pool)

    run(main())


def test_hooks_may_be_coroutines(run: Run, echo: EchoServer) -> None:
    calls: list[str] = []

    async def login(conn: aio.Connection) -> None:
        calls.append("login")
        assert await ask(conn, b"login") == b"login"

    def check(conn: aio.Connection) -> bool:
        calls.append("check")
        return len(calls) < 5

    async def reset(conn: aio.Connection) -> None:
        calls.append("reset")
        await asyncio.sleep(0)

    async def main() -> None:
        pool = aio.Pool(
            echo.address[:2], max_size=1, on_connect=login, check=check, check_after=0, reset=reset
        )
        for _ in range(3):
            async with pool.connection(timeout=30) as conn:
                await ask(conn)
        assert calls == ["login", "reset", "check", "reset", "check", "login", "reset"]
        assert pool.stats().closed_by_reason["check_failed"] == 1
        await closed(pool)

    run(main())


def test_cancel_in_a_hook_frees_the_place(run: Run, echo: EchoServer) -> None:
    async def login(conn: aio.Connection) -> None:
        await conn.recv(1)

    async def main() -> None:
        pool = aio.Pool(echo.address[:2], max_size=1, on_connect=login)
        with pytest.raises(hs.DeadlineExceeded):
            await pool.acquire(timeout=0.05)
        task = asyncio.create_task(pool.acquire())
        while pool.stats().lent == 0:
            await asyncio.sleep(0)
        await task_parked(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool.stats().lent == 0
        await closed(pool)

    run(main())


def test_threads_and_tasks_share_one_queue(run: Run, echo: EchoServer) -> None:
    async def main() -> None:
        pool = aio.Pool(echo.address[:2], max_size=1)
        conn = await pool.acquire(timeout=30)
        got: list[hs.Connection] = []
        thread = threading.Thread(target=lambda: got.append(pool.blocking.acquire(timeout=30)))
        thread.start()
        while pool.stats().waiting == 0:
            await asyncio.sleep(0)
        task = asyncio.create_task(pool.acquire(timeout=30))
        await task_parked(task)
        await pool.release(conn)
        thread.join()
        assert not task.done()  # The thread was first.
        pool.blocking.release(got.pop())
        await pool.release(await task)
        await closed(pool)

    run(main())


def test_storm_of_cancels_loses_no_place(run: Run, echo: EchoServer) -> None:
    """M4: after four seconds of this httpcore's pool is full of connections without an owner."""
    rng = random.Random(7)

    async def use(pool: aio.Pool) -> None:
        while True:
            async with pool.connection(timeout=30) as conn:
                if rng.random() < 0.7:
                    await ask(conn, bytes([rng.randrange(256)]))
                else:
                    await asyncio.sleep(0)

    async def main() -> None:
        pool = aio.Pool(echo.address[:2], max_size=3)
        tasks = [asyncio.create_task(use(pool)) for _ in range(12)]
        for _ in range(1500):
            await asyncio.sleep(0)
            i = rng.randrange(len(tasks))
            tasks[i].cancel()
            await asyncio.gather(tasks[i], return_exceptions=True)
            tasks[i] = asyncio.create_task(use(pool))
            stats = pool.stats()
            assert stats.opened == (
                stats.idle + stats.lent + stats.dialing + stats.closing + stats.closed
            )
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert pool.stats().lent == 0
        conns = [await pool.acquire(timeout=30) for _ in range(3)]
        for conn in conns:
            await pool.release(conn)
        await closed(pool)

    run(main())


def test_pool_closes_under_its_waiters(any_run: Run, echo: EchoServer) -> None:
    async def main() -> None:
        async with aio.Pool(echo.address[:2], max_size=1) as pool:
            conn = await pool.acquire(timeout=30)
            report = await pool.close(timeout=0.01)
            assert not report.clean
            assert report.lent[0].site.file == __file__
            with pytest.raises(hs.Closed):
                await pool.acquire(timeout=30)
            await pool.release(conn)
            assert (await pool.close(timeout=30)).clean

    any_run(main())


# ---- calls that were made before the return, and run after it


LATE_CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "recv": lambda core, hub, file: core._op_recv(hub, 1),
    "recv_into": lambda core, hub, file: core._op_recv_into(hub, bytearray(1)),
    "recvfrom": lambda core, hub, file: core._op_recvfrom(hub, 1),
    "recvfrom_into": lambda core, hub, file: core._op_recvfrom_into(hub, bytearray(1)),
    "recvmsg": lambda core, hub, file: core._op_recvmsg(hub, 1),
    "recvmsg_into": lambda core, hub, file: core._op_recvmsg_into(hub, [bytearray(1)]),
    "recv_exactly": lambda core, hub, file: core._op_recv_exactly(hub, 1),
    "recv_until": lambda core, hub, file: core._op_recv_until(hub, b"\n"),
    "recv_line": lambda core, hub, file: core._op_recv_line(hub),
    "recv_lines": lambda core, hub, file: core._op_recv_lines(hub),
    "recv_frame": lambda core, hub, file: core._op_recv_frame(hub, hs.Line()),
    "recv_frames": lambda core, hub, file: core._op_recv_frames(hub, hs.Line()),
    "peek": lambda core, hub, file: core._op_peek(hub, 1),
    "send": lambda core, hub, file: core._op_send(hub, b"stray"),
    "sendall": lambda core, hub, file: core._op_sendall(hub, b"stray"),
    "sendmsg": lambda core, hub, file: core._op_sendmsg(hub, [b"stray"]),
    "send_frame": lambda core, hub, file: core._op_send_frame(
        hub, b"stray", hs.LengthPrefix(width=4)
    ),
    "sendfile": lambda core, hub, file: core._op_sendfile(hub, file),
    "close_write": lambda core, hub, file: core._op_close_write(hub),
    "upgrade_to_tls": lambda core, hub, file: core._op_upgrade_to_tls(
        hub, hs.TLSConfig(), server_name="x.test"
    ),
    "request_client_certificate": lambda core, hub, file: core._op_request_client_certificate(hub),
    "confirm": lambda core, hub, file: core._op_confirm(hub),
    "finish": lambda core, hub, file: core._op_finish(hub),
}


@pytest.mark.parametrize("name", LATE_CALLS)
def test_a_call_that_begins_after_the_return_is_not_the_next_borrowers(
    run: Run, echo: EchoServer, tmp_path: Path, name: str
) -> None:
    """As in a thread that is between its look at the lease and its work when another returns."""
    file = tmp_path / "stray"
    file.write_bytes(b"stray")

    async def main(stray: BinaryIO) -> None:
        async with aio.Pool(echo.address[:2], max_size=1) as pool:
            first = await pool.acquire(timeout=30)
            core, hub = first.blocking, first._hub
            assert await ask(first) == b"hello"
            late = LATE_CALLS[name](core, hub, stray)
            await pool.release(first)
            second = await pool.acquire(timeout=30)
            assert pool.stats().opened == 1
            await second.sendall(b"mine\n", timeout=30)
            while unread(second.fileno()) < 5:
                await asyncio.sleep(0)
            with pytest.raises(hs.Closed, match="returned to its pool"):
                await late
            assert await second.recv_exactly(5, timeout=30) == b"mine\n"
            assert await ask(second) == b"hello"
            await pool.release(second)
            assert pool.stats().idle == 1

    with file.open("rb") as stray:
        run(main(stray))


def test_no_call_is_missing_above() -> None:
    """Whatever can wait on a connection is there."""
    names = {name.removeprefix("_op_") for name in dir(hs.Connection) if name.startswith("_op_")}
    assert names == set(LATE_CALLS)
