"""hardsock.pytest_plugin: what tests leave open is found, named, and blamed on the right one."""

from __future__ import annotations

import contextvars
import gc
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import hardsock as hs
from hardsock import _core
from hardsock.lab.threads import run_threaded
from hardsock.leaks.owners import KINDS, Finding, Owner, Owners
from hardsock.leaks.tracer import Tracer
from support.inner import alone
from support.require import need_module

LEAKS = """
import os, socket, threading
import pytest
import hardsock as hs

KEPT = []

@pytest.fixture(scope="module")
def listener():
    with hs.listen(("127.0.0.1", 0)) as listener:
        yield listener

@pytest.fixture(scope="module")
def pool(listener):
    with hs.Pool(listener.getsockname(), max_size=4) as pool:
        yield pool

def test_clean(listener, pool):
    with pool.connection(timeout=5.0), hs.connect(listener.getsockname()) as conn:
        listener.accept(timeout=5.0).close()
    for sock in socket.socketpair():
        sock.close()

def test_connection(listener):
    KEPT.append(hs.connect(listener.getsockname()))  # LINE connection

def test_after_a_leak_is_clean():
    pass

def test_lent(pool):
    KEPT.append(pool.acquire(timeout=5.0))  # LINE lent

def test_thrown_away(listener):
    hs.connect(listener.getsockname())  # LINE thrown_away

def test_pool(listener):
    KEPT.append(hs.Pool(listener.getsockname()))  # LINE pool

def test_listener():
    KEPT.append(hs.listen(("127.0.0.1", 0)))  # LINE listener

def test_accepted(listener):
    with hs.connect(listener.getsockname()):
        KEPT.append(listener.accept(timeout=5.0))  # LINE accepted

def test_socket(listener):
    KEPT.append(socket.create_connection(listener.getsockname()))  # LINE socket

def test_file():
    KEPT.append(open("/etc/passwd"))  # LINE file

def test_pipe():
    KEPT.append(os.pipe())

def test_thread(listener):
    def connect():
        KEPT.append(hs.connect(listener.getsockname()))  # LINE thread
    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
"""
LEAKING = re.findall(r"# LINE (\w+)", LEAKS)


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    alone(monkeypatch)
    pytester.makeini("[pytest]\n")
    return pytester


def _run(suite: pytest.Pytester, code: str, *options: str, **inis: str) -> pytest.RunResult:
    suite.makepyfile(test_suite=code)
    lines = [f"{name} = {value}" for name, value in inis.items()]
    suite.makeini("\n".join(["[pytest]", *lines, ""]))
    asyncio = [] if "asyncio_mode" in inis else ["-pno:asyncio"]
    return suite.runpytest_subprocess("-pno:cacheprovider", *asyncio, *options)


def _line_of(code: str, name: str) -> int:
    return next(
        n for n, line in enumerate(code.strip().splitlines(), 1) if line.endswith(f"# LINE {name}")
    )


def _assert_leaks_found(result: pytest.RunResult) -> None:
    tests = len(re.findall("^def test_", LEAKS, re.MULTILINE))
    result.assert_outcomes(passed=tests, errors=len(LEAKING) + 1)
    output = str(result.stdout)
    for name in LEAKING:
        assert f"test_suite.py::test_{name} left behind:" in output
        where = f"test_suite.py:{_line_of(LEAKS, name)} in "
        assert re.search(rf"test_{name} left behind:\n(E? +.*\n)*.*made at .*{where}", output), name
    result.stdout.fnmatch_lines(["*test_pipe left behind:*", "*left open: pipe:*"])
    assert "test_clean left behind" not in output
    assert "test_after_a_leak_is_clean left behind" not in output
    assert "(module) left behind" not in output


@pytest.mark.slow
def test_leaks_fail_the_test_and_the_line_is_named(suite: pytest.Pytester) -> None:
    _assert_leaks_found(_run(suite, LEAKS))


@pytest.mark.slow
def test_leaks_are_found_under_xdist(suite: pytest.Pytester) -> None:
    _assert_leaks_found(_run(suite, LEAKS, "-n2"))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--hardsock-leaks=off", "-pno:hardsock", "ini"])
def test_plugin_can_be_switched_off(suite: pytest.Pytester, how: str) -> None:
    options = [] if how == "ini" else [how]
    inis = {"hardsock_leaks": "off"} if how == "ini" else {}
    tests = len(re.findall("^def test_", LEAKS, re.MULTILINE))

    _run(suite, LEAKS, "-Wignore", *options, **inis).assert_outcomes(passed=tests)


