"""serve: a drain that loses nobody and keeps its deadline, and all that begins one."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.endpoint import connect_to
from hardsock.lab.threads import Call, run_threaded
from hardsock.lab.waits import poll_until
from hardsock.serving import drain
from hardsock.serving.options import ServeOptions
from support.served import LOCAL, Gate, ask, echo, rest_of, settled
from support.signals import wait_until_caught


def drained(server: hs.Server, **kwargs: float) -> hs.DrainReport:
    """Drain; the sum must be right, and nothing may be left to be accepted."""
    report = server.drain(**kwargs)
    stats = server.stats()
    assert stats.active == 0
    assert stats.accepted == stats.handled + stats.failed + stats.cut
    assert server.closed
    assert server.listener.closed
    assert server.drain() is report, "it is idempotent"
    assert server.wait(0)
    return report


def test_idle_connections_are_closed_at_once() -> None:
    server = hs.serve(echo, LOCAL, drain_timeout=60)
    with connect_to(server.address) as client, connect_to(server.address) as silent:
        client.sendall(b"x")
        client.settimeout(60)
        assert client.recv(1) == b"x"
        assert poll_until(lambda: server.stats().active == 2, 60)
        report = drained(server)
        assert rest_of(client) == rest_of(silent) == b""
    assert report.idle_closed == 2
    assert report.clean
    assert report.elapsed < 10
    assert server.stats().failed == 0


def test_a_busy_connection_that_becomes_idle_is_closed_then() -> None:
    gate = Gate()

    def handler(conn: hs.Connection) -> None:
        data = conn.recv(10)
        gate(conn)
        conn.sendall(data)
        echo(conn)

    server = hs.serve(handler, LOCAL, drain_timeout=60)
    with connect_to(server.address) as client:
        client.sendall(b"answer me")
        gate.wait_until_running()
        with Call(drained, server) as draining:
            assert server.draining.wait(60)
            gate.go.set()
            assert rest_of(client) == b"answer me"
            assert draining.result().idle_closed == 1


def test_a_handler_that_ignores_that_it_was_idle_is_closed_under_its_hands() -> None:
    gate = Gate()

    def handler(conn: hs.Connection) -> None:
        with pytest.raises(hs.Cancelled, match="idle"):
            conn.recv(1)
        gate(conn)

    server = hs.serve(handler, LOCAL, drain_timeout=60)
    with connect_to(server.address) as client:
        assert poll_until(lambda: server.stats().active == 1, 60)
        with Call(drained, server) as draining:
            gate.wait_until_running()
            assert rest_of(client) == b""
            gate.go.set()
            assert draining.result().idle_closed == 1


def test_busy_ones_are_told_and_end_in_an_orderly_way() -> None:
    def handler(conn: hs.Connection) -> None:
        while request := conn.recv(1, token=hs.draining()):
            conn.sendall(request + conn.recv_exactly(3))

    server = hs.serve(handler, LOCAL, drain_timeout=60)
    with connect_to(server.address) as client:
        client.settimeout(60)
        client.sendall(b"1234" + b"12")
        assert client.recv(4) == b"1234"
        assert poll_until(lambda: _received(server, 6), 60)
        with Call(drained, server) as draining:
            assert server.draining.wait(60)
            client.sendall(b"34")  # finishes a request, so that its handler waits for the next
            assert rest_of(client) == b"1234"
            client.close()
            report = draining.result()
    assert (report.told, report.clean) == (1, True)
    assert server.stats().failed == 0


def test_a_request_that_had_arrived_is_answered_after_the_drain_began() -> None:
    """The handler waits under draining(), which lets it have what is there, also in the middle."""
    gate = Gate()

    def handler(conn: hs.Connection) -> None:
        while line := conn.recv(100, token=hs.draining()):
            if line == b"slow":
                gate(conn)
            conn.sendall(line.upper())

    server = hs.serve(handler, LOCAL, drain_timeout=60, workers=1, max_connections=2)
    with connect_to(server.address) as first, connect_to(server.address) as second:
        first.sendall(b"slow")
        gate.wait_until_running()
        second.sendall(b"accepted, and waits for a worker")
        assert poll_until(lambda: server.stats().active == 2, 60)
        with Call(drained, server) as draining:
            assert server.draining.wait(60)
            gate.go.set()
            assert rest_of(first) == b"SLOW"
            assert rest_of(second) == b"ACCEPTED, AND WAITS FOR A WORKER"
            first.close()
            second.close()
            report = draining.result()
    assert (report.told, report.clean) == (2, True)


def test_a_drain_does_not_end_a_message_that_has_begun() -> None:
    lines: list[bytes] = []

    def handler(conn: hs.Connection) -> None:
        for line in conn.lines(token=hs.draining()):
            lines.append(line)
            conn.sendall(line + b"\n")

    server = hs.serve(handler, LOCAL, drain_timeout=60)
    with connect_to(server.address) as client:
        client.sendall(b"whole\nhal")
        assert poll_until(lambda: _received(server, 9) and lines == [b"whole"], 60)
        with Call(drained, server) as draining:
            assert server.draining.wait(60)
            client.sendall(b"f\n")
            assert rest_of(client) == b"whole\nhalf\n"
            client.close()
            report = draining.result()
    assert (report.told, report.clean) == (1, True)


def test_draining_ends_other_waits_at_once_and_no_answer_begins_under_it() -> None:
    outcomes: list[str] = []

    def handler(conn: hs.Connection) -> None:
        told = hs.draining()
        assert told is not None
        assert conn.recv(1) == b"?"
        assert told.wait(60)
        with pytest.raises(hs.Cancelled, match="before the call"):
            conn.sendall(b"x", token=told)
        with hs.listen(LOCAL) as other, pytest.raises(hs.Cancelled):
            other.accept(token=told)
        with pytest.raises(hs.Cancelled) as caught:
            conn.recv(1, token=told)
        outcomes.append(str(caught.value.reason))

    server = hs.serve(handler, LOCAL, drain_timeout=60)
    with connect_to(server.address) as client:
        client.sendall(b"?")
        assert poll_until(lambda: server.stats().active == 1, 60)
        server.stop("enough")
        assert server.wait(60)
    assert outcomes == ["enough"]


def test_who_has_just_connected_is_about_to_ask_per_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drain, "_NEWCOMER", 30.0)

    def handler(conn: hs.Connection) -> None:
        conn.sendall(conn.recv(100).upper())

    server = hs.serve(handler, LOCAL, per="message", drain_timeout=60)
    with connect_to(server.address) as client:
        client.settimeout(60)
        assert poll_until(lambda: server.stats().parked == 1, 60)
        server.stop()
        assert server.draining.wait(60)
        client.sendall(b"hello")
        assert client.recv(5, socket.MSG_WAITALL) == b"HELLO"
    assert server.wait(60)
    report = server.drain(0)  # Either found it quiet after its answer, or gone.
    assert report.clean
    assert server.stats().handled + report.idle_closed == 1


@pytest.mark.parametrize("told", [True, False])
def test_who_has_just_connected_is_about_to_ask(
    told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that is closed before its first request is lost; an idle one asks elsewhere."""
    monkeypatch.setattr(drain, "_NEWCOMER", 30.0)

    def handler(conn: hs.Connection) -> None:
        token = hs.draining()
        assert token is not None
        begun.set()
        conn.sendall(conn.recv(100, token=token if told else None).upper())

    begun = threading.Event()
    server = hs.serve(handler, LOCAL, drain_timeout=60)
    with connect_to(server.address) as client:
        client.settimeout(60)
        assert begun.wait(60)
        server.stop()
        assert server.draining.wait(60)
        client.sendall(b"hello")
        assert client.recv(5, socket.MSG_WAITALL) == b"HELLO"
    assert server.wait(60)
    assert server.report is not None
    assert server.report.completed == 1


