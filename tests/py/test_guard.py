"""The guard over real servers, listeners, pools and the whole process."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

import hardsock as hs
from hardsock import _core, aio, guard
from hardsock.guard.user_timeouts import user_timeouts
from hardsock.lab.waits import poll_until
from support.recorder import Noted
from support.require import need_testcapi


def until(condition: Callable[[], bool]) -> None:
    assert poll_until(condition, 30)


AT_ONCE: dict[str, Any] = {"over": 0, "young": 0, "at_most": 1000, "per": 600}


def echo(conn: hs.Connection) -> None:
    while data := conn.recv(100):
        conn.sendall(data)


def echo_once(conn: hs.Connection) -> None:
    conn.sendall(conn.recv(100))


def talk(sock: socket.socket) -> None:
    sock.sendall(b"x")
    assert sock.recv(1) == b"x"


@contextmanager
def clients(address: Any, n: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        made = [stack.enter_context(socket.create_connection(address, 30)) for _ in range(n)]
        for one in made:
            talk(one)
        yield made


class Log:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def __call__(self, line: str) -> None:
        self.lines.append(json.loads(line))

    def outcomes(self, action: str = "CloseIdle") -> list[str]:
        return [one["outcome"] for one in self.lines if one["action"] == action]


def close_all(over: float = 0, **kwargs: Any) -> guard.Rule:
    then = guard.CloseIdle(**{**AT_ONCE, "over": over, **kwargs})
    return guard.Rule("all", when=guard.connections > 0, then=then)


def settle(one: hs.Guard, log: Log, n: int) -> None:
    """Looks until so many have an outcome: those who are asked end when they run."""

    def settled() -> bool:
        with one._lock:
            one._settle(False)
        return len(log.outcomes()) >= n

    until(settled)


@pytest.fixture(params=["connection", "message"])
def server(request: pytest.FixtureRequest) -> Iterator[hs.Server]:
    handler = echo if request.param == "connection" else echo_once
    with hs.serve(
        handler, ("127.0.0.1", 0), drain_timeout=30, per=request.param, workers=8, max_connections=8
    ) as made:
        yield made


def quiet(server: Any, n: int) -> None:
    """Until all are waited for, and none is in anybody's hands."""
    conns = {served.conn._id for served in server._ledger.active}

    def all_idle() -> bool:
        rows = [row for row in _core._guard_rows() if row[0] in conns]
        return len(rows) == n and all(row[2] == "idle" for row in rows)

    until(all_idle)


def test_a_dry_run_says_what_it_would_do_and_does_nothing(server: hs.Server) -> None:
    log = Log()
    with clients(server.address, 3) as socks:
        quiet(server, 3)
        one = hs.Guard(server, close_all(), log=log)
        one.tick()
        assert log.outcomes() == ["would close"] * 3
        one.tick()
        assert log.outcomes() == ["would close"] * 3  # Not again within `per`.
        for sock in socks:
            talk(sock)


def test_idle_ones_are_closed_and_their_peers_see_an_orderly_end(server: hs.Server) -> None:
    log = Log()
    with clients(server.address, 3) as socks:
        quiet(server, 3)
        one = hs.Guard(server, close_all(), enforce=True, log=log)
        one.tick()
        assert [sock.recv(1) for sock in socks] == [b""] * 3
        settle(one, log, 3)
        assert log.outcomes() == ["closed"] * 3
        until(lambda: server.stats().idle_timeouts == 3)
    line = next(one for one in log.lines if one["action"] == "CloseIdle")
    assert {"at", "guard", "rule", "connection", "peer", "age", "idle"} <= line.keys()


def test_a_handler_that_works_keeps_its_connection() -> None:
    asked, go_on, log = threading.Event(), threading.Event(), Log()

    def slow(conn: hs.Connection) -> None:
        conn.recv(1)
        conn.sendall(b"1")  # It spoke last, and is in no call.
        asked.set()
        go_on.wait(30)
        conn.sendall(b"2")

    with hs.serve(slow, ("127.0.0.1", 0), drain_timeout=30) as server:
        with socket.create_connection(server.address, 30) as sock:
            sock.sendall(b"x")
            assert asked.wait(30)
            one = hs.Guard(server, close_all(), enforce=True, log=log)
            one.tick()
            assert "1 busy" in one.explain()
            go_on.set()
            assert sock.recv(1) + sock.recv(1) == b"12"
    assert log.outcomes() == []


