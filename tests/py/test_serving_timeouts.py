"""read_timeout, write_timeout, handler_timeout: each a total, on both drivers, plain and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hardsock as hs
from hardsock import aio
from hardsock.lab.endpoint import connect_to
from hardsock.lab.waits import poll_until
from hardsock.serving.options import ServeOptions
from support.loops import MAINS
from support.tls import Identities

LOCAL = ("127.0.0.1", 0)
SHORT = 0.2
LONG = 60.0


class Asked:
    """A handler of two halves for both drivers, and what its calls raised."""

    def __init__(self) -> None:
        self.raised: queue.SimpleQueue[hs.HardsockError] = queue.SimpleQueue()

    def __call__(self, conn: hs.Connection) -> None:
        try:
            while conn.recv_exactly(4):
                conn.sendall(b"done")
        except hs.EndOfStream:
            pass
        except hs.HardsockError as exc:
            self.raised.put(exc)
            raise

    async def awaited(self, conn: aio.Connection) -> None:
        try:
            while await conn.recv_exactly(4):
                await conn.sendall(b"done")
        except hs.EndOfStream:
            pass
        except hs.HardsockError as exc:
            self.raised.put(exc)
            raise


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return Identities(tmp_path_factory.mktemp("identities"))


def drip(send: Callable[[bytes], object]) -> None:
    """A byte now and then, until nobody wants them any more."""
    with contextlib.suppress(OSError):
        for _ in range(500):
            send(b"x")
            hs.CancelToken().wait(SHORT / 10)


def late(stats: hs.ServerStats) -> tuple[int, int, int]:
    return stats.read_timeouts, stats.write_timeouts, stats.handler_timeouts


def over(server: hs.Server) -> hs.ServerStats:
    assert poll_until(lambda: server.stats().active == 0, 20)
    return server.stats()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_message_that_drips_is_ended_by_its_total(
    tls: bool, identities: Identities, caplog: pytest.LogCaptureFixture
) -> None:
    raised: queue.SimpleQueue[hs.HardsockError] = queue.SimpleQueue()

    def handler(conn: hs.Connection) -> None:
        try:
            conn.recv_exactly(1000)
        except hs.HardsockError as exc:
            raised.put(exc)
            raise

    with hs.serve(
        handler,
        LOCAL,
        drain_timeout=30,
        read_timeout=SHORT,
        tls=identities.server() if tls else None,
    ) as server:
        client = hs.connect(server.address, timeout=60, tls=identities.client() if tls else False)
        with client:
            drip(client.sendall)
        exc = raised.get(timeout=60)
        assert isinstance(exc, hs.DeadlineExceeded)
        assert exc.phase == "read_timeout"
        assert "the message is not here yet, 0.2 s after its first byte" in str(exc)
        stats = over(server)
        assert late(stats) == (1, 0, 0)
        assert stats.errors == {"DeadlineExceeded": 1}
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []


def test_many_calls_for_one_message_have_one_time_together() -> None:
    """recv() is not a message: each of its calls would have all the time again."""
    raised: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def handler(conn: hs.Connection) -> None:
        try:
            while conn.recv(100):
                pass
        except hs.DeadlineExceeded as exc:
            raised.put(exc.phase)
            raise

    with hs.serve(handler, LOCAL, drain_timeout=30, read_timeout=SHORT) as server:
        with connect_to(server.address) as client:
            drip(client.sendall)
        assert raised.get(timeout=60) == "read_timeout"


def test_the_wait_for_a_message_is_no_part_of_it() -> None:
    """That is idle_timeout's; every message has the whole time."""
    handler = Asked()
    with (
        hs.serve(
            handler, LOCAL, drain_timeout=30, read_timeout=SHORT, write_timeout=SHORT
        ) as server,
        connect_to(server.address) as client,
    ):
        client.settimeout(60)
        for _ in range(3):
            hs.CancelToken().wait(1.5 * SHORT)
            client.sendall(b"help")
            assert client.recv(4, socket.MSG_WAITALL) == b"done"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert late(over(server)) == (0, 0, 0)


def test_what_has_arrived_can_be_read_however_late() -> None:
    read: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def handler(conn: hs.Connection) -> None:
        conn.recv_exactly(1)
        hs.CancelToken().wait(1.5 * SHORT)
        read.put(conn.recv_exactly(3))
        conn.sendall(b"done")

    with (
        hs.serve(handler, LOCAL, drain_timeout=30, read_timeout=SHORT) as server,
        connect_to(server.address) as client,
    ):
        client.settimeout(60)
        client.sendall(b"help")
        assert client.recv(4, socket.MSG_WAITALL) == b"done"
        assert read.get(timeout=60) == b"elp"
        client.shutdown(socket.SHUT_WR)
        assert late(over(server)) == (0, 0, 0)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_an_answer_that_is_not_read_is_ended_by_its_total(
    tls: bool, identities: Identities
) -> None:
    raised: queue.SimpleQueue[hs.HardsockError] = queue.SimpleQueue()

    def handler(conn: hs.Connection) -> None:
        conn.recv(1)
        try:
            while True:
                conn.sendall(bytes(65536))
        except hs.HardsockError as exc:
            raised.put(exc)
            raise

    with hs.serve(
        handler,
        LOCAL,
        drain_timeout=30,
        write_timeout=SHORT,
        tls=identities.server() if tls else None,
    ) as server:
        began = time.monotonic()
        with hs.connect(
            server.address, timeout=60, tls=identities.client() if tls else False
        ) as client:
            client.sendall(b"?")
            exc = raised.get(timeout=20)
            assert time.monotonic() - began >= SHORT
        assert isinstance(exc, hs.DeadlineExceeded)
        assert exc.phase == "write_timeout"
        assert late(over(server)) == (0, 1, 0)


def test_an_answer_that_is_read_slowly_is_ended_by_its_total() -> None:
    """Each single call gets on: only together they are too long."""
    raised: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def handler(conn: hs.Connection) -> None:
        try:
            while True:
                conn.sendall(b"x" * 16384)
        except hs.HardsockError as exc:
            raised.put(getattr(exc, "phase", None))
            raise

    def read_slowly(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while client.recv(65536):
                hs.CancelToken().wait(SHORT / 20)

    with hs.serve(handler, LOCAL, drain_timeout=30, write_timeout=SHORT) as server:
        with connect_to(server.address) as client:
            client.settimeout(60)
            read_slowly(client)
        assert raised.get(timeout=60) == "write_timeout"
        assert late(over(server)) == (0, 1, 0)


def test_each_message_of_a_quiet_connection_has_its_own_times(silent: hs.Listener) -> None:
    """Per message: reading and the handler are bounded, the quiet between two messages is not."""

    def handler(conn: hs.Connection) -> None:
        if conn.recv_exactly(4) == b"wait":
            with hs.connect(silent.address, timeout=LONG) as other:
                other.recv(1, timeout=LONG)
        conn.sendall(b"done")

    with hs.serve(
        handler,
        LOCAL,
        per="message",
        drain_timeout=30,
        read_timeout=SHORT,
        write_timeout=SHORT,
        handler_timeout=4 * SHORT,
    ) as server:
        for last, want in ((b"he", (1, 0, 0)), (b"wait", (1, 0, 1))):
            with connect_to(server.address) as client:
                client.settimeout(60)
                for _ in range(3):
                    client.sendall(b"help")
                    assert client.recv(4, socket.MSG_WAITALL) == b"done"
                    hs.CancelToken().wait(1.5 * SHORT)
                client.sendall(last)
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
            assert late(over(server)) == want


@pytest.fixture
def silent() -> Iterator[hs.Listener]:
    with hs.listen(LOCAL) as listener:
        yield listener


def test_a_handler_has_a_time_for_all_that_it_does(
    silent: hs.Listener, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(conn: hs.Connection) -> None:
        with hs.connect(silent.address, timeout=LONG) as other:
            other.recv(1, timeout=LONG)

    with (
        hs.serve(handler, LOCAL, drain_timeout=30, handler_timeout=SHORT) as server,
        connect_to(server.address) as client,
    ):
        client.settimeout(60)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        stats = over(server)
        assert late(stats) == (0, 0, 1)
        assert (stats.failed, stats.errors) == (1, {"DeadlineExceeded": 1})
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []


def test_the_end_of_a_handler_s_time_does_not_spoil_its_answer() -> None:
    """It lingers on the server's time."""

    def handler(conn: hs.Connection) -> None:
        token = hs.current()
        assert token is not None
        assert token.wait(60)
        with hs.timeout(30):
            pass
        hs._core.scope.set(None)
        conn.sendall(b"late")

    with (
        hs.serve(handler, LOCAL, drain_timeout=30, handler_timeout=SHORT) as server,
        connect_to(server.address) as client,
    ):
        client.settimeout(60)
        assert client.recv(4, socket.MSG_WAITALL) == b"late"
        client.close()
        stats = over(server)
        assert late(stats) == (0, 0, 1)
        assert stats.handled == 1


@pytest.mark.parametrize("loop", MAINS)
def test_in_an_event_loop_too(loop: str, event_loops: None) -> None:
    handler = Asked()

    async def main() -> None:
        async with aio.serve(
            handler.awaited, LOCAL, drain_timeout=30, read_timeout=SHORT
        ) as server:
            async with await aio.connect(server.address, timeout=60) as client:
                for _ in range(2):
                    await client.sendall(b"help")
                    assert await client.recv_exactly(4, timeout=60) == b"done"
                await client.sendall(b"he")
                with pytest.raises(hs.Reset):
                    await client.recv(1, timeout=60)
            assert server.stats().active == 0
            assert late(server.stats()) == (1, 0, 0)

    MAINS[loop](main)
    exc = handler.raised.get(timeout=60)
    assert isinstance(exc, hs.DeadlineExceeded)
    assert exc.phase == "read_timeout"


@pytest.mark.parametrize("loop", MAINS)
def test_a_task_that_waits_for_something_else_is_cancelled(loop: str, event_loops: None) -> None:
    async def forever(conn: aio.Connection) -> None:
        if loop == "trio":
            import trio

            await trio.sleep_forever()
        else:
            await asyncio.get_running_loop().create_future()

    async def main() -> None:
        async with aio.serve(forever, LOCAL, drain_timeout=30, handler_timeout=SHORT) as server:
            async with await aio.connect(server.address, timeout=60) as client:
                with pytest.raises(hs.Reset):
                    await client.recv(1, timeout=60)
            assert late(server.stats()) == (0, 0, 1)
            assert server.stats().failed == 1

    MAINS[loop](main)


@pytest.mark.parametrize("name", ["read_timeout", "write_timeout", "handler_timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), "1"])
def test_a_time_that_cannot_be_is_named(name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        hs.serve(lambda conn: None, LOCAL, drain_timeout=1, **{name: value})


@pytest.mark.parametrize("name", ["read_timeout", "write_timeout", "idle_timeout"])
def test_times_that_contradict_each_other_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=10 and handler_timeout=5 contradict"):
        ServeOptions(drain_timeout=1, handler_timeout=5, **{name: 10})


def test_who_spoke_last_waits_for_an_answer_and_is_not_idle() -> None:
    """A handler that never answers has to bound its calls itself."""
    taken: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def sink(conn: hs.Connection) -> None:
        while data := conn.recv(16):
            taken.put(data)

    with hs.serve(sink, LOCAL, drain_timeout=5.0, idle_timeout=SHORT) as server:
        with connect_to(server.address) as spoke:
            spoke.sendall(b"a")
            assert taken.get(timeout=LONG) == b"a"
            for _ in range(2):  # Each of these is ended later than the first one would have been.
                with connect_to(server.address) as silent:
                    assert silent.recv(1) == b""
            spoke.sendall(b"b")
            assert taken.get(timeout=LONG) == b"b"
        assert poll_until(lambda: server.stats().idle_timeouts == 2, 60)
