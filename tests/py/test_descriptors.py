"""What is open: by kind, by the line that made it, growth, and the watch on the limit."""

from __future__ import annotations

import asyncio
import errno
import gc
import inspect
import os
import resource
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

import hardsock as hs
from hardsock import _core, aio
from hardsock.lab.threads import run_threaded
from hardsock.lab.waits import poll_until


def _here() -> str:
    """The line of the caller, as a Site's text begins."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return f"{__file__}:{frame.f_back.f_lineno} in "


def _find(conn: hs.Connection | hs.Listener) -> hs.OpenConnection:
    (found,) = (one for one in hs.open_connections() if one.fd == conn.fileno())
    return found


@pytest.fixture
def listener() -> Iterator[hs.Listener]:
    with hs.listen(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def low_limit() -> Iterator[int]:
    """Few descriptors: a table of a million places takes long to look through."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield 256
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def no_descriptor_left() -> Iterator[None]:
    """Nothing can be opened: the limit is where the next one would be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- open_connections


def test_each_is_told_with_the_line_that_made_it(listener: hs.Listener) -> None:
    place = _here()
    conn = hs.connect(listener.getsockname())
    accepted = listener.accept()
    left, right = socket.socketpair()
    adopted = hs.adopt(left)

    for one, how in ((conn, "connect"), (accepted, "accept"), (adopted, "adopt")):
        found = _find(one)
        assert how == found.how
        assert __file__ == found.site.file
        assert "test_each_is_told_with_the_line_that_made_it" == found.site.function
        assert threading.current_thread().name == found.thread
        assert 0 <= found.age < 60
    lines = [_find(one).site.line for one in (conn, accepted, adopted)]
    first = int(place.rpartition(":")[2].partition(" ")[0]) + 1
    assert [first, first + 1, first + 3] == lines
    host, port = listener.getsockname()[:2]
    assert (f"{host}:{port}", None) == (_find(listener).local, _find(listener).peer)
    assert _find(conn).peer == _find(accepted).local == f"{host}:{port}"
    assert _find(conn).local == _find(accepted).peer
    assert "listen" == _find(listener).how
    assert str(_find(conn)).startswith(
        f"connect {_find(conn).local} -> {host}:{port} at {__file__}:"
    )
    for one in (conn, accepted, adopted):
        one.close()
    right.close()


def test_own_address_is_asked_for_once(listener: hs.Listener) -> None:
    with hs.connect(listener.getsockname()) as conn, listener.accept():
        own = conn.getsockname()
        with hs.faults("seed=0,getname.invalid=1"):
            assert own == conn.getsockname()
            assert f"{own[0]}:{own[1]}" == _find(conn).local


@pytest.mark.may_leave("thrown away on purpose", sites=["*/test_descriptors.py:*"])
def test_closed_ones_are_told_no_more_and_nothing_is_kept_alive(listener: hs.Listener) -> None:
    conn = hs.connect(listener.getsockname())
    fd = conn.fileno()
    told = hs.open_connections()
    assert fd in {one.fd for one in told}
    conn.close()

    assert fd not in {one.fd for one in hs.open_connections()}
    before = len(_core._opened())
    with pytest.warns(ResourceWarning, match=r"unclosed .*, made at .*test_descriptors\.py:\d+"):
        hs.connect(listener.getsockname())
    assert before == len(_core._opened())


def test_connection_that_a_file_holds_open_is_told_once(listener: hs.Listener) -> None:
    conn = hs.connect(listener.getsockname())
    file = conn.makefile("rb")
    site = _find(conn).site
    assert 1 == sum(one.fd == conn.fileno() for one in hs.open_connections())
    fd = conn.fileno()
    conn.close()
    (left,) = (one for one in hs.open_connections() if one.fd == fd)

    assert site == left.site
    file.close()
    assert fd not in {one.fd for one in hs.open_connections()}


def test_frames_of_hardsock_are_passed_over(listener: hs.Listener) -> None:
    async def connect() -> hs.OpenConnection:
        async with await aio.connect(listener.getsockname()[:2]) as conn:
            return _find(conn.blocking)

    found = asyncio.run(connect())

    assert ("connect", "connect") == (found.how, found.site.function)
    assert __file__ == found.site.file


def test_awaited_accept_is_where_it_was_awaited() -> None:
    async def main() -> hs.OpenConnection:
        async with await aio.listen(("127.0.0.1", 0)) as listener:
            accepting = asyncio.create_task(accept(listener))
            async with await aio.connect(listener.address):
                return await accepting

    async def accept(listener: aio.Listener) -> hs.OpenConnection:
        async with await listener.accept() as conn:
            return _find(conn.blocking)

    assert "accept" == asyncio.run(main()).site.function


def test_what_a_server_accepts_is_where_its_listener_was_made() -> None:
    seen: list[hs.OpenConnection] = []

    def handle(conn: hs.Connection) -> None:
        seen.append(_find(conn))

    place = _here()
    with hs.serve(handle, ("127.0.0.1", 0), drain_timeout=5.0) as server:
        with hs.connect(server.address) as conn:
            assert b"" == conn.recv(1)

    (found,) = seen
    line = int(place.rpartition(":")[2].partition(" ")[0]) + 1
    assert ("accept", line) == (found.how, found.site.line)


def test_pools_tell_who_borrowed_and_who_made_them(listener: hs.Listener) -> None:
    def make() -> hs.Pool:
        return hs.Pool(listener.getsockname(), max_size=2)

    def borrow() -> hs.Connection:
        return pool.acquire(timeout=5.0)

    with make() as pool:
        conn = borrow()
        found = _find(conn)
        assert ("lent", "borrow") == (found.how, found.site.function)
        fd = conn.fileno()
        pool.release(conn)
        (found,) = (one for one in hs.open_connections() if one.fd == fd)
        assert ("idle", "make") == (found.how, found.site.function)
        assert found.peer is not None


def test_telling_while_others_open_and_close(listener: hs.Listener) -> None:
    address = listener.getsockname()
    stop = threading.Event()

    def work(index: int) -> int:
        if index == 0:
            counts = [len(hs.open_connections()) for _ in range(200)]
            stop.set()
            return min(counts)
        while not stop.is_set():
            with hs.connect(address), listener.accept(timeout=5.0):
                pass
        return 1

    assert all(count >= 1 for count in run_threaded(work, 4))


def test_code_made_at_run_time_is_kept_as_long_as_it_is_told(listener: hs.Listener) -> None:
    scope = {"hs": hs, "address": listener.getsockname()}
    exec(compile("conn = hs.connect(address)", "made at run time", "exec"), scope)
    conn = scope.pop("conn")
    scope.clear()
    gc.collect()

    assert "made at run time:1 in <module>" == str(_find(conn).site)
    conn.close()


# ---- notes


def _descriptor(fd: int) -> hs.Descriptor:
    (found,) = (one for one in hs.fd_snapshot().descriptors if one.fd == fd)
    return found


def test_a_note_names_a_descriptor_that_is_not_ours_and_the_line_that_said_so() -> None:
    left, right = socket.socketpair()
    with left, right:
        hs.note(left, "libpq orders")
        hs.note(right.fileno(), "another")
        noted = _descriptor(left.fileno()).note
        assert noted is not None
        assert "libpq orders" == noted.name
        assert _here().rpartition("/")[2].partition(":")[0] in noted.site.file
        assert "libpq orders, noted at " in str(_descriptor(left.fileno()))
        hs.note(left, None)
        assert _descriptor(left.fileno()).note is None
        assert "another" == getattr(_descriptor(right.fileno()).note, "name", None)
        hs.note(right, None)


def test_a_note_is_void_when_the_number_is_something_else() -> None:
    first = socket.socket()
    number = first.fileno()
    hs.note(number, "the first")
    second = socket.socket()
    os.dup2(second.fileno(), number)
    assert _descriptor(number).note is None
    hs.note(number, "the second")
    assert "the second" == getattr(_descriptor(number).note, "name", None)
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("fd", "name", "error"),
    [
        (True, "x", TypeError),
        ("7", "x", TypeError),
        (0, 7, TypeError),
        (0, "", ValueError),
        (10_000, "x", OSError),
    ],
)
def test_a_note_that_cannot_be_is_refused(fd: int, name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        hs.note(fd, name)


# ---- snapshots


def test_growth_is_told_by_kind_and_by_line(listener: hs.Listener) -> None:
    file = open("/etc/passwd")
    earlier = hs.fd_snapshot()
    conns = [hs.connect(listener.getsockname()) for _ in range(3)]
    read, write = os.pipe()
    file.close()
    later = hs.fd_snapshot()
    growth = later - earlier

    assert 4 == growth.net == len(later) - len(earlier)
    assert {"socket": 3, "pipe": 2, "file": -1} == growth.by_kind
    assert ["/etc/passwd"] == [one.target for one in growth.closed]
    assert {conn.fileno() for conn in conns} | {read, write} == {one.fd for one in growth.opened}
    ((site, count),) = growth.by_site.items()
    assert (3, __file__) == (count, site.file)
    text = str(growth)
    assert text.startswith("+4 descriptors in ")
    for line in ("+3 socket", "+2 pipe", "-1 file", f"3 made at {site}"):
        assert f"\n  {line}" in text
    for conn in conns:
        conn.close()
    os.close(read)
    os.close(write)
    again = hs.fd_snapshot() - earlier
    assert (-1, ()) == (again.net, again.opened)


def test_snapshot_agrees_with_inventory_and_names_connections(listener: hs.Listener) -> None:
    taken = hs.fd_snapshot()

    assert {k: n for k, n in hs.fd_inventory().items() if n} == taken.by_kind
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == taken.limit
    assert listener.fileno() in {one.fd for one in taken.connections}
    (mine,) = (one for one in taken.descriptors if one.fd == listener.fileno())
    assert str(mine).startswith(f"descriptor {mine.fd}: listen 127.0.0.1:")
    assert "descriptor 7: pipe:[1]" == str(hs.Descriptor(7, "pipe", "pipe:[1]"))
    assert NotImplemented is taken.__sub__(3)  # type: ignore[arg-type]


def test_number_that_is_something_else_now_has_come_and_gone() -> None:
    fd = os.open("/etc/passwd", os.O_RDONLY)
    earlier = hs.fd_snapshot()
    read, write = os.pipe()
    os.dup2(read, fd)
    growth = hs.fd_snapshot() - earlier
    for each in (fd, read, write):
        os.close(each)

    assert [fd] == [one.fd for one in growth.closed]
    assert sorted([fd, read, write]) == sorted(one.fd for one in growth.opened)


def test_all_of_it_works_when_no_descriptor_is_left(
    listener: hs.Listener, no_descriptor_left: None
) -> None:
    with pytest.raises(OSError, match="Too many open files"):
        os.dup(0)
    taken = hs.fd_snapshot()
    growth = taken - taken

    assert _find(listener).site.file == __file__
    assert listener.fileno() in {one.fd for one in taken.descriptors}
    assert (0, {}) == (growth.net, growth.by_kind)
    assert hs.fd_inventory()["socket"] >= 1


# ---- the watch


def test_alarm_is_given_once_per_crossing(listener: hs.Listener, low_limit: int) -> None:
    alarms: list[hs.FdAlarm] = []
    conns: list[hs.Connection] = []
    used = len(hs.fd_snapshot())
    threshold = used + 40
    address = listener.getsockname()

    def open_some(n: int) -> None:
        for _ in range(n):
            conns.append(hs.connect(address))
            listener.accept(timeout=5.0).close()

    def close_all() -> None:
        while conns:
            conns.pop().close()

    with hs.fd_watch(share=threshold / low_limit, on_alarm=alarms.append) as watch:
        open_some(36)
        assert [] == alarms
        open_some(10)
        (alarm,) = alarms
        assert threshold == alarm.threshold
        assert threshold <= alarm.open <= threshold + 2
        assert low_limit == alarm.limit
        assert alarm.by_kind["socket"] >= 36
        site, count = next(iter(alarm.by_site.items()))
        assert "open_some" == site.function
        assert count >= 36
        assert f"{count} made at {site}" in str(alarm)
        assert f"{alarm.open} descriptors are open, of {low_limit} (RLIMIT_NOFILE)" in str(alarm)
        assert watch.check() is not None
        open_some(5)
        assert 1 == len(alarms)
        close_all()
        assert watch.check() is None
        open_some(46)
        assert 2 == len(alarms)
        close_all()
    open_some(46)
    assert 2 == len(alarms)
    close_all()


def test_alarm_is_given_again_without_a_check_in_between(
    listener: hs.Listener, low_limit: int
) -> None:
    """Every 64th opening counts at least, which also learns that it is better again."""
    alarms: list[hs.FdAlarm] = []
    address = listener.getsockname()
    held: list[int] = []
    with hs.fd_watch(share=None, count=len(hs.fd_snapshot()) + 20, on_alarm=alarms.append):
        for round_ in (1, 2):
            held = [os.dup(0) for _ in range(30)]
            for _ in range(2 * 64):
                hs.connect(address).close()
                listener.accept(timeout=5.0).close()
            assert round_ == len(alarms)
            for fd in held:
                os.close(fd)
            for _ in range(2 * 64):
                hs.connect(address).close()
                listener.accept(timeout=5.0).close()


def test_low_numbers_that_are_free_hide_nothing(listener: hs.Listener, low_limit: int) -> None:
    """The number of a new descriptor is low, though nearly all others are in use."""
    alarms: list[hs.FdAlarm] = []
    holes = [os.dup(0) for _ in range(20)]
    with hs.fd_watch(share=None, count=len(hs.fd_snapshot()) + 10, on_alarm=alarms.append):
        held = [os.dup(0) for _ in range(40)]
        for fd in holes:
            os.close(fd)
        for _ in range(64):
            hs.connect(listener.getsockname()).close()
            listener.accept(timeout=5.0).close()
        assert 1 == len(alarms)
        for fd in held:
            os.close(fd)


def test_alarm_is_given_when_a_call_finds_no_descriptor(listener: hs.Listener) -> None:
    """However it came to that, for instance by a limit that was lowered."""
    alarms: list[hs.FdAlarm] = []
    address = listener.getsockname()
    with hs.fd_watch(share=1.0, on_alarm=alarms.append):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            with pytest.raises(hs.HardsockError, match="Too many open files"):
                hs.connect(address)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [lowest] == [alarm.limit for alarm in alarms]


def test_default_alarm_is_a_warning_at_the_line_that_opened(
    listener: hs.Listener, low_limit: int
) -> None:
    with hs.fd_watch(share=None, count=len(hs.fd_snapshot()) + 1):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            place = _here()
            conn = hs.connect(listener.getsockname())
    conn.close()

    (warning,) = caught
    assert warning.category is hs.DescriptorWarning
    assert __file__ == warning.filename
    line = int(place.rpartition(":")[2].partition(" ")[0]) + 1
    assert line == warning.lineno


def test_alarm_that_raises_fails_no_call(
    listener: hs.Listener, low_limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda info: told.append(str(info.exc_value)))

    def fail(alarm: hs.FdAlarm) -> None:
        raise RuntimeError("no good alarm")

    with hs.fd_watch(share=None, count=len(hs.fd_snapshot()) + 1, on_alarm=fail):
        with hs.connect(listener.getsockname()) as conn:
            assert not conn.closed
    assert ["no good alarm"] == told


def test_alarm_may_open_connections_itself(listener: hs.Listener, low_limit: int) -> None:
    opened: list[hs.Connection] = []
    address = listener.getsockname()

    def report(alarm: hs.FdAlarm) -> None:
        opened.append(hs.connect(address))

    with hs.fd_watch(share=None, count=len(hs.fd_snapshot()) + 1, on_alarm=report):
        with hs.connect(address), hs.connect(address):
            pass
    (conn,) = opened
    conn.close()


def test_watch_without_reason_or_with_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="share, count and growth are all None"):
        hs.fd_watch(share=None)
    for share in (0, -0.5, 1.01, float("nan")):
        with pytest.raises(ValueError, match="share must be above 0 and at most 1"):
            hs.fd_watch(share=share)
    for count in (0, -1, True, 2.0):
        with pytest.raises(ValueError, match="count must be an int of at least 1"):
            hs.fd_watch(count=count)  # type: ignore[arg-type]


def test_watch_that_is_over_at_once_tells_at_once(low_limit: int) -> None:
    alarms: list[hs.FdAlarm] = []
    with hs.fd_watch(share=None, count=1, on_alarm=alarms.append) as watch:
        assert 1 == len(alarms)
        assert watch.check() is not None
        assert 1 == len(alarms)
        watch.close()
        watch.close()
        assert 1 == len(alarms)


def test_watches_of_several_tell_each_for_itself(listener: hs.Listener, low_limit: int) -> None:
    told: list[str] = []
    used = len(hs.fd_snapshot())
    near = hs.fd_watch(share=None, count=used + 2, on_alarm=lambda _: told.append("near"))
    far = hs.fd_watch(share=None, count=used + 6, on_alarm=lambda _: told.append("far"))
    conns = []
    for _ in range(8):
        conns.append(hs.connect(listener.getsockname()))
    assert ["near", "far"] == told
    near.close()
    far.close()
    for conn in conns:
        conn.close()


FORKED = """
import os, threading
import hardsock as hs
from hardsock.leaks import descriptors as _descriptors
from hardsock.pool import pool as _pool