def test_one_that_speaks_between_look_and_act_is_spared(server: hs.Server) -> None:
    log = Log()
    with clients(server.address, 1) as (sock,):
        quiet(server, 1)
        one = hs.Guard(server, close_all(over=60), enforce=True, log=log)
        look = one._scope.look
        seen = look(0.0)
        seen = seen._replace(connections=[replace(seen.connections[0], idle=61.0)])
        talk(sock)
        one._scope.look = lambda now: seen  # type: ignore[method-assign]
        one.tick()
        talk(sock)
    assert log.outcomes() == ["spared"]
    spared = next(one for one in log.lines if one["outcome"] == "spared")
    assert spared["why"] in ("fresh", "busy")
    assert spared["idle"] < 60


def test_the_one_idle_for_longest_goes_first_within_the_budget(server: hs.Server) -> None:
    log = Log()
    with clients(server.address, 4) as socks:
        quiet(server, 4)
        one = hs.Guard(server, close_all(at_most=1), enforce=True, log=log)
        oldest = max(one._scope.look(0.0).connections, key=lambda seen: seen.idle)
        one.tick()
        settle(one, log, 2)
        for sock in socks:
            host, port = sock.getsockname()
            if f"{host}:{port}" == oldest.peer:
                assert sock.recv(1) == b""
            else:
                talk(sock)
    assert sorted(log.outcomes()) == ["closed", "over budget"]
    assert ("all", "CloseIdle", "over budget", 3) in one.counters()


def test_nobody_is_closed_in_the_place_of_one_that_is_still_ending() -> None:
    """Its thread has yet to close it, so it is seen; the rule is clear without it."""
    go_on, log = threading.Event(), Log()

    def tidy(conn: hs.Connection) -> None:
        try:
            echo(conn)
        finally:
            go_on.wait(60)

    action = guard.CloseIdle(over=0, young=0, at_most=1000, per=0.001)
    rule = guard.Rule("all", when=guard.connections > 2, clear=2, then=action)
    with hs.serve(tidy, ("127.0.0.1", 0), drain_timeout=30, workers=8) as server:
        with clients(server.address, 3):
            quiet(server, 3)
            one = hs.Guard(server, rule, enforce=True, log=log)
            one.tick()
            settle(one, log, 1)
            lately = one._engine.states[0].spent[0].chosen
            until(lambda: (one.tick(), not lately)[1])
            assert "1 asked lately" in one.explain()
            assert len(one._scope.look(0.0).connections) == 3
            go_on.set()
            until(lambda: server.stats().active == 2)
            one.tick()
    assert log.outcomes() == ["closed"]
    assert one.armed() == {"all": False}


def test_an_event_loops_server_is_guarded_from_a_thread() -> None:
    log = Log()

    async def handler(conn: aio.Connection) -> None:
        while data := await conn.recv(100):
            await conn.sendall(data)

    async def main() -> None:
        async with aio.serve(handler, ("127.0.0.1", 0), drain_timeout=30) as server:
            conn = await aio.connect(server.address)
            await conn.sendall(b"x")
            assert await conn.recv(1) == b"x"
            await asyncio.to_thread(quiet, server, 1)
            one = hs.Guard(server, close_all(), enforce=True, log=log)
            await asyncio.to_thread(one.tick)
            assert await conn.recv(1) == b""
            await asyncio.to_thread(settle, one, log, 1)
            conn.close()

    asyncio.run(main())
    assert log.outcomes() == ["closed"]


