"""serve(per="message"): quiet connections cost no thread, messages are served in turn, sums add up."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.endpoint import connect_to
from hardsock.lab.threads import Call, run_threaded
from hardsock.lab.waits import poll_until
from hardsock.serving.ledger import Outcome
from hardsock.serving.seldom import Seldom
from hardsock.serving.workers import Crew
from support.tls import Identities

LOCAL = ("127.0.0.1", 0)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Connect = Callable[[Any], hs.Connection]


@pytest.fixture(params=["plain", "tls"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def settings(kind: str, ids: Identities) -> dict[str, Any]:
    return {} if kind == "plain" else {"tls": ids.server()}


@pytest.fixture
def connect(kind: str, ids: Identities) -> Connect:
    config = False if kind == "plain" else ids.client()

    def connected(address: Any) -> hs.Connection:
        return hs.connect(address, tls=config, timeout=60)

    return connected


def line(conn: hs.Connection) -> None:
    """Answer one line, with how many came before."""
    text = conn.recv_until(b"\n", keep=True, timeout=60)
    conn.state = (conn.state or 0) + 1
    conn.sendall(b"%d %s" % (conn.state, text))


def ask(client: hs.Connection, text: bytes = b"hello\n") -> bytes:
    client.sendall(text, timeout=60)
    return client.recv_until(b"\n", keep=True, timeout=60)


def serving(handler: Callable[[hs.Connection], object], **settings: Any) -> hs.Server:
    return hs.serve(handler, LOCAL, **({"per": "message", "drain_timeout": 10} | settings))


@contextlib.contextmanager
def crowd(address: Any, count: int, connect: Connect) -> Iterator[list[hs.Connection]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connect(address)) for _ in range(count)]


def settled(server: hs.Server, accepted: int = 1) -> hs.ServerStats:
    """The statistics once all have come and nothing is active; the sum must be right."""
    assert poll_until(lambda: server.stats().accepted >= accepted, 60)
    assert poll_until(lambda: server.stats().active == 0, 60)
    stats = server.stats()
    assert stats.accepted == stats.handled + stats.failed + stats.cut
    return stats


def is_reset(client: socket.socket) -> bool:
    try:
        return client.recv(100) == b"never"
    except ConnectionResetError:
        return True


# ---- serving ------------------------------------------------------------------------------------


def test_many_quiet_clients_are_served_by_few_threads(
    settings: dict[str, Any], connect: Connect
) -> None:
    with serving(line, workers=2, **settings) as server:
        before = threading.active_count()
        with crowd(server.address, 64, connect) as clients:
            for turn in (b"1", b"2", b"3"):
                for client in clients:
                    assert ask(client) == turn + b" hello\n"
            assert poll_until(lambda: server.stats().parked == 64, 60)
            stats = server.stats()
            assert (stats.active, stats.waiting, stats.workers) == (64, 0, 2)
            assert threading.active_count() <= before + 1
        assert settled(server).handled == 64


def test_a_client_that_pipelines_is_answered_in_full_and_starves_nobody() -> None:
    """One worker; the other client is answered while the first still has a hundred to come."""
    order: list[bytes] = []
    may_go_on = threading.Semaphore(1)

    def handler(conn: hs.Connection) -> None:
        may_go_on.acquire(timeout=60)
        text = conn.recv_until(b"\n", keep=True, timeout=60)
        order.append(text)
        conn.sendall(text)

    with serving(handler, workers=1) as server:
        with hs.connect(server.address, timeout=60) as greedy, connect_to(server.address) as quiet:
            greedy.sendall(b"greedy\n" * 100)
            assert poll_until(lambda: len(order) == 1, 60)
            quiet.sendall(b"quiet\n")
            assert poll_until(lambda: server.stats().waiting >= 1, 60)
            for _ in range(200):
                may_go_on.release()
            for _ in range(100):
                assert greedy.recv_until(b"\n", keep=True, timeout=60) == b"greedy\n"
            assert quiet.recv(100) == b"quiet\n"
    assert order.index(b"quiet\n") <= 4


def test_what_tls_holds_of_the_next_message_is_served(ids: Identities) -> None:
    """Two messages in one record: no readiness tells of the second."""
    with (
        serving(line, workers=1, tls=ids.server()) as server,
        hs.connect(server.address, tls=ids.client(), timeout=60) as client,
    ):
        client.sendall(b"one\ntwo\n")
        assert client.recv_until(b"\n", keep=True, timeout=60) == b"1 one\n"
        assert client.recv_until(b"\n", keep=True, timeout=60) == b"2 two\n"


def test_half_a_message_can_be_left_for_later_without_a_worker() -> None:
    calls = 0

    def handler(conn: hs.Connection) -> None:
        nonlocal calls
        calls += 1
        try:
            conn.sendall(conn.recv_until(b"\n", keep=True, timeout=0))
        except hs.DeadlineExceeded:
            return  # To be called again when more has come.

    with serving(handler, workers=1) as server:
        with connect_to(server.address) as slow, hs.connect(server.address, timeout=60) as other:
            slow.sendall(b"ha")
            assert poll_until(lambda: calls == 1 and server.stats().parked == 2, 60)
            assert ask(other, b"quick\n") == b"quick\n"
            slow.sendall(b"lf\n")
            assert slow.recv(100) == b"half\n"
    assert calls == 3


def test_half_a_message_behind_a_whole_one_can_be_left_for_later() -> None:
    """The handler is called for it at once, leaves it, and is called again when the rest comes."""

    def handler(conn: hs.Connection) -> None:
        try:
            conn.sendall(conn.recv_until(b"\n", keep=True, timeout=0))
        except hs.DeadlineExceeded:
            return

    with serving(handler, workers=1) as server, connect_to(server.address) as client:
        client.sendall(b"one\ntw")
        assert client.recv(100) == b"one\n"
        assert poll_until(lambda: server.stats().parked == 1, 60)
        client.sendall(b"o\n")
        assert client.recv(100) == b"two\n"
        assert server.stats().failed == 0


def test_each_message_has_a_time_of_its_own_which_goes_on_between_calls() -> None:
    """Also where there is no answer to tell one from the next; and half a message has only one."""
    lines: list[bytes] = []

    def handler(conn: hs.Connection) -> None:
        try:
            lines.append(conn.recv_until(b"\n", timeout=0))
        except hs.DeadlineExceeded as exc:
            if exc.phase == "read_timeout":
                raise

    with serving(handler, workers=1, read_timeout=1, handler_timeout=30) as server:
        with plainly(server.address) as client:
            for line in (b"one", b"two"):
                client.sendall(line + b"\n")
                with pytest.raises(hs.DeadlineExceeded):
                    client.recv(1, timeout=1.5)
            assert poll_until(lambda: lines == [b"one", b"two"], 60)
            with pytest.raises(ConnectionResetError):
                for _ in range(100):
                    client.sendall(b"x")
                    with contextlib.suppress(hs.DeadlineExceeded):
                        client.recv(1, timeout=0.1)
        stats = settled(server)
    assert (stats.failed, stats.read_timeouts) == (1, 1)


def test_a_client_that_leaves_cancels_its_handler_and_quiet_ones_have_none() -> None:
    cancelled = threading.Event()

    def handler(conn: hs.Connection) -> None:
        conn.recv(1)
        scope = hs.current()
        assert scope is not None
        if scope.wait(60):
            cancelled.set()
        scope.check()

    with serving(handler) as server:
        with connect_to(server.address) as client, connect_to(server.address) as quiet:
            client.sendall(b"x")
            assert poll_until(lambda: server.stats().parked == 1, 60)
            for each in (client, quiet):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        assert cancelled.wait(60)
        stats = settled(server, 2)
    assert (stats.clients_left, stats.handled, stats.failed) == (1, 1, 1)


def test_another_thread_may_send_on_a_quiet_connection() -> None:
    def handler(conn: hs.Connection) -> None:
        conn.recv_until(b"\n", keep=True)
        subscribers.append(conn)

    subscribers: list[hs.Connection] = []
    with serving(handler, workers=1) as server, connect_to(server.address) as client:
        client.sendall(b"subscribe\n")
        assert poll_until(lambda: len(subscribers) == 1 and server.stats().parked == 1, 60)
        subscribers[0].sendall(b"news")
        assert client.recv(100) == b"news"


def test_the_state_goes_with_the_connection() -> None:
    class State:
        pass

    gone = threading.Event()

    def handler(conn: hs.Connection) -> None:
        conn.recv(100)
        if conn.state is None:
            conn.state = State()
            weakrefs.append(weakref_to(conn.state, gone))

    weakrefs: list[object] = []
    with serving(handler, workers=1) as server:
        with connect_to(server.address) as client:
            client.sendall(b"x")
            assert poll_until(lambda: len(weakrefs) == 1, 60)
            assert not gone.is_set()
        assert gone.wait(60)


def weakref_to(thing: object, gone: threading.Event) -> object:
    import weakref

    return weakref.ref(thing, lambda _: gone.set())


def test_the_scope_of_a_handler_is_its_connection() -> None:
    names: list[Any] = []

    def handler(conn: hs.Connection) -> None:
        conn.recv(10)
        scope, told = hs.current(), hs.draining()
        assert scope is not None
        assert told is not None
        names.append((scope.name, told.cancelled))

    with serving(handler, workers=1) as server, connect_to(server.address) as client:
        client.sendall(b"x")
        host, port = client.getsockname()
        assert poll_until(lambda: len(names) == 1, 60)
        assert names == [(f"{host}:{port}", False)]


# ---- ends ---------------------------------------------------------------------------------------


def test_a_client_that_leaves_is_noticed_without_a_handler(connect: Connect, settings: Any) -> None:
    called = threading.Event()

    def handler(conn: hs.Connection) -> None:
        called.set()

    with serving(handler, **settings) as server:
        for _ in range(3):
            connect(server.address).close()
        stats = settled(server, 3)
        assert (stats.handled, stats.endings) == (3, {"clean": 3})
    assert not called.is_set()


def test_a_client_that_resets_between_messages_is_no_failure() -> None:
    with serving(line) as server:
        with connect_to(server.address) as client:
            client.sendall(b"x\n")
            assert client.recv(10) == b"1 x\n"
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        stats = settled(server)
    assert (stats.handled, stats.failed, stats.endings) == (1, 0, {"reset": 1})


def test_a_last_message_before_the_end_is_answered() -> None:
    with serving(line) as server, connect_to(server.address) as client:
        client.sendall(b"bye\n")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b"1 bye\n"
        assert client.recv(100) == b""
        assert settled(server).endings == {"clean": 1}


def farewell(conn: hs.Connection) -> None:
    conn.recv_until(b"\n", keep=True)
    conn.sendall(b"bye\n")
    conn.close_write()


def test_a_handler_that_has_ended_its_side_is_waited_for_without_a_worker(
    connect: Connect, settings: Any
) -> None:
    """More clients than workers linger at the same time, and a newcomer is served at once."""
    with serving(farewell, workers=2, linger=10.0, **settings) as server:
        with crowd(server.address, 8, connect) as clients:
            for client in clients:
                assert ask(client, b"go\nunread input") == b"bye\n"
                assert client.recv(10, timeout=60) == b""
            assert poll_until(lambda: server.stats().parked == 0, 60)
            assert server.stats().active == 8
        stats = settled(server)
    assert (stats.handled, stats.endings) == (8, {"clean": 8})


def test_a_handler_that_has_ended_its_side_in_mid_message_leaves_the_client_its_time(
    connect: Connect, settings: Any
) -> None:
    """The bounds of the message end with the handler: what the client still sends is thrown away.

    It had the answer in any case, whatever the time that the message had taken.
    """

    def early(conn: hs.Connection) -> None:
        conn.recv(10)
        conn.sendall(b"enough\n")
        conn.close_write()

    with serving(early, read_timeout=30, linger=10.0, **settings) as server:
        with connect(server.address) as client:
            client.sendall(b"half of a ")
            assert client.recv(10, timeout=60) == b"enough\n"
            assert client.recv(10, timeout=60) == b""
            assert poll_until(lambda: server.stats().parked == 0, 60)
            client.sendall(b"message, and the rest of it")
        assert settled(server).endings == {"clean": 1}


def test_a_client_that_does_not_end_is_given_up_after_the_linger() -> None:
    with serving(farewell, linger=0.01) as server, connect_to(server.address) as client:
        client.sendall(b"go\n")
        assert client.recv(10) == b"bye\n"
        assert settled(server).endings == {"deadline": 1}


def test_a_handler_may_close_or_detach_its_connection() -> None:
    kept: list[int] = []

    def handler(conn: hs.Connection) -> None:
        if conn.recv(1) == b"c":
            conn.close()
        else:
            kept.append(conn.detach())

    with serving(handler) as server:
        with connect_to(server.address) as one, connect_to(server.address) as two:
            one.sendall(b"c")
            assert one.recv(10) == b""
            two.sendall(b"d")
            assert poll_until(lambda: server.stats().handled == 2, 60)
            stats = settled(server)
            assert (stats.handled, stats.endings) == (2, {"closed": 2})
            socket.socket(fileno=kept[0]).close()


def test_closing_a_quiet_connection_from_elsewhere_ends_it() -> None:
    def handler(conn: hs.Connection) -> None:
        conn.recv(1)
        served.append(conn)

    served: list[hs.Connection] = []
    with serving(handler) as server, connect_to(server.address) as client:
        client.sendall(b"x")
        assert poll_until(lambda: server.stats().parked == 1 and len(served) == 1, 60)
        served[0].close()
        assert client.recv(10) == b""
        assert settled(server).endings == {"closed": 1}


def test_a_handler_that_raises_is_logged_once_and_others_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handler(conn: hs.Connection) -> None:
        if conn.recv_until(b"\n", keep=True) == b"bad\n":
            raise SystemExit("a bug")
        conn.sendall(b"fine\n")

    with serving(handler, workers=1) as server, hs.connect(server.address, timeout=60) as good:
        assert ask(good) == b"fine\n"
        with connect_to(server.address) as bad:
            bad.sendall(b"bad\n")
            assert is_reset(bad)
        assert ask(good) == b"fine\n"
        assert server.stats().errors == {"SystemExit": 1}
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]
    caplog.clear()  # with the frames of the traceback


def test_a_handler_that_reads_nothing_is_an_error_and_no_endless_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = 0

    def handler(conn: hs.Connection) -> None:
        nonlocal calls
        calls += 1

    with serving(handler) as server, connect_to(server.address) as client:
        client.sendall(b"hello")
        assert is_reset(client)
        assert settled(server).errors == {"RuntimeError": 1}
    assert calls == 1
    assert "without reading a byte" in caplog.text


def test_a_worker_that_fails_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What has no memory for its account is cut and reported by the drain; all others are served."""
    with serving(line, workers=1) as server, hs.connect(server.address, timeout=60) as other:
        with connect_to(server.address) as client:
            client.sendall(b"x\n")
            assert client.recv(10) == b"1 x\n"

            def no_memory(*_args: object, **_kwargs: object) -> None:
                monkeypatch.undo()
                raise MemoryError

            monkeypatch.setattr(server, "_settle", no_memory)
        assert ask(other) == b"1 hello\n"
        # Who looks for ends beside the workers may come first.
        told = ("a worker failed, and goes on", "no memory for a connection")
        assert poll_until(lambda: any(one in caplog.text for one in told), 60)
        report = drained(server, timeout=0.2)
    assert report.aborted == 1
    caplog.clear()