told = []
watch = hs.fd_watch(share=None, count=len(hs.fd_snapshot()) + 3, on_alarm=told.append)
listener = hs.listen(("127.0.0.1", 0))
address = listener.getsockname()
held, release = threading.Event(), threading.Event()

def hold():
    with _descriptors._lock, _pool._living_lock:
        held.set()
        release.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
pid = os.fork()
if pid == 0:
    conns = [hs.connect(address) for _ in range(4)]
    os._exit(len(told) + 10 * (len(hs.open_connections()) == 4))
release.set()
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), len(told))
watch.close()
listener.close()
"""


def test_child_of_a_fork_has_a_watch_of_its_own() -> None:
    """Also when another thread held its lock at that moment."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKED], capture_output=True, text=True, timeout=60
    )

    assert ("11 0\n", "") == (done.stdout, done.stderr)


# ---- tcp_counts


def test_tcp_counts_counts_by_state_towards_a_peer() -> None:
    def of_now(address: hs.Address) -> dict[str, int]:
        """Without what others that had the port before left in the kernel for a minute."""
        return {k: n for k, n in hs.tcp_counts(address).items() if k != "time_wait"}

    with hs.listen(("127.0.0.1", 0)) as listener:
        address = listener.address
        assert set(of_now(address).values()) == {0}
        with hs.connect(address), listener.accept(), hs.connect(address), listener.accept():
            counts = of_now(address)
            assert counts["established"] == 2
            assert sum(counts.values()) == 2
            everything = hs.tcp_counts()
            assert everything["established"] >= 4
            assert everything["listen"] >= 1
            assert everything.keys() - counts.keys() == {"time_wait"}
        first = hs.connect(address)
        listener.accept().close()
        assert poll_until(lambda: hs.tcp_counts(address)["close_wait"] == 1, 20)
        first.close()


def test_tcp_counts_counts_ipv6_too() -> None:
    with hs.listen(("::1", 0)) as listener, hs.connect(listener.address), listener.accept():
        assert hs.tcp_counts(listener.address)["established"] == 1


@pytest.mark.parametrize("peer", ["unix:/tmp/x", "example.org:80"])
def test_tcp_counts_wants_a_literal_address(peer: str) -> None:
    with pytest.raises(ValueError, match="peer must be an IP address and a port"):
        hs.tcp_counts(peer)


def test_tcp_counts_says_when_the_kernel_cannot_be_asked() -> None:
    """Without a descriptor for the question."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError) as caught:
            hs.tcp_counts()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE
