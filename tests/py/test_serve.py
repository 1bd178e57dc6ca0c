"""serve: bounded threads, back-pressure, and orderly ends."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.endpoint import connect_to
from hardsock.lab.threads import run_threaded
from hardsock.lab.waits import poll_until
from hardsock.serving.options import ServeOptions
from support.served import LOCAL, Gate, ask, echo, rest_of, settled

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


# ---- serving


def test_it_serves_and_counts() -> None:
    with hs.serve(echo, LOCAL, drain_timeout=30) as server:
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
    with hs.serve(lambda conn: gate(conn), LOCAL, drain_timeout=30, workers=8) as server:
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
    with hs.serve(gate, LOCAL, drain_timeout=30, workers=2) as server:
        clients = [connect_to(server.address) for _ in range(10)]
        gate.wait_until_running(2)
        assert poll_until(lambda: server.listener.stats().queue_length == 8, 60)
        stats = server.stats()
        assert (stats.accepted, stats.active, stats.waiting, stats.workers) == (2, 2, 0, 2)
        assert not gate.running.acquire(blocking=False)
        assert poll_until(lambda: server.stats().full_count == 1, 60)
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
    with hs.serve(gate, LOCAL, drain_timeout=30, workers=1, max_connections=3) as server:
        clients = [connect_to(server.address) for _ in range(5)]
        gate.wait_until_running()
        assert poll_until(lambda: server.stats().waiting == 2, 60)
        assert poll_until(lambda: server.listener.stats().queue_length == 2, 60)
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

    with hs.serve(handler, LOCAL, drain_timeout=30, workers=2, max_connections=16) as server:
        clients = [connect_to(server.address) for _ in range(16)]
        for turn in range(3):
            for client in clients:
                client.sendall(b"%d" % turn)
            for client in clients:
                client.settimeout(60)
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
    with hs.serve(gate, LOCAL, drain_timeout=30, workers=2, max_connections=8) as server:
        clients = [connect_to(server.address) for _ in range(8)]
        gate.wait_until_running(2)
        assert poll_until(lambda: server.stats().waiting == 6, 60)
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
            client.settimeout(60)
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
        assert poll_until(lambda: server.stats().handled == 41, 60)
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

    with hs.serve(echo, LOCAL, drain_timeout=30, workers=4) as server:
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

    with hs.serve(refuse, LOCAL, drain_timeout=30) as server:
        assert ask(server.address, b"u" * 300_000) == answer
        assert settled(server).endings == {"clean": 1}


def test_a_client_that_never_ends_is_given_up_after_the_linger() -> None:
    with hs.serve(lambda conn: None, LOCAL, drain_timeout=30, linger=0.05) as server:
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

    with hs.serve(handler, LOCAL, drain_timeout=30) as server:
        assert ask(server.address, b"c") == b""
        with connect_to(server.address) as client:
            client.sendall(b"d")
            assert poll_until(lambda: bool(taken), 60)
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

    with hs.timeout(30), hs.serve(handler, LOCAL, drain_timeout=30) as server:
        ask(server.address)
        settled(server)
        assert all(ok for _, ok in seen), seen
        assert len(seen) == 2
    assert hs.draining() is None


def test_the_caller_s_scope_does_not_end_what_it_does_not_see() -> None:
    with hs.timeout(0.01) as short:
        server = hs.serve(echo, LOCAL, drain_timeout=30)
    assert short.wait(30)
    with server:
        assert ask(server.address) == b"hello"


def test_unix_sockets_are_served() -> None:
    with hs.serve(echo, "unix:@hardsock-test-serve", drain_timeout=30) as server:
        with hs.connect("unix:@hardsock-test-serve", timeout=30) as client:
            client.sendall(b"x")
            assert client.recv(1, timeout=30) == b"x"
        settled(server)
    assert server.report is not None
    assert server.report.unaccepted is None


def test_a_listener_that_exists_is_taken_over() -> None:
    listener = hs.listen(LOCAL, backlog=7)
    with hs.serve(echo, listener, drain_timeout=30) as server:
        assert server.listener is listener
        assert ask(listener.address) == b"hello"
    assert listener.closed
    with pytest.raises(ValueError, match="address is a Listener that was closed"):
        hs.serve(echo, listener, drain_timeout=30)


def test_an_idle_timeout_ends_only_who_waits_for_a_message() -> None:
    gate = Gate()

    def handler(conn: hs.Connection) -> None:
        if (data := conn.recv(10)) == b"compute":
            gate(conn)
        conn.sendall(data)
        echo(conn)

    with hs.serve(handler, LOCAL, drain_timeout=30, idle_timeout=1) as server:
        with connect_to(server.address) as busy:
            busy.sendall(b"compute")
            gate.wait_until_running()
            with connect_to(server.address) as lazy:
                lazy.sendall(b"x")
                assert rest_of(lazy) == b"x"
            assert poll_until(lambda: server.stats().idle_timeouts == 1, 60)
            gate.go.set()
            busy.settimeout(60)
            assert busy.recv(10) == b"compute"
        stats = settled(server)
    assert stats.cut == stats.idle_timeouts >= 1
    assert stats.failed == 0


# ---- parameters


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
        hs.serve(handler, LOCAL, drain_timeout=30)


def test_options_of_a_listener_that_exists_are_refused() -> None:
    with hs.listen(LOCAL) as listener:
        with pytest.raises(ValueError, match="backlog=5 and an address that is a Listener"):
            hs.serve(echo, listener, drain_timeout=30, backlog=5)
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
    with hs.serve(echo, LOCAL, drain_timeout=30) as server:
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