@pytest.mark.slow
def test_kinds_can_be_chosen(suite: pytest.Pytester) -> None:
    found = str(_run(suite, LEAKS, "--hardsock-leaks=connections").stdout)

    assert "test_lent left behind" in found
    assert "test_socket left behind" not in found
    assert "test_pipe left behind" not in found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("sockets", "there is no 'sockets', but connections, descriptors, all and off"),
        ("off,all", "off and others contradict each other"),
    ],
)
def test_wrong_kinds_are_refused(suite: pytest.Pytester, value: str, message: str) -> None:
    result = _run(suite, LEAKS, f"--hardsock-leaks={value}")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in str(result.stderr)


ALLOWED = """
import os
import pytest
import hardsock as hs

KEPT = []

def keep():
    KEPT.append(hs.listen(("127.0.0.1", 0)))

@pytest.mark.may_leave("on purpose", sites=["*/test_suite.py:* in keep"])
def test_site():
    keep()

@pytest.mark.may_leave("on purpose", sites=["*in somewhere_else"], fds=["/etc/*"])
def test_other_site():
    KEPT.append(os.open("/etc/passwd", os.O_RDONLY))
    keep()

@pytest.mark.may_leave("on purpose")
def test_anything():
    KEPT.append(os.open("/etc/passwd", os.O_RDONLY))
    keep()

def test_not_allowed():
    keep()
"""


@pytest.mark.slow
def test_marker_allows_by_site_and_target(suite: pytest.Pytester) -> None:
    result = _run(suite, ALLOWED, "--strict-markers")

    result.assert_outcomes(passed=4, errors=2)
    output = str(result.stdout)
    assert "test_other_site left behind" in output
    assert "test_not_allowed left behind" in output
    assert "/etc/passwd" not in output


@pytest.mark.slow
def test_ini_allows_by_site(suite: pytest.Pytester) -> None:
    allow = "\n    */nothing.py:*\n    *in keep"

    _run(suite, ALLOWED, hardsock_leaks_allow=allow).assert_outcomes(passed=4)


FIXTURES = """
import threading
import pytest
import hardsock as hs

@pytest.fixture(scope="module")
def server():
    def handle(conn):
        while conn.recv(100):
            conn.sendall(b"ok")
    with hs.serve(handle, ("127.0.0.1", 0), drain_timeout=0.1) as server:
        yield server.address

@pytest.fixture(scope="module")
def old_fashioned():
    "A thread that accepts and keeps, with no context."
    kept = []
    with hs.listen(("127.0.0.1", 0)) as listener:
        def accept():
            for conn in listener:
                kept.append(conn)
                conn.sendall(b"hello")
        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()
        listener.close()
        thread.join()
    for conn in kept:
        conn.close()

@pytest.fixture(scope="session")
def client(server):
    with hs.connect(server) as conn:
        yield conn

@pytest.fixture(scope="module")
def pool(server):
    with hs.Pool(server) as pool:
        yield pool

def test_connections_of_servers_are_theirs(server, old_fashioned):
    with hs.connect(old_fashioned) as conn:
        assert conn.recv_exactly(5) == b"hello"
    with hs.connect(server) as conn:
        conn.sendall(b"?")
        assert conn.recv_exactly(2) == b"ok"

def test_idle_connections_are_the_pools(pool):
    with pool.connection(timeout=5.0) as conn:
        conn.sendall(b"?")
        assert conn.recv_exactly(2) == b"ok"
        conn.mark_clean()

def test_fixture_asked_for_in_the_test_is_not_its_own(request):
    fresh = request.getfixturevalue("opened_late")
    fresh.sendall(b"?")
    assert fresh.recv_exactly(2) == b"ok"

@pytest.fixture(scope="module")
def opened_late(server):
    with hs.connect(server) as conn, open("/etc/passwd") as file:
        yield conn
"""


@pytest.mark.slow
def test_what_fixtures_for_several_tests_open_is_no_tests_leak(suite: pytest.Pytester) -> None:
    code = FIXTURES.replace('scope="session"', 'scope="module"')

    _run(suite, code).assert_outcomes(passed=3)


