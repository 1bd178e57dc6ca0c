"""aio.serve: bounded, patient with the kernel's queue, and over by its deadline; on every loop."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

import hardsock as hs
from hardsock import aio
from support.require import need_module

LOCAL = ("127.0.0.1", 0)

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


def _asyncio(main: Callable[[], Any]) -> Any:
    return asyncio.run(main())


def _uvloop(main: Callable[[], Any]) -> Any:
    need_module("uvloop")
    import uvloop

    return uvloop.run(main())


def _trio(main: Callable[[], Any]) -> Any:
    return trio.run(main)


@pytest.fixture(params=[_asyncio, _uvloop, _trio], ids=["asyncio", "uvloop", "trio"])
def run(request: pytest.FixtureRequest, event_loops: None) -> Run:
    runner: Run = request.param
    return runner


async def echo(conn: aio.Connection) -> None:
    while data := await conn.recv(4096, token=hs.draining()):
        await conn.sendall(data)


async def ask(address: Any, question: bytes) -> bytes:
    async with await aio.connect(address, timeout=30) as client:
        await client.sendall(question)
        await client.close_write()
        answer = await client.recv_exactly(len(question), timeout=30)
        assert await client.recv(1, timeout=30) == b""
        return answer


async def eventually(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it holds; what is waited for is under way already."""
    nobody = hs.CancelToken()
    with hs.timeout(60):
        while not condition():
            current = hs.current()
            assert current is not None
            current.check()
            await aio.wait(nobody, 0.001)


def test_it_serves_and_counts(run: Run) -> None:
    async def main() -> None:
        async with aio.serve(echo, LOCAL, drain_timeout=30, max_connections=10) as server:
            for word in (b"one", b"two", b"three"):
                assert await ask(server.address, word) == word
            await eventually(lambda: server.stats().handled == 3)
            stats = server.stats()
        assert (stats.accepted, stats.active, stats.failed, stats.cut) == (3, 0, 0, 0)
        assert stats.endings == {"clean": 3}
        assert server.closed
        assert server.report is not None
        assert server.report.clean

    run(main)


def test_when_it_is_full_the_kernel_holds_who_comes(run: Run) -> None:
    async def main() -> None:
        served: list[aio.Connection] = []

        async def hold(conn: aio.Connection) -> None:
            served.append(conn)
            assert await conn.recv(1) == b"x"

        async with aio.serve(hold, LOCAL, drain_timeout=30, max_connections=2) as server:
            clients = [await aio.connect(server.address, timeout=30) for _ in range(6)]
            await eventually(lambda: server.stats().full_count > 0 and len(served) == 2)
            assert server.stats().active == 2
            assert server.listener.stats().queue_length == 4
            for done, client in enumerate(clients, 1):
                await client.sendall(b"x")
                await client.finish(timeout=30)
                await eventually(lambda done=done: server.stats().handled == done)  # type: ignore[misc]
            assert server.stats().peak_active == 2
            assert server.stats().full_seconds > 0

    run(main)


def test_a_drain_closes_idle_ones_at_once_and_lets_busy_ones_answer(run: Run) -> None:
    async def main() -> None:
        asked = hs.CancelToken()

        async def answer_late(conn: aio.Connection) -> None:
            while await conn.recv(4096):
                asked.cancel()
                draining = hs.draining()
                assert draining is not None
                await aio.wait(draining)  # Busy until then, and a little longer.
                await conn.sendall(b"whole")

        async with aio.serve(answer_late, LOCAL, drain_timeout=60) as server:
            idle = await aio.connect(server.address, timeout=30)
            busy = await aio.connect(server.address, timeout=30)
            await busy.sendall(b"?")
            await aio.wait(asked)
            await eventually(lambda: server.stats().active == 2)
            report = await server.drain()
            assert await busy.recv_exactly(5, timeout=30) == b"whole"
            assert await busy.recv(1, timeout=30) == b""
            assert await idle.recv(1, timeout=30) == b""
            idle.close()
            busy.close()
        assert report.idle_closed == 2  # The busy one was idle once it had answered.
        assert report.clean
        assert report.elapsed < 30

    run(main)


