"""serve: bounded threads, back-pressure, orderly ends, and a drain that keeps its deadline."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.waits import poll_until
from hardsock.serving.options import ServeOptions
from support import Call, connect_to, run_threaded
from support.signals import wait_until_caught

LOCAL = ("127.0.0.1", 0)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def echo(conn: hs.Connection) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


def ask(address: Any, message: bytes = b"hello") -> bytes:
    """What the server answers to a client that ends its side."""
    with connect_to(address) as client:
        client.settimeout(10)
        client.sendall(message)
        client.shutdown(socket.SHUT_WR)
        return rest_of(client)


def rest_of(client: socket.socket) -> bytes:
    client.settimeout(10)
    parts = []
    while data := client.recv(65536):
        parts.append(data)
    return b"".join(parts)


def settled(server: hs.Server) -> hs.ServerStats:
    """The statistics once nothing is active; the sum must be right."""
    assert poll_until(lambda: server.stats().active == 0, 10)
    stats = server.stats()
    assert stats.accepted == stats.handled + stats.failed + stats.cut
    return stats


class Gate:
    """A handler that says when it runs, and returns when it is let go."""

    def __init__(self) -> None:
        self.running = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self, conn: hs.Connection) -> None:
        self.running.release()
        self.go.wait(30)

    def wait_until_running(self, n: int = 1) -> None:
        for _ in range(n):
            assert self.running.acquire(timeout=10)


# ---- serving ------------------------------------------------------------------------------------


def test_it_serves_and_counts() -> None:
    with hs.serve(echo, LOCAL, drain_timeout=5) as server:
        assert ask(server.address, b"one") == b"one"
        settled(server)
        assert ask(server.address, b"two") == b"two"
        stats = settled(server)
    assert (stats.accepted, stats.handled, stats.failed, stats.cut) == (2, 2, 0, 0)
    assert stats.endings == {"clean": 2}
    assert 0 < stats.start_delay_mean <= stats.start_delay_max < 5
    assert stats.peak_active == 1
    assert server.closed
    assert server.report is not None
    assert server.report.clean


def test_threads_are_started_when_needed_and_used_again() -> None:
    gate = Gate()
    with hs.serve(lambda conn: gate(conn), LOCAL, drain_timeout=5, workers=8) as server:
        assert server.stats().workers == 1
        clients = [connect_to(server.address) for _ in range(3)]
        gate.wait_until_running(3)
        assert server.stats().workers == 3
        gate.go.set()
        for client in clients:
            assert rest_of(client) == b""
            client.close()
        settled(server)
        for _ in range(20):
            assert ask(server.address, b"") == b""
        assert server.stats().workers <= 4


def test_when_all_is_full_the_kernel_holds_the_queue() -> None:
    gate = Gate()
    with hs.serve(gate, LOCAL, drain_timeout=5, workers=2) as server:
        clients = [connect_to(server.address) for _ in range(10)]
        gate.wait_until_running(2)
        assert poll_until(lambda: server.listener.stats().queue_length == 8, 10)
        stats = server.stats()
        assert (stats.accepted, stats.active, stats.waiting, stats.workers) == (2, 2, 0, 2)
        assert not gate.running.acquire(blocking=False)
        assert poll_until(lambda: server.stats().full_count == 1, 10)
        gate.go.set()
        for client in clients:
            assert rest_of(client) == b""
            client.close()
        stats = settled(server)
    assert (stats.accepted, stats.handled, stats.peak_active) == (10, 10, 2)
    assert stats.full_count >= 1
    assert stats.full_seconds > 0


def test_more_connections_than_workers_wait_for_a_thread() -> None:
    gate = Gate()
    with hs.serve(gate, LOCAL, drain_timeout=5, workers=1, max_connections=3) as server:
        clients = [connect_to(server.address) for _ in range(5)]
        gate.wait_until_running()
        assert poll_until(lambda: server.stats().waiting == 2, 10)
        assert poll_until(lambda: server.listener.stats().queue_length == 2, 10)
        gate.go.set()
        for client in clients:
            assert rest_of(client) == b""
            client.close()
        assert settled(server).peak_active == 3


def test_quiet_connections_take_no_worker() -> None:
    """Two workers, sixteen clients that stay: a wait for the client gives the slot to the next."""
    running: list[int] = []
    most: list[int] = []

    def handler(conn: hs.Connection) -> None:
        while line := conn.recv(100):
            running.append(1)
            most.append(len(running))
            running.pop()
            conn.sendall(line)

    with hs.serve(handler, LOCAL, drain_timeout=5, workers=2, max_connections=16) as server:
        clients = [connect_to(server.address) for _ in range(16)]
        for turn in range(3):
            for client in clients:
                client.sendall(b"%d" % turn)
            for client in clients:
                client.settimeout(10)
                assert client.recv(10) == b"%d" % turn
        for client in clients:
            client.close()
        stats = settled(server)
    assert stats.peak_active == stats.handled == 16
    assert max(most) <= 2


def test_a_client_that_drips_or_does_not_read_takes_no_worker() -> None:
    def handler(conn: hs.Connection) -> None:
        if conn.recv_exactly(4) == b"much":
            with contextlib.suppress(hs.HardsockError):
                conn.sendall(bytes(1 << 26))
        else:
            conn.sendall(b"fine")

    with hs.serve(handler, LOCAL, drain_timeout=0.2, workers=1, max_connections=8) as server:
        with connect_to(server.address) as drips, connect_to(server.address) as deaf:
            drips.sendall(b"dri")
            deaf.sendall(b"much")
            for _ in range(3):
                assert ask(server.address, b"work") == b"fine"


def test_no_more_handlers_run_than_there_are_workers() -> None:
    gate = Gate()
    with hs.serve(gate, LOCAL, drain_timeout=5, workers=2, max_connections=8) as server:
        clients = [connect_to(server.address) for _ in range(8)]
        gate.wait_until_running(2)
        assert poll_until(lambda: server.stats().waiting == 6, 10)
        assert not gate.running.acquire(blocking=False)
        gate.go.set()
        for client in clients:
            assert rest_of(client) == b""
            client.close()
        assert settled(server).handled == 8


def test_lingering_connections_make_room_for_the_next() -> None:
    """Clients that were answered and stay: each would hold its place and thread for the linger."""

    def handler(conn: hs.Connection) -> None:
        conn.sendall(conn.recv(4))

    with hs.serve(handler, LOCAL, drain_timeout=60, workers=2, linger=60.0) as server:
        answered = []
        for _ in range(10):
            client = connect_to(server.address)
            client.settimeout(10)
            client.sendall(b"here")
            assert client.recv(4, socket.MSG_WAITALL) == b"here"
            answered.append(client)
        stats = server.stats()
        assert stats.peak_active <= 2
        assert (stats.accepted, stats.failed, stats.cut) == (10, 0, 0)
        for client in answered:
            assert rest_of(client) == b""
            client.close()
        assert settled(server).handled == 10


@pytest.mark.parametrize("per", ["connection", "message"])
def test_clients_that_only_linger_cost_no_thread(per: Any) -> None:
    """However many: they are parked, beside those that are served."""

    def handler(conn: hs.Connection) -> None:
        conn.sendall(conn.recv(4))
        conn.close_write()

    with hs.serve(
        handler, LOCAL, drain_timeout=60, per=per, workers=2, max_connections=100, linger=60.0
    ) as server:
        lingering = []
        for _ in range(40):
            client = connect_to(server.address)
            client.sendall(b"here")
            assert rest_of(client) == b"here"
            lingering.append(client)
        stats = server.stats()
        assert (stats.active, stats.handled) == (40, 0)
        # Who reads the end may come again before the thread is free: some have one more.
        assert stats.workers < 10
        assert sum("lingering" in thread.name for thread in threading.enumerate()) <= 1
        assert ask(server.address, b"more") == b"more"
        for client in lingering:
            client.close()
        assert poll_until(lambda: server.stats().handled == 41, 10)
        assert settled(server).endings == {"clean": 41}


def test_without_a_thread_for_those_that_linger_the_workers_wait_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def start_others(self: threading.Thread) -> None:
        if "lingering" in self.name:
            raise RuntimeError("can't start new thread")
        start(self)

    with hs.serve(echo, LOCAL, drain_timeout=60, workers=2, linger=60.0) as server:
        monkeypatch.setattr(threading.Thread, "start", start_others)
        for turn in range(1, 6):
            assert ask(server.address) == b"hello"
            # One at a time: two that linger would be given up for the third's sake.
            assert settled(server).endings == {"clean": turn}
        monkeypatch.undo()
        assert ask(server.address) == b"hello"
        assert settled(server).endings == {"clean": 6}


def test_two_thousand_short_connections_add_up() -> None:
    def client(index: int) -> None:
        for turn in range(250):
            message = f"{index}-{turn}".encode()
            assert ask(server.address, message) == message

    with hs.serve(echo, LOCAL, drain_timeout=10, workers=8) as server:
        run_threaded(client, 8, timeout=60)
        stats = settled(server)
    assert stats.accepted == stats.handled == 2000
    assert stats.workers <= 8
    assert stats.peak_active <= 8


def test_a_storm_of_resets_is_survived_and_counted() -> None:
    def rude(_index: int) -> None:
        for turn in range(50):
            client = connect_to(server.address)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            if turn % 2:
                client.sendall(b"x" * 1000)
            client.close()

    with hs.serve(echo, LOCAL, drain_timeout=5, workers=4) as server:
        run_threaded(rude, 4)
        assert ask(server.address) == b"hello"
        stats = settled(server)
    assert set(stats.errors) <= {"Reset"}
    assert stats.failed == stats.errors.get("Reset", 0) > 0


def test_input_that_nobody_reads_does_not_destroy_the_answer() -> None:
    answer = b"z" * 200_000

    def refuse(conn: hs.Connection) -> None:
        conn.recv(1)
        conn.sendall(answer)

    with hs.serve(refuse, LOCAL, drain_timeout=5) as server:
        assert ask(server.address, b"u" * 300_000) == answer
        assert settled(server).endings == {"clean": 1}


def test_a_client_that_never_ends_is_given_up_after_the_linger() -> None:
    with hs.serve(lambda conn: None, LOCAL, drain_timeout=5, linger=0.05) as server:
        with connect_to(server.address) as client:
            assert rest_of(client) == b""
            stats = settled(server)
        assert (stats.handled, stats.endings) == (1, {"deadline": 1})


def test_a_handler_may_close_or_detach_its_connection() -> None:
    taken = []

    def handler(conn: hs.Connection) -> None:
        if conn.recv(1) == b"c":
            conn.close()
        else:
            taken.append(conn.detach())

    with hs.serve(handler, LOCAL, drain_timeout=5) as server:
        assert ask(server.address, b"c") == b""
        with connect_to(server.address) as client:
            client.sendall(b"d")
            assert poll_until(lambda: bool(taken), 10)
            with socket.socket(fileno=taken[0]) as mine:
                mine.sendall(b"mine")
            assert rest_of(client) == b"mine"
        assert settled(server).endings == {"closed": 2}


def test_the_scope_of_a_handler_is_its_connection() -> None:
    seen: list[tuple[str, bool]] = []

    def handler(conn: hs.Connection) -> None:
        token = hs.current()
        assert token is not None
        host, port = conn.getpeername()
        seen.append((token.name, token.name == f"{host}:{port}"))
        seen.append(("told", hs.draining() is server.draining))

    with hs.timeout(30), hs.serve(handler, LOCAL, drain_timeout=5) as server:
        ask(server.address)
        settled(server)
        assert all(ok for _, ok in seen), seen
        assert len(seen) == 2
    assert hs.draining() is None


def test_the_caller_s_scope_does_not_end_what_it_does_not_see() -> None:
    with hs.timeout(0.01) as short:
        server = hs.serve(echo, LOCAL, drain_timeout=5)
    assert short.wait(5)
    with server:
        assert ask(server.address) == b"hello"


def test_unix_sockets_are_served() -> None:
    with hs.serve(echo, "unix:@hardsock-test-serve", drain_timeout=5) as server:
        with hs.connect("unix:@hardsock-test-serve", timeout=5) as client:
            client.sendall(b"x")
            assert client.recv(1, timeout=5) == b"x"
        settled(server)
    assert server.report is not None
    assert server.report.unaccepted is None


def test_a_listener_that_exists_is_taken_over() -> None:
    listener = hs.listen(LOCAL, backlog=7)
    with hs.serve(echo, listener, drain_timeout=5) as server:
        assert server.listener is listener
        assert ask(listener.address) == b"hello"
    assert listener.closed
    with pytest.raises(ValueError, match="address is a Listener that was closed"):
        hs.serve(echo, listener, drain_timeout=5)


def test_an_idle_timeout_ends_only_who_waits_for_a_message() -> None:
    gate = Gate()

    def handler(conn: hs.Connection) -> None:
        if (data := conn.recv(10)) == b"compute":
            gate(conn)
        conn.sendall(data)
        echo(conn)

    with hs.serve(handler, LOCAL, drain_timeout=5, idle_timeout=0.1) as server:
        with connect_to(server.address) as busy, connect_to(server.address) as lazy:
            busy.sendall(b"compute")
            gate.wait_until_running()
            lazy.sendall(b"x")
            assert rest_of(lazy) == b"x"
            assert poll_until(lambda: server.stats().idle_timeouts == 1, 10)
            gate.go.set()
            busy.settimeout(10)
            assert busy.recv(10) == b"compute"
        stats = settled(server)
    assert stats.cut == stats.idle_timeouts >= 1
    assert stats.failed == 0


# ---- handlers that fail -------------------------------------------------------------------------


def failures(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, type | None]]:
    """Logger, message and exception of errors; forgets the records, whose tracebacks keep objects."""
    found = [
        (record.name, record.getMessage(), record.exc_info[0] if record.exc_info else None)
        for record in caplog.records
        if record.levelno >= logging.ERROR
    ]
    caplog.clear()
    return found


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_handler_that_raises_is_logged_once_and_its_client_reset(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def handler(conn: hs.Connection) -> None:
        if conn.recv(1) == b"x":
            raise error("on purpose")
        conn.sendall(b"fine")

    with hs.serve(handler, LOCAL, drain_timeout=5, workers=1) as server:
        with connect_to(server.address) as client:
            peer = "{}:{}".format(*client.getsockname())
            client.sendall(b"x")
            with pytest.raises(ConnectionResetError):
                rest_of(client)
        assert ask(server.address, b"y") == b"fine"
        stats = settled(server)
    assert (stats.failed, stats.errors, stats.workers) == (1, {error.__name__: 1}, 1)
    assert failures(caplog) == [("hardsock.serve", f"the handler of {peer} failed", error)]


def test_what_the_peer_does_wrong_is_counted_and_not_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "hardsock.serve")

    def handler(conn: hs.Connection) -> None:
        while True:
            conn.sendall(conn.recv_exactly(4, timeout=0.05))

    with hs.serve(handler, LOCAL, drain_timeout=5) as server:
        assert ask(server.address, b"four") == b"four", "an end between messages is no error"
        assert ask(server.address, b"four++") == b"four", "the last answer arrives"
        with connect_to(server.address) as slow, pytest.raises(ConnectionResetError):
            slow.sendall(b"sl")
            rest_of(slow)
        stats = settled(server)
    assert stats.errors == {"Truncated": 1, "DeadlineExceeded": 1}
    assert (stats.handled, stats.failed) == (1, 2)
    levels = [r.levelno for r in caplog.records if r.name == "hardsock.serve" and r.args]
    assert levels.count(logging.DEBUG) == 2
    assert failures(caplog) == []


def test_a_handler_that_catches_a_failed_send_does_not_make_half_a_message_whole() -> None:
    def handler(conn: hs.Connection) -> None:
        with pytest.raises(hs.DeadlineExceeded):
            conn.sendall(b"x" * (1 << 26), timeout=0.05)

    with hs.serve(handler, LOCAL, drain_timeout=5) as server:
        with connect_to(server.address) as client:
            assert poll_until(lambda: server.stats().handled == 1, 10)
            with pytest.raises(ConnectionResetError):
                rest_of(client)
        assert server.stats().endings == {"aborted": 1}


def test_a_handler_that_refuses_a_frame_is_heard() -> None:
    """Reading is over, but what it says about that goes out, and the client's rest does no harm."""

    def refuse(conn: hs.Connection) -> None:
        with pytest.raises(hs.BadFrame):
            conn.recv_line(hs.Line("\r\n"))
        assert conn.poisoned
        assert not conn.write_poisoned
        conn.sendall(b"500 bare LF\r\n")

    with hs.serve(refuse, LOCAL, drain_timeout=5) as server:
        with hs.connect(server.address, timeout=5) as client, hs.timeout(10):
            client.sendall(b"a\nb\r\n" + b"x" * 100_000)
            assert client.recv_line(hs.Line("\r\n")) == b"500 bare LF"
            with pytest.raises(hs.EndOfStream):
                client.recv_line()
    assert server.stats().failed == 0


