"""aio.serve(per="message"): quiet connections have no task, messages are served, sums add up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock import _core, aio
from support.loops import MAINS, RunMain
from support.require import need_module
from support.tls import Identities

LOCAL = ("127.0.0.1", 0)
SHORT = 0.2
KEPT = {"Served": 1}
"""Of a connection, besides itself: its account."""


@pytest.fixture(params=MAINS)
def run(request: pytest.FixtureRequest, event_loops: None) -> RunMain:
    return MAINS[request.param]


async def line(conn: aio.Connection) -> None:
    """Answer one line, with how many came before."""
    text = await conn.recv_until(b"\n", keep=True, timeout=60)
    conn.state = (conn.state or 0) + 1
    await conn.sendall(b"%d %s" % (conn.state, text))


async def ask(client: aio.Connection, text: bytes = b"hello\n") -> bytes:
    await client.sendall(text, timeout=60)
    return await client.recv_until(b"\n", keep=True, timeout=60)


def serving(handler: Callable[[aio.Connection], Awaitable[object]], **settings: Any) -> aio.Server:
    return aio.serve(handler, LOCAL, **({"per": "message", "drain_timeout": 10} | settings))


async def connect(server: aio.Server, **settings: Any) -> aio.Connection:
    return await aio.connect(server.address, timeout=60, **settings)


@contextlib.asynccontextmanager
async def crowd(
    server: aio.Server, count: int, **settings: Any
) -> AsyncIterator[list[aio.Connection]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(await connect(server, **settings)) for _ in range(count)
        ]


async def eventually(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it holds; what is waited for is under way already."""
    nobody = hs.CancelToken()
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it never came to be so"
        await aio.wait(nobody, 0.002)


async def settled(server: aio.Server, accepted: int = 1) -> hs.ServerStats:
    await eventually(lambda: server.stats().accepted >= accepted and server.stats().active == 0)
    stats = server.stats()
    assert stats.accepted == stats.handled + stats.failed + stats.cut
    return stats


# ---- serving ------------------------------------------------------------------------------------


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
def test_many_quiet_clients_are_served_without_a_task(
    secured: bool, run: RunMain, ids: Identities
) -> None:
    async def main() -> None:
        config = ids.server() if secured else None
        async with serving(line, tls=config) as server:
            async with crowd(server, 40, tls=ids.client() if secured else False) as clients:
                for turn in (b"1", b"2", b"3"):
                    for client in clients:
                        assert await ask(client) == turn + b" hello\n"
                await eventually(lambda: server.stats().parked == 40)
                stats = server.stats()
                assert (stats.active, stats.waiting, stats.workers) == (40, 0, 0)
            assert (await settled(server)).handled == 40

    run(main)


COUNT_OBJECTS = """
import asyncio, collections, gc, json, socket, sys
from hardsock import CancelToken, aio

loop, asked = sys.argv[1], sys.argv[2] == "asked"
clients = []
nobody = CancelToken()

async def line(conn):
    await conn.sendall(await conn.recv_until(b"\\n", keep=True))

async def main():
    async with aio.serve(line, ("127.0.0.1", 0), per="message", drain_timeout=30) as server:
        async def objects_with(n):
            while len(clients) < n:
                clients.append(await aio.connect(server.address))
                if asked:
                    await clients[-1].sendall(b"hello\\n")
                    await clients[-1].recv_until(b"\\n")
            while server.stats().parked != n:
                await aio.wait(nobody, 0.001)
            gc.collect()
            return collections.Counter(type(each).__name__ for each in gc.get_objects())

        await objects_with(10)
        few = await objects_with(20)
        grown = await objects_with(120) - few
        print(json.dumps({what: n / 100 for what, n in grown.items() if n >= 50}))
        for client in clients:
            client.close()

if loop == "trio":
    import trio
    trio.run(main)
elif loop == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("asked", ["silent", "asked"])
@pytest.mark.parametrize("loop", MAINS)
def test_what_python_keeps_of_a_quiet_client(loop: str, asked: str) -> None:
    """Objects can be counted exactly. There is no coroutine, task, context or future among them.

    A process of its own: pytest's plugin keeps traces of all that is open.
    """
    if loop == "uvloop":
        need_module("uvloop")
    done = subprocess.run(
        [sys.executable, "-c", COUNT_OBJECTS, loop, asked],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    grown = json.loads(done.stdout)
    assert grown.pop("Connection") == 3  # The client has two, one of them awaited.
    assert grown == KEPT


def test_a_client_that_pipelines_is_answered_in_full_and_starves_nobody(run: RunMain) -> None:
    order: list[bytes] = []

    async def handler(conn: aio.Connection) -> None:
        text = await conn.recv_until(b"\n", keep=True, timeout=60)
        order.append(text)
        await conn.sendall(text)

    async def main() -> None:
        async with serving(handler) as server, crowd(server, 2) as (greedy, quiet):
            await greedy.sendall(b"greedy\n" * 1000)
            await quiet.sendall(b"quiet\n")
            for _ in range(1000):
                assert await greedy.recv_until(b"\n", timeout=60) == b"greedy"
            assert await quiet.recv_until(b"\n", timeout=60) == b"quiet"

    run(main)
    assert len(order) == 1001
    assert order.index(b"quiet\n") < 1000


def test_what_tls_holds_of_the_next_message_is_served(run: RunMain, ids: Identities) -> None:
    """Two messages in one record: no readiness tells of the second."""

    async def main() -> None:
        async with serving(line, tls=ids.server()) as server:
            async with await connect(server, tls=ids.client()) as client:
                await client.sendall(b"one\ntwo\n")
                assert await client.recv_until(b"\n", timeout=60) == b"1 one"
                assert await client.recv_until(b"\n", timeout=60) == b"2 two"

    run(main)


def test_half_a_message_can_be_left_for_later(run: RunMain) -> None:
    calls = 0

    async def handler(conn: aio.Connection) -> None:
        nonlocal calls
        calls += 1
        try:
            text = await conn.recv_until(b"\n", keep=True, timeout=0)
        except hs.DeadlineExceeded:
            return
        await conn.sendall(text)

    async def main() -> None:
        async with serving(handler) as server, await connect(server) as client:
            await client.sendall(b"half ")
            await eventually(lambda: calls == 1 and server.stats().parked == 1)
            assert await ask(client, b"whole\n") == b"half whole\n"
            assert calls == 2

    run(main)


def test_the_scope_of_a_handler_is_its_connection(run: RunMain) -> None:
    found: list[Any] = []

    async def handler(conn: aio.Connection) -> None:
        found.append((hs.current().name if hs.current() else None, hs.draining()))
        await line(conn)

    async def main() -> None:
        async with serving(handler) as server, await connect(server) as client:
            host, port = client.getsockname()
            assert await ask(client) == b"1 hello\n"
            assert found == [(f"{host}:{port}", server.draining)]

    run(main)


def test_unix_sockets_are_served(run: RunMain, tmp_path: Path) -> None:
    async def main() -> None:
        path = f"unix:{tmp_path}/socket"
        async with aio.serve(line, path, per="message", drain_timeout=30):
            async with await aio.connect(path) as client:
                assert await ask(client) == b"1 hello\n"

    run(main)


# ---- ends ---------------------------------------------------------------------------------------


def test_a_handler_that_has_ended_its_side_is_waited_for_without_a_task(run: RunMain) -> None:
    async def handler(conn: aio.Connection) -> None:
        await line(conn)
        await conn.close_write()

    async def main() -> None:
        async with serving(handler, linger=10) as server:
            async with await connect(server) as client:
                assert await ask(client) == b"1 hello\n"
                assert await client.recv(1, timeout=60) == b""
                await eventually(lambda: server.stats().workers == 0)
                assert server.stats().active == 1
            stats = await settled(server)
            assert (stats.handled, stats.endings) == (1, {"clean": 1})

    run(main)


def test_a_handler_may_close_its_connection(run: RunMain) -> None:
    async def handler(conn: aio.Connection) -> None:
        await line(conn)
        conn.close()

    async def main() -> None:
        async with serving(handler) as server, await connect(server) as client:
            assert await ask(client) == b"1 hello\n"
            assert await client.recv(1, timeout=60) == b""
            stats = await settled(server)
            assert (stats.handled, stats.endings) == (1, {"closed": 1})

    run(main)


def test_a_handler_that_raises_is_logged_and_others_are_served(
    run: RunMain, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(conn: aio.Connection) -> None:
        text = await conn.recv_until(b"\n", timeout=60)
        if text == b"fail":
            raise SystemExit(text)
        await conn.sendall(text + b"\n")

    async def main() -> None:
        async with serving(handler) as server, crowd(server, 2) as (bad, good):
            await bad.sendall(b"fail\n")
            with pytest.raises(hs.Reset):
                await bad.recv(1, timeout=60)
            assert await ask(good) == b"hello\n"
            assert server.stats().errors == {"SystemExit": 1}

    run(main)
    assert [r.levelno for r in caplog.records if r.levelno > logging.INFO] == [logging.ERROR]
    caplog.clear()


def test_a_handler_that_reads_nothing_is_an_error_and_no_endless_loop(
    run: RunMain, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(conn: aio.Connection) -> None:
        pass

    async def main() -> None:
        async with serving(handler) as server, await connect(server) as client:
            await client.sendall(b"hello")
            assert (await settled(server)).errors == {"RuntimeError": 1}

    run(main)
    assert "without reading a byte" in caplog.text
    caplog.clear()


def test_somebody_who_cancels_a_handler_s_task_is_obeyed() -> None:
    tasks: list[Any] = []

    async def handler(conn: aio.Connection) -> None:
        tasks.append(asyncio.current_task())
        await conn.recv_exactly(100)

    async def main() -> None:
        async with serving(handler) as server, await connect(server) as client:
            await client.sendall(b"hello")
            await eventually(lambda: len(tasks) == 1)
            tasks[0].cancel()
            stats = await settled(server)
            assert (stats.failed, stats.errors) == (1, {"Cancelled": 1})

    asyncio.run(main())


def test_a_handler_without_memory_for_a_task_costs_its_connection_only(
    run: RunMain, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(line) as server, crowd(server, 2) as (bad, good):
            await eventually(lambda: server.stats().parked == 2)
            with monkeypatch.context() as patched:

                def fail(*_args: object, **_keywords: object) -> object:
                    raise MemoryError

                patched.setattr(server._tasks, "start", fail)
                await bad.sendall(b"hello\n")
                with pytest.raises(hs.Reset):
                    await bad.recv(1, timeout=60)
            assert await ask(good) == b"1 hello\n"
            assert server.stats().errors == {"MemoryError": 1}

    run(main)
    assert "no memory for a connection" in caplog.text
    caplog.clear()


# ---- times --------------------------------------------------------------------------------------


def test_silence_ends_with_the_idle_timeout(run: RunMain) -> None:
    async def main() -> None:
        async with serving(line, idle_timeout=SHORT) as server, crowd(server, 2) as (one, two):
            assert await ask(one) == b"1 hello\n"
            assert await one.recv(1, timeout=60) == b""
            assert await two.recv(1, timeout=60) == b""
            stats = await settled(server, 2)
            assert (stats.cut, stats.idle_timeouts) == (2, 2)

    run(main)


def test_a_message_that_drips_is_ended_by_its_total(run: RunMain) -> None:
    async def main() -> None:
        async with serving(line, read_timeout=SHORT) as server, await connect(server) as client:
            for _ in range(3):  # Each has a time of its own.
                assert (await ask(client)).endswith(b" hello\n")
            await client.sendall(b"never whole")
            with pytest.raises(hs.Reset):
                await client.recv(1, timeout=60)
            stats = await settled(server)
            assert (stats.read_timeouts, stats.errors) == (1, {"DeadlineExceeded": 1})

    run(main)


def test_a_handler_that_waits_for_something_else_is_cancelled_when_its_time_is_over(
    run: RunMain,
) -> None:
    """The time is each message's: the connection was there before."""
    nobody = hs.CancelToken()

    async def handler(conn: aio.Connection) -> None:
        text = await conn.recv_until(b"\n", timeout=30)
        if text == b"wait":
            await aio.wait(nobody)
        await conn.sendall(text + b"\n")

    async def main() -> None:
        async with serving(handler, handler_timeout=SHORT) as server:
            async with await connect(server) as client:
                await client.sendall(b"wait\n")
                with pytest.raises(hs.Reset):
                    await client.recv(1, timeout=30)
                stats = await settled(server)
                assert (stats.failed, stats.handler_timeouts) == (1, 1)

    run(main)


def test_the_time_of_a_handler_is_each_messages(run: RunMain) -> None:
    left: list[float] = []

    async def handler(conn: aio.Connection) -> None:
        scope = hs.current()
        assert scope is not None
        assert scope.deadline is not None
        left.append(scope.deadline)
        await conn.sendall(await conn.recv_until(b"\n", keep=True, timeout=30))

    async def main() -> None:
        async with serving(handler, handler_timeout=60) as server:
            async with await connect(server) as client:
                for _ in range(3):
                    assert await ask(client) == b"hello\n"

    run(main)
    assert left == sorted(set(left))


def test_a_client_that_leaves_cancels_its_handler_also_after_a_quiet_time(run: RunMain) -> None:
    reasons: list[str | None] = []

    async def handler(conn: aio.Connection) -> None:
        text = await conn.recv_until(b"\n", timeout=60)
        if text == b"work":
            scope = hs.current()
            assert scope is not None
            await conn.sendall(b"begun\n")
            await aio.wait(scope, 10)
            reasons.append(scope.reason)
            scope.check()
        await conn.sendall(text + b"\n")

    async def main() -> None:
        async with serving(handler) as server:
            client = await connect(server)
            assert await ask(client) == b"hello\n"
            assert await ask(client, b"work\n") == b"begun\n"
            client.abort()
            stats = await settled(server)
            assert (stats.failed, stats.clients_left) == (1, 1)

    run(main)
    assert reasons[0] is not None
    assert "the client has left" in reasons[0]


# ---- room ---------------------------------------------------------------------------------------


def test_silent_clients_leave_their_places_to_others(run: RunMain) -> None:
    async def main() -> None:
        async with serving(line, max_connections=2) as server:
            async with crowd(server, 2) as silent:
                await eventually(lambda: server.stats().active == 2)
                async with await connect(server) as client:
                    assert await ask(client) == b"1 hello\n"
                    assert server.stats().evicted == 1
                assert await silent[0].recv(1, timeout=60) == b""

    run(main)


def test_who_left_makes_room(run: RunMain) -> None:
    async def main() -> None:
        async with serving(line, max_connections=1) as server:
            first = await connect(server)
            assert await ask(first) == b"1 hello\n"
            async with await connect(server) as second:
                await second.sendall(b"hello\n")
                first.close()
                assert await second.recv_until(b"\n", timeout=60) == b"1 hello"
                assert server.stats().full_count >= 1

    run(main)


# ---- draining -----------------------------------------------------------------------------------


def test_the_quiet_are_closed_at_once_and_what_has_begun_is_answered(run: RunMain) -> None:
    may_go_on = hs.CancelToken()
    begun = 0

    async def handler(conn: aio.Connection) -> None:
        nonlocal begun
        text = await conn.recv_until(b"\n", keep=True, timeout=60)
        begun += 1
        await aio.wait(may_go_on)
        await conn.sendall(text)

    async def main() -> None:
        async with serving(handler) as server, crowd(server, 3) as (busy, quiet, fresh):
            await busy.sendall(b"busy\n")
            await eventually(lambda: begun == 1)
            await fresh.sendall(b"in the queue\n")
            server.stop()
            assert await quiet.recv(1, timeout=60) == b""
            await eventually(lambda: begun == 2)
            may_go_on.cancel()
            assert await busy.recv_until(b"\n", timeout=60) == b"busy"
            assert await busy.recv(1, timeout=60) == b""
            assert await fresh.recv_until(b"\n", timeout=60) == b"in the queue"
            await server.wait()
        report = server.report
        assert report is not None
        assert report.clean
        assert (report.completed + report.idle_closed, report.unaccepted) == (3, 0)

    run(main)


def test_when_the_time_is_up_all_is_cut_and_counted(run: RunMain) -> None:
    async def stubborn(conn: aio.Connection) -> None:
        with contextlib.suppress(hs.Cancelled):
            await conn.recv_exactly(100)
        await aio.wait(hs.CancelToken(), 10)

    async def main() -> None:
        async with serving(stubborn) as server, crowd(server, 2) as (busy, _quiet):
            await busy.sendall(b"hello")
            await eventually(lambda: server.stats().workers == 1)
            report = await server.drain(0.4)
            assert (report.aborted + report.cancelled, report.idle_closed) == (1, 1)
            assert [cut.phase for cut in report.cut] == ["handler"]

    run(main)


def test_a_drain_with_many_quiet_connections_ends(run: RunMain) -> None:
    async def main() -> None:
        async with serving(line) as server, crowd(server, 300) as clients:
            for client in clients[:100]:
                assert await ask(client) == b"1 hello\n"
            await eventually(lambda: server.stats().accepted == 300)
            report = await server.drain(30)
            assert report.clean
            assert report.idle_closed == 300

    run(main)


def test_the_server_s_token_ends_all_that_is_parked(run: RunMain) -> None:
    async def main() -> None:
        token = hs.CancelToken()
        async with serving(line, token=token) as server, await connect(server) as client:
            assert await ask(client) == b"1 hello\n"
            token.cancel("over")
            assert await client.recv(1, timeout=60) == b""
            await server.wait()
        assert (await settled(server)).cut == 1

    run(main)


def test_a_loop_that_is_cancelled_leaves_sums_that_add_up() -> None:
    kept: list[aio.Server] = []

    async def main() -> None:
        async with serving(line) as server:
            kept.append(server)
            client = await connect(server)
            assert await ask(client) == b"1 hello\n"
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await eventually(lambda: server.closed)
            client.close()

    asyncio.run(main())
    stats = kept[0].stats()
    assert (stats.accepted, stats.active, stats.cut) == (1, 0, 1)


def test_a_drain_from_a_handler_is_refused_and_stop_is_not(run: RunMain) -> None:
    refused: list[str] = []

    async def main() -> None:
        async def handler(conn: aio.Connection) -> None:
            await conn.recv(100)
            try:
                await server.drain()
            except RuntimeError as exc:
                refused.append(str(exc))
            server.stop()

        async with serving(handler) as server, await connect(server) as client:
            await client.sendall(b"hello")
            await server.wait(60)
            assert server.closed

    run(main)
    assert "would wait for that handler" in refused[0]


def test_per_is_one_of_two() -> None:
    with pytest.raises(ValueError, match='per must be "connection" or "message"'):
        aio.serve(line, LOCAL, drain_timeout=1, per="x")  # type: ignore[arg-type]


def test_who_waits_in_the_middle_of_an_answer_is_busy_to_a_guard(run: RunMain) -> None:
    async def main() -> None:
        go_on = hs.CancelToken()

        async def handler(conn: aio.Connection) -> None:
            await conn.recv_until(b"\n", timeout=60)
            await conn.sendall(b"part, ")
            await aio.wait(go_on)
            await conn.sendall(b"rest\n")

        async with serving(handler) as server, crowd(server, 1) as (client,):
            await client.sendall(b"ask\n", timeout=60)
            assert await client.recv_exactly(6, timeout=60) == b"part, "
            (ident,) = (row[0] for row in _core._guard_rows() if row[1] == "accept")
            state, *_ = _core._guard_retire(ident, 0, 0)
            go_on.cancel()
            assert state == "busy"
            assert await client.recv_until(b"\n", timeout=60) == b"rest"

    run(main)
