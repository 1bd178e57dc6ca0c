"""hardsock's own event loop waits in its Hub's set: others that it waits for are not forgotten there."""

from __future__ import annotations

import asyncio
import gc
import os
import selectors
import signal
import socket
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from hardsock._core import Hub
from hardsock.aio import _host
from hardsock.aio import loop as hsloop
from hardsock.lab.threads import Call
from hardsock.lab.waits import poll_until

LATE = 60.0


class Waits:
    """A loop with a Hub; how often it has asked the selector that is its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = hsloop.EventLoop()
        self.asked = 0
        base = selectors.EpollSelector
        select = base.select

        def counted(selector: Any, timeout: float | None = None) -> Any:
            self.asked += 1
            return select(selector, timeout)

        monkeypatch.setattr(base, "select", counted)
        self.hub = self.loop.run_until_complete(self._open())

    @staticmethod
    async def _open() -> Any:
        return _host.current_hub()

    def run(self, main: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(main, LATE))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    made = Waits(monkeypatch)
    yield made
    made.loop.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


def test_connections_of_hardsock_alone_ask_no_other_selector(waits: Waits) -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        before = waits.asked
        for _ in range(50):
            writer.write(b"x")
            assert await reader.read(100) == b"x"
        assert waits.asked == before
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    waits.run(main())


def test_a_descriptor_of_others_is_told_beside_ours(waits: Waits) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    got: list[bytes] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        told = asyncio.Event()

        def take() -> None:
            got.append(ours.recv(1))
            told.set()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        loop.add_reader(ours, take)
        for _ in range(20):
            theirs.send(b"o")
            writer.write(b"x")
            assert await reader.read(100) == b"x"
            await told.wait()
            told.clear()
        loop.remove_reader(ours)
        theirs.send(b"o")
        writer.write(b"x")
        assert await reader.read(100) == b"x"
        assert len(got) == 20
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    with ours, theirs:
        waits.run(main())


def test_other_threads_and_processes_wake_it(waits: Waits) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, lambda: 42) == 42
        told = loop.create_future()
        thread = threading.Thread(
            target=lambda: loop.call_soon_threadsafe(told.set_result, threading.get_ident())
        )
        thread.start()
        assert await told != threading.get_ident()
        thread.join()
        process = await asyncio.create_subprocess_exec(
            "echo", "said", stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert out == b"said\n"

    waits.run(main())


def test_a_signal_handler_runs_in_the_middle_of_a_wait(waits: Waits) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        told = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, told.set_result, None)
        try:
            loop.call_later(0.01, os.kill, os.getpid(), signal.SIGUSR1)
            await told
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)

    waits.run(main())


def test_what_a_signal_handler_raises_ends_the_run_and_loses_nothing_that_was_heard(
    waits: Waits,
) -> None:
    class Stop(BaseException):
        pass

    def stop(*_args: object) -> None:
        raise Stop

    async def open_pair() -> Any:
        peers: asyncio.Queue[Any] = asyncio.Queue()
        server = await asyncio.start_server(lambda *pair: peers.put_nowait(pair), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        return server, reader, writer, await peers.get()

    def send_and_kill() -> None:
        os.write(theirs, b"x")  # Both come to one wait, in either order.
        os.kill(os.getpid(), signal.SIGUSR2)

    async def close() -> None:
        for one in (writer, peer[1]):
            one.close()
            await one.wait_closed()
        server.close()
        await server.wait_closed()

    server, reader, writer, peer = waits.run(open_pair())
    theirs = peer[1].get_extra_info("socket").fileno()
    before = signal.signal(signal.SIGUSR2, stop)
    reading = waits.loop.create_task(reader.read(100))
    timer = threading.Timer(0.05, send_and_kill)
    try:
        timer.start()
        with pytest.raises(Stop):
            waits.loop.run_forever()
    finally:
        timer.join()
        signal.signal(signal.SIGUSR2, before)
    assert waits.run(asyncio.wait_for(reading, LATE)) == b"x"
    waits.run(close())


def test_a_time_is_waited_for_and_not_gone_round_for(waits: Waits) -> None:
    async def main() -> int:
        unsent = waits.loop.unsent
        assert unsent is not None
        turns = unsent.turn
        await asyncio.sleep(0.2)
        return unsent.turn - turns

    assert waits.run(main()) < 20


def test_a_kernel_that_does_not_say_what_is_ready_stops_nobody_for_good(waits: Waits) -> None:
    import hardsock as hs

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        with hs.faults("epoll_wait.invalid@1-3"):
            for _ in range(20):
                writer.write(b"x")
                assert await reader.read(100) == b"x"
        for _ in range(20):
            writer.write(b"x")
            assert await reader.read(100) == b"x"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    waits.run(main())


def test_a_loop_whose_hub_was_lost_goes_on_for_the_others(waits: Waits) -> None:
    """The program has closed the descriptor that it waits with."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        os.close(waits.hub.fileno())
        assert await loop.run_in_executor(None, lambda: 42) == 42
        await asyncio.sleep(0.01)

    waits.run(main())


def test_a_loop_that_nobody_closed_is_collected_with_its_hub() -> None:
    loop = hsloop.EventLoop()
    hub = weakref.ref(loop.run_until_complete(Waits._open()))
    kept = loop._selector  # type: ignore[attr-defined]
    loop.close()
    del loop
    gc.collect()
    assert poll_until(lambda: hub() is None, LATE)
    assert kept.get_map() is None


# ---- a Hub that another thread closes -----------------------------------------------------------


def test_a_hub_that_another_thread_closes_ends_the_wait_in_it() -> None:
    hub: Hub = Hub(find=lambda: hub)
    with Call(hub.wait, None) as call:
        call.wait_until_blocked()
        hub.close()
        assert call.result(LATE) is None  # The others are to be asked themselves.
    assert hub.fileno() == -1
    assert hub.wait(0) is None


def _hub_that_is_found() -> Hub:
    hub: Hub = Hub(find=lambda: hub)
    return hub


def test_closing_races_with_waiting() -> None:
    for _ in range(200):
        hub = _hub_that_is_found()
        begin = threading.Barrier(2)

        def wait(hub: Hub = hub, begin: threading.Barrier = begin) -> object:
            begin.wait(LATE)
            return hub.wait(None)

        with Call(wait) as call:
            begin.wait(LATE)
            hub.close()
            assert call.result(LATE) is None
        assert hub.fileno() == -1