def test_who_connects_and_says_nothing_does_not_hold_a_drain_up() -> None:
    reasons: list[str | None] = []

    def handler(conn: hs.Connection) -> None:
        try:
            conn.recv(100, token=hs.draining())
        except hs.Cancelled as exc:
            reasons.append(exc.reason)
            raise

    server = hs.serve(handler, LOCAL, drain_timeout=60)
    with connect_to(server.address):
        assert poll_until(lambda: server.stats().active == 1, 60)
        report = server.drain()
    assert report.elapsed < 20
    assert (report.idle_closed, report.told) == (1, 0)
    assert reasons == ["the server is draining and this connection was idle"]


def test_busy_ones_that_end_in_time_are_not_cut() -> None:
    gate = Gate()

    def handler(conn: hs.Connection) -> None:
        gate(conn)
        conn.sendall(b"whole")

    server = hs.serve(handler, LOCAL, drain_timeout=60)
    with connect_to(server.address) as client:
        gate.wait_until_running()
        with Call(drained, server) as draining:
            assert server.draining.wait(60)
            assert poll_until(lambda: server.listener.closed, 60)
            with pytest.raises(ConnectionRefusedError):
                connect_to(server.address)
            gate.go.set()
            assert rest_of(client) == b"whole"
            client.close()
            report = draining.result()
    assert (report.completed, report.clean, report.cut) == (1, True, ())