CUT_OFF = """
import _thread, os, signal
import pytest
import hardsock as hs

KEPT = []

def keep():
    KEPT.append(hs.listen(("127.0.0.1", 0)))

def cut_off():
    CUT

@pytest.fixture(scope="module")
def careless():
    keep()
    yield
    if PLACE == "fixture teardown": cut_off()

@pytest.fixture
def own():
    if PLACE != "fixture teardown": keep()
    if PLACE == "setup": cut_off()
    yield
    if PLACE == "teardown": cut_off()

def test_before(careless):
    pass

def test_cut_off(careless, own):
    if PLACE == "call":
        keep()
        cut_off()

def test_after(careless):
    pass
"""
CUTS = {
    "ctrl-c": ("os.kill(os.getpid(), signal.SIGINT)", pytest.ExitCode.INTERRUPTED),
    "exit": ("pytest.exit('enough', returncode=7)", 7),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["setup", "call", "teardown", "fixture teardown"])
@pytest.mark.parametrize("cut", CUTS)
def test_run_that_is_cut_off_ends_as_without_the_plugin(
    suite: pytest.Pytester, cut: str, place: str
) -> None:
    """As pytest ends it: its status, no error of ours, what was left is nobody's fault."""
    how, status = CUTS[cut]
    code = CUT_OFF.replace("CUT\n", f"{how}\n").replace("PLACE", repr(place))

    result = _run(suite, code)

    output = str(result.stdout) + str(result.stderr)
    assert result.ret == status
    assert "left behind" not in output
    assert "Traceback" not in output
    assert "INTERNALERROR" not in output
    assert "AttributeError" not in output


FAILING_TEARDOWN = """
import pytest
import hardsock as hs

KEPT = []

@pytest.fixture
def own():
    yield
    raise ValueError("in teardown")

def test_leaks(own):
    KEPT.append(hs.listen(("127.0.0.1", 0)))
"""


@pytest.mark.slow
def test_what_is_left_beside_another_error_of_the_teardown_is_told(suite: pytest.Pytester) -> None:
    result = _run(suite, FAILING_TEARDOWN)

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ValueError: in teardown", "*test_leaks left behind:"])


LEAKY_FIXTURE = """
import pytest
import hardsock as hs

@pytest.fixture(scope="module")
def careless():
    return hs.listen(("127.0.0.1", 0))  # LINE fixture

def test_first(careless):
    pass

def test_last(careless):
    KEPT.append(careless)

KEPT = []
"""


@pytest.mark.slow
def test_leaky_fixture_is_named(suite: pytest.Pytester) -> None:
    result = _run(suite, LEAKY_FIXTURE)

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_last*",
            "fixture careless (module) left behind:",
            f"*test_suite.py:{_line_of(LEAKY_FIXTURE, 'fixture')} in careless",
        ]
    )


OTHER_TESTS = """
import threading, unittest
import pytest
import hardsock as hs

KEPT = []

def listen():
    KEPT.append(hs.listen(("127.0.0.1", 0)))

def test_that_fails_is_not_blamed_twice():
    kept = hs.listen(("127.0.0.1", 0))
    assert kept.closed

@pytest.mark.xfail
def test_that_is_known_to_fail():
    kept = hs.listen(("127.0.0.1", 0))
    assert kept.closed

def test_that_skips_is_looked_at():
    listen()
    pytest.skip("now")

class Case(unittest.TestCase):
    def test_case(self):
        listen()

def test_closed_in_time():
    listener = hs.listen(("127.0.0.1", 0))
    threading.Timer(0.03, listener.close).start()
    KEPT.append(listener)

def test_closed_by_the_garbage_collector_is_told():
    class Cycle:
        pass
    cycle = Cycle()
    cycle.me, cycle.listener = cycle, hs.listen(("127.0.0.1", 0))
"""


@pytest.mark.slow
def test_tests_of_other_kinds(suite: pytest.Pytester) -> None:
    result = _run(suite, OTHER_TESTS, "-k", "not closed_in_time", hardsock_leaks_wait="0")

    result.assert_outcomes(passed=2, failed=1, xfailed=1, skipped=1, errors=3, deselected=1)
    output = str(result.stdout)
    assert re.search(r"test_that_skips_is_looked_at left behind:\n +listen ", output)
    assert re.search(r"Case::test_case left behind:\n +listen ", output)
    assert "closed_by_the_garbage_collector_is_told left behind" in output
    assert ">: thrown away, not closed, made at" in output


AFTER_A_FAILURE = """
import gc
import hardsock as hs
import pytest

def test_keeps_all_in_its_traceback():
    listener = hs.listen(("127.0.0.1", 0))
    with pytest.raises(ValueError) as caught:  # The frame has this, and this has the frame.
        raise ValueError
    assert 0, caught

def test_is_blamed_for_nothing():
    gc.collect()
"""