def test_an_error_of_another_connection_is_the_handler_s(caplog: pytest.LogCaptureFixture) -> None:
    def proxy(conn: hs.Connection) -> None:
        with hs.connect(quiet.address, timeout=5) as upstream:
            upstream.recv(1, timeout=0.01)

    with hs.listen(LOCAL) as quiet, hs.serve(proxy, LOCAL, drain_timeout=5) as server:
        with connect_to(server.address) as client, pytest.raises(ConnectionResetError):
            rest_of(client)
        assert settled(server).errors == {"DeadlineExceeded": 1}
    assert len(failures(caplog)) == 1


def test_a_process_that_can_start_no_more_threads_serves_with_those_it_has(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()

    def no_thread(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with hs.serve(gate, LOCAL, drain_timeout=5, workers=4) as server:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            clients = [connect_to(server.address) for _ in range(3)]
            gate.wait_until_running()
            assert poll_until(lambda: server.stats().waiting == 2, 10)
        assert server.stats().workers == 1
        gate.go.set()
        for client in clients:
            assert rest_of(client) == b""
            client.close()
        settled(server)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [  # Once a minute, and what is left at the end.
        "1 of 4 workers: can't start new thread",
        "1 times more in the last minute, at last: 1 of 4 workers: can't start new thread",
    ]


_FEW_DESCRIPTORS = """
import resource, sys, warnings
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
warnings.simplefilter("ignore")
import hardsock as hs

def handler(conn):
    while data := conn.recv(100):
        conn.sendall(data)

with hs.serve(handler, ("127.0.0.1", 0), drain_timeout=5, **eval(sys.argv[1])) as server:
    print(server.address[1], flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("settings", ["{}", "dict(workers=4, max_connections=200)"])
def test_with_few_descriptors_nobody_is_left_in_silence(settings: str) -> None:
    """Each worker's thread takes one to be woken by, and must not take the listener's reserve."""
    argv = [sys.executable, "-c", _FEW_DESCRIPTORS, settings]
    told = 0
    with (
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
        contextlib.ExitStack() as stack,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        stack.callback(process.stdin.close)
        address = ("127.0.0.1", int(process.stdout.readline()))
        clients = []
        for _ in range(120):
            try:
                client = stack.enter_context(connect_to(address))
                client.sendall(b"hi")
                clients.append(client)
            except ConnectionError:
                told += 1
        for client in clients:
            client.settimeout(10)
            with contextlib.suppress(ConnectionError):
                assert client.recv(10) == b"hi"
            told += 1
    assert told == 120


# ---- draining -----------------------------------------------------------------------------------


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
        client.settimeout(10)
        assert client.recv(1) == b"x"
        assert poll_until(lambda: server.stats().active == 2, 10)
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
            assert server.draining.wait(10)
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
        assert poll_until(lambda: server.stats().active == 1, 10)
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
        client.settimeout(10)
        client.sendall(b"1234" + b"12")
        assert client.recv(4) == b"1234"
        assert poll_until(lambda: _received(server, 6), 10)
        with Call(drained, server) as draining:
            assert server.draining.wait(10)
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
        assert poll_until(lambda: server.stats().active == 2, 10)
        with Call(drained, server) as draining:
            assert server.draining.wait(10)
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
        assert poll_until(lambda: _received(server, 9) and lines == [b"whole"], 10)
        with Call(drained, server) as draining:
            assert server.draining.wait(10)
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
        assert told.wait(10)
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
        assert poll_until(lambda: server.stats().active == 1, 10)
        server.stop("enough")
        assert server.wait(10)
    assert outcomes == ["enough"]


def test_who_has_just_connected_is_about_to_ask_per_message() -> None:
    def handler(conn: hs.Connection) -> None:
        conn.sendall(conn.recv(100).upper())

    server = hs.serve(handler, LOCAL, per="message", drain_timeout=60)
    with connect_to(server.address) as client:
        client.settimeout(10)
        assert poll_until(lambda: server.stats().parked == 1, 10)
        server.stop()
        assert server.draining.wait(10)
        client.sendall(b"hello")
        assert client.recv(5, socket.MSG_WAITALL) == b"HELLO"
    assert server.wait(10)
    report = server.drain(0)  # Either found it quiet after its answer, or gone.
    assert report.clean
    assert server.stats().handled + report.idle_closed == 1


@pytest.mark.parametrize("told", [True, False])
def test_who_has_just_connected_is_about_to_ask(told: bool) -> None:
    """A client that is closed before its first request is lost; an idle one asks elsewhere."""

    def handler(conn: hs.Connection) -> None:
        token = hs.draining()
        assert token is not None
        begun.set()
        conn.sendall(conn.recv(100, token=token if told else None).upper())

    begun = threading.Event()
    server = hs.serve(handler, LOCAL, drain_timeout=60)
    with connect_to(server.address) as client:
        client.settimeout(10)
        assert begun.wait(10)
        server.stop()
        assert server.draining.wait(10)
        client.sendall(b"hello")
        assert client.recv(5, socket.MSG_WAITALL) == b"HELLO"
    assert server.wait(10)
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
        assert poll_until(lambda: server.stats().active == 1, 10)
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
            assert server.draining.wait(10)
            assert poll_until(lambda: server.listener.closed, 10)
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
        report = drained(server, timeout=2.0)  # 0.375 s from the cancel to the reset
        with pytest.raises(ConnectionResetError):
            rest_of(client)
    assert reasons == ["the server is draining and the time is up"]
    assert (report.cancelled, report.aborted, report.running) == (1, 0, 0)
    (cut,) = report.cut
    assert (cut.peer, cut.how, cut.phase) == (peer, "cancelled", "handler")
    assert (cut.bytes_received, cut.bytes_sent, cut.running, cut.stack) == (4, 0, False, None)
    assert 0 < cut.age < 30
    assert report.elapsed <= 2.1
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
        assert poll_until(lambda: server.stats().waiting == 1, 10)
        assert poll_until(lambda: server.listener.stats().queue_length == 2, 10)
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
    assert poll_until(lambda: server.listener.stats().queue_length == 3, 10)
    with Call(drained, server) as draining:
        assert poll_until(lambda: getattr(server._bell, "name", "") == "drain", 10)
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
        client.settimeout(10)
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
        assert self.ready.wait(10)
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
        conn.sendall(conn.recv_exactly(5, timeout=5))

    with connect_to(listener.address) as one, connect_to(listener.address) as two:
        for client in (one, two):
            client.sendall(b"hello")
        options = ServeOptions(drain_timeout=10, workers=1, max_connections=2)
        server = listener.server = hs.Server(handler, listener, options)  # type: ignore[arg-type]
        listener.ready.set()
        for client in (one, two):
            client.shutdown(socket.SHUT_WR)
            assert rest_of(client) == b"hello"
        assert server.wait(10)
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
        assert poll_until(lambda: server.stats().handled >= 8 + turn, 10)
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
        assert server.wait(10)
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
    assert poll_until(lambda: signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, 10)
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
            client.settimeout(10)
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
            client.settimeout(10)
            client.sendall(b"?")
            assert client.recv(5, socket.MSG_WAITALL) == b"begun"
            client.sendall(b"1")  # Half a request: it stays busy, so the drain waits for it.
            wait_until_caught(process.pid, signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            assert poll_until(lambda: not accepts(address), 10)
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
        with hs.serve(echo, LOCAL, drain_timeout=5) as server:
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
                assert server.draining.wait(10)
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
        assert poll_until(lambda: _received(server, 1), 10)
        token.cancel("pulled the plug")
        assert server.wait(10)
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
            assert poll_until(lambda: server.stats().full_count == 1, 10)
            token.cancel()
            assert server.wait(10)
    finally:
        gate.go.set()
    assert drained(server).aborted == 1


def test_waiting_has_a_timeout_and_obeys_tokens() -> None:
    with hs.serve(echo, LOCAL, drain_timeout=5) as server:
        assert server.wait(0.01) is False
        token = hs.CancelToken()
        with Call(server.wait, token=token) as waiting:
            waiting.wait_until_blocked()
            token.cancel("enough")
            with pytest.raises(hs.Cancelled, match="enough"):
                waiting.result()
        with hs.timeout(0.01), pytest.raises(hs.DeadlineExceeded):
            server.wait()
        with hs.timeout(10):
            assert server.wait(0.01) is False
        assert "serving" in repr(server)
    with hs.timeout(10):
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


# ---- parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"drain_timeout": None}, ValueError, "drain_timeout must be a number, got None"),
        ({"drain_timeout": float("inf")}, ValueError, "drain_timeout must be a number, got inf"),
        ({"drain_timeout": -1}, ValueError, r"drain_timeout must be in 0\.\.86400"),
        ({"workers": 0}, ValueError, r"workers must be in 1\.\.10000, got 0"),
        ({"workers": True}, TypeError, "workers must be an int"),
        ({"max_connections": 0}, ValueError, r"max_connections must be in 1\.\.1000000, got 0"),
        (
            {"workers": 8, "max_connections": 4},
            ValueError,
            "workers=8 and max_connections=4 contradict",
        ),
        ({"idle_timeout": 0}, ValueError, "idle_timeout must be in"),
        ({"linger": 6.0}, ValueError, "linger=6 and drain_timeout=5 contradict"),
        ({"drain_idle": 3.0}, ValueError, "drain_idle=3 and drain_timeout=5 contradict"),
        ({"drain_idle": -1}, ValueError, "drain_idle must"),
        ({"drain_idle": None}, ValueError, "drain_idle must be a number"),
        ({"linger": None}, ValueError, "linger must be a number"),
        ({"name": 3}, TypeError, "name must be a str or None"),
        ({"token": 3}, TypeError, "token must be a CancelToken or None, not int"),
        ({"backlog": -1}, ValueError, "backlog"),
        ({"handler": 3}, TypeError, "handler must be callable, not int"),
        ({"address": "nonsense"}, ValueError, "address"),
    ],
)
def test_bad_parameters_are_named(
    kwargs: dict[str, Any], error: type[Exception], message: str
) -> None:
    given: dict[str, Any] = {"handler": echo, "address": LOCAL, "drain_timeout": 5, **kwargs}
    with pytest.raises(error, match=message):
        hs.serve(given.pop("handler"), given.pop("address"), **given)


def test_a_coroutine_function_is_no_handler() -> None:
    async def handler(conn: hs.Connection) -> None:
        pass

    with pytest.raises(TypeError, match="threads cannot await"):
        hs.serve(handler, LOCAL, drain_timeout=5)


def test_options_of_a_listener_that_exists_are_refused() -> None:
    with hs.listen(LOCAL) as listener:
        with pytest.raises(ValueError, match="backlog=5 and an address that is a Listener"):
            hs.serve(echo, listener, drain_timeout=5, backlog=5)
        assert not listener.closed


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"timeout": -1}, "timeout must be in"),
        ({"timeout": 1, "grace": 2}, "grace=2 and timeout=1 contradict"),
        ({"timeout": float("inf")}, "timeout must be a number"),
    ],
)
def test_bad_drains_are_refused_and_the_server_goes_on(
    kwargs: dict[str, Any], message: str
) -> None:
    with hs.serve(echo, LOCAL, drain_timeout=5) as server:
        with pytest.raises(ValueError, match=message):
            server.drain(**kwargs)
        assert ask(server.address) == b"hello"


def test_defaults_give_way_to_what_contradicts_them() -> None:
    options = ServeOptions(drain_timeout=0.5, max_connections=3)
    assert (options.workers, options.limit, options.linger) == (3, 3, 0.5)
    assert options.drain_idle == 0.125
    options = ServeOptions(drain_timeout=10)
    assert (options.workers, options.limit, options.linger) == (64, 64, 2.0)
    assert options.drain_idle == 1.0


def test_more_connections_than_descriptors_is_a_warning() -> None:
    with pytest.warns(hs.SettingWarning, match=r"max_connections=900000, .*RLIMIT_NOFILE"):
        ServeOptions(drain_timeout=1, max_connections=900_000)
