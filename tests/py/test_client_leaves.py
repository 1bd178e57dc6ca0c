"""A client that leaves cancels its handler: what waits elsewhere ends, what it had sent is there."""

from __future__ import annotations

import logging
import queue
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import hardsock as hs
from hardsock import aio
from hardsock.lab.endpoint import connect_to
from hardsock.lab.waits import poll_until
from support.loops import MAINS
from support.tls import Identities

LOCAL = ("127.0.0.1", 0)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
WHY = "the client has left"


def reset(client: socket.socket) -> None:
    """End it with a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    client.close()


@pytest.fixture
def silent() -> Iterator[hs.Listener]:
    """Somebody whose answers never come."""
    with hs.listen(LOCAL) as listener:
        yield listener


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return Identities(tmp_path_factory.mktemp("identities"))


class Asks:
    """A handler that asks somebody silent for its client, and says how that ended."""

    def __init__(self, other: Any) -> None:
        self.other = other
        self.asks = threading.Semaphore(0)
        self.outcomes: queue.SimpleQueue[hs.HardsockError] = queue.SimpleQueue()

    def __call__(self, conn: hs.Connection) -> None:
        conn.recv_exactly(1)
        with hs.connect(self.other, timeout=30) as other:
            self.asks.release()
            try:
                other.recv(1, timeout=30)
            except hs.HardsockError as exc:
                self.outcomes.put(exc)
                raise

    async def awaited(self, conn: aio.Connection) -> None:
        await conn.recv_exactly(1)
        async with await aio.connect(self.other, timeout=30) as other:
            self.asks.release()
            try:
                await other.recv(1, timeout=30)
            except hs.HardsockError as exc:
                self.outcomes.put(exc)
                raise

    def judge(self, stats: hs.ServerStats) -> None:
        """What one client that left has to come to."""
        exc = self.outcomes.get(timeout=60)
        assert isinstance(exc, hs.Cancelled)
        assert exc.reason is not None
        assert exc.reason.startswith(WHY)
        assert (stats.clients_left, stats.failed, stats.errors) == (1, 1, {"Cancelled": 1})
        assert stats.endings == {"aborted": 1}


@pytest.mark.parametrize("per", ["connection", "message"])
def test_a_reset_ends_what_the_handler_waits_for_elsewhere(
    per: Any, silent: hs.Listener, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Asks(silent.address)
    with hs.serve(handler, LOCAL, per=per, drain_timeout=30) as server:
        client = connect_to(server.address)
        client.sendall(b"x")
        assert handler.asks.acquire(timeout=60)
        reset(client)
        assert poll_until(lambda: server.stats().active == 0, 60)
        handler.judge(server.stats())
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []


@pytest.mark.parametrize("loop", MAINS)
def test_it_does_in_an_event_loop_too(loop: str, event_loops: None, silent: hs.Listener) -> None:
    handler = Asks(silent.address)

    async def main() -> None:
        async with aio.serve(handler.awaited, LOCAL, drain_timeout=30) as server:
            client = connect_to(server.address)
            client.sendall(b"x")
            nobody = hs.CancelToken()
            while not handler.asks.acquire(blocking=False):
                await aio.wait(nobody, 0.001)
            reset(client)
            while server.stats().active:
                await aio.wait(nobody, 0.001)
            handler.judge(server.stats())

    MAINS[loop](main)


def test_it_does_through_tls(silent: hs.Listener, identities: Identities) -> None:
    handler = Asks(silent.address)
    with hs.serve(handler, LOCAL, drain_timeout=30, tls=identities.server()) as server:
        client = hs.connect(server.address, tls=identities.client(), timeout=60)
        client.sendall(b"x")
        assert handler.asks.acquire(timeout=60)
        client.abort()
        assert poll_until(lambda: server.stats().active == 0, 60)
        handler.judge(server.stats())


def test_what_a_client_had_sent_is_there_and_then_the_reset() -> None:
    ends: queue.SimpleQueue[object] = queue.SimpleQueue()

    def handler(conn: hs.Connection) -> None:
        token = hs.current()
        assert token is not None
        ends.put(token.wait(60))
        ends.put(conn.recv(100))
        try:
            conn.recv(100)
        except hs.HardsockError as exc:
            ends.put(type(exc))
            raise

    with hs.serve(handler, LOCAL, drain_timeout=30) as server:
        client = connect_to(server.address)
        client.sendall(b"last words")
        reset(client)
        assert [ends.get(timeout=60) for _ in range(3)] == [True, b"last words", hs.Reset]
        assert poll_until(lambda: server.stats().active == 0, 60)
        assert server.stats().errors == {"Reset": 1}
        assert server.stats().clients_left == 1


def test_a_client_that_only_ends_its_side_is_answered() -> None:
    cancelled: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def handler(conn: hs.Connection) -> None:
        token = hs.current()
        assert token is not None
        while conn.recv(100):
            pass
        cancelled.put(token.cancelled)
        conn.sendall(b"answer")

    with hs.serve(handler, LOCAL, drain_timeout=30) as server, connect_to(server.address) as client:
        client.settimeout(60)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100, socket.MSG_WAITALL) == b"answer"
        assert cancelled.get(timeout=60) is False
        assert poll_until(lambda: server.stats().handled == 1, 60)
        assert server.stats().clients_left == 0


@pytest.mark.parametrize("first", ["asked", "ended"])
def test_where_it_is_asked_for_an_end_cancels_too(first: str) -> None:
    """Whichever comes first; calls on the connection itself go on."""
    asked, ended = threading.Event(), threading.Event()
    reasons: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def handler(conn: hs.Connection) -> None:
        token = hs.current()
        assert token is not None
        if first == "ended":
            assert ended.wait(60)
            assert conn.recv(1) == b""
        conn.cancel_on_end()
        asked.set()
        assert token.wait(60)
        reasons.put(token.reason)
        conn.sendall(b"bye")

    with hs.serve(handler, LOCAL, drain_timeout=30) as server, connect_to(server.address) as client:
        client.settimeout(60)
        if first == "asked":
            assert asked.wait(60)
        client.shutdown(socket.SHUT_WR)
        ended.set()
        assert reasons.get(timeout=60) == "the client has left: it ended its stream"
        assert client.recv(100, socket.MSG_WAITALL) == b"bye"
        assert poll_until(lambda: server.stats().handled == 1, 60)
        assert server.stats().clients_left == 1


def test_who_leaves_between_two_messages_has_left_no_handler() -> None:
    def handler(conn: hs.Connection) -> None:
        conn.sendall(conn.recv(10))

    with hs.serve(handler, LOCAL, per="message", drain_timeout=30) as server:
        client = connect_to(server.address)
        client.settimeout(60)
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert poll_until(lambda: server.stats().parked == 1, 60)
        reset(client)
        assert poll_until(lambda: server.stats().active == 0, 60)
        assert server.stats().clients_left == 0


def test_callbacks_of_the_scope_run() -> None:
    """So that what knows no tokens can be ended, too."""
    ran = threading.Event()

    def handler(conn: hs.Connection) -> None:
        token = hs.current()
        assert token is not None
        token.on_cancel(ran.set)
        conn.sendall(b"!")
        assert ran.wait(60)

    with hs.serve(handler, LOCAL, drain_timeout=30) as server:
        client = connect_to(server.address)
        client.settimeout(60)
        assert client.recv(1) == b"!"
        reset(client)
        assert ran.wait(60)


def test_a_handler_that_has_let_go_of_its_connection_works_on() -> None:
    cancelled: queue.SimpleQueue[bool] = queue.SimpleQueue()
    let_go = threading.Event()

    def handler(conn: hs.Connection) -> None:
        token = hs.current()
        assert token is not None
        fd = conn.detach()
        let_go.set()
        with socket.socket(fileno=fd) as theirs:
            theirs.settimeout(60)
            theirs.sendall(b"!")
            with pytest.raises(ConnectionResetError):
                while theirs.recv(100):
                    pass
        cancelled.put(token.cancelled)

    with hs.serve(handler, LOCAL, drain_timeout=30) as server:
        client = connect_to(server.address)
        client.settimeout(60)
        assert client.recv(1) == b"!"
        assert let_go.wait(60)
        reset(client)
        assert cancelled.get(timeout=60) is False
        assert poll_until(lambda: server.stats().active == 0, 60)
        assert server.stats().clients_left == 0


def test_outside_of_servers_nobody_watches() -> None:
    with hs.listen(LOCAL) as listener, hs.connect(listener.address, timeout=60) as conn:
        with pytest.raises(ValueError, match="no server watches this connection"):
            conn.cancel_on_end()
        with pytest.raises(TypeError, match="on must be a bool, not int"):
            conn.cancel_on_end(1)  # type: ignore[arg-type]
        conn.close()
        with pytest.raises(hs.Closed):
            conn.cancel_on_end()