def test_what_lasts_is_taken_back_when_the_rule_is_clear() -> None:
    log = Log()
    rule = guard.Rule(
        "many",
        when=guard.connections > 1,
        then=[
            guard.UserTimeout(seconds=5),
            guard.ShortenTimeouts(linger=0.1, idle_timeout=7),
            guard.RefuseNew(),
        ],
    )

    def timeouts(server: Any) -> list[int]:
        return [
            served.conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            for served in server._ledger.active
        ]

    noted = Noted()
    with hs.serve(echo, ("127.0.0.1", 0), drain_timeout=30, linger=1) as server:
        one = hs.Guard(server, rule, enforce=True, log=log)
        with clients(server.address, 2) as socks:
            before = timeouts(server)
            one.tick()
            assert timeouts(server) == [5000, 5000]
            assert (server._options.linger, server._options.idle_timeout) == (0.1, 7)
            with pytest.raises(ConnectionResetError):
                with socket.create_connection(server.address, 30) as late:
                    late.recv(1)
            until(lambda: server.stats().shed_reasons == {"guard": 1})
            assert noted.sheds() == {"guard": 1}
            socks[0].close()
            until(lambda: server.stats().active == 1)
            one.tick()
            assert timeouts(server) == before[1:]
            assert (server._options.linger, server._options.idle_timeout) == (1, None)
            with clients(server.address, 1):
                pass
    assert [log.outcomes(n) for n in ("UserTimeout", "ShortenTimeouts", "RefuseNew")] == [
        ["begin", "applied", "end"],
        ["begin", "end"],
        ["begin", "end"],
    ]


def test_a_shorter_user_timeout_stays() -> None:
    rule = guard.Rule("r", when=guard.connections > 0, then=guard.UserTimeout(seconds=5))
    options = hs.SocketOptions(user_timeout=2)
    with hs.serve(echo, ("127.0.0.1", 0), drain_timeout=30, options=options) as server:
        with clients(server.address, 1):
            one = hs.Guard(server, rule, enforce=True, log=Log())
            one.tick()
            (served,) = server._ledger.active
            assert served.conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2000
            one.stop()
            assert served.conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2000


def user_timeout(conn: hs.Connection) -> int:
    return int(conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))


def two_rules(first: guard.Action, second: guard.Action) -> tuple[guard.Rule, guard.Rule]:
    """The first ends when one of two connections does."""
    return (
        guard.Rule("two", when=guard.connections > 1, then=first),
        guard.Rule("one", when=guard.connections > 0, then=second),
    )


@pytest.mark.parametrize(("first", "second"), [(5, 5), (10, 5), (5, 10)])
@pytest.mark.parametrize("guards", [1, 2])
def test_of_rules_that_shorten_the_same_timeout_the_shortest_holds_until_it_ends(
    first: float, second: float, guards: int
) -> None:
    rules = two_rules(guard.UserTimeout(seconds=first), guard.UserTimeout(seconds=second))
    with hs.serve(echo, ("127.0.0.1", 0), drain_timeout=30) as server:
        split = [rules] if guards == 1 else [(rule,) for rule in rules]
        made = [hs.Guard(server, *some, enforce=True, log=Log()) for some in split]
        with clients(server.address, 1), ExitStack() as stack:
            (conn,) = [served.conn for served in server._ledger.active]
            before = user_timeout(conn)
            second_client = stack.enter_context(clients(server.address, 1))
            for one in made:
                one.tick()
            assert user_timeout(conn) == 1000 * min(first, second)
            second_client[0].close()
            until(lambda: server.stats().active == 1)
            for one in made:
                one.tick()
            assert user_timeout(conn) == 1000 * second
            for one in made:
                one.stop()
            assert user_timeout(conn) == before
            assert [one.failure for one in made] == [None] * guards


