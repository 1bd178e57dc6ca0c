"""Awaited objects and several event loops: any loop may use them, and a closed one holds nothing."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import socket
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sniffio

import hardsock as hs
from hardsock import aio
from hardsock._core import Hub, Operation
from hardsock.lab.threads import Call
from support.loops import RUNS, task_parked
from support.require import need_module

pytestmark = pytest.mark.usefixtures("event_loops")

FRAMING = hs.LengthPrefix()
MESSAGE = b"\x00\x00\x00\x01\n"  # One frame, and one line.
LOOPS = [*RUNS, "trio"]


def run(loop: str, main: Callable[[], Awaitable[Any]]) -> Any:
    if loop == "trio":
        import trio

        return trio.run(main)
    return RUNS[loop](main())


async def meanwhile(call: Callable[[], Awaitable[Any]], act: Callable[[], None]) -> Any:
    """Await the call; when it waits, act. In whatever loop runs. An error of ours is a result."""

    async def outcome() -> Any:
        try:
            return await call()
        except hs.HardsockError as exc:
            return exc

    if sniffio.current_async_library() == "trio":
        import trio.testing

        async def keep() -> None:
            results.append(await outcome())

        results: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep)
            await trio.testing.wait_all_tasks_blocked()
            assert not results, "it did not wait"
            act()
        return results[0]
    task = asyncio.ensure_future(outcome())
    await task_parked(task)
    act()
    return await task


class Ends:
    """A connection to be awaited, and its peer, which is not."""

    def __init__(self, file: Path, *, full: bool) -> None:
        left, self.theirs = socket.socketpair()
        left.setblocking(False)
        try:
            while full:
                left.send(b"x" * 65536)
        except BlockingIOError:
            pass
        self.ours = aio.adopt(left)
        self.file = file.open("rb")
        self._reader: threading.Thread | None = None

    def say(self) -> None:
        self.theirs.sendall(MESSAGE)

    def read(self) -> None:
        def drain() -> None:
            while self.theirs.recv(1 << 20):
                pass

        self._reader = threading.Thread(target=drain)
        self._reader.start()

    def leave(self) -> None:
        self.theirs.close()

    def close(self) -> None:
        self.ours.close()
        if self._reader is not None:
            self._reader.join()
        self.theirs.close()
        self.file.close()


READING: dict[str, Callable[[Ends], Awaitable[Any]]] = {
    "recv": lambda e: e.ours.recv(9),
    "recv_into": lambda e: e.ours.recv_into(bytearray(9)),
    "recvmsg": lambda e: e.ours.recvmsg(9),
    "recv_exactly": lambda e: e.ours.recv_exactly(2),
    "recv_until": lambda e: e.ours.recv_until(b"\n"),
    "recv_line": lambda e: e.ours.recv_line(),
    "recv_lines": lambda e: e.ours.recv_lines(),
    "recv_frame": lambda e: e.ours.recv_frame(FRAMING),
    "recv_frames": lambda e: e.ours.recv_frames(FRAMING),
    "peek": lambda e: e.ours.peek(1),
}
WRITING: dict[str, Callable[[Ends], Awaitable[Any]]] = {
    "send": lambda e: e.ours.send(b"x"),
    "sendall": lambda e: e.ours.sendall(b"x"),
    "sendmsg": lambda e: e.ours.sendmsg([b"x", b"y"]),
    "send_frame": lambda e: e.ours.send_frame(b"x", FRAMING),
    "sendfile": lambda e: e.ours.sendfile(e.file),
}
ENDING: dict[str, Callable[[Ends], Awaitable[Any]]] = {
    "finish": lambda e: e.ours.finish(),
    "upgrade_to_tls": lambda e: e.ours.upgrade_to_tls(hs.TLSConfig(), server_name="x.test"),
}
ON_TLS = {"request_client_certificate"}  # in test_tls_request.py
WITHOUT_WAITING = {"close_write", "confirm", "aclose", "__aenter__", "__aexit__"}


def coroutines(cls: type) -> set[str]:
    return {name for name, value in vars(cls).items() if inspect.iscoroutinefunction(value)}


def test_every_awaited_call_is_in_a_table_here() -> None:
    assert coroutines(aio.Connection) == {
        *READING,
        *WRITING,
        *ENDING,
        *ON_TLS,
        *WITHOUT_WAITING,
    }
    assert coroutines(aio.Listener) == {*ACCEPTING, "aclose", "__aenter__", "__aexit__"}


@pytest.mark.parametrize("used", LOOPS)
@pytest.mark.parametrize("made", LOOPS)
@pytest.mark.parametrize("name", [*READING, *WRITING, *ENDING])
def test_every_call_of_a_connection_works_in_another_loop(
    name: str, made: str, used: str, tmp_path: Path
) -> None:
    async def make() -> Ends:
        return Ends(file, full=name in WRITING)

    async def use() -> Any:
        return await meanwhile(lambda: call(ends), act)

    (file := tmp_path / "file").write_bytes(b"xyz")
    ends = run(made, make)
    call = {**READING, **WRITING, **ENDING}[name]
    act = ends.say if name in READING else ends.read if name in WRITING else ends.leave
    try:
        result = run(used, use)
    finally:
        ends.close()
    failed = isinstance(result, hs.HardsockError)
    assert failed == (name == "upgrade_to_tls"), "its peer is no TLS server"


ACCEPTING: dict[str, Callable[[aio.Listener], Awaitable[Any]]] = {
    "accept": lambda listener: listener.accept(),
    "accept_many": lambda listener: listener.accept_many(5),
    "__anext__": lambda listener: listener.__anext__(),
}


@pytest.mark.parametrize("used", LOOPS)
@pytest.mark.parametrize("made", LOOPS)
@pytest.mark.parametrize("name", ACCEPTING)
def test_every_call_of_a_listener_works_in_another_loop(name: str, made: str, used: str) -> None:
    async def make() -> aio.Listener:
        return await aio.listen(("127.0.0.1", 0))

    async def use() -> Any:
        return await meanwhile(
            lambda: ACCEPTING[name](listener), lambda: client.connect(listener.address)
        )

    listener = run(made, make)
    with socket.socket() as client:
        accepted = run(used, use)
        for conn in accepted if isinstance(accepted, list) else [accepted]:
            conn.close()
    listener.close()


@pytest.mark.parametrize("used", LOOPS)
@pytest.mark.parametrize("made", LOOPS)
def test_a_pool_and_what_it_lent_work_in_another_loop(made: str, used: str) -> None:
    async def make() -> tuple[aio.Pool, aio.Connection]:
        pool = aio.Pool(listener.getsockname(), max_size=1)
        return pool, await pool.acquire(timeout=30)

    async def wait_for_it() -> aio.Connection:
        return await meanwhile(
            lambda: pool.acquire(timeout=30),
            lambda: pool.blocking.release(lent.blocking),
        )

    async def give_back() -> None:
        await pool.release(conn)
        await pool.close(5)

    with hs.listen(("127.0.0.1", 0)) as listener:
        pool, lent = run(made, make)
        number = lent.fileno()
        conn = run(used, wait_for_it)
        assert conn.fileno() == number
        run(made, give_back)
        listener.accept(timeout=30).close()


def test_loops_in_two_threads_share_a_connection_as_threads_do() -> None:
    async def main() -> None:
        left, right = socket.socketpair()
        ours, theirs = aio.adopt(left), aio.adopt(right)
        reading = asyncio.ensure_future(ours.recv(1))
        await task_parked(reading)

        async def intrude() -> None:
            with pytest.raises(hs.Busy):
                await ours.recv(1)
            await ours.sendall(b"x")
            assert await theirs.recv(1) == b"x"
            await theirs.sendall(b"y")

        with Call(asyncio.run, intrude()) as intruder:
            intruder.join()
        assert await reading == b"y"
        ours.close()
        theirs.close()

    asyncio.run(main())


def test_a_guest_of_asyncio_and_its_host_share_a_connection() -> None:
    import trio

    async def main() -> None:
        left, right = socket.socketpair()
        ours, theirs = aio.adopt(left), aio.adopt(right)

        async def in_trio() -> bytes:
            with trio.fail_after(10):
                return await meanwhile(lambda: ours.recv(1), lambda: theirs.blocking.sendall(b"x"))

        loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            in_trio,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        assert (await asyncio.wait_for(done, 30)).unwrap() == b"x"
        reading = asyncio.ensure_future(ours.recv(1))
        await task_parked(reading)
        await theirs.sendall(b"y")
        assert await reading == b"y"
        ours.close()
        theirs.close()

    asyncio.run(main())


# ---- a loop that is closed under its tasks


class Closing:
    """An asyncio loop that is closed while tasks wait in it."""

    def __init__(self, name: str) -> None:
        if name == "uvloop":
            need_module("uvloop")
            import uvloop

            self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        else:
            self.loop = asyncio.new_event_loop()
        # "Task was destroyed but it is pending!" is true, and the reason for these tests.
        self.loop.set_exception_handler(lambda _loop, _context: None)
        self.tasks: list[asyncio.Task[Any]] = []

    def park(self, *calls: Awaitable[Any]) -> None:
        async def parked() -> None:
            for call in calls:
                self.tasks.append(asyncio.ensure_future(call))  # type: ignore[arg-type]
                await task_parked(self.tasks[-1])

        self.loop.run_until_complete(parked())

    def pair(self) -> tuple[aio.Connection, aio.Connection]:
        async def make() -> tuple[aio.Connection, aio.Connection]:
            left, right = socket.socketpair()
            return aio.adopt(left), aio.adopt(right)

        return self.loop.run_until_complete(make())


@pytest.fixture(params=RUNS)
def closing(request: pytest.FixtureRequest) -> Iterator[Closing]:
    made = Closing(request.param)
    yield made
    made.loop.close()


@pytest.mark.parametrize("woken", [False, True], ids=["parked", "cancelled"])
def test_a_closed_loop_leaves_no_claim_on_a_connection(closing: Closing, woken: bool) -> None:
    ours, theirs = closing.pair()
    closing.park(ours.recv(1))
    with pytest.raises(hs.Busy):
        ours.blocking.recv(1, timeout=30)
    if woken:
        closing.tasks[0].cancel()  # Its task would be resumed in the next turn.

    closing.loop.close()

    theirs.blocking.sendall(b"x")
    assert ours.blocking.recv(1, timeout=30) == b"x"
    ours.close()
    theirs.close()


def test_half_a_message_of_a_closed_loop_poisons_that_direction_alone(closing: Closing) -> None:
    ours, theirs = closing.pair()
    closing.park(ours.sendall(b"x" * (1 << 24)), ours.recv(1))

    closing.loop.close()

    with pytest.raises(hs.Poisoned):
        ours.blocking.sendall(b"x", timeout=30)
    theirs.blocking.sendall(b"y", timeout=30)
    assert ours.blocking.recv(1, timeout=30) == b"y"
    ours.close()
    theirs.close()


def test_a_closed_loop_accepts_no_more(closing: Closing) -> None:
    listener = closing.loop.run_until_complete(aio.listen(("127.0.0.1", 0)))
    closing.park(listener.accept())
    closing.loop.close()

    os.close(listener.detach())  # Busy while somebody accepts.


def test_a_closed_loop_takes_no_connection_of_a_pool(closing: Closing) -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        pool = aio.Pool(listener.getsockname(), max_size=1)
        lent = closing.loop.run_until_complete(pool.acquire(timeout=30))
        closing.park(pool.acquire(timeout=60))
        closing.loop.close()

        assert pool.stats().waiting == 0
        pool.blocking.release(lent.blocking)
        with pool.blocking.connection(timeout=30) as conn:
            assert conn.reused
        pool.blocking.close()
        listener.accept(timeout=30).close()


def test_a_closed_loop_keeps_neither_its_tasks_nor_descriptors(closing: Closing) -> None:
    class Canary:
        pass

    async def wait_for_ever(_canary: Canary) -> None:
        await ours.recv(1)

    ours, theirs = closing.pair()
    canary = Canary()
    found = weakref.ref(canary)
    closing.park(wait_for_ever(canary))
    del canary
    closing.tasks.clear()  # The loop's own way to them is what counts.
    closing.loop.close()
    gc.collect()

    assert found() is None
    assert ours._hub.closed
    assert ours._hub.fileno() == -1
    theirs.blocking.sendall(b"x")
    assert ours.blocking.recv(1, timeout=30) == b"x"
    ours.close()
    theirs.close()


def test_a_driver_that_can_resume_nothing_more_leaves_no_claim() -> None:
    def resume(_operation: Operation) -> None:
        raise RuntimeError("that loop is gone")

    async def main() -> None:
        left, right = socket.socketpair()
        ours, theirs = aio.adopt(left), aio.adopt(right)
        hub: Hub = Hub(drive=lambda _operation: ours.recv(1), find=lambda: hub)
        operation = ours.blocking._op_recv(hub, 1)
        assert operation.step() is False
        operation.add_done_callback(resume)
        with pytest.raises(hs.Busy):
            ours.blocking.recv(1, timeout=30)

        hub.close()

        theirs.blocking.sendall(b"x")
        assert ours.blocking.recv(1, timeout=30) == b"x"
        ours.close()
        theirs.close()

    asyncio.run(main())
