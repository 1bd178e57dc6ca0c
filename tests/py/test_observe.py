"""Reports, figures and the flight recorder, as a program sees them."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
import hardsock.aio
from hardsock import _core
from hardsock.lab.waits import poll_until
from hardsock.serving.ledger import Phase
from support import process_handlers
from support.tls import Identities


@pytest.fixture
def listener() -> Any:
    with hs.listen(("127.0.0.1", 0)) as made:
        yield made


def pair(listener: hs.Listener) -> tuple[hs.Connection, hs.Connection]:
    conn = hs.connect(listener.getsockname())
    return conn, listener.accept()


def row_of(conn: hs.Connection) -> dict[str, Any]:
    (row,) = (one for one in hs.report("connections")["connections"] if one["fd"] == conn.fileno())
    return row  # type: ignore[no-any-return]


# ---- reports


def test_connection_is_reported_with_its_line_bytes_and_queues(listener: hs.Listener) -> None:
    conn, peer = pair(listener)
    with conn, peer:
        peer.sendall(b"12345")
        assert conn.recv(3) == b"123"
        row = row_of(conn)
        assert row["how"] == "connect"
        assert row["site"]["file"] == __file__
        assert row["site"]["function"] == "pair"
        assert (row["received"], row["sent"], row["unread"]) == (3, 0, 2)
        assert row["state"] == "established"
        assert row["local"] == f"127.0.0.1:{conn.getsockname()[1]}"
        assert row["peer"] == f"127.0.0.1:{listener.getsockname()[1]}"
        assert 0 <= row["last_read"] <= row["age"]
        assert row["last_write"] is None
        assert row["thread"] == threading.get_ident()


def test_sites_are_summed_up_by_line(listener: hs.Listener) -> None:
    pairs = [pair(listener) for _ in range(3)]
    (found,) = (
        one
        for one in hs.report("sites")["sites"]
        if one["site"]["function"] == "pair" and one["how"] == "connect"
    )
    assert found["open"] == 3
    for conn, peer in pairs:
        conn.close()
        peer.close()


def test_pool_is_reported_with_holders_and_waiters(listener: hs.Listener) -> None:
    with hs.Pool(listener.getsockname(), max_size=1, name="orders") as pool:
        held = pool.acquire()
        waiter = threading.Thread(target=lambda: pool.release(pool.acquire()))
        waiter.start()
        while pool.stats().waiting == 0:
            time.sleep(0)
        (found,) = (one for one in hs.report("pools")["pools"] if one["name"] == "orders")
        assert (found["lent"], found["waiting"], found["max_size"]) == (1, 1, 1)
        (holder,) = found["holders"]
        assert holder["site"]["function"] == "test_pool_is_reported_with_holders_and_waiters"
        assert holder["thread"] == threading.get_ident()
        (waiting,) = found["waiters"]
        assert waiting["site"]["function"] == "<lambda>"
        assert waiting["thread"] == waiter.ident
        assert row_of(held)["holder"] == holder["site"]
        pool.release(held)
        waiter.join()


def test_report_tells_names_that_were_given_from_addresses(listener: hs.Listener) -> None:
    with hs.Pool(listener.address, name="given"), hs.Pool(listener.address):
        told = {one["name"]: one["named"] for one in hs.metrics()["pools"]}
    assert told["given"] is True
    assert told[f"127.0.0.1:{listener.address[1]}"] is False


def test_listener_and_breaker_are_reported(listener: hs.Listener) -> None:
    breaker = hs.Breaker(failures=1)
    with hs.listen(("127.0.0.1", 0)) as gone:
        dead = gone.getsockname()
    with pytest.raises(hs.ConnectError):
        hs.connect(dead, breaker=breaker)
    states = {one["key"]: one["state"] for one in hs.report("breakers")["breakers"]}
    assert "open" in states.values()
    port = listener.getsockname()[1]
    with hs.listen(("127.0.0.1", 0)):
        told = hs.report("servers")["servers"]
    assert f"127.0.0.1:{port}" in {one["address"] for one in told}
    assert len({one["id"] for one in told}) == len(told)


def test_unknown_report_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no report 'nonsense'"):
        hs.report("nonsense")
    with pytest.raises(TypeError):
        hs.report(1)  # type: ignore[arg-type]


def test_peer_named_by_any_bytes_stays_one_line_of_json(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/a\nb\xff\"'"
    with hs.listen("unix:" + os.fsdecode(path)) as made:
        with hs.connect("unix:" + os.fsdecode(path)) as conn:
            made.accept().close()
            text = _core._report("connections")
            assert b"\n" not in text
            assert row_of(conn)["peer"].startswith("unix:")


# ---- metrics


def test_histograms_are_cumulative_over_the_same_edges(listener: hs.Listener) -> None:
    before = hs.metrics()["seconds"]["conn_age"]
    conn, peer = pair(listener)
    conn.close()
    peer.close()
    found = hs.metrics()
    after = found["seconds"]["conn_age"]
    assert after["count"] == before["count"] + 2
    assert after["sum"] > before["sum"]
    assert found["edges"] == sorted(found["edges"])
    for one in found["seconds"].values():
        assert len(one["buckets"]) == len(found["edges"])
        assert one["buckets"] == sorted(one["buckets"])
        assert one["buckets"][-1] <= one["count"]


def test_open_connections_are_counted_by_how_they_were_made(listener: hs.Listener) -> None:
    before = hs.metrics()["open_connections"]
    conn, peer = pair(listener)
    with conn, peer, hs.Pool(listener.getsockname()) as pool:
        pool.release(pool.acquire())
        figures = hs.metrics()
        now = figures["open_connections"]
        grown = {how: now[how] - before[how] for how in now}
        assert figures["live_conn_age"]["count"] == sum(now.values())
    assert grown == {"other": 0, "connect": 1, "accept": 1, "adopt": 0, "pool": 1}
    assert hs.metrics()["open_connections"]["connect"] == before["connect"]


def test_wait_for_the_gil_is_counted_as_such(listener: hs.Listener) -> None:
    conn, peer = pair(listener)
    with conn, peer:
        before = hs.metrics()["seconds"]["read_stall_gil"]
        peer.sendall(b"x")
        conn.recv(1)
        after = hs.metrics()["seconds"]["read_stall_gil"]
    assert after["count"] == before["count"] + 1


def test_read_that_waited_is_a_stall_by_the_peer(listener: hs.Listener) -> None:
    conn, peer = pair(listener)
    with conn, peer:
        before = hs.metrics()["seconds"]["read_stall_peer"]["count"]
        with pytest.raises(hs.DeadlineExceeded):
            conn.recv(1, timeout=0.2)
        assert hs.metrics()["seconds"]["read_stall_peer"]["count"] == before + 1
        assert row_of(conn)["reading"]["count"] == 1


def test_pool_tells_waits_uses_and_dials(listener: hs.Listener) -> None:
    with hs.Pool(listener.getsockname(), name="told") as pool:
        pool.release(pool.acquire())
        (found,) = (one for one in hs.metrics()["pools"] if one["name"] == "told")
        for name in ("wait_seconds", "use_seconds", "dial_seconds"):
            assert found[name]["count"] == 1
            assert found[name]["buckets"][-1] == 1


# ---- many


def test_open_connections_asks_little_of_each(listener: hs.Listener) -> None:
    pairs = []
    for _ in range(1000):
        ours, theirs = socket.socketpair()
        pairs.append(hs.adopt(ours))
        theirs.close()
    hs.open_connections()
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    found = hs.open_connections()
    sys.setprofile(None)
    for one in pairs:
        one.close()
    adopted = [one for one in found if one.how == "adopt"]
    assert len(adopted) == 1000
    assert {one.site.function for one in adopted} == {"test_open_connections_asks_little_of_each"}
    assert calls < 30 * len(found)


# ---- the flight recorder


def last(kind: str) -> hs.Event:
    return [one for one in hs.events() if one.kind == kind][-1]


def test_failed_connect_is_an_event_with_its_line() -> None:
    with hs.listen(("127.0.0.1", 0)) as gone:
        dead = gone.getsockname()
    with pytest.raises(hs.ConnectError):
        hs.connect(dead)
    event = last("connect_failed")
    assert event.what == f"127.0.0.1:{dead[1]}"
    assert event.site is not None
    assert event.site.function == "test_failed_connect_is_an_event_with_its_line"
    assert event.thread == threading.current_thread().name
    assert str(event).startswith("0.")


def test_cancelled_call_is_an_event(listener: hs.Listener) -> None:
    conn, peer = pair(listener)
    token = hs.CancelToken()

    def cancel_once_it_waits() -> None:
        while row_of(conn)["reading"]["now"] is None:
            time.sleep(0)
        token.cancel()

    with conn, peer:
        before = hs.metrics()["events"]["cancelled"]
        canceller = threading.Thread(target=cancel_once_it_waits)
        canceller.start()
        with pytest.raises(hs.Cancelled):
            conn.recv(1, token=token)
        canceller.join()
        assert hs.metrics()["events"]["cancelled"] == before + 1
        assert last("cancelled").fd == conn.fileno()


LEAK = """
import gc, json, warnings
import hardsock as hs
warnings.simplefilter("ignore")
with hs.listen(("127.0.0.1", 0)) as listener:
    def leak():
        hs.connect(listener.getsockname())
    leak()
    gc.collect()
(event,) = (one for one in hs.events() if one.kind == "leaked")
(total,) = (one for one in hs.report("sites")["totals"] if one["site"]["function"] == "leak")
print(event.site.function, total["leaked"], total["opened"])
"""


def test_leak_is_an_event_and_counted_by_its_line() -> None:
    done = subprocess.run([sys.executable, "-c", LEAK], capture_output=True, text=True, check=True)
    assert done.stdout == "leak 1 1\n"


def test_pool_timeout_and_opened_breaker_are_events(listener: hs.Listener) -> None:
    with hs.Pool(listener.getsockname(), max_size=1, name="narrow") as pool:
        with pool.connection(), pytest.raises(hs.PoolTimeout):
            pool.acquire(timeout=0.001)
    assert last("pool_timeout").what == "narrow"
    breaker = hs.Breaker(failures=1)
    with hs.listen(("127.0.0.1", 0)) as gone:
        dead = gone.getsockname()
    with pytest.raises(hs.ConnectError):
        hs.connect(dead, breaker=breaker)
    assert f"127.0.0.1:{dead[1]}" in last("breaker_opened").what


def test_dump_writes_lines_to_a_descriptor(tmp_path: Path) -> None:
    with hs.listen(("127.0.0.1", 0)) as gone:
        dead = gone.getsockname()
    with pytest.raises(hs.ConnectError):
        hs.connect(dead)
    with open(tmp_path / "dump", "wb") as file:
        hs.dump(file)
    lines = (tmp_path / "dump").read_text().splitlines()
    assert lines[0] == f"hardsock: what happened last in process {os.getpid()}:"
    assert any(f"connect_failed 127.0.0.1:{dead[1]}" in line for line in lines)


CRASH = """
import faulthandler, hardsock as hs, os, signal
faulthandler.enable()
hs.dump_at_fatal_signals()
with hs.listen(("127.0.0.1", 0)) as gone:
    dead = gone.getsockname()
try:
    hs.connect(dead)
except hs.ConnectError:
    pass
{die}
"""


@pytest.mark.parametrize(
    ("die", "number"),
    [
        ("import ctypes; ctypes.string_at(0)", signal.SIGSEGV),
        ("os.kill(os.getpid(), signal.SIGSEGV)", signal.SIGSEGV),
        ("os.abort()", signal.SIGABRT),
    ],
    ids=["fault", "sent", "abort"],
)
def test_fatal_signal_dumps_before_faulthandler(die: str, number: int) -> None:
    def no_core() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    done = subprocess.run(
        [sys.executable, "-c", CRASH.format(die=die)],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "ASAN_OPTIONS": "handle_segv=0",
        },  # It would end the process its own way.
        preexec_fn=no_core,
    )
    assert done.returncode == -number
    assert "connect_failed 127.0.0.1:" in done.stderr
    assert done.stderr.index("connect_failed") < done.stderr.index("Fatal Python error")


def test_report_is_json_with_a_version() -> None:
    for name in ("metrics", "connections", "sites", "pools", "servers", "breakers", "events"):
        found = hs.report(name)
        assert found["version"] == 1
        assert found["report"] == name
        assert found["pid"] == os.getpid()
        assert json.dumps(found)


def test_alarm_of_a_leak_tells_what_went_wrong_before(
    listener: hs.Listener, caplog: pytest.LogCaptureFixture
) -> None:
    with hs.listen(("127.0.0.1", 0)) as gone:
        dead = gone.getsockname()
    with pytest.raises(hs.ConnectError):
        hs.connect(dead)
    with hs.Pool(listener.getsockname(), leak_after=0.01) as pool:
        held = pool.acquire()
        end = time.monotonic() + 20
        while "what went wrong before" not in caplog.text:
            assert time.monotonic() < end, caplog.text
        pool.release(held)
    assert f"connect_failed 127.0.0.1:{dead[1]}" in caplog.text


# ---- hints


def test_hint_tells_of_other_failures_to_the_same_address() -> None:
    with hs.listen(("127.0.0.1", 0)) as gone:
        dead = gone.getsockname()
    hints = []
    for _ in range(4):
        with pytest.raises(hs.ConnectError) as caught:
            hs.connect(dead)
        hints.append(caught.value.hint or "")
    assert "other connects" not in hints[0] + hints[1]
    assert "2 other connects to this address have failed in the last 0 s" in hints[2]
    assert "3 other connects to this address have failed" in hints[3]


def test_hint_of_a_pools_dial_tells_of_others_too() -> None:
    with hs.listen(("127.0.0.1", 0)) as gone:
        dead = gone.getsockname()
    for _ in range(3):
        with hs.Pool(dead) as pool, pytest.raises(hs.ConnectError) as caught:
            pool.acquire(timeout=20)
    assert "2 other connects to this address have failed" in (caught.value.hint or "")


@pytest.mark.slow
def test_connect_that_took_over_two_seconds_is_an_event(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    ids = Identities(tmp_path_factory.mktemp("ca"))
    began = time.monotonic()
    with hs.listen(("127.0.0.1", 0)) as listener:
        port = listener.address[1]

        def answer_late() -> None:
            with listener.accept() as conn:
                assert poll_until(lambda: time.monotonic() - began > 2.1, 60)
                conn.upgrade_to_tls(ids.server())
                conn.recv(1)

        thread = threading.Thread(target=answer_late)
        thread.start()
        with hs.connect(listener.address, tls=ids.client(), timeout=60):
            event = last("connect_slow")
        thread.join()
    assert event.what == f"127.0.0.1:{port}"
    assert event.error is None
    assert (event.span or 0) > 2
    assert event.site is not None
    assert event.site.function == "test_connect_that_took_over_two_seconds_is_an_event"


def test_hint_of_a_pool_names_who_holds_it_and_how_many_wait(listener: hs.Listener) -> None:
    with hs.Pool(listener.getsockname(), max_size=1) as pool:
        held = pool.acquire()
        told = []

        def wait() -> None:
            with pytest.raises(hs.PoolTimeout) as caught:
                pool.acquire(timeout=0.001)
            told.append(caught.value.hint or "")

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
        pool.release(held)
    assert told[0].startswith(f"nobody else waits for this pool, held by {__file__}:")
    assert " for 0 s" in told[0]


# ---- servers


def services() -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in hs.report("servers")["services"]}


def test_phases_have_the_cores_numbers() -> None:
    assert [phase.number for phase in Phase] == [0, 1, 2, 3]


def test_threaded_server_tells_its_state(listener: hs.Listener) -> None:
    go = threading.Event()

    def handler(conn: hs.Connection) -> None:
        conn.recv(1)
        go.wait(20)

    drained = hs.metrics()["events"]["drained"]
    with hs.serve(
        handler, ("127.0.0.1", 0), drain_timeout=20, workers=2, max_connections=2, name="told"
    ) as server:
        assert services()["told"]["state"] == "accepting"
        with hs.connect(server.address) as first, hs.connect(server.address) as second:
            first.sendall(b"x")
            assert poll_until(lambda: services()["told"]["accepted"] == 2, 20)
            assert poll_until(lambda: services()["told"]["state"] == "full", 20)
            assert poll_until(lambda: services()["told"]["busy"] == 2, 20)
            told = services()["told"]
            assert (told["kind"], told["limit"]) == ("threads", 2)
            phases = [one["phase"] for one in hs.report("connections")["connections"]]
            assert phases.count("busy") == 2
            server.stop()
            assert poll_until(lambda: services()["told"]["state"] == "draining", 20)
            assert services()["told"]["draining"] >= 0
            go.set()
            second.sendall(b"x")
    told = services()["told"]
    assert told["state"] == "ended"
    assert told["accepted"] == told["handled"] + told["failed"] + told["cut"] == 2
    assert hs.metrics()["events"]["drained"] == drained + 1
    event = last("drained")
    assert event.what == "told"
    assert event.span is not None


def test_parked_connections_are_told_as_parked() -> None:
    with hs.serve(
        lambda conn: conn.sendall(conn.recv(1)),
        ("127.0.0.1", 0),
        per="message",
        drain_timeout=20,
        name="parks",
    ) as server:
        with hs.connect(server.address) as conn:
            conn.sendall(b"x")
            assert conn.recv(1) == b"x"
            assert poll_until(lambda: services()["parks"]["parked"] == 1, 20)
            assert services()["parks"]["busy"] == 0
        assert poll_until(lambda: services()["parks"]["parked"] == 0, 20)


def test_server_of_an_event_loop_tells_its_state() -> None:
    async def main() -> None:
        async def handler(conn: hardsock.aio.Connection) -> None:
            await conn.recv(1)

        async with hardsock.aio.serve(
            handler, ("127.0.0.1", 0), drain_timeout=20, name="loops"
        ) as server:
            async with await hardsock.aio.connect(server.address) as conn:
                while services()["loops"]["busy"] == 0:
                    await asyncio.sleep(0)
                assert services()["loops"]["kind"] == "tasks"
                await conn.sendall(b"x")
                while services()["loops"]["handled"] == 0:
                    await asyncio.sleep(0)
        assert services()["loops"]["state"] == "ended"

    asyncio.run(main())


def test_supervisor_tells_what_its_processes_say() -> None:
    with hs.serve_processes(
        process_handlers.which, ("127.0.0.1", 0), processes=2, drain_timeout=20, name="many"
    ) as server:
        assert server.wait_ready(60)
        with hs.connect(server.address) as conn:
            conn.sendall(b"x\n")
            assert conn.recv_until(b"\n").startswith(b"x ")
            assert poll_until(lambda: services()["many"]["busy"] == 1, 60)
        assert poll_until(lambda: services()["many"]["handled"] == 1, 60)
        assert services()["many"]["kind"] == "processes"
    assert services()["many"]["state"] == "ended"


def test_state_of_a_server_goes_with_it() -> None:
    server = hs.serve(lambda conn: None, ("127.0.0.1", 0), drain_timeout=30, name="goes")
    server.drain()
    del server
    assert poll_until(lambda: gc.collect() >= 0 and "goes" not in services(), 20)