@pytest.mark.parametrize("same", [True, False])
def test_rules_that_change_the_same_of_a_server_do_not_undo_each_other(same: bool) -> None:
    first = guard.ShortenTimeouts(linger=0.1, idle_timeout=7)
    second = first if same else guard.ShortenTimeouts(linger=0.2)
    rules = two_rules(first, second)
    refusing = two_rules(guard.RefuseNew(), guard.RefuseNew())
    with hs.serve(echo, ("127.0.0.1", 0), drain_timeout=30, linger=1) as server:
        one = hs.Guard(server, *rules, *refusing, enforce=True, log=Log())
        with clients(server.address, 2) as socks:
            one.tick()
            assert (server._options.linger, server._options.idle_timeout) == (0.1, 7)
            socks[0].close()
            until(lambda: server.stats().active == 1)
            one.tick()
            left = (0.1, 7) if same else (0.2, None)
            assert (server._options.linger, server._options.idle_timeout) == left
            assert server._refusing
            one.stop()
            assert (server._options.linger, server._options.idle_timeout) == (1, None)
            assert not server._refusing
        assert one.failure is None


def test_a_function_that_stops_the_guard_lets_nothing_begin_after_it(server: hs.Server) -> None:
    stopping = guard.Rule(
        "stop", when=guard.connections > 0, then=guard.Call(lambda *_: one.stop())
    )
    refusing = guard.Rule("refuse", when=guard.connections > 0, then=guard.RefuseNew())
    one = hs.Guard(server, stopping, refusing, enforce=True, log=Log())
    with clients(server.address, 1):
        one.tick()
        assert not server._refusing
        assert one.failure is None


@pytest.mark.parametrize("ends", ["stop", "tick"])
def test_a_log_that_fails_when_a_rule_ends_does_not_keep_what_lasts(
    server: hs.Server, loud: Loud, ends: str
) -> None:
    def log(line: str) -> None:
        if '"stopped"' in line or '"cleared"' in line:
            raise OSError("no space left")

    rule = guard.Rule("r", when=guard.connections > 0, then=guard.RefuseNew())
    one = hs.Guard(server, rule, enforce=True, log=log)
    with clients(server.address, 1):
        one.tick()
        assert server._refusing
        if ends == "stop":
            one.stop()
    if ends == "tick":
        until(lambda: server.stats().active == 0)
        one.tick()
    assert "no space left" in loud.text
    assert not server._refusing


def test_a_pools_idle_connections_are_closed_and_lent_ones_are_not() -> None:
    log = Log()
    with hs.serve(echo, ("127.0.0.1", 0), drain_timeout=30) as server:
        with hs.Pool(server.address, options=hs.PoolOptions(max_size=3)) as pool:
            kept = pool.acquire()
            others = [pool.acquire() for _ in range(2)]
            for conn in (kept, *others):
                conn.sendall(b"x")
                assert conn.recv(1) == b"x"
            for conn in others:
                conn.mark_clean()
                pool.release(conn)
            one = hs.Guard(pool, close_all(), enforce=True, log=log)
            assert "1 lent" in one.explain()
            one.tick()
            kept.sendall(b"y")
            assert kept.recv(1) == b"y"
            assert pool.stats().idle == 0
            pool.release(kept, discard=True)
    assert log.outcomes() == ["closed", "closed"]


def test_stacks_of_holders_and_waiters_are_told(server: hs.Server) -> None:
    log = Log()
    rule = guard.Rule("wait", when=guard.pool_waiting > 0, then=guard.Diagnose())
    with hs.Pool(server.address, options=hs.PoolOptions(max_size=1)) as pool:
        held = pool.acquire()

        def wait_for_one() -> None:
            pool.release(pool.acquire(timeout=30))

        thread = threading.Thread(target=wait_for_one)
        thread.start()
        until(lambda: pool.stats().waiting == 1)
        hs.Guard(pool, rule, log=log).tick()
        pool.release(held)
        thread.join()
    line = log.lines[-1]
    assert (line["action"], line["outcome"]) == ("Diagnose", "done")
    assert any("test_stacks_of_holders" in frame for frame in line["holders"][0]["stack"])
    assert any("wait_for_one" in frame for frame in line["waiters"][0]["stack"])