class NoMemory:
    """A parking in which waiting fails for want of memory, for a while."""

    def __init__(self, parking: Any, times: int) -> None:
        self._parking = parking
        self.times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parking, name)

    def next(self) -> Any:
        if self.times > 0:
            self.times -= 1
            raise MemoryError
        return self._parking.next()


def test_a_worker_that_cannot_even_wait_or_tell_of_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_memory(*_args: object, **_kwargs: object) -> None:
        raise MemoryError

    with serving(line, workers=1) as server:
        parking = NoMemory(server._parking, 3)  # type: ignore[attr-defined]
        with hs.connect(server.address, timeout=60) as client:
            assert ask(client) == b"1 hello\n"
            monkeypatch.setattr(server, "_parking", parking)
            monkeypatch.setattr(server._seldom, "log", no_memory)

        def was_in_vain() -> bool:
            """The end of a client may have been heard by the thread that accepts."""
            with hs.connect(server.address, timeout=60) as client:
                assert ask(client) == b"1 hello\n"
            return bool(parking.times == 0)

        assert poll_until(was_in_vain, 60)
        monkeypatch.undo()
        settled(server, 2)


def test_a_thread_that_dies_leaves_its_place_and_one_that_never_ran_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go = threading.Event()

    def die() -> None:
        go.wait(60)
        raise MemoryError

    monkeypatch.setattr(threading, "excepthook", lambda _args: None)
    crew = Crew(1, "crew", Seldom(logging.getLogger("crew")), die)
    assert not crew.grow()
    go.set()
    assert poll_until(lambda: crew.count == 0, 60)
    go.clear()
    assert crew.grow()
    crew._threads.append(threading.Thread(target=die))
    go.set()
    crew.join(time.monotonic() + 10)
    assert poll_until(lambda: crew.count == 1, 60)