def test_when_the_time_is_up_calls_are_cancelled() -> None:
    reasons: list[str | None] = []

    def handler(conn: hs.Connection) -> None:
        try:
            conn.recv_exactly(10)
        except hs.Cancelled as exc:
            reasons.append(exc.reason)
            raise

    server = hs.serve(handler, LOCAL, drain_timeout=60)
    with connect_to(server.address) as client:
        client.sendall(b"half")
        (peer,) = {"{}:{}".format(*client.getsockname())}
        while server.stats().active == 0 or not _received(server, 4):
            pass
        report = drained(server, timeout=4.0)  # 0.75 s from the cancel to the reset
        with pytest.raises(ConnectionResetError):
            rest_of(client)
    assert reasons == ["the server is draining and the time is up"]
    assert (report.cancelled, report.aborted, report.running) == (1, 0, 0)
    (cut,) = report.cut
    assert (cut.peer, cut.how, cut.phase) == (peer, "cancelled", "handler")
    assert (cut.bytes_received, cut.bytes_sent, cut.running, cut.stack) == (4, 0, False, None)
    assert 0 < cut.age < 30
    assert report.elapsed < 30
    assert server.stats().errors == {}


def _received(server: hs.Server, n: int) -> bool:
    with server._lock:
        return sum(served.conn.bytes_received for served in server._ledger.active) >= n


def test_a_handler_that_will_not_leave_is_named_with_its_stack(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()

    def stubborn(conn: hs.Connection) -> None:
        gate(conn)

    server = hs.serve(stubborn, LOCAL, drain_timeout=60, name="test-stubborn")
    try:
        with connect_to(server.address) as client:
            gate.wait_until_running()
            began = time.monotonic()
            report = drained(server, timeout=0.2)
            took = time.monotonic() - began
            with pytest.raises(ConnectionResetError):
                rest_of(client)
    finally:
        gate.go.set()
    assert 0.2 <= took < 20
    assert (report.cancelled, report.aborted, report.running) == (0, 1, 1)
    (cut,) = report.cut
    assert (cut.how, cut.running, cut.runner) == ("aborted", True, "test-stubborn-0")
    assert cut.stack is not None
    assert "in stubborn" in cut.stack
    assert "in stubborn" in caplog.text, "it is logged, too"
    assert server.stats().cut == 1


def test_connections_that_no_worker_took_are_cut_too() -> None:
    gate = Gate()
    server = hs.serve(gate, LOCAL, drain_timeout=60, workers=1, max_connections=2)
    try:
        clients = [connect_to(server.address) for _ in range(4)]
        gate.wait_until_running()
        assert poll_until(lambda: server.stats().waiting == 1, 60)
        assert poll_until(lambda: server.listener.stats().queue_length == 2, 60)
        report = drained(server, timeout=0.1)
    finally:
        gate.go.set()
    for client in clients:
        with pytest.raises(ConnectionResetError):
            rest_of(client)
        client.close()
    assert report.unaccepted == 2
    assert {cut.phase: cut.running for cut in report.cut} == {"handler": True, "waiting": False}
    assert not gate.running.acquire(blocking=False), "it never ran"


def test_who_waits_in_the_kernel_s_queue_is_served_as_room_comes_free() -> None:
    gate = Gate()

    def handler(conn: hs.Connection) -> None:
        gate(conn)
        conn.sendall(conn.recv(10).upper())

    server = hs.serve(handler, LOCAL, drain_timeout=60, workers=1)
    clients = [connect_to(server.address) for _ in range(4)]
    gate.wait_until_running()
    assert poll_until(lambda: server.listener.stats().queue_length == 3, 60)
    with Call(drained, server) as draining:
        assert poll_until(lambda: getattr(server._wakeup, "name", "") == "drain", 60)
        late = connect_to(server.address)  # The listener is still open: its turn never comes.
        gate.go.set()
        for client in clients:
            client.sendall(b"request")
            assert rest_of(client) == b"REQUEST"
            client.close()
        with pytest.raises(ConnectionResetError):
            rest_of(late)
        late.close()
        report = draining.result()
    assert (report.completed, report.unaccepted, report.clean) == (4, 1, True)


def test_who_was_answered_and_only_lingers_is_not_cut() -> None:
    server = hs.serve(lambda conn: conn.sendall(b"whole"), LOCAL, drain_timeout=60, linger=60.0)
    with connect_to(server.address) as client:
        client.settimeout(60)
        assert rest_of(client) == b"whole"
        report = drained(server, timeout=0.1)
    assert (report.completed, report.cut, report.clean) == (1, (), True)
    assert (server.stats().handled, server.stats().endings) == (1, {"closed": 1})


class AcceptsWhileItDrains:
    """A listener whose accept returns just when the drain has begun."""

    def __init__(self, listener: hs.Listener) -> None:
        self._listener = listener
        self.server: hs.Server | None = None
        self.ready = threading.Event()

    def accept_many(self, max_count: int, **kwargs: Any) -> list[hs.Connection]:
        assert self.ready.wait(60)
        kwargs.pop("token", None)
        conns = self._listener.accept_many(max_count, **kwargs)
        assert self.server is not None
        self.server.stop("just now")
        return conns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)


def test_a_connection_accepted_as_the_drain_begins_is_served() -> None:
    listener = AcceptsWhileItDrains(hs.listen(LOCAL))

    def handler(conn: hs.Connection) -> None:
        conn.sendall(conn.recv_exactly(5, timeout=30))

    with connect_to(listener.address) as one, connect_to(listener.address) as two:
        for client in (one, two):
            client.sendall(b"hello")
        options = ServeOptions(drain_timeout=10, workers=1, max_connections=2)
        server = listener.server = hs.Server(handler, listener, options)  # type: ignore[arg-type]
        listener.ready.set()
        for client in (one, two):
            client.shutdown(socket.SHUT_WR)
            assert rest_of(client) == b"hello"
        assert server.wait(60)
        server.drain()
    assert server.report is not None
    assert server.report.reason == "just now"
    assert (server.report.completed, server.report.cut) == (2, ())


@pytest.mark.parametrize("turn", range(10))
def test_draining_amid_a_crowd_loses_no_connection(turn: int) -> None:
    server = hs.serve(echo, LOCAL, drain_timeout=10, workers=4)

    def client(_index: int) -> int:
        served = 0
        while True:
            try:
                if ask(server.address) != b"hello":
                    return served
                served += 1
            except OSError:
                return served

    with Call(run_threaded, client, 4) as clients:
        assert poll_until(lambda: server.stats().handled >= 8 + turn, 60)
        report = drained(server)
        served = sum(clients.result())
    assert report.clean, report
    assert server.stats().handled + server.stats().cut >= served
    assert server.stats().failed == server.stats().errors.get("Reset", 0)


def test_a_drain_from_a_handler_is_refused_and_stop_is_not() -> None:
    outcomes: list[object] = []

    def handler(conn: hs.Connection) -> None:
        for call in (server.drain, server.wait):
            with pytest.raises(RuntimeError, match="stop\\(\\)") as caught:
                call()
            outcomes.append(caught.value)
        server.stop("a client asked for it")
        conn.sendall(b"bye")

    with hs.serve(handler, LOCAL, drain_timeout=10) as server:
        assert ask(server.address) == b"bye"
        assert server.wait(60)
    assert len(outcomes) == 2
    assert server.report is not None
    assert server.report.reason == "a client asked for it"
    assert server.report.completed == 1


_SERVER = """
import signal
import sys
import hardsock as hs
from hardsock.lab.waits import poll_until

def handler(conn):
    conn.recv(100)
    # The main thread may not be in wait() yet, where SIGTERM ends nothing but the server.
    assert poll_until(lambda: signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, 60)
    conn.sendall(b"begun")
    conn.recv_exactly(2)
    conn.sendall(b"whole")

def threads():
    with hs.serve(handler, ("127.0.0.1", 0), drain_timeout=60) as server:
        print(server.address[1], flush=True)
        server.wait()
        print(server.report.reason, flush=True)

async def awaited(conn):
    await conn.recv(100)
    await conn.sendall(b"begun")
    await conn.recv_exactly(2)
    await conn.sendall(b"whole")

async def loop():
    from hardsock import aio
    async with aio.serve(awaited, ("127.0.0.1", 0), drain_timeout=60) as server:
        print(server.address[1], flush=True)
        await server.wait()
        print(server.report.reason, flush=True)

if sys.argv[1] == "threads":
    threads()
else:
    import asyncio
    asyncio.run(loop())
"""


def terminable(driver: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SERVER, driver], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("driver", ["threads", "asyncio"])
def test_sigterm_drains_and_the_request_under_way_is_answered(driver: str) -> None:
    with terminable(driver) as process:
        assert process.stdout is not None
        address = ("127.0.0.1", int(process.stdout.readline()))
        with connect_to(address) as client:
            client.settimeout(60)
            client.sendall(b"?")
            assert client.recv(5, socket.MSG_WAITALL) == b"begun"
            client.sendall(b"12")
            wait_until_caught(process.pid, signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            assert rest_of(client) == b"whole"
        assert process.stdout.readline() == "SIGTERM\n"
        assert process.wait(20) == 0


@pytest.mark.parametrize("driver", ["threads", "asyncio"])
def test_a_second_sigterm_cuts(driver: str) -> None:
    with terminable(driver) as process:
        assert process.stdout is not None
        address = ("127.0.0.1", int(process.stdout.readline()))
        with connect_to(address) as client:
            client.settimeout(60)
            client.sendall(b"?")
            assert client.recv(5, socket.MSG_WAITALL) == b"begun"
            client.sendall(b"1")  # Half a request: it stays busy, so the drain waits for it.
            wait_until_caught(process.pid, signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            assert poll_until(lambda: not accepts(address), 60)
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(ConnectionResetError):
                assert rest_of(client) == b""
        assert process.wait(20) == 0


def accepts(address: Any) -> bool:
    try:
        connect_to(address).close()
    except ConnectionError:
        return False
    return True


def test_a_handler_for_sigterm_that_exists_stays() -> None:
    def mine(_number: int, _frame: object) -> None:
        pass

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with hs.serve(echo, LOCAL, drain_timeout=30) as server:
            assert server.wait(0.01) is False
            assert signal.getsignal(signal.SIGTERM) is mine
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            assert server.wait(0.01) is False
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_later_drain_shortens_an_earlier_one() -> None:
    gate = Gate()
    server = hs.serve(gate, LOCAL, drain_timeout=60)
    try:
        with connect_to(server.address):
            gate.wait_until_running()
            with Call(server.drain) as patient:
                assert server.draining.wait(60)
                patient.wait_until_blocked()
                impatient = server.drain(0.1)
                assert patient.result() is impatient
    finally:
        gate.go.set()
    assert impatient.aborted == 1
    assert impatient.elapsed < 10


def test_a_token_ends_the_server_and_every_call_of_its_handlers() -> None:
    token = hs.CancelToken(name="all")
    server = hs.serve(lambda conn: conn.recv_exactly(9), LOCAL, drain_timeout=60, token=token)
    with connect_to(server.address) as client:
        client.sendall(b"x")
        assert poll_until(lambda: _received(server, 1), 60)
        token.cancel("pulled the plug")
        assert server.wait(60)
        with pytest.raises(ConnectionResetError):
            rest_of(client)
    report = drained(server)
    assert (report.cancelled, report.aborted) == (1, 0)
    assert report.reason == "pulled the plug"
    assert report.elapsed < 10


def test_a_token_ends_a_server_that_is_full() -> None:
    gate = Gate()
    token = hs.CancelToken(name="all")
    server = hs.serve(gate, LOCAL, drain_timeout=0.4, token=token, workers=1)
    try:
        with connect_to(server.address):
            gate.wait_until_running()
            assert poll_until(lambda: server.stats().full_count == 1, 60)
            token.cancel()
            assert server.wait(60)
    finally:
        gate.go.set()
    assert drained(server).aborted == 1


def test_waiting_has_a_timeout_and_obeys_tokens() -> None:
    with hs.serve(echo, LOCAL, drain_timeout=30) as server:
        assert server.wait(0.01) is False
        token = hs.CancelToken()
        with Call(server.wait, token=token) as waiting:
            waiting.wait_until_blocked()
            token.cancel("enough")
            with pytest.raises(hs.Cancelled, match="enough"):
                waiting.result()
        with hs.timeout(0.01), pytest.raises(hs.DeadlineExceeded):
            server.wait()
        with hs.timeout(60):
            assert server.wait(0.01) is False
        assert "serving" in repr(server)
    with hs.timeout(60):
        assert server.wait() is True
    assert "closed" in repr(server)


def test_a_drain_of_no_time_at_all_cuts_at_once() -> None:
    gate = Gate()
    server = hs.serve(gate, LOCAL, drain_timeout=0)
    try:
        with connect_to(server.address):
            gate.wait_until_running()
            assert drained(server).aborted == 1
    finally:
        gate.go.set()


def test_switching_threads_all_the_time_changes_nothing() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with hs.serve(echo, LOCAL, drain_timeout=10, workers=3, max_connections=5) as server:
            run_threaded(lambda _: [ask(server.address) for _ in range(40)], 6, timeout=60)
            stats = settled(server)
        assert stats.handled == 240
    finally:
        sys.setswitchinterval(interval)