@pytest.mark.slow
def test_what_a_failed_test_held_is_not_the_next_ones(suite: pytest.Pytester) -> None:
    _run(suite, AFTER_A_FAILURE, hardsock_leaks_wait="0").assert_outcomes(passed=1, failed=1)


@pytest.mark.slow
def test_what_is_closed_in_time_is_no_leak(suite: pytest.Pytester) -> None:
    result = _run(suite, OTHER_TESTS, "-k", "closed_in_time", hardsock_leaks_wait="60")

    result.assert_outcomes(passed=1, deselected=5)


@pytest.mark.slow
def test_waiting_has_an_end(suite: pytest.Pytester) -> None:
    code = OTHER_TESTS.replace("Timer(0.03", "Timer(10").replace(".start()", "")

    found = str(_run(suite, code, "-k", "closed_in_time", hardsock_leaks_wait="0").stdout)

    assert "test_closed_in_time left behind" in found


ASYNC = """
import asyncio
import pytest
import hardsock as hs
from hardsock import aio

KEPT = []

@pytest.fixture(scope="session")
def server():
    def handle(conn):
        conn.recv(100)
    with hs.serve(handle, ("127.0.0.1", 0), drain_timeout=0.1) as server:
        yield server.address

async def leak(address):
    KEPT.append(await aio.connect(address))  # LINE aio

async def test_own_loop(server):
    await leak(server)

@pytest.mark.asyncio(loop_scope="session")
async def test_common_loop(server):
    await leak(server)

@pytest.mark.asyncio(loop_scope="session")
async def test_common_loop_clean(server):
    async with await aio.connect(server):
        pass

async def test_task(server):
    await asyncio.create_task(leak(server))

async def test_streams(server):
    reader, writer = await asyncio.open_connection(*server)  # LINE streams
    KEPT.append(writer)

@pytest.fixture
async def connection(server):
    async with await aio.connect(server) as conn:
        yield conn

async def test_fixture(connection):
    pass
"""


@pytest.mark.slow
def test_async_tests(suite: pytest.Pytester) -> None:
    result = _run(suite, ASYNC, asyncio_mode="auto", asyncio_default_fixture_loop_scope="function")

    result.assert_outcomes(passed=6, errors=4)
    output = str(result.stdout)
    leak = f"test_suite.py:{_line_of(ASYNC, 'aio')} in leak"
    for name in ("own_loop", "common_loop", "task"):
        assert re.search(rf"test_{name} left behind:\n +connect .*{leak}", output), name
    streams = f"test_suite.py:{_line_of(ASYNC, 'streams')} in test_streams"
    assert re.search(rf"test_streams left behind:\n.*socket:.*{streams}", output)


OUT_OF_DESCRIPTORS = """
import os, resource
import hardsock as hs

KEPT = []

def test_leak():
    KEPT.append(hs.listen(("127.0.0.1", 0)))  # LINE leak
    next_fd = os.dup(0)
    os.close(next_fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_fd, hard))
    KEPT.append(soft)

def test_restore():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (KEPT[1], hard))
"""


@pytest.mark.slow
def test_leak_is_found_when_no_descriptor_is_left(suite: pytest.Pytester) -> None:
    result = _run(suite, OUT_OF_DESCRIPTORS, "-s", "--show-capture=no")

    result.assert_outcomes(passed=2, errors=1)
    line = _line_of(OUT_OF_DESCRIPTORS, "leak")
    result.stdout.fnmatch_lines(["*test_leak left behind:", f"*:{line} in test_leak"])


# ---- tests that run at the same time, in threads


@pytest.fixture
def owners() -> Iterator[Owners]:
    owners = Owners(KINDS["connections"] | KINDS["descriptors"])
    yield owners
    owners.stop()


@pytest.mark.parametrize(("name", "is_leak"), [("libffi.so.8.5.0", False), ("libffi.so", True)])
def test_what_libffi_keeps_open_of_itself_is_no_leak(
    owners: Owners, tmp_path: Path, name: str, is_leak: bool
) -> None:
    """Newer ones do, from the first import of ctypes on."""
    owner = owners.begin("a test that imports ctypes")
    with open(tmp_path / name, "wb"):
        found = owners.leftovers(owner, (), 0)
        owners.end(owner)
    assert [one.name for one in found] == [str(tmp_path / name)] * is_leak