def test_half_an_answer_ends_in_a_reset() -> None:
    def handler(conn: hs.Connection) -> None:
        conn.recv(1)
        with contextlib.suppress(hs.DeadlineExceeded):
            conn.sendall(bytes(50_000_000), timeout=0.01)

    with serving(handler) as server, connect_to(server.address) as client:
        client.sendall(b"x")
        stats = settled(server)
        assert (stats.handled, stats.endings) == (1, {"aborted": 1})


def test_silence_ends_with_the_idle_timeout_also_while_all_workers_are_busy() -> None:
    gate = threading.Event()

    def handler(conn: hs.Connection) -> None:
        conn.recv(1)
        gate.wait(30)

    with serving(handler, workers=1, idle_timeout=1) as server:
        with connect_to(server.address) as busy, connect_to(server.address) as silent:
            busy.sendall(b"x")
            assert silent.recv(10) == b""
            assert server.stats().idle_timeouts == 1
            assert server.stats().active == 1
            gate.set()
            assert busy.recv(10) == b""
        stats = settled(server)
    assert (stats.cut, stats.idle_timeouts) == (2, 2)


def test_who_left_makes_room_also_while_all_workers_are_busy() -> None:
    gate = threading.Event()

    def handler(conn: hs.Connection) -> None:
        conn.recv(1)
        gate.wait(30)

    with serving(handler, workers=1, max_connections=2) as server:
        with connect_to(server.address) as busy:
            busy.sendall(b"x")
            connect_to(server.address).close()
            with connect_to(server.address):
                assert poll_until(lambda: server.stats().accepted == 3, 60)
            gate.set()
        assert settled(server).peak_active == 2


def test_silent_clients_leave_their_places_to_others(
    settings: dict[str, Any], connect: Connect
) -> None:
    """Who has spoken stays, however quiet it is since."""
    with serving(line, workers=1, max_connections=4, **settings) as server:
        with connect(server.address) as spoke, crowd(server.address, 3, connect) as silent:
            assert ask(spoke) == b"1 hello\n"
            assert poll_until(lambda: server.stats().parked == 4, 60)
            with connect(server.address) as newcomer:
                assert ask(newcomer) == b"1 hello\n"
            assert silent[0].recv(10, timeout=60) == b""
            assert ask(spoke) == b"2 hello\n"
            assert server.stats().evicted >= 1
            assert server.stats().peak_active == 4
        settled(server, 5)


def test_nobody_leaves_a_full_server_for_nobody() -> None:
    with serving(line, max_connections=2) as server:
        with crowd(server.address, 2, plainly) as clients:
            assert poll_until(lambda: server.stats().parked == 2, 60)
            with pytest.raises(hs.DeadlineExceeded):
                clients[0].recv(10, timeout=0.6)
            assert ask(clients[0]) == b"1 hello\n"
            assert server.stats().evicted == 0


def test_a_process_that_can_start_no_more_threads_serves_with_those_it_has(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_thread(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with serving(line, workers=4) as server, crowd(server.address, 5, plainly) as clients:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            for client in clients:
                assert ask(client) == b"1 hello\n"
        assert server.stats().workers == 1
        for client in clients:
            assert ask(client) == b"2 hello\n"
        assert poll_until(lambda: server.stats().workers >= 2, 60)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings[0] == "1 of 4 workers: can't start new thread"
    assert len(warnings) <= 2, "once a minute, and their number at the end"


def plainly(address: Any) -> hs.Connection:
    return hs.connect(address, timeout=60)


def test_a_storm_of_clients_adds_up(settings: dict[str, Any], connect: Connect) -> None:
    """They ask, some pipeline, and leave in four ways."""

    def client(index: int) -> None:
        for turn in range(12):
            with connect(server.address) as conn:
                for _ in range(turn % 3):
                    assert ask(conn).endswith(b" hello\n")
                way = (index + turn) % 4
                if way == 0:
                    conn.sendall(b"x\ny\nz\n")
                elif way == 1:
                    conn.abort()
                elif way == 2:
                    conn.finish(timeout=60)

    with serving(line, workers=3, **settings) as server:
        run_threaded(client, 8, timeout=60)
        stats = settled(server)
    assert stats.failed == sum(stats.errors.get(e, 0) for e in ("Reset", "BrokenPipe", "Truncated"))


# ---- draining -----------------------------------------------------------------------------------


def drained(server: hs.Server, **kwargs: float) -> hs.DrainReport:
    """Drains, and checks that every connection is in one line of the sums."""
    report = server.drain(**kwargs)
    stats = server.stats()
    assert stats.active == 0
    assert stats.accepted == stats.handled + stats.failed + stats.cut
    return report


def test_the_quiet_are_closed_at_once_and_what_has_arrived_is_served(
    settings: dict[str, Any], connect: Connect
) -> None:
    gate = threading.Event()

    def handler(conn: hs.Connection) -> None:
        text = conn.recv_until(b"\n", keep=True)
        if text == b"wait\n":
            gate.wait(30)
        conn.sendall(text.upper())

    server = serving(handler, workers=1, drain_timeout=60, **settings)
    with crowd(server.address, 8, connect) as clients:
        for client in clients:
            assert ask(client) == b"HELLO\n"
        clients[0].sendall(b"wait\n")
        assert poll_until(lambda: server.stats().parked == 7, 60)
        clients[1].sendall(b"arrived\n")
        clients[2].sendall(b"one\ntwo\n")
        assert poll_until(lambda: _arrived(server, clients[1:3]), 60)
        with Call(drained, server) as draining:
            for client in clients[3:]:
                assert client.recv(10, timeout=60) == b"", "closed while the worker is busy"
            gate.set()
            assert clients[0].recv_until(b"\n", keep=True, timeout=60) == b"WAIT\n"
            assert clients[1].recv_until(b"\n", keep=True, timeout=60) == b"ARRIVED\n"
            assert clients[2].recv_until(b"\n", keep=True, timeout=60) == b"ONE\n"
            assert clients[2].recv_until(b"\n", keep=True, timeout=60) == b"TWO\n"
            for client in clients[:3]:
                assert client.recv(10, timeout=60) == b"", "closed after its answer"
                client.close()
            report = draining.result()
    assert (report.completed, report.idle_closed, report.clean) == (3, 5, True)


def _arrived(server: hs.Server, clients: list[hs.Connection]) -> bool:
    """Whether what they sent is in the server's kernel queue: nothing of theirs is on its way."""
    return all(client.tcp_info()["unacked"] == 0 for client in clients) and not server.closed


def test_a_drain_starts_the_workers_that_what_has_arrived_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One thread was started when the drain began; all six messages are served at the same time."""
    together = threading.Barrier(6)

    def handler(conn: hs.Connection) -> None:
        text = conn.recv_until(b"\n", keep=True, timeout=60)
        together.wait(20)
        conn.sendall(text)

    server = serving(handler, workers=6, drain_timeout=60)
    with crowd(server.address, 6, plainly) as clients:
        assert poll_until(lambda: server.stats().parked == 6, 60)
        monkeypatch.setattr(server, "_crew", NoGrowth())
        for client in clients:
            client.sendall(b"x\n")
        assert poll_until(lambda: server.stats().waiting == 5, 60)
        monkeypatch.undo()
        assert server.stats().workers == 1
        with Call(drained, server) as draining:
            for client in clients:
                assert client.recv(10, timeout=30) == b"x\n"
                client.close()
            report = draining.result()
    assert (report.completed, report.clean) == (6, True)


class NoGrowth:
    """A crew that starts no threads."""

    def grow(self) -> bool:
        return False


def test_who_waits_in_the_kernel_s_queue_is_served(connect: Connect) -> None:
    gate = threading.Event()

    def handler(conn: hs.Connection) -> None:
        text = conn.recv_until(b"\n", keep=True)
        gate.wait(30)
        conn.sendall(text.upper())

    server = serving(handler, workers=1, max_connections=1, drain_timeout=60)
    clients = [connect_to(server.address) for _ in range(4)]
    clients[0].sendall(b"first\n")
    assert poll_until(lambda: server.listener.stats().queue_length == 3, 60)
    with Call(drained, server) as draining:
        assert poll_until(lambda: getattr(server._wakeup, "name", "") == "drain", 60)
        clients[1].sendall(b"queued\n")
        clients[2].sendall(b"queued\n")
        gate.set()
        assert clients[0].recv(10) == b"FIRST\n"
        assert clients[0].recv(10) == b""
        clients[0].close()
        for client in clients[1:3]:
            assert client.recv(10) == b"QUEUED\n"
            client.close()
        assert clients[3].recv(10) == b"", "it says nothing for a quarter of a second"
        clients[3].close()
        report = draining.result()
    assert (report.completed, report.idle_closed, report.unaccepted, report.clean) == (
        3,
        1,
        0,
        True,
    )


def test_when_the_time_is_up_all_is_cut_and_counted() -> None:
    """One in a handler that ignores all, one that no worker took, one that lingers."""
    gate = threading.Event()

    def handler(conn: hs.Connection) -> None:
        if conn.recv(10) == b"bye":
            conn.close_write()
        else:
            gate.wait(30)

    server = serving(handler, workers=1, linger=10.0)
    try:
        lingers, stuck, waits = (connect_to(server.address) for _ in range(3))
        lingers.sendall(b"bye")
        assert lingers.recv(10) == b""
        stuck.sendall(b"x")
        assert poll_until(lambda: server.stats().parked == 1, 60)
        waits.sendall(b"x")
        report = drained(server, timeout=0.2)
    finally:
        gate.set()
    for client in (lingers, stuck, waits):
        client.close()
    assert (report.completed, report.cancelled, report.aborted) == (1, 1, 1)
    assert {(cut.how, cut.phase, cut.running) for cut in report.cut} == {
        ("aborted", "handler", True),
        ("cancelled", "parked", False),
    }


def test_when_the_time_is_up_calls_are_cancelled() -> None:
    def handler(conn: hs.Connection) -> None:
        conn.recv_until(b"\n", keep=True)

    server = serving(handler, workers=2)
    with connect_to(server.address) as client:
        client.sendall(b"no end of line")
        assert poll_until(lambda: server.stats().parked == 0 and server.stats().active == 1, 60)
        report = drained(server, timeout=20.2, grace=20)
        assert is_reset(client)
    assert (report.cancelled, report.aborted) == (1, 0)


def test_a_drain_that_gives_up_while_a_handler_returns_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its account is closed before it lingers, and its linger's end is news all the same."""
    server = serving(farewell, workers=1, linger=0.01)
    ledger = server._ledger
    original = ledger.linger
    settled_early: list[Any] = []

    def too_late(served: Any, *args: Any) -> None:
        settled_early.append(served)
        ledger.settle(served, Outcome.ABORTED, ending="aborted")
        original(served, *args)

    monkeypatch.setattr(ledger, "linger", too_late)
    with connect_to(server.address) as client:
        client.sendall(b"go\n")
        assert client.recv(10) == b"bye\n"
        assert client.recv(10) == b""
        assert poll_until(lambda: any(one.left for one in settled_early), 60)
        drained(server)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_token_ends_the_server_with_all_that_is_parked() -> None:
    token = hs.CancelToken()
    server = serving(line, token=token)
    with crowd(server.address, 5, plainly) as clients:
        assert ask(clients[0]) == b"1 hello\n"
        assert poll_until(lambda: server.stats().parked == 5, 60)
        token.cancel("enough")
        assert server.wait(60)
        for client in clients:
            assert client.recv(10, timeout=60) == b""
    drained(server)


@pytest.mark.parametrize("turn", range(4))
def test_draining_amid_a_crowd_answers_what_it_has_taken(
    turn: int, settings: dict[str, Any], connect: Connect
) -> None:
    """Each client counts its answers; the server counts what it answered. None is lost between."""
    answered = 0
    lock = threading.Lock()

    def handler(conn: hs.Connection) -> None:
        nonlocal answered
        text = conn.recv_until(b"\n", keep=True, timeout=60)
        with lock:
            answered += 1
        conn.sendall(text, timeout=60)

    def client(_index: int) -> int:
        got = 0
        with contextlib.suppress(OSError):
            while True:
                with connect(server.address) as conn:
                    for _ in range(5):
                        if ask(conn) != b"hello\n":
                            return got
                        got += 1
        return got

    server = serving(handler, workers=2, **settings)
    with Call(run_threaded, client, 6) as clients:
        assert poll_until(lambda: answered >= 20 + 10 * turn, 20)
        report = drained(server)
        got = sum(clients.result())
    assert report.clean, report
    assert got == answered


def test_a_drain_with_a_thousand_quiet_connections_is_quick() -> None:
    server = serving(line, workers=4)
    with crowd(server.address, 1000, plainly) as clients:
        assert poll_until(lambda: server.stats().parked == 1000, 20)
        assert ask(clients[-1]) == b"1 hello\n"
        assert poll_until(lambda: server.stats().parked == 1000, 20)
        began = time.monotonic()
        report = drained(server, timeout=60)
        assert time.monotonic() - began < 15
    assert (report.idle_closed, report.clean) == (1000, True)


def test_a_drain_from_a_handler_is_refused_and_stop_is_not() -> None:
    def handler(conn: hs.Connection) -> None:
        conn.recv(1)
        with pytest.raises(RuntimeError, match="would wait for that handler"):
            server.drain()
        server.stop("enough")
        conn.sendall(b"done")

    server = serving(handler)
    with connect_to(server.address) as client:
        client.sendall(b"x")
        assert client.recv(10) == b"done"
        assert client.recv(10) == b""
    assert server.wait(60)
    server.drain()  # which waits for the thread, too
    assert server.report is not None
    # It is parked, or the drain is known already: a moment decides.
    assert server.report.completed + server.report.idle_closed == 1
    assert server.report.reason == "enough"


# ---- parameters ---------------------------------------------------------------------------------


def test_many_connections_are_allowed_by_default() -> None:
    with serving(line) as server:
        assert server._options.limit >= 64
        assert server._options.workers == 64


def test_per_is_one_of_two() -> None:
    with pytest.raises(ValueError, match='per must be "connection" or "message", got \'request\''):
        serving(line, per="request")


def test_unix_sockets_are_served(tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/socket"
    with hs.serve(line, path, per="message", drain_timeout=30), hs.connect(path) as client:
        assert ask(client) == b"1 hello\n"
        assert ask(client) == b"2 hello\n"