def test_a_servers_handlers_are_told_with_their_stacks(server: hs.Server) -> None:
    log, arrived, go_on = Log(), threading.Event(), threading.Event()

    def stuck(conn: hs.Connection) -> None:
        conn.recv(1)
        arrived.set()
        go_on.wait(30)

    with hs.serve(stuck, ("127.0.0.1", 0), drain_timeout=30) as slow:
        with socket.create_connection(slow.address) as sock:
            sock.sendall(b"x")
            assert arrived.wait(30)
            rule = guard.Rule("r", when=guard.connections > 0, then=guard.Diagnose())
            hs.Guard(slow, rule, log=log).tick()
            go_on.set()
    (handler,) = log.lines[-1]["handlers"]
    assert any("in stuck" in line for line in handler["stack"])


def test_a_listener_and_a_process_have_what_is_accepted_and_unused() -> None:
    log = Log()
    with hs.listen(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as sock:
            conn = listener.accept()
            assert hs.Guard(listener, close_all())._scope.look(0.0).figures["connections"] == 1
            hs.Guard(listener, close_all(), enforce=True, log=log).tick()
            assert sock.recv(1) == b""
            assert conn.closed
        with hs.connect(listener.getsockname()) as client:
            ids = {row[0]: row[2] for row in _core._guard_rows()}
            assert ids[client._id] == "idle"
            one = hs.Guard(None, close_all(), enforce=True, log=log, limit=10)
            assert one._scope.look(0.0).figures["connections_share"] == 0.1
            one.tick()
            assert client.closed
    assert log.outcomes() == ["closed", "closed"]


@pytest.mark.parametrize(("host", "other"), [("127.0.0.1", "127.0.0.2"), ("::1", "127.0.0.3")])
def test_a_listener_on_the_same_port_of_another_address_is_not_its_own(
    host: str, other: str
) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(hs.listen((host, 0)))
        where = (other, listener.getsockname()[1])
        neighbour = stack.enter_context(hs.listen(where))
        conns = []
        for one in (listener, neighbour):
            stack.enter_context(socket.create_connection(one.getsockname()[:2], 30))
            conns.append(stack.enter_context(one.accept(timeout=30)))
        hs.Guard(listener, close_all(), enforce=True, log=Log()).tick()
        assert [conn.closed for conn in conns] == [True, False]


def test_a_function_is_called_when_it_is_enforced() -> None:
    calls: list[tuple[str, dict[str, float | None]]] = []
    rule = guard.Rule(
        "r",
        when=guard.descriptors > 0,
        then=guard.Call(lambda name, figures: calls.append((name, figures))),
    )
    log = Log()
    hs.Guard(None, rule, log=log).tick()
    assert (calls, log.outcomes("Call")) == ([], ["would call"])
    hs.Guard(None, rule, enforce=True, log=log).tick()
    ((name, figures),) = calls
    assert name == "r"
    assert figures.keys() == guard.QUANTITIES.keys()


class Loud(logging.Filter):
    """Keeps what was logged as text: a record would keep a server alive by its traceback."""

    text = ""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.CRITICAL:
            self.text += logging.Formatter().format(record) + "\n"
        return False


@pytest.fixture
def loud() -> Iterator[Loud]:
    logger, kept = logging.getLogger("hardsock.guard"), Loud()
    logger.addFilter(kept)
    yield kept
    logger.removeFilter(kept)


def test_an_exception_disarms_it_loudly_and_takes_back_what_lasts(
    server: hs.Server, loud: Loud
) -> None:
    def broken(name: str, figures: object) -> None:
        raise RuntimeError("no")

    rule = guard.Rule("r", when=guard.connections > 0, then=[guard.RefuseNew(), guard.Call(broken)])
    log = Log()
    one = hs.Guard(server, rule, enforce=True, log=log)
    with clients(server.address, 1):
        one.tick()
        assert "is disarmed" in loud.text
        assert "RuntimeError: no" in loud.text
        assert log.outcomes("guard") == ["disarmed"]
        assert str(one.failure) == "no"
        assert not server._refusing
        assert one.armed() == {"r": False}
        assert "disarmed: RuntimeError: no" in one.explain()
        written = len(log.lines)
        one.tick()
        assert len(log.lines) == written
    until(lambda: server.stats().active == 0)
    with one:
        assert one.failure is None


def test_a_connection_of_which_the_kernel_says_nothing_is_spared(server: hs.Server) -> None:
    """That it has no bytes has to be said."""
    rule = close_all()
    with clients(server.address, 1) as (sock,):
        quiet(server, 1)
        ((ident, _, state, *_),) = _core._guard_rows()
        assert state == "idle"
        with hs.faults("seed=0,ioctl.invalid=1"):
            assert [row[2] for row in _core._guard_rows()] == ["bytes"]
            assert _core._guard_retire(ident, 0, 0)[0] == "bytes"
        one = hs.Guard(server, rule, enforce=True, log=Log())
        one.tick()
        assert sock.recv(1) == b""


def timeouts_of(server: hs.Server) -> dict[int, int]:
    return {one.conn._id: user_timeout(one.conn) for one in server._ledger.active}


def test_user_timeouts_that_cannot_be_set_disarm_it_and_those_set_come_back(
    server: hs.Server, loud: Loud
) -> None:
    rule = guard.Rule("r", when=guard.connections > 0, then=guard.UserTimeout(seconds=7))
    one = hs.Guard(server, rule, enforce=True, log=Log())
    with clients(server.address, 3):
        quiet(server, 3)
        before = timeouts_of(server)
        with hs.faults("seed=0,setsockopt.no_buffers@2"):
            one.tick()
        assert isinstance(one.failure, OSError)
        assert "TCP_USER_TIMEOUT" in str(one.failure)
        assert timeouts_of(server) == before
        assert not user_timeouts._told
    until(lambda: server.stats().active == 0)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_user_timeout_that_cannot_be_given_back_keeps_no_other_short(
    server: hs.Server, loud: Loud, nth: int
) -> None:
    rule = guard.Rule("r", when=guard.connections > 0, then=guard.UserTimeout(seconds=7))
    one = hs.Guard(server, rule, enforce=True, log=Log())
    with clients(server.address, 3):
        quiet(server, 3)
        before = timeouts_of(server)
        one.tick()
        with hs.faults(f"seed=0,setsockopt.no_buffers@{nth}"):
            one.stop()
        assert isinstance(one.failure, OSError)
        now = timeouts_of(server)
        assert sorted(now[ident] == before[ident] for ident in before) == [False, True, True]
        assert 7000 in now.values()
        assert not user_timeouts._told
    until(lambda: server.stats().active == 0)


def test_a_log_that_fails_disarms_it_too(loud: Loud) -> None:
    def full(line: str) -> None:
        raise OSError("no space")

    one = hs.Guard(
        None, guard.Rule("r", when=guard.descriptors > 0, then=guard.Diagnose()), log=full
    )
    one.tick()
    assert isinstance(one.failure, OSError)
    assert "could not write its log" in loud.text


def test_it_looks_in_a_thread_of_its_own_until_it_is_stopped(
    server: hs.Server, caplog: pytest.LogCaptureFixture
) -> None:
    rule = guard.Rule("all", when=guard.connections > 0, then=guard.CloseIdle(**AT_ONCE))
    with clients(server.address, 1) as (sock,), caplog.at_level(logging.INFO, "hardsock.guard"):
        with hs.Guard(server, rule, enforce=True, every=0.02) as one:
            assert one.running
            with pytest.raises(RuntimeError, match="is running"):
                one.start()
            assert sock.recv(1) == b""
            until(lambda: ("all", "CloseIdle", "closed", 1) in one.counters())
            assert one in guard.living_guards()
            assert "running, enforcing" in repr(one)
        assert not one.running
    closed = [json.loads(one.message) for one in caplog.records if "CloseIdle" in one.message]
    assert [one["outcome"] for one in closed] == ["closed"]


def test_a_forked_child_has_no_running_guard() -> None:
    rule = guard.Rule("r", when=guard.descriptors < 0, then=guard.Diagnose())
    with hs.Guard(None, rule) as one:
        pid = os.fork()
        if pid == 0:
            os._exit(3 if one.running else 0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def guards_told() -> Any:
    return hs.metrics()["guards"]


def test_running_guards_are_counted_and_a_forked_child_has_none() -> None:
    rule = guard.Rule("r", when=guard.descriptors < 0, then=guard.Diagnose())
    assert guards_told()["running"] == 0
    with hs.Guard(None, rule), hs.Guard(None, rule):
        assert guards_told()["running"] == 2
        if (pid := os.fork()) == 0:
            first = guards_told()["running"]
            with hs.Guard(None, rule):
                second = guards_told()["running"]
            os._exit(0 if (first, second, guards_told()["running"]) == (0, 1, 0) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert guards_told()["running"] == 2
    assert guards_told()["running"] == 0


def test_a_guard_whose_function_forks_goes_on_in_the_parent_alone() -> None:
    """In the child its thread ends, and takes nothing from what the child's own guards count."""
    looks = guard.Rule("r", when=guard.descriptors < 0, then=guard.Diagnose())
    read, write = os.pipe()
    after: list[str] = []

    def fork(_rule: str, _figures: object) -> None:
        if (pid := os.fork()) == 0:
            children.append(hs.Guard(None, looks))
            children[0].start()
        else:
            forked.append(pid)

    children: list[hs.Guard] = []
    forked: list[int] = []
    one = hs.Guard(
        None,
        guard.Rule(
            "fork",
            when=guard.descriptors > 0,
            then=(guard.Call(fork), guard.Call(lambda _rule, _figures: after.append("it"))),
        ),
        enforce=True,
        every=0.01,
    )
    thread, parent = one._run, os.getpid()

    def run(stopping: threading.Event) -> None:
        thread(stopping)
        if os.getpid() != parent:
            os.write(write, f"{guards_told()['running']} {len(after)}".encode())
            os._exit(0)

    one._run = run  # type: ignore[method-assign]
    with one:
        assert select.select([read], [], [], 60.0)[0]
        assert os.read(read, 100) == b"1 0"
        until(lambda: bool(forked))
        os.waitpid(forked[0], 0)
        until(lambda: after == ["it"])
        assert one.running
        assert guards_told()["running"] == 1
    assert guards_told()["running"] == 0
    os.close(read)
    os.close(write)


def test_a_guard_whose_thread_cannot_be_started_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    one = hs.Guard(None, guard.Rule("r", when=guard.descriptors < 0, then=guard.Diagnose()))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"):
            one.start()
    assert guards_told()["running"] == 0
    with one:
        assert one.running


def test_what_guards_decide_and_refuse_is_in_the_metrics() -> None:
    before = guards_told()["decisions"]
    rule = guard.Rule("r", when=guard.connections > 0, then=[guard.RefuseNew(), guard.Diagnose()])
    with (
        hs.serve(echo, ("127.0.0.1", 0), drain_timeout=30, name="refuser") as server,
        clients(server.address, 1),
    ):
        one = hs.Guard(server, rule, enforce=True, log=Log())
        one.tick()
        # The reset may come before connect() has returned.
        with pytest.raises(OSError), socket.create_connection(server.address, 30) as sock:
            sock.sendall(b"x")
            if not sock.recv(1):
                raise ConnectionResetError
        told = next(one for one in hs.metrics()["services"] if one["name"] == "refuser")
        assert (told["refused"], told["accepted"]) == (1, 1)
        one.stop()
    now = guards_told()["decisions"]
    changed = {name: n - before[name] for name, n in now.items() if n != before[name]}
    assert changed == {"armed": 1, "begin": 1, "done": 1, "end": 1, "stopped": 1}


def test_every_outcome_of_a_decision_is_one_that_is_counted() -> None:
    with pytest.raises(ValueError, match="outcome must be one of a guard's, got 'eaten'"):
        _core._guard_count("eaten", 1)
    with pytest.raises(TypeError, match="n must be an int"):
        _core._guard_count("closed", "1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="runs"):
        _core._guard_runs(1)  # type: ignore[arg-type]


def test_a_child_forked_during_a_look_leaves_the_block_and_changes_nothing() -> None:
    looking, go_on = threading.Event(), threading.Event()

    def wait(*_details: object) -> None:
        looking.set()
        go_on.wait(30)

    with hs.listen("127.0.0.1:0") as listener, hs.connect(listener.address) as conn:
        rules = (
            guard.Rule("t", when=guard.connections > 0, then=guard.UserTimeout(seconds=5)),
            guard.Rule("c", when=guard.connections > 0, then=guard.Call(wait, per=0.001)),
        )
        one = hs.Guard(None, *rules, enforce=True, every=0.01, log=lambda line: None)
        pid = -1
        try:
            with one:
                assert looking.wait(30)
                go_on.set()
                until(lambda: user_timeout(conn) == 5000)
                go_on.clear()
                looking.clear()
                assert looking.wait(30)
                if (pid := os.fork()) == 0:
                    signal.alarm(20)
                    one.explain()
                go_on.set()
                if pid:
                    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
                    assert user_timeout(conn) == 5000
        except BaseException:
            if pid == 0:
                os._exit(1)
            raise
        if pid == 0:
            os._exit(0)


def test_explain_says_what_would_be_done_in_how_long(server: hs.Server) -> None:
    rule = guard.Rule(
        "too many", when=guard.connections > 1, clear=0, for_=30,
        then=[guard.CloseIdle(**{**AT_ONCE, "at_most": 1}), guard.Diagnose()],
    )  # fmt: skip
    one = hs.Guard(server, rule)
    assert "rule 'too many' is off: connections is 0 (connections > 1, clear at 0)" in one.explain()
    with clients(server.address, 2):
        quiet(server, 2)
        text = one.explain()
    assert "sets in in 30 s if that lasts" in text
    assert (
        "would close 1 now of 2 idle over 0 s; budget 1 in 600 s, 0 used; first 127.0.0.1" in text
    )


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: hs.Guard(None), ValueError, "at least one rule"),
        (lambda: hs.Guard(None, 1), TypeError, "rules must be Rule"),
        (lambda: hs.Guard(1, close_all()), TypeError, "a guard watches"),
        (lambda: hs.Guard(None, close_all(), enforce=1), TypeError, "enforce must be a bool"),
        (lambda: hs.Guard(None, close_all(), every=0), ValueError, "every must be in"),
        (lambda: hs.Guard(None, close_all(), every=None), TypeError, "every must be a number"),
        (lambda: hs.Guard(None, close_all(), log=1), TypeError, "log must be callable"),
        (
            lambda: hs.Guard(None, guard.Rule("r", when=guard.growth > 1, then=guard.RefuseNew())),
            TypeError,
            "RefuseNew cannot be done to a whole process",
        ),
    ],
)
def test_what_is_wrong_is_refused(make: Callable[[], object], error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def test_the_articles_rules_are_a_preset() -> None:
    rules = guard.article_2023(100, server=True)
    assert [one.name for one in rules] == ["many and old", "many and young", "many"]
    hs.Guard(None, *guard.article_2023(), log=Log()).tick()
    with hs.serve(echo, ("127.0.0.1", 0), drain_timeout=1) as server:
        hs.Guard(server, *rules, enforce=True, log=Log()).tick()


def test_want_of_memory_is_not_told_as_a_connection_that_is_gone() -> None:
    need_testcapi()
    testcapi = importlib.import_module("_testcapi")
    # A peer without a thread, whose allocations would fail instead.
    with socket.create_server(("127.0.0.1", 0)) as peer, hs.Pool(peer.getsockname()) as pool:
        with pool.connection(timeout=20):
            pass
        (ident,) = _core._guard_pool_ids(pool)[1]
        spare = [(n, n, n, n) for n in range(5000)]  # Kept ones are gone: all need memory.
        for nth in range(100):  # how many allocations succeed first
            outcome = ""
            testcapi.set_nomemory(nth, nth + 1)
            try:
                outcome = _core._guard_retire(ident, 0, 0)[0]
            except MemoryError:
                pass
            finally:
                testcapi.remove_mem_hooks()
            if pool.stats().idle == 0:
                break
            assert outcome == ""
        assert nth >= 1, "no allocation has failed"
        del spare
