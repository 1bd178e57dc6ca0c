"""Faults on demand: what a program sees of them, and that they can be had again."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock import _core, aio
from support.loops import MAINS
from support.tls import Identities

EXCEPTIONS: list[tuple[str, type[BaseException]]] = [
    ("recv.reset@1", hs.Reset),
    ("recv.timeout@1", hs.DeadPeer),
    ("recv.end@1", hs.EndOfStream),
    ("send.pipe@1", hs.Reset),
    ("send.no_memory@1", hs.SocketError),
]


@pytest.fixture
def listener() -> Any:
    with hs.listen(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def pair(listener: hs.Listener) -> Any:
    with hs.connect(listener.getsockname(), timeout=60) as conn, listener.accept() as peer:
        yield conn, peer


@pytest.mark.parametrize(("spec", "expected"), EXCEPTIONS)
def test_a_fault_is_the_exception_that_the_kernel_would_have_caused(
    pair: Any, spec: str, expected: type[BaseException]
) -> None:
    conn, peer = pair
    peer.sendall(b"hello")
    with hs.faults(spec) as faults, pytest.raises(expected):
        conn.sendall(b"x")
        conn.recv_exactly(5, timeout=60)
    assert [spec] == faults.log
    assert faults.count == 1


def test_refused_connects_and_unknown_names(listener: hs.Listener) -> None:
    with hs.faults("connect.refused@1"), pytest.raises(hs.ConnectionRefused):
        hs.connect(listener.getsockname(), timeout=60)
    with hs.faults("lookup.no_name=1"), pytest.raises(hs.ResolveError, match="not known"):
        hs.connect(("localhost", 1), timeout=60)


def test_a_lookup_that_hangs_holds_nobody_longer_than_it_wants() -> None:
    with hs.faults("lookup.hang=1"), pytest.raises(hs.DeadlineExceeded):
        hs.connect(("localhost", 1), timeout=0.05)


def test_bytes_that_come_and_go_in_parts_arrive_whole(pair: Any) -> None:
    conn, peer = pair
    sent = os.urandom(20000)
    with hs.faults("send.short@1-3,recv.interrupted@2,recv.short@1-5") as faults:
        conn.sendall(sent, timeout=60)
        assert sent == peer.recv_exactly(20000, timeout=60)
    assert {"send.short@1", "recv.short@1", "recv.interrupted@2"} <= set(faults.log)


def test_a_handshake_that_fails_says_of_what(ids: Identities) -> None:
    with hs.listen(("127.0.0.1", 0), tls=ids.server()) as listener:
        with hs.faults("handshake.alert=1"), pytest.raises(hs.TLSError) as failed:
            hs.connect(
                listener.getsockname(), tls=ids.client(), server_name="localhost", timeout=60
            )
        assert failed.value.failure == "alert"


def test_no_memory_is_memory_error(listener: hs.Listener) -> None:
    with hs.faults("alloc.fail=1"), pytest.raises(MemoryError):
        hs.connect(listener.getsockname(), timeout=60)


def lengths(pair: Any, spec: str) -> tuple[list[int], hs.Faults]:
    conn, peer = pair
    seen = []
    with hs.faults(spec) as faults:
        for _ in range(40):
            peer.sendall(b"0123456789")
            seen.append(len(conn.recv(10, timeout=60)))
            if seen[-1] < 10:
                conn.recv_exactly(10 - seen[-1], timeout=60)
    return seen, faults


def test_the_same_seed_does_the_same_again(pair: Any) -> None:
    first, faults = lengths(pair, "seed=7,recv.short=0.3")
    again, _ = lengths(pair, faults.spec)
    other, _ = lengths(pair, "seed=8,recv.short=0.3")
    assert first == again
    assert first != other
    assert any(n < 10 for n in first)


def test_a_seed_that_was_drawn_is_told(pair: Any) -> None:
    first, faults = lengths(pair, "recv.short=0.3")
    assert faults.spec == f"seed={faults.seed},recv.short=0.3"
    again, _ = lengths(pair, faults.spec)
    assert first == again


def test_the_log_is_a_spec(pair: Any) -> None:
    _, faults = lengths(pair, "seed=7,recv.short=0.3")
    _, again = lengths(pair, ",".join(faults.log))
    assert faults.log == again.log


def test_calls_are_counted_also_those_that_do_not_fail(pair: Any) -> None:
    conn, peer = pair
    with hs.faults("send.reset@100") as faults:
        conn.sendall(b"a")
        conn.sendall(b"b")
        assert faults.calls["send"] == 2
        assert faults.calls["connect"] == 0
    assert faults.calls["send"] == 2
    assert peer.recv_exactly(2) == b"ab"
    assert faults.log == []


def test_other_threads_have_them_too(pair: Any) -> None:
    conn, _ = pair
    failures: list[BaseException] = []

    def send() -> None:
        try:
            conn.sendall(b"x")
        except hs.Reset as exc:
            failures.append(exc)

    with hs.faults("send.reset@1"):
        thread = threading.Thread(target=send)
        thread.start()
        thread.join()
    assert len(failures) == 1


def test_blocks_lie_in_one_another(pair: Any) -> None:
    conn, peer = pair
    peer.sendall(b"ab")
    with hs.faults("recv.reset@2") as outer:
        with hs.faults("send.short@100") as inner:
            assert conn.recv_exactly(1) == b"a"
        assert conn.recv_exactly(1) == b"b"
        with pytest.raises(hs.Reset):
            conn.recv_exactly(1, timeout=60)
    assert (inner.log, outer.log) == ([], ["recv.reset@2"])


def test_a_block_that_had_none_has_none_of_a_later_one() -> None:
    program = """if True:
        import hardsock as hs
        with hs.faults("recv.reset@1") as first:
            pass
        with hs.listen(("127.0.0.1", 0)) as listener, hs.faults("connect.refused@1") as second:
            try:
                hs.connect(listener.getsockname(), timeout=60)
            except hs.ConnectionRefused:
                pass
        assert (second.count, first.count, first.log) == (1, 0, []), first
    """
    # A process of its own: the numbers of faults begin with it.
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_block_is_entered_once() -> None:
    faults = hs.faults("recv.reset@1")
    with faults, pytest.raises(RuntimeError, match="in force"):
        faults.__enter__()
    with pytest.raises(RuntimeError, match="in force"):
        faults.__enter__()


def test_an_exception_takes_the_replay_along(pair: Any) -> None:
    conn, _ = pair
    with pytest.raises(hs.Reset) as caught, hs.faults("seed=9,send.reset@1"):
        conn.sendall(b"x")
    if sys.version_info >= (3, 11):
        wanted = "hardsock faults: seed=9,send.reset@1; happened: send.reset@1"
        assert [wanted] == caught.value.__notes__


def test_the_flight_recorder_has_them(pair: Any) -> None:
    conn, _ = pair
    with hs.faults("send.reset@1"), pytest.raises(hs.Reset):
        conn.sendall(b"x")
    (last,) = [one for one in hs.events() if one.kind == "fault"][-1:]
    assert last.what == "send.reset@1"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("recv.shrt=0.1", r"part 1, \"recv.shrt=0.1\": recv has no \"shrt\""),
        ("seed=1,recv.short=2", r"part 2, \"recv.short=2\": after = comes the chance"),
        ("recv.short=\0", "null character"),
    ],
)
def test_a_wrong_spec_is_a_value_error_that_names_the_part(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message), hs.faults(spec):
        pass


def test_too_many_blocks_are_refused() -> None:
    opened = [hs.faults("recv.reset@1").__enter__() for _ in range(8)]
    with pytest.raises(hs.HardsockError, match="8 plans"), hs.faults("recv.reset@1"):
        pass
    for one in opened:
        one.__exit__(None, None, None)


def run(spec: str, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HARDSOCK_FAULTS": spec},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_environment_is_obeyed_from_the_import_on(tmp_path: Path) -> None:
    log = tmp_path / "faults"
    code = (
        "import hardsock as hs\n"
        "with hs.listen(('127.0.0.1', 0)) as listener:\n"
        "    for _ in range(3):\n"
        "        try:\n"
        "            hs.connect(listener.getsockname(), timeout=30).close()\n"
        "            print('yes')\n"
        "        except hs.ConnectionRefused:\n"
        "            print('no')\n"
    )
    done = run(f"seed=7,connect.refused@2,log={log}", code)
    assert (done.stdout.split(), done.stderr) == (["yes", "no", "yes"], "")
    begin, line = log.read_text().splitlines()
    assert begin.split()[1:] == ["0", "seed=7:", f"seed=7,connect.refused@2,log={log}"]
    assert line.split()[1:] == ["1", "connect.refused@2"]


def test_a_wrong_environment_fails_the_import() -> None:
    done = run("connect.refusd=1", "import hardsock")
    assert done.returncode == 1
    assert 'ValueError: HARDSOCK_FAULTS: part 1, "connect.refusd=1"' in done.stderr


def test_nothing_is_on_unless_asked_for() -> None:
    done = run("", "from hardsock import _core; print(_core._faults_plan(1))")
    assert done.stdout.strip() == "None"
    assert _core._faults_plan(2**63) is None


def test_a_connect_that_is_not_told_what_is_ready_ends() -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with hs.faults("epoll_wait.invalid=1"), pytest.raises(OSError, match="epoll_wait"):
            hs.connect(("localhost", port), timeout=60)


def test_a_tokens_descriptor_is_quiet_again_when_its_time_could_be_set() -> None:
    token = hs.CancelToken(3600)
    poll = select.poll()
    poll.register(token.fileno(), select.POLLIN)
    assert poll.poll(0) == []
    with hs.faults("timerfd_settime.invalid=1"):
        token.set_timeout(1800)
    assert len(poll.poll(0)) == 1  # Better early than never.
    token.set_timeout(3600)
    assert poll.poll(0) == []
    token.cancel()
    assert len(poll.poll(0)) == 1


def test_a_lookup_that_is_not_told_what_is_ready_ends() -> None:
    with hs.faults("epoll_wait.invalid=1"), pytest.raises(OSError, match="epoll_wait"):
        hs.resolve(("localhost", 1), timeout=60)


@pytest.mark.parametrize("loop", MAINS)
@pytest.mark.usefixtures("event_loops")
def test_a_loop_that_is_not_told_what_is_ready_runs_on_and_does_not_go_round(loop: str) -> None:
    """Its descriptor is readable all the time. Calls look for themselves every now and then."""

    async def main() -> tuple[int, float]:
        ours, theirs = socket.socketpair()
        async with aio.adopt(ours) as conn:
            began = time.monotonic()
            with theirs, hs.faults("epoll_wait.invalid=1") as faults:
                with pytest.raises(hs.DeadlineExceeded):
                    await conn.recv(1, timeout=0.5)
                theirs.sendall(b"x")
                assert await conn.recv(1, timeout=60) == b"x"
                return faults.calls["epoll_wait"], time.monotonic() - began

    looks, seconds = MAINS[loop](main)
    assert 0 < looks <= 4 * (seconds / 0.05 + 4)


@pytest.mark.parametrize("loop", MAINS)
@pytest.mark.usefixtures("event_loops")
def test_a_server_of_a_loop_outlives_times_that_cannot_be_set(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing can be accepted, and the pause after that cannot be waited for in our own way."""
    answers: list[bytes] = []

    async def echo(conn: aio.Connection) -> None:
        await conn.sendall(await conn.recv(1, timeout=60))

    async def until(so: Callable[[], object]) -> None:
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
        if loop == "trio":
            import trio

            sleep = trio.sleep
        end = time.monotonic() + 60
        while not so():
            assert time.monotonic() < end
            await sleep(0.01)

    def ask(client: socket.socket) -> None:
        client.sendall(b"?")
        answers.append(client.recv(1))

    async def main() -> None:
        async with aio.serve(echo, ("127.0.0.1", 0), drain_timeout=30) as server:
            with hs.faults("accept.io=1,timerfd_settime.invalid=1") as faults:
                client = socket.create_connection(server.address, timeout=60)
                await until(lambda: faults.calls["accept"] and faults.calls["timerfd_settime"])
            asks = threading.Thread(target=ask, args=(client,))
            asks.start()
            await until(lambda: not asks.is_alive())
            client.close()

    MAINS[loop](main)
    assert answers == [b"?"]
    assert "accepting failed" in caplog.text
    caplog.clear()  # Its records have the error, and with it the frames of the server.