def test_a_request_that_had_arrived_is_answered_after_the_drain_began(run: Run) -> None:
    async def main() -> None:
        inside, go = hs.CancelToken(), hs.CancelToken()

        async def handler(conn: aio.Connection) -> None:
            while line := await conn.recv(100, token=hs.draining()):
                inside.cancel()
                await aio.wait(go)
                await conn.sendall(line.upper())

        async with aio.serve(handler, LOCAL, drain_timeout=30) as server:
            async with await aio.connect(server.address, timeout=30) as client:
                await client.sendall(b"one")
                await aio.wait(inside)
                await client.sendall(b"two")
                server.stop()
                go.cancel()
                assert await client.recv_exactly(6, timeout=30) == b"ONETWO"
                assert await client.recv(1, timeout=30) == b""
            assert await server.wait(60)
        assert server.report is not None
        assert (server.report.told, server.report.clean) == (1, True)

    run(main)


def test_the_time_of_a_drain_is_kept_and_who_was_cut_is_named(run: Run) -> None:
    async def main() -> None:
        never = hs.CancelToken()
        begun = hs.CancelToken()

        async def deaf(conn: aio.Connection) -> None:
            await conn.recv(1)
            begun.cancel()
            await aio.wait(never)  # No call of the connection: its token does not reach here.

        async with aio.serve(deaf, LOCAL, drain_timeout=60) as server:
            client = await aio.connect(server.address, timeout=30)
            await client.sendall(b"?")
            await aio.wait(begun)
            report = await server.drain(0.3, grace=0.2)
            with pytest.raises(hs.Reset):
                await client.recv(1, timeout=30)
            client.close()
        assert report.aborted == 1
        (cut,) = report.cut
        assert cut.how == "aborted"
        assert cut.bytes_received == 1
        assert report.elapsed < 30

    run(main)