def test_what_a_thread_leaves_in_a_cycle_while_the_plugin_waits_is_no_leak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was closed; that its memory waits for the collector is nobody's mistake."""
    owners = Owners(KINDS["all"])
    owner = owners.begin("a test with a thread that ends late")
    held: list[object] = [hs.listen(("127.0.0.1", 0))]
    held[0].close()  # type: ignore[attr-defined]
    collect = gc.collect

    def collect_and_let_the_thread_end(generation: int = 2) -> int:
        found = collect(generation)
        if held:
            cycle = [held.pop()]
            cycle.append(cycle)
        return found

    monkeypatch.setattr(gc, "collect", collect_and_let_the_thread_end)
    assert _texts(owners.leftovers(owner, (), wait=0.01)) == []
    owners.end(owner)
    owners.stop()


@pytest.mark.parametrize("is_old", [False, True])
def test_what_is_old_is_not_looked_through_for_young_garbage(
    is_old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = Owners(KINDS["all"])
    owner = owners.begin("a test that leaves a cycle")
    cycle: list[object] = [hs.listen(("127.0.0.1", 0))]
    cycle.append(cycle)
    if is_old:
        gc.collect()
    cycle[0].close()  # type: ignore[attr-defined]
    del cycle
    collect, asked = gc.collect, []

    def note(generation: int = 2) -> int:
        asked.append(generation)
        return collect(generation)

    monkeypatch.setattr(gc, "collect", note)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"it waits {seconds} s"))
    assert _texts(owners.leftovers(owner, (), wait=60.0)) == []
    assert asked[0] < 2
    assert is_old or len(asked) == 1
    owners.end(owner)
    owners.stop()


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    with hs.listen(("127.0.0.1", 0)) as listener:
        host, port, *_ = listener.getsockname()
        yield host, port


def _texts(found: list[Finding]) -> list[str]:
    return [one.text for one in found]


def test_owners_at_the_same_time_are_told_apart(owners: Owners, address: tuple[str, int]) -> None:
    """By what was made inside of each, also in threads that were given its context."""
    begun, made = threading.Barrier(8), threading.Barrier(8)
    kept: list[hs.Connection] = []

    def test(index: int) -> None:
        owner = owners.begin(f"test {index}")
        token = _core.owner.set(owner)
        begun.wait()
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: context.run(connect))
        for _ in range(index):
            connect()
        thread.start()
        thread.join()
        made.wait()
        found = owners.leftovers(owner, (), wait=0.0)
        assert len(found) == index + 1, _texts(found)
        begun.wait()  # Nobody closes before all have looked.
        owners.end(owner)
        _core.owner.reset(token)

    def connect() -> None:
        kept.append(hs.connect(address))

    run_threaded(test, 8)
    for conn in kept:
        conn.close()


def test_what_inherits_no_context_is_blamed_on_nobody(
    owners: Owners, address: tuple[str, int]
) -> None:
    """While several are active it could be any of them; it is told if it stays open."""
    first, second = owners.begin("first"), owners.begin("second")
    kept: list[hs.Connection] = []
    thread = threading.Thread(target=lambda: kept.append(hs.connect(address)))
    with _no_context():
        thread.start()
        thread.join()

    assert [] == owners.leftovers(first, (), wait=0.0)
    assert [] == owners.leftovers(second, (), wait=0.0)
    owners.end(first)
    owners.end(second)
    (stray,) = owners.strays()
    assert "by thread" in stray.text or "made at" in stray.text
    kept[0].close()
    assert [] == owners.strays()


def test_untraced_descriptors_of_tests_at_the_same_time_are_strays(owners: Owners) -> None:
    first, second = owners.begin("first"), owners.begin("second")
    read, write = os.pipe()

    assert [] == owners.leftovers(first, (), wait=0.0)
    assert ["pipe", "pipe"] == [one.kind for one in owners.strays()]
    owners.end(first)
    owners.end(second)
    os.close(read)
    os.close(write)
    assert [] == owners.strays()


def test_one_owner_answers_for_new_threads_but_not_for_old_ones(
    owners: Owners, address: tuple[str, int]
) -> None:
    kept: list[hs.Connection] = []
    go, done = threading.Event(), threading.Event()

    def connect() -> None:
        go.wait()
        kept.append(hs.connect(address))
        done.set()
        stay.wait()

    stay = threading.Event()
    old = threading.Thread(target=connect)
    with _no_context():
        old.start()
        owner = owners.begin("test")
        go.set()
        done.wait()
        assert [] == owners.leftovers(owner, (), wait=0.0)
        new = threading.Thread(target=connect, name="new one")
        new.start()
        stay.set()
        old.join()
        new.join()
    # Both have ended: the number of the old one could be that of another thread by now.
    found = owners.leftovers(owner, (), wait=0.0)
    owners.end(owner)
    assert all("connect 127.0.0.1:" in text for text in _texts(found))
    assert len(found) in (1, 2)
    for conn in kept:
        conn.close()


class _no_context:
    """Threads that are started within have an empty context, as before Python 3.14."""

    def __enter__(self) -> None:
        self._reset = _core.owner.set(None)

    def __exit__(self, *_details: object) -> None:
        _core.owner.reset(self._reset)


def test_stop_of_one_run_leaves_another_going(owners: Owners, address: tuple[str, int]) -> None:
    Owners(KINDS["connections"]).stop()
    owner = owners.begin("test")
    reset = _core.owner.set(owner)
    with hs.connect(address) as conn:
        (found,) = owners.leftovers(owner, (), wait=0.0)
        assert f"descriptor {conn.fileno()}: left open" in found.text
    _core.owner.reset(reset)
    owners.end(owner)


def test_finding_is_matched_by_site_file_and_name() -> None:
    site = hs.Site("/src/app/db.py", 12, "connect")
    finding = Finding("connection", "text", site)

    for pattern in ("*/db.py:12 in connect", "/src/app/db.py:12", "*/app/*", "/src/app/db.py"):
        assert finding.matches([pattern])
    assert not finding.matches(["*/db.py:13*", "db.py", "connect"])
    assert Finding("pipe", "text", None, "pipe:[7]").matches(["pipe:*"])


def test_owner_has_what_names_it() -> None:
    owner, other = Owner("a"), Owner("b")
    me = threading.get_ident()

    assert owner.has(owner, 0, me)
    assert not owner.has(other, owner.began, me)
    assert owner.has(None, owner.began, me)
    assert not owner.has(None, owner.began - 1, me)
    owner.alone = False
    assert not owner.has(None, owner.began, me)


def test_a_leak_in_a_library_names_the_line_that_called_it(suite: pytest.Pytester) -> None:
    need_module("urllib3")
    suite.makepyfile(
        """
        import socket
        import urllib3.connection
        kept = []

        def test_leaks():
            listener = socket.create_server(("127.0.0.1", 0))
            conn = urllib3.connection.HTTPConnection(*listener.getsockname())
            kept.extend([listener, conn])
            conn.connect()
        """
    )
    result = suite.runpytest_subprocess("-p", "no:cacheprovider", "--hardsock-leaks=descriptors")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*socket:*names_the_line_that_called_it.py:6 in test_leaks*"])
    result.stdout.fnmatch_lines(["*socket:*names_the_line_that_called_it.py:9 in test_leaks*"])


def test_many_threads_open_files_while_they_are_traced() -> None:
    """Without a GIL this ended the process. The oldest are forgotten."""
    tracer = Tracer()

    def opens(n: int) -> None:
        for i in range(4000):
            tracer._hear("open", (f"/{n}/{i}", "r", 0))

    run_threaded(opens, 4)
    assert len(tracer._files) == 4096


def test_socket_of_the_standard_library_is_traced(pytester: pytest.Pytester) -> None:
    """Where a frame of the standard library made it, the caller's line is named."""
    code = """
        import socket, sys
        from hardsock.leaks.tracer import Tracer
        from hardsock.pool.records import site_at
        tracer = Tracer()
        tracer.install()
        a, b = socket.socketpair()
        def opened():
            return open(sys.argv[0])
        file = opened()
        trace = tracer.of(b.fileno(), "socket:[1]")
        print(site_at(trace.code, trace.offset))
        trace = tracer.of(file.fileno(), sys.argv[0])
        print(site_at(trace.code, trace.offset))
        c = socket.socket()
        fd = c.detach()
        print(tracer.of(fd, "socket:[1]"), tracer.of(99, "/nowhere"))
        del c
        print(len(tracer._sockets))
    """
    script = pytester.makepyfile(code)
    result = pytester.runpython(script)

    result.stdout.fnmatch_lines(["*.py:6 in <module>", "*.py:8 in opened", "None None", "2"])


def test_socketpair_of_tests_is_still_made(owners: Owners) -> None:
    """What leaves no trace is found all the same."""
    owner = owners.begin("test")
    left, right = socket.socketpair()
    found = owners.leftovers(owner, (), wait=0.0)
    owners.end(owner)
    left.close()
    right.close()
    assert ["socket", "socket"] == [one.kind for one in found]
