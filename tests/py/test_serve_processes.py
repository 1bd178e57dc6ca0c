"""serve_processes: children that are watched, replaced and ended, with real clients."""

from __future__ import annotations

import collections
import errno
import functools
import importlib
import inspect
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import hardsock as hs
from hardsock.lab.endpoint import connect_to
from hardsock.lab.threads import Call
from hardsock.lab.waits import poll_until
from hardsock.serving import processes
from hardsock.serving.channel import Channel
from hardsock.serving.child import _Talk
from hardsock.serving.processes import Plan, _Tickets
from support.process_handlers import (
    closes_all,
    never,
    never_answers,
    never_answers_awaited,
    orphans,
    which,
    which_awaited,
    which_message,
    which_message_awaited,
)
from support.signals import wait_until_caught
from support.tls import Identities

LOCAL = ("127.0.0.1", 0)
HANDLERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "threads": (which, {}),
    "aio": (which_awaited, {}),
    "messages": (which_message, {"per": "message"}),
    "aio-messages": (which_message_awaited, {"per": "message"}),
}
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def children_find_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh interpreter imports handlers by their module's name."""
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS)] + [before] * bool(before)))


def ask(address: Any, line: bytes = b"which") -> int:
    """Who answers."""
    with connect_to(address) as client:
        client.settimeout(20)
        client.sendall(line + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            if not (piece := client.recv(100)):
                raise EOFError(answer)
            answer += piece
        return int(answer.split()[1])


def pids(server: hs.ProcessServer, state: str = "ready") -> list[int]:
    return [process.pid for process in server.processes() if process.state == state]


@pytest.fixture(params=HANDLERS)
def server(request: pytest.FixtureRequest) -> Iterator[hs.ProcessServer]:
    handler, settings = HANDLERS[request.param]
    with hs.serve_processes(handler, LOCAL, processes=2, drain_timeout=10, **settings) as it:
        assert it.wait_ready(60)
        yield it


def test_all_of_them_serve_and_the_sums_add_up(server: hs.ProcessServer) -> None:
    assert server.ready
    seen: collections.Counter[int] = collections.Counter()
    while len(seen) < 2:
        with connect_to(server.address) as one, connect_to(server.address) as two:
            one.sendall(b"a\n")
            two.sendall(b"b\n")
            for client in (one, two):
                client.settimeout(20)
                seen[int(client.recv(100).split()[1])] += 1
    assert sorted(seen) == sorted(pids(server))
    report = server.drain()
    assert not server.ready
    assert report.clean
    assert (report.started, report.died, report.lost) == (2, 0, 0)
    assert report.accepted == report.handled + report.failed + report.cut == sum(seen.values())
    assert len(report.reports) == 2
    with pytest.raises(ConnectionRefusedError):
        connect_to(server.address)


def test_one_that_dies_is_started_again(server: hs.ProcessServer) -> None:
    before = pids(server)
    with pytest.raises((EOFError, ConnectionResetError)):
        ask(server.address, b"die")
    assert ask(server.address) in before, "the other one goes on"
    assert poll_until(lambda: len(set(pids(server)) - set(before)) == 1, 60)
    assert poll_until(lambda: len(pids(server)) == 2, 60)
    report = server.drain()
    assert (report.started, report.died) == (3, 1)


def test_a_reload_replaces_all_of_them_and_loses_nobody(server: hs.ProcessServer) -> None:
    before, lost, over = pids(server), [], threading.Event()
    answered: collections.Counter[int] = collections.Counter()

    def load() -> None:
        while not over.is_set():
            try:
                answered[ask(server.address)] += 1
            except (OSError, EOFError) as exc:
                lost.append(exc)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert poll_until(lambda: sum(answered.values()) > 10, 30)
        server.reload()
        assert poll_until(
            lambda: len(pids(server)) == 2 and not set(pids(server)) & set(before), 60
        )
        assert poll_until(lambda: not pids(server, "leaving"), 60)
        new = pids(server)
        assert poll_until(lambda: any(answered[pid] for pid in new), 30)
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
    assert lost == []
    report = server.drain()
    assert (report.started, report.died, report.reloads) == (4, 0, 1)
    assert report.accepted == report.handled + report.failed + report.cut == sum(answered.values())


def test_a_handler_that_will_not_leave_does_not_hold_the_end_up() -> None:
    with hs.serve_processes(never, LOCAL, processes=1, drain_timeout=1) as server:
        assert server.wait_ready(60)
        with connect_to(server.address) as client:
            assert poll_until(
                lambda: sum(p.stats.get("active", 0) for p in server.processes()) == 1, 30
            )
            report = server.drain()
            client.settimeout(60)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    assert report.elapsed < 30
    assert (report.accepted, report.cut) == (1, 1)


@pytest.mark.parametrize("handler", [never_answers, never_answers_awaited])
def test_a_token_ends_all_processes_at_once(handler: Any) -> None:
    token = hs.CancelToken(name="all")
    with hs.serve_processes(handler, LOCAL, processes=2, drain_timeout=300, token=token) as server:
        assert server.wait_ready(60)
        with connect_to(server.address) as one, connect_to(server.address) as two:
            assert poll_until(lambda: server.stats().active == 2, 30)
            token.cancel("enough")
            assert server.wait(60)
            for client in (one, two):
                client.settimeout(60)
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
    assert server.report is not None
    assert (server.report.reason, server.report.cut) == ("enough", 2)
    assert server.report.elapsed < 60
    assert len(server.report.reports) == 2, "they said how they ended"


def test_a_token_that_has_ended_serves_nobody() -> None:
    token = hs.CancelToken()
    token.cancel("before")
    with hs.serve_processes(which, LOCAL, processes=1, drain_timeout=30, token=token) as server:
        assert server.wait(60)
    assert server.report is not None
    assert (server.report.reason, server.report.accepted) == ("before", 0)


def test_the_numbers_of_all_processes_are_added_up() -> None:
    """Of those that serve, those that have left, and those that died."""
    with hs.serve_processes(
        which_message, LOCAL, processes=2, per="message", drain_timeout=30, measure_delays=True
    ) as server:
        assert server.stats().accepted == 0
        assert server.wait_ready(60)
        asked = 0
        while len({process.pid for process in server.processes() if served(process)}) < 2:
            ask(server.address)
            asked += 1
        assert poll_until(lambda: server.stats().handled == asked, 30)
        stats = server.stats()
        assert (stats.accepted, stats.active, stats.failed, stats.cut) == (asked, 0, 0, 0)
        assert stats.endings == {"clean": asked}
        assert set(stats.delays) == {"queue", "start", "lock", "loop"}
        each = [process.stats["delays"]["lock"] for process in server.processes()]
        assert all(counts.total for counts in each)
        assert server.stats().delays["lock"].total >= sum(counts.total for counts in each)

        with connect_to(server.address) as client:
            assert poll_until(lambda: server.stats().active == 1, 30)
            client.sendall(b"die\n")
            assert poll_until(lambda: server._supervisor._died == 1, 60)
        assert poll_until(lambda: len(pids(server)) == 2, 60)
        server.reload()
        assert poll_until(lambda: server._supervisor._reloads == 1 and len(pids(server)) == 2, 60)
        report = server.drain()
    stats = server.stats()
    assert stats.draining
    assert (stats.accepted, stats.active) == (asked + 1, 0)
    assert stats.accepted == stats.handled + stats.failed + stats.cut
    assert (stats.failed, dict(stats.errors)) == (1, {"process died": 1})
    assert (report.lost, report.failed) == (1, 0)
    assert stats.delays["lock"].total >= sum(counts.total for counts in each)


def served(process: hs.ProcessInfo) -> bool:
    return process.stats.get("handled", 0) > 0


def test_every_parameter_of_serve_is_one_of_it_too() -> None:
    of_one = inspect.signature(hs.serve).parameters
    of_many = inspect.signature(hs.serve_processes).parameters
    assert set(of_one) - set(of_many) == set()
    assert set(of_many) - set(of_one) == {"processes", "start_timeout"}


def test_each_process_has_a_fallback_of_its_own(tmp_path: Path) -> None:
    """After clients of it have failed; tickets of the fallback resume in all of them."""
    identities = Identities(tmp_path)
    modern = identities.client(sessions=False)
    old = identities.client(max_version="TLSv1.2")
    with hs.serve_processes(
        which, LOCAL, processes=2, drain_timeout=30,
        tls=identities.server(min_version="TLSv1.3"),
        tls_fallback=identities.server(),
        tls_breaker=functools.partial(hs.Breaker, failures=1, open_time=600.0),
        insecure_allow_weaker_fallback=True,
    ) as server:  # fmt: skip
        assert server.wait_ready(60)
        resumed: dict[int, list[bool]] = collections.defaultdict(list)

        def visit() -> bool:
            try:
                with (
                    hs.connect(server.address, tls=old, timeout=20) as one,
                    hs.connect(server.address, tls=old, timeout=20) as two,
                ):
                    for conn in (one, two):
                        conn.sendall(b"which\n")
                        pid = int(conn.recv_line(timeout=20).split()[1])
                        assert conn.tls is not None
                        resumed[pid].append(conn.tls.resumed)
            except hs.TLSError:
                return False  # That one has no fallback yet: it has now.
            return len(resumed) == 2 and all(True in each for each in resumed.values())

        assert poll_until(visit, 60)
        resumed.clear()
        assert poll_until(visit, 60)
        assert all(all(each) for each in resumed.values()), "no matter who has sealed the ticket"
        with hs.connect(server.address, tls=modern, timeout=20) as conn:
            conn.sendall(b"which\n")
            assert int(conn.recv_line(timeout=20).split()[1]) in pids(server)


@pytest.mark.parametrize("how", ["program", "copy"])
def test_one_that_leaves_a_child_of_its_own_is_replaced(tmp_path: Path, how: str) -> None:
    """Its child holds the pipes, so that they do not end with it."""
    path = tmp_path / "pid"
    with hs.serve_processes(orphans, LOCAL, processes=1, drain_timeout=30) as server:
        assert server.wait_ready(60)
        before = pids(server)
        with connect_to(server.address) as client:
            client.sendall(f"{how} {path}\n".encode())
            assert poll_until(path.exists, 30)
        try:
            assert poll_until(lambda: pids(server) and pids(server) != before, 30)
            report = server.drain()
        finally:
            os.kill(int(path.read_text()), signal.SIGKILL)
    assert (report.started, report.died) == (2, 1)
    assert report.elapsed < 30


def test_one_that_closes_what_connects_it_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_MORE", 0.1)
    with hs.serve_processes(closes_all, LOCAL, processes=1, drain_timeout=30) as server:
        assert server.wait_ready(60)
        before = pids(server)
        with connect_to(server.address) as client:
            client.sendall(b"now\n")
            assert poll_until(lambda: pids(server) and pids(server) != before, 60)
            client.sendall(b"end\n")
        report = server.drain()
    assert (report.started, report.died) == (2, 1)


@pytest.mark.parametrize("goes_on", [True, False], ids=["and goes on", "for good"])
def test_one_that_is_stopped_in_the_middle_of_a_message_holds_nobody_up(
    server: hs.ProcessServer, tmp_path: Path, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "pid"
    before = pids(server)
    with connect_to(server.address) as client:
        client.sendall(f"stop {mark}\n".encode())
        assert poll_until(lambda: mark.exists() and mark.read_text() != "", 60)
        stopped = int(mark.read_text())
        assert poll_until(lambda: Path(f"/proc/{stopped}/stat").read_text().split()[2] == "T", 60)
        (other,) = set(before) - {stopped}
        os.kill(other, signal.SIGKILL)  # The parent notices, so it is not held up.
        assert poll_until(lambda: {stopped, other} < {*pids(server), other}, 60)
        patience = iter(0.05 * 2**n for n in range(10))
        assert any(ask_within(server.address, each) for each in patience), "the new one serves"
        if goes_on:
            os.kill(stopped, signal.SIGCONT)
            client.settimeout(30)
            assert client.recv(100).startswith(b"stop ")
    with Call(server.drain, 1) as draining:
        if not goes_on:  # Once it is alone nobody needs the time that is given after the end.
            assert poll_until(lambda: [it.pid for it in server.processes()] == [stopped], 60)
            monkeypatch.setattr(processes, "_MORE", 0.0)
        report = draining.result(60)
    assert report.elapsed < 30
    assert (report.started, report.died) == (3, 1)
    assert len(report.reports) == 1 + goes_on, "the stopped one was killed"


def ask_within(address: Any, seconds: float) -> bool:
    """Whether somebody answers; connections may lie with one that is stopped."""
    with connect_to(address) as client:
        client.settimeout(seconds)
        client.sendall(b"which\n")
        try:
            return client.recv(100) != b""
        except TimeoutError:
            return False


def test_a_stopped_parent_holds_no_child_up() -> None:
    """It reads nothing for long: numbers that do not go out are not heaped up, the last ones do."""
    ours, theirs = socket.socketpair()
    server = SlowToCount()
    server.go.set()
    server.report = "x" * 1_000_000  # more than the kernel keeps for one who does not read
    talk = talk_of(server, theirs)
    reader = Channel(ours)
    said = []
    end = threading.Thread(target=talk.finish)
    while not talk._channel.unsent:
        talk._channel.send("filler", b"x" * 100_000)
    counted = server.calls
    talk._say_stats()
    assert server.calls == counted, "there are older ones to read"
    end.start()
    while not said or said[-1][0] != "report":
        assert reader.wait(30)
        said += reader.receive()
    end.join(30)
    ours.close()
    talk._thread.join(30)
    talk._channel.close()
    assert [kind for kind, _ in said][-2:] == ["stats", "report"]


def talk_of(server: SlowToCount, sock: socket.socket) -> _Talk:
    plan = Plan(which, {}, {}, 1.0)
    channel = Channel(sock)
    return _Talk(plan, server, None, channel, lambda _: None, hs.CancelToken())  # type: ignore[arg-type]


def test_the_last_numbers_are_the_final_ones() -> None:
    """The thread that says them once a second may be held up while it takes them."""
    ours, theirs = socket.socketpair()
    server = SlowToCount()
    talk = talk_of(server, theirs)
    end = threading.Thread(target=talk.finish)
    parent = Channel(ours)
    assert parent.wait(30)
    assert parent.receive() == [("ready", None)]
    parent.send("nothing")
    assert server.counting.wait(30)
    end.start()
    end.join(0.2)  # With the fault it has ended by now.
    server.go.set()
    end.join(30)
    talk._thread.join(30)
    said = parent.receive()
    parent.close()
    talk._channel.close()
    assert [kind for kind, _ in said][-2:] == ["stats", "report"]
    assert said[-2][1] == Numbers(server.calls)


class SlowToCount:
    """A server whose first numbers take time."""

    report: Any = None

    def __init__(self) -> None:
        self.calls = 0
        self.counting, self.go = threading.Event(), threading.Event()

    def stats(self) -> Numbers:
        self.calls += 1
        number = self.calls
        if number == 1:
            self.counting.set()
            self.go.wait(30)
        return Numbers(number)


class Numbers(NamedTuple):
    number: int


def test_what_does_not_come_up_is_tried_again_with_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a drain ends it all the same."""
    monkeypatch.setenv("HARDSOCK_TEST_BREAKS_IMPORT", str(os.getpid()))
    with hs.serve_processes(which, LOCAL, processes=1, drain_timeout=30) as server:
        assert not server.wait_ready(0)
        assert poll_until(lambda: server._supervisor._died >= 2, 60)
        assert not server.ready
        monkeypatch.delenv("HARDSOCK_TEST_BREAKS_IMPORT")
        assert server.wait_ready(60)
        assert ask(server.address) == pids(server)[0]
    assert server.report is not None
    assert server.report.died >= 2


SLOW_TO_IMPORT = """
import time

from support.process_handlers import which

if __name__ != "__main__" and {parent} == __import__("os").getppid():
    open({mark!r}, "w").close()
    time.sleep(2)


def handler(conn):
    which(conn)
"""


def test_one_that_is_ready_only_after_the_stop_is_not_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mark = tmp_path / "importing"
    source = SLOW_TO_IMPORT.format(parent=os.getpid(), mark=str(mark))
    (tmp_path / "slow_to_import.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    handler = importlib.import_module("slow_to_import").handler
    with hs.serve_processes(handler, LOCAL, processes=1, drain_timeout=60) as server:
        assert poll_until(mark.exists, 60)
        server.stop()
        assert server.wait(60)
    assert "is killed" not in caplog.text
    assert server.report is not None
    assert (server.report.started, server.report.died) == (1, 0)
    assert len(server.report.reports) == 1, "it has said how it went"


def test_tls_sessions_are_resumed_in_any_of_them(tmp_path: Path) -> None:
    identities = Identities(tmp_path)
    config = identities.client()
    seen: dict[int, set[bool]] = collections.defaultdict(set)
    with hs.serve_processes(
        which, LOCAL, processes=2, drain_timeout=30, tls=identities.server()
    ) as server:
        assert server.wait_ready(60)

        def visit() -> bool:
            with (
                hs.connect(server.address, tls=config, timeout=20) as one,
                hs.connect(server.address, tls=config, timeout=20) as two,
            ):
                for conn in (one, two):
                    conn.sendall(b"which\n")
                    pid = int(conn.recv_line(timeout=20).split()[1])
                    assert conn.tls is not None
                    seen[pid].add(conn.tls.resumed)
            return len(seen) == 2 and all(True in each for each in seen.values())

        visit()
        seen.clear()  # From here on every handshake can resume, no matter who sealed the ticket.
        assert poll_until(visit, 60)
        assert all(each == {True} for each in seen.values())


def test_a_reload_with_a_bad_certificate_ends_there_and_the_old_ones_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And one that dies is started again when the file is good."""
    identities = Identities(tmp_path)
    config = identities.client()
    tls = identities.server()
    mine = Path(str(identities.server_identity.chain))

    def visit(line: bytes = b"which") -> int:
        with hs.connect(server.address, tls=config, timeout=20) as conn:
            conn.sendall(line + b"\n")
            return int(conn.recv_line(timeout=20).split()[1])

    with hs.serve_processes(which, LOCAL, processes=2, drain_timeout=30, tls=tls) as server:
        assert server.wait_ready(60)
        before = pids(server)
        good = mine.read_bytes()
        mine.write_bytes(b"garbage")
        descriptors = len(os.listdir("/proc/self/fd"))
        server.reload()
        assert poll_until(lambda: "the reload ends here" in caplog.text, 60)
        assert "cannot be started" in caplog.text
        assert poll_until(lambda: len(os.listdir("/proc/self/fd")) == descriptors, 60)
        assert pids(server) == before
        assert visit() in before
        with pytest.raises((hs.HardsockError, EOFError)):
            visit(b"die")
        assert poll_until(lambda: caplog.text.count("cannot be started") >= 2, 60)
        assert visit() in before
        mine.write_bytes(good)
        assert poll_until(lambda: len(pids(server)) == 2, 60)
        assert not server.closed


def test_a_process_that_cannot_be_started_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Descriptors may be short for a while: each part fails once."""
    with hs.serve_processes(which, LOCAL, processes=1, drain_timeout=30) as server:
        assert server.wait_ready(60)
        before, descriptors = pids(server), len(os.listdir("/proc/self/fd"))
        for number, (owner, name) in enumerate(
            [(socket, "socketpair"), (server._spawn, "Process"), (os, "dup")], 1
        ):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, fail_of_descriptors)
                server.reload()
                assert poll_until(lambda n=number: caplog.text.count("reload ends") == n, 60)
            assert poll_until(lambda: len(os.listdir("/proc/self/fd")) == descriptors, 60)
            assert pids(server) == before
        assert ask(server.address) in before
        server.reload()
        assert poll_until(lambda: pids(server) and pids(server) != before, 60)


def fail_of_descriptors(*_args: Any, **_kwargs: Any) -> Any:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_tickets_of_one_process_are_opened_by_another_with_its_keys(tmp_path: Path) -> None:
    """Two listeners stand for two processes; a key that is replaced opens for two more turns."""
    identities = Identities(tmp_path)
    client = identities.client()
    keys = [os.urandom(80) for _ in range(4)]
    first = identities.server(ticket_keys=keys[:1])
    second = identities.server(ticket_keys=keys[:1])
    resumed = []

    def visit(config: hs.TLSConfig) -> None:
        def answer(conn: hs.Connection) -> None:
            conn.sendall(conn.recv_exactly(1))

        with hs.serve(answer, port, drain_timeout=30, tls=config) as server:
            with hs.connect(server.address, tls=client, timeout=60) as conn:
                conn.sendall(b"x")
                assert conn.recv_exactly(1, timeout=60) == b"x"
                assert conn.tls is not None
                resumed.append(conn.tls.resumed)

    with socket.create_server(LOCAL) as sock:
        port = sock.getsockname()  # Sessions are of one address.
    visit(first)
    visit(second)
    second.replace_ticket_keys([keys[1], keys[0]])
    visit(second)
    second.replace_ticket_keys([keys[3], keys[2], keys[1]])
    visit(second)
    visit(first)
    assert resumed == [False, True, True, True, False]


def test_ticket_keys_are_replaced_and_each_opens_for_a_lifetime(tmp_path: Path) -> None:
    tickets = _Tickets("tls", Identities(tmp_path).server(session_lifetime=60), 0.0)
    first = tickets.keys[0]
    known, sealed = {first: 0.0}, {first: 0.0}
    for now in (tick * 0.5 for tick in range(1200)):
        before = tickets.keys
        assert tickets.step(now) == (before != tickets.keys)
        for key in tickets.keys:
            known.setdefault(key, now)
        sealing = tickets.keys[0]
        assert sealing == first or now - known[sealing] >= 1  # All processes have it by then.
        sealed[sealing] = now
        assert [
            key for key, at in sealed.items() if now - at <= 60 and key not in tickets.keys
        ] == []
    assert len(sealed) == 20  # One in 31 seconds.


@pytest.mark.parametrize("required", [False, True])
def test_a_reload_trusts_no_older_ticket_of_a_client_with_a_certificate(
    tmp_path: Path, required: bool
) -> None:
    ids = Identities(tmp_path)
    config = ids.server(client_certificates="required", ca=ids.ca) if required else ids.server()
    tickets = _Tickets("tls", config, 0.0)
    before = tickets.keys
    tickets.anew()
    assert (before == tickets.keys) is not required


def test_a_config_goes_to_another_process(tmp_path: Path) -> None:
    config = Identities(tmp_path).server(ticket_keys=[os.urandom(80)], alpn=("h2",))
    copy = pickle.loads(pickle.dumps(config))
    assert copy == config
    assert copy.ticket_keys == config.ticket_keys
    assert str(config.ticket_keys) not in repr(config)


PROGRAM = """
import sys
import hardsock as hs
from support.process_handlers import which

if __name__ == "__main__":
    with hs.serve_processes(which, ("127.0.0.1", 0), processes=int(sys.argv[1]), drain_timeout=20) as server:
        assert server.wait_ready(60)
        print(server.address[1], flush=True)
        server.wait()
        print(server.report.reason, server.report.reloads, flush=True)
"""


@pytest.fixture
def program(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    count = getattr(request, "param", "2")
    with subprocess.Popen(
        [sys.executable, str(file), count], stdout=subprocess.PIPE, text=True
    ) as it:
        yield it
        it.kill()


# One process: of two the other old one may answer before the reload has begun.
@pytest.mark.parametrize("program", ["1"], indirect=True)
def test_signals_reload_and_end_the_program(program: subprocess.Popen[str]) -> None:
    assert program.stdout is not None
    address = ("127.0.0.1", int(program.stdout.readline()))
    first = ask(address)
    wait_until_caught(program.pid, signal.SIGHUP)  # Then it is in wait().
    program.send_signal(signal.SIGHUP)
    assert poll_until(lambda: ask(address) != first, 60)
    with connect_to(address) as busy:
        busy.settimeout(20)
        busy.sendall(b"half")
        assert poll_until(lambda: answered_twice(address), 60)
        program.send_signal(signal.SIGTERM)
        assert poll_until(lambda: refuses(address), 30)
        busy.sendall(b" of it\n")
        assert busy.recv(100).startswith(b"half of it ")
    assert program.stdout.readline() == "SIGTERM 1\n"
    assert program.wait(60) == 0


def answered_twice(address: Any) -> bool:
    return ask(address) > 0 and ask(address) > 0


def refuses(address: Any) -> bool:
    try:
        connect_to(address).close()
    except ConnectionError:
        return True
    return False


def test_children_whose_parent_is_killed_end(program: subprocess.Popen[str]) -> None:
    assert program.stdout is not None
    address = ("127.0.0.1", int(program.stdout.readline()))
    assert ask(address) > 0
    program.kill()
    assert poll_until(lambda: refuses(address), 60)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"processes": 0}, "processes"),
        ({"processes": True}, "processes"),
        ({"start_timeout": 0}, "start_timeout"),
        ({"drain_timeout": -1}, "drain_timeout"),
        ({"workers": 4, "max_connections": 2}, "workers=4 and max_connections=2"),
        ({"handler": which_awaited, "workers": 4}, "workers has no use"),
        ({"handler": lambda conn: None}, "handler must be something that another process can"),
        ({"handler": 7}, "handler must be callable"),
        ({"token": 7}, "token must be a CancelToken"),
        ({"measure_delays": 1}, "measure_delays must be a bool"),
        ({"handshake_rate": 5}, "handshake_rate has no use without tls"),
        ({"max_handshakes": 0}, "max_handshakes must be in"),
        ({"max_handshakes": 7}, "max_handshakes has no use without"),
        ({"peer_limits": 7}, "peer_limits must be a PeerLimits"),
        ({"insecure_allow_weaker_fallback": True}, "has no use without tls_fallback"),
        ({"tls_breaker": hs.Breaker()}, "tls_breaker is a Breaker, whose state is of this process"),
        ({"tls_breaker": lambda: hs.Breaker()}, "tls_breaker cannot be used in another process"),
        ({"tls_breaker": dict}, "tls_breaker must make a Breaker, not dict"),
        ({"tls_breaker": hs.Breaker}, "tls_breaker has no use without tls_fallback"),
    ],
)
def test_bad_parameters_are_named(changes: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"handler": which, "address": LOCAL, "drain_timeout": 1} | changes
    with pytest.raises((ValueError, TypeError), match=message):
        hs.serve_processes(**settings)


def test_a_listener_of_this_process_is_refused_and_a_listening_socket_is_not() -> None:
    with hs.listen(LOCAL) as listener:
        with pytest.raises(TypeError, match="address must not be a Listener"):
            hs.serve_processes(which, listener, processes=1, drain_timeout=30)  # type: ignore[arg-type]
    sock = socket.create_server(LOCAL)
    with hs.serve_processes(which, sock, processes=1, drain_timeout=30) as server:
        assert ask(server.address) > 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "1 to 3, got 0"),
        ([bytes(80)] * 4, "1 to 3, got 4"),
        ([bytes(79)], "must be 80 bytes"),
        (bytes(80), "a sequence of bytes"),
    ],
)
def test_bad_ticket_keys_are_named(tmp_path: Path, keys: Any, message: str) -> None:
    identities = Identities(tmp_path)
    with pytest.raises((ValueError, TypeError), match=message):
        identities.server(ticket_keys=keys)
    with pytest.raises((ValueError, TypeError), match=message):
        identities.server().replace_ticket_keys(keys)


def test_ticket_keys_are_for_servers(tmp_path: Path) -> None:
    identities = Identities(tmp_path)
    with pytest.raises(ValueError, match="ticket_keys is for role='server'"):
        identities.client(ticket_keys=[bytes(80)])
    with pytest.raises(ValueError, match="ticket keys are a server's"):
        identities.client().replace_ticket_keys([bytes(80)])