def test_a_handler_that_raises_resets_its_connection_and_serving_goes_on(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async def handler(conn: aio.Connection) -> None:
            line = await conn.recv_line()
            if line == b"bad":
                await conn.sendall(b"half an ans")
                raise LookupError("no such thing")
            await conn.sendall(line)

        async with aio.serve(handler, LOCAL, drain_timeout=30) as server:
            async with await aio.connect(server.address, timeout=30) as client:
                await client.sendall(b"bad\n")
                with pytest.raises(hs.Reset):
                    while await client.recv(100, timeout=30):
                        pass
            async with await aio.connect(server.address, timeout=30) as client:
                await client.sendall(b"good\n")
                assert await client.recv_exactly(4, timeout=30) == b"good"
            await eventually(lambda: server.stats().active == 0)
            assert server.stats().errors == {"LookupError": 1}

    run(main)
    assert "no such thing" in caplog.text
    caplog.clear()  # The record's traceback keeps the handler's frame, and that the connection.


def test_a_handler_that_would_end_the_process_ends_only_its_connection(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """SystemExit comes from libraries deep below, argparse for one."""

    async def main() -> None:
        async def handler(conn: aio.Connection) -> None:
            if await conn.recv(4) == b"exit":
                raise SystemExit("from deep below")
            await conn.sendall(b"fine")

        async with aio.serve(handler, LOCAL, drain_timeout=30) as server:
            async with await aio.connect(server.address, timeout=30) as client:
                await client.sendall(b"exit")
                with pytest.raises(hs.Reset):
                    await client.recv(1, timeout=30)
            async with await aio.connect(server.address, timeout=30) as client:
                await client.sendall(b"work")
                assert await client.recv_exactly(4, timeout=30) == b"fine"
            await eventually(lambda: server.stats().active == 0)
            assert server.stats().errors == {"SystemExit": 1}

    run(main)
    assert "from deep below" in caplog.text
    caplog.clear()


@pytest.mark.parametrize("loop", [_asyncio, _uvloop], ids=["asyncio", "uvloop"])
def test_a_handler_that_awaits_a_cancelled_task_fails_and_leaves_nothing(
    loop: Run, event_loops: None, caplog: pytest.LogCaptureFixture
) -> None:
    """The CancelledError of another task is not the server's cut, and no record may be kept of it."""

    async def main() -> None:
        async def handler(conn: aio.Connection) -> None:
            helper = asyncio.create_task(asyncio.sleep(60))
            try:
                await conn.recv(1)
            finally:
                helper.cancel()
                await helper

        async with aio.serve(handler, LOCAL, drain_timeout=30) as server:
            for _ in range(20):
                (await aio.connect(server.address, timeout=30)).close()
            await eventually(lambda: server.stats().accepted == 20)
            await eventually(lambda: server.stats().active == 0)
            stats = server.stats()
            assert (stats.failed, stats.cut) == (20, 0)
            assert server._ledger.cut == []
        assert server.report is not None
        assert server.report.clean

    loop(main)
    caplog.clear()


def test_somebody_who_cancels_a_handler_s_task_is_obeyed() -> None:
    async def main() -> None:
        tasks: list[asyncio.Task[Any]] = []

        async def handler(conn: aio.Connection) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            await conn.recv(1)

        async with aio.serve(handler, LOCAL, drain_timeout=30) as server:
            async with await aio.connect(server.address, timeout=30) as client:
                await eventually(lambda: bool(tasks))
                tasks[0].cancel()
                with pytest.raises(hs.Reset):
                    await client.recv(1, timeout=30)
            await eventually(lambda: tasks[0].done())
            assert tasks[0].cancelled()
            assert server.stats().errors == {"Cancelled": 1}

    asyncio.run(main())


@pytest.mark.parametrize("per", ["connection", "message"])
def test_a_task_that_is_cancelled_before_its_first_step_keeps_no_place(run: Run, per: Any) -> None:
    """Nothing of its function runs in asyncio, so that no ``finally`` gives the place back."""

    async def main() -> None:
        async def handler(conn: aio.Connection) -> None:
            await conn.sendall(await conn.recv(4096))

        async with aio.serve(
            handler, LOCAL, drain_timeout=30, max_connections=2, per=per
        ) as server:
            tasks, start = server._tasks, server._tasks.start

            def start_and_cancel(*what: Any, **how: Any) -> object:
                runner = start(*what, **how)
                tasks.cancel(runner)
                return runner

            tasks.start = start_and_cancel  # type: ignore[method-assign]
            clients = [await aio.connect(server.address, timeout=30) for _ in range(2)]
            for each in clients:
                await each.sendall(b"x")
            for each in clients:
                with pytest.raises(hs.Reset):
                    await each.recv(1, timeout=30)
                each.close()
            tasks.start = start  # type: ignore[method-assign]
            assert await ask(server.address, b"hello") == b"hello"
            await eventually(lambda: server.stats().active == 0)
            stats = server.stats()
            assert (stats.workers, stats.failed, stats.errors) == (0, 2, {"Cancelled": 2})
            assert not server._not_begun
        assert server.report is not None
        assert server.report.clean

    run(main)


def test_unread_input_does_not_destroy_the_answer(run: Run) -> None:
    async def main() -> None:
        async def refuse(conn: aio.Connection) -> None:
            await conn.recv_line()
            await conn.sendall(b"413 too much\n")

        async with aio.serve(refuse, LOCAL, drain_timeout=30) as server:
            async with await aio.connect(server.address, timeout=30) as client:
                await client.sendall(b"upload\n" + bytes(1 << 20))
                await client.close_write()
                assert await client.recv_line(timeout=30) == b"413 too much"
                assert await client.recv(1, timeout=30) == b""
            await eventually(lambda: server.stats().handled == 1)
            assert server.stats().endings == {"clean": 1}

    run(main)


def test_stop_works_from_another_thread(run: Run) -> None:
    async def main() -> None:
        async with aio.serve(echo, LOCAL, drain_timeout=30, linger=0.05) as server:
            client = await aio.connect(server.address, timeout=30)
            await client.sendall(b"x")
            assert await client.recv(1, timeout=30) == b"x"
            thread = threading.Thread(target=server.stop, args=["enough"])
            thread.start()
            assert await server.wait(60)
            thread.join()
            assert await client.recv(1, timeout=30) == b""
            client.close()
        assert server.report is not None
        assert server.report.reason == "enough"
        assert server.report.told + server.report.idle_closed == 1

    run(main)


def test_a_handler_may_not_wait_for_its_own_drain(run: Run) -> None:
    async def main() -> None:
        complaints: list[str] = []

        async def drainer(conn: aio.Connection) -> None:
            for call in (server.drain, server.wait):
                with pytest.raises(RuntimeError, match="wait for that handler") as caught:
                    await call()
                complaints.append(str(caught.value))

        async with aio.serve(drainer, LOCAL, drain_timeout=30) as server:
            async with await aio.connect(server.address, timeout=30) as client:
                assert await client.recv(1, timeout=30) == b""
        assert len(complaints) == 2

    run(main)


def test_the_servers_token_ends_everything_at_once(run: Run) -> None:
    async def main() -> None:
        token, begun = hs.CancelToken(), hs.CancelToken()

        async def in_the_middle(conn: aio.Connection) -> None:
            await conn.recv(1)
            begun.cancel()
            await conn.recv(1)

        async with aio.serve(in_the_middle, LOCAL, drain_timeout=30, token=token) as server:
            client = await aio.connect(server.address, timeout=30)
            await client.sendall(b"x")
            await aio.wait(begun)
            token.cancel("emergency")
            assert await server.wait(60)
            with pytest.raises(hs.Reset):
                await client.recv(1, timeout=30)
            client.close()
        assert server.report is not None
        assert server.report.cancelled == 1

    run(main)


def test_it_adopts_a_listener_of_either_kind(run: Run) -> None:
    async def main() -> None:
        for listener in (hs.listen(LOCAL), await aio.listen(LOCAL)):
            async with aio.serve(echo, listener, drain_timeout=30) as server:
                assert await ask(server.address, b"hello") == b"hello"
            assert listener.closed

    run(main)


def test_a_thousand_short_connections_add_up(run: Run) -> None:
    async def main() -> None:
        async with aio.serve(echo, LOCAL, drain_timeout=30, max_connections=8) as server:
            host, port = server.address

            def client() -> int:
                good = 0
                for _ in range(125):
                    with socket.create_connection((host, port), timeout=30) as sock:
                        sock.sendall(b"ping")
                        good += sock.recv(4, socket.MSG_WAITALL) == b"ping"
                return good

            done: list[int] = []
            threads = [threading.Thread(target=lambda: done.append(client())) for _ in range(8)]
            for thread in threads:
                thread.start()
            await eventually(lambda: len(done) == 8)
            for thread in threads:
                thread.join()
            assert sum(done) == 1000
            await eventually(lambda: server.stats().active == 0)
            stats = server.stats()
            assert stats.accepted == 1000 == stats.handled + stats.failed + stats.cut
            assert stats.peak_active <= 8

    run(main)


def test_leaving_by_an_exception_drains_all_the_same() -> None:
    async def main() -> None:
        with pytest.raises(LookupError):
            async with aio.serve(echo, LOCAL, drain_timeout=30) as server:
                raise LookupError
        assert server.closed

    asyncio.run(main())


def test_a_cancelled_trio_scope_ends_it_at_once() -> None:
    async def main() -> None:
        begun = hs.CancelToken()

        async def handler(conn: aio.Connection) -> None:
            begun.cancel()
            await conn.recv(1)

        with trio.move_on_after(30) as scope:
            async with aio.serve(handler, LOCAL, drain_timeout=30) as server:
                client = await aio.connect(server.address, timeout=30)
                await aio.wait(begun)
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert server.closed
        client.close()

    trio.run(main)


@pytest.mark.parametrize(
    ("changes", "error", "complaint"),
    [
        ({"drain_timeout": None}, ValueError, "drain_timeout"),
        ({"max_connections": 0}, ValueError, "max_connections"),
        ({"linger": 39}, ValueError, "linger=39 and drain_timeout=5"),
        ({"idle_timeout": -1}, ValueError, "idle_timeout"),
        ({"token": "t"}, TypeError, "token"),
        ({"handler": "x"}, TypeError, "handler"),
        ({"handler": lambda conn: None}, TypeError, "async def"),
    ],
)
def test_bad_parameters_are_named(
    changes: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    arguments: dict[str, Any] = {"handler": echo, "address": LOCAL, "drain_timeout": 5}
    arguments.update(changes)
    with pytest.raises(error, match=complaint):
        aio.serve(arguments.pop("handler"), arguments.pop("address"), **arguments)
