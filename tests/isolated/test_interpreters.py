"""Many interpreters in one process: what each imports goes with it, and nothing of it stays."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap

import pytest

from hardsock import _core
from support.require import need_testcapi

PRELUDE = """
import os, sys
try:
    import _interpreters as interpreters
except ImportError:  # before Python 3.13
    import _xxsubinterpreters as interpreters

def create(kind):
    try:
        return interpreters.create(kind)  # "isolated" has a GIL of its own from 3.12 on
    except TypeError:
        return interpreters.create(isolated=kind == "isolated")

def run_in(interpreter, code):
    failed = interpreters.run_string(interpreter, code)  # raises, before Python 3.13
    assert failed is None, failed
"""
ISOLATED = pytest.param(
    "isolated",
    marks=pytest.mark.skipif(
        sys.version_info[:2] == (3, 12),
        reason="CPython 3.12's own ssl and datetime corrupt memory in an isolated interpreter",
    ),
)
KINDS = [ISOLATED, "legacy"]


# CPython 3.14 tells of interpreters that are left, at a time when it can raise nothing.
WARNINGS = ["-W", "error", "-W", "ignore:remaining subinterpreters:RuntimeWarning"]


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, *WARNINGS, "-c", PRELUDE + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def test_the_module_is_asked_for_every_type_that_it_holds() -> None:
    """A type that it does not tell of keeps its interpreter's memory for ever."""
    told = gc.get_referents(_core)
    types = [one for one in vars(_core).values() if isinstance(one, type)]
    assert len(types) >= 14
    assert [one for one in types if not any(one is each for each in told)] == []


USES = """
import hardsock as hs, socket
with hs.listen(("127.0.0.1", 0)) as listener, hs.connect(listener.address, timeout=30) as conn:
    with listener.accept(timeout=30) as other:
        other.send_frame(b"x", hs.LengthPrefix())
        assert conn.recv_frame(hs.LengthPrefix(), timeout=30) == b"x"
        hs.TLSConfig(insecure_skip_verify=True)
        hs.Breaker().permit("a").record()
        hs.CancelToken().child().on_cancel(lambda: None).remove()
with hs.listen(("127.0.0.1", 0)) as listener, hs.Pool(listener.address) as pool:
    with pool.connection(timeout=30):
        pass
"""


ONE_OF_EACH = """
import hardsock as hs
from hardsock import _core
listener = hs.listen(("127.0.0.1", 0))
pool = hs.Pool(listener.address)
conn = hs.connect(listener.address, timeout=30)
token = hs.CancelToken()
hub = _core.Hub(find=lambda: hub)
breaker = hs.Breaker()
dials = _core.DialQueue(2, 0.0)
kept = {
    "CancelToken": token, "Callback": token.on_cancel(print), "Connection": conn,
    "Listener": listener, "Frames": conn.frames(hs.LengthPrefix()), "Pool": pool,
    "Borrowing": pool.connection(timeout=30), "Hub": hub, "Operation": listener._op_accept(hub),
    "Framing": hs.LengthPrefix()._core, "Decoder": hs.Decoder(hs.LengthPrefix()),
    "TLSContext": hs.TLSConfig(insecure_skip_verify=True)._context, "Breaker": breaker,
    "Permit": breaker.permit("a"), "Slots": _core.Slots(1),
    "Departures": _core.Departures(), "Parking": _core.Parking(), "Delays": _core.Delays(),
    "DialQueue": dials, "DialHold": dials.take(timeout=30),
    "Service": _core.Service("threads", "kept", 1), "Scope": hs.timeout(5),
    "ContextValue": _core.ContextValue(_core.owner, None),
    "TaskScope": _core.TaskScope(5), "Ready": _core.Ready(hs),
    "lent": pool.acquire(timeout=30),
}
# Not "rw": CPython itself keeps an io.BufferedRWPair that goes with a cycle.
kept["files"] = [conn.makefile("r"), conn.makefile("wb", buffering=0), conn.dup()]
scope = {"kept": kept}
exec("def check(): return 1000", scope)
_core._tell_owners(True)
_core.owner.set(scope["check"])
kept["owned"] = hs.connect(listener.address, timeout=30)
_core._fd_watch(1, 1000, scope["check"])  # which the module keeps, and with it all of this
types = {name for name, one in vars(_core).items() if isinstance(one, type)}
assert types <= set(kept), types - set(kept)
import warnings
warnings.simplefilter("ignore")
"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("uses", ["USES", "ONE_OF_EACH"])
def test_module_goes_with_its_interpreter(kind: str, uses: str) -> None:
    run(
        f"""
        from hardsock import _core
        for _ in range(3):
            interpreter = create({kind!r})
            run_in(interpreter, {globals()[uses]!r})
            assert _core._modules() == 2
            interpreters.destroy(interpreter)
            while _core._modules() != 1:
                pass
        """
    )


def test_process_that_ends_takes_objects_that_its_module_keeps() -> None:
    """The collector takes them with the module and clears the types before the last of them goes."""
    run(ONE_OF_EACH)


@pytest.mark.skipif(
    sys.version_info >= (3, 12),
    reason="CPython itself keeps up to 5 MB of an interpreter that imported the standard library",
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("uses", ["USES", "ONE_OF_EACH"])
def test_interpreters_that_come_and_go_leave_no_memory(kind: str, uses: str) -> None:
    """An interpreter that stays is about 1 MB."""
    grown = run(
        f"""
        def pages():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1])
        for n in range(40):
            if n == 10:
                before = pages()
            interpreter = create({kind!r})
            run_in(interpreter, {globals()[uses]!r})
            interpreters.destroy(interpreter)
        print((pages() - before) * os.sysconf("SC_PAGE_SIZE") // 1024)
        """
    )
    assert int(grown) / 30 < 150


# ---- calls that nobody waits for

CALLED_BACK = """
import hardsock as hs, logging, threading
logging.disable()  # of what was returned late
told = threading.Event()
token = hs.CancelToken()
token.on_cancel(told.set)
token.set_timeout(0.01)
assert told.wait(60)
told.clear()
above = hs.CancelToken()
token = above.child()
token.on_cancel(told.set)
above.set_timeout(0.01)
assert told.wait(60)
told.clear()
with hs.listen(("127.0.0.1", 0)) as listener:
    with hs.Pool(listener.address, leak_after=0.01, on_leak=lambda lent: told.set()) as pool:
        with pool.connection(timeout=30):
            assert told.wait(60)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_deadlines_and_leaks_are_told_in_any_interpreter(kind: str) -> None:
    """Before Python 3.12 an isolated one has no threads at all, so that nothing could wait there."""
    run(
        f"""
        for _ in range(3):
            interpreter = create({kind!r})
            run_in(interpreter, {CALLED_BACK!r})
            interpreters.destroy(interpreter)
        """
    )


MANY_DEADLINES = """
import hardsock as hs
tokens = [hs.CancelToken(n / 10000) for n in range(20)]
for token in tokens:
    token.on_cancel(lambda: sum(range(1000)))
hs.kept = hs.CancelToken(60)
hs.kept.on_cancel(print)
"""


def test_an_interpreter_ends_while_deadlines_are_watched() -> None:
    need_testcapi()
    run(
        f"""
        import _testcapi
        for n in range(50):
            assert _testcapi.run_in_subinterp({MANY_DEADLINES!r}) == 0
        """
    )


@pytest.mark.parametrize("imported", [True, False])
def test_a_process_ends_before_its_interpreters_whose_deadlines_are_watched(imported: bool) -> None:
    """Without hardsock in the main one nobody stops callbacks of others before the process ends, and
    CPython calls an interpreter with a thread in it a fatal error; so there none is due."""
    code = MANY_DEADLINES if imported else MANY_DEADLINES.replace("n / 10000", "60 + n")
    run(
        f"""
        if {imported}:
            import hardsock
        kept = [create("legacy") for _ in range(5)]
        for interpreter in kept:
            run_in(interpreter, {code!r})
        """
    )


IN_A_CALLBACK = """
import hardsock as hs, os, atexit, threading
read, write = os.pipe()
entered = threading.Event()
def callback():
    entered.set()
    os.read(read, 1)
    os.write(1, b"the callback ends, ")
hs.kept = hs.CancelToken()
hs.kept.on_cancel(callback)
hs.kept.set_timeout(0.001)
assert entered.wait(60)
atexit.register(os.write, write, b"x")
"""


def test_an_interpreter_that_ends_waits_for_the_callback_that_runs() -> None:
    need_testcapi()
    said = run(
        f"""
        import _testcapi
        assert _testcapi.run_in_subinterp({IN_A_CALLBACK!r}) == 0
        print("and then the interpreter")
        """
    )
    assert said == "the callback ends, and then the interpreter\n"


def test_exit_does_not_wait_for_a_callback_that_never_ends() -> None:
    run(
        """
        import hardsock as hs, threading
        entered = threading.Event()
        def callback():
            entered.set()
            hs.CancelToken().wait()
        token = hs.CancelToken()
        token.on_cancel(callback)
        token.set_timeout(0.001)
        assert entered.wait(60)
        """
    )


def test_exit_while_callbacks_run_without_end() -> None:
    """The thread attaches again and again while the interpreter goes."""
    run(
        """
        import hardsock as hs, threading
        enough = threading.Event()
        calls = 0
        def again():
            global calls, token
            calls += 1
            if calls == 50:
                enough.set()
            token = hs.CancelToken(0)
            token = hs.CancelToken()
            token.on_cancel(again)
            token.set_timeout(0.00001)
        again()
        assert enough.wait(60)
        """
    )


def test_fifty_pools_with_alarms_need_one_thread_which_goes_with_the_last() -> None:
    run(
        """
        import hardsock as hs, threading
        def ours():  # A sanitizer has threads, too.
            found = []
            for tid in os.listdir("/proc/self/task"):
                try:
                    with open(f"/proc/self/task/{tid}/comm") as file:
                        found.append(file.read().strip())
                except OSError:
                    pass  # It ended meanwhile.
            return sorted(name for name in found if name.startswith("hs-"))
        with hs.listen(("127.0.0.1", 0)) as listener:
            pools = [hs.Pool(listener.address, leak_after=30) for _ in range(50)]
            assert ours() == ["hs-notifier", "hs-pool-worker"], ours()
            assert threading.active_count() == 1
            for pool in pools:
                pool.close()
            del pools, pool
        while ours():
            pass
        """
    )


def test_a_forked_child_hears_of_its_own_leaks() -> None:
    run(
        """
        import hardsock as hs, logging, threading, warnings
        logging.disable()  # of what was returned late
        warnings.simplefilter("ignore")  # about fork in a process with threads
        told = threading.Event()
        with hs.listen(("127.0.0.1", 0)) as listener:
            pool = hs.Pool(listener.address, leak_after=0.01, on_leak=lambda lent: told.set())
            with pool.connection(timeout=30):
                assert told.wait(60)
            told.clear()
            child = os.fork()
            if child == 0:
                with pool.connection(timeout=30):
                    os._exit(0 if told.wait(60) else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert not told.is_set()
            pool.close()
        """
    )


# ---- serving

SERVES = """
import hardsock as hs
def handler(conn):
    conn.sendall(b"hello")
server = hs.serve(handler, ("127.0.0.1", 0), drain_timeout=30)
with hs.connect(server.address, timeout=30) as conn:
    assert conn.recv_exactly(5, timeout=30) == b"hello"
"""


@pytest.mark.skipif(
    sys.version_info < (3, 13),
    reason="3.11's has no threads, and 3.12's own ssl corrupts memory there",
)
@pytest.mark.parametrize("end", ["server.drain()", "hs.kept = server", "del server"])
def test_a_server_in_an_isolated_interpreter_ends_with_it(end: str) -> None:
    run(
        f"""
        interpreter = create("isolated")
        run_in(interpreter, {SERVES + end!r})
        interpreters.destroy(interpreter)
        """
    )


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="threads are allowed")
def test_serving_where_threads_are_forbidden_says_so() -> None:
    run(
        f"""
        interpreter = create("isolated")
        try:
            interpreters.run_string(interpreter, {SERVES!r})
        except interpreters.RunFailedError as exc:
            assert "serve() runs handlers in threads" in str(exc), exc
        else:
            raise AssertionError
        interpreters.destroy(interpreter)
        """
    )


BLOCKED = {
    "a thread": """
import threading
entered = threading.Event()
def wait():
    entered.set()
    threading.Event().wait()
threading.Thread(target=wait, daemon=True).start()
assert entered.wait(60)
""",
    "a callback": """
import hardsock as hs, threading
entered = threading.Event()
def wait():
    entered.set()
    threading.Event().wait()
hs.kept = hs.CancelToken()
hs.kept.on_cancel(wait)
hs.kept.set_timeout(0.001)
assert entered.wait(60)
""",
}


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="exit ends the interpreters that are left")
def test_exit_with_a_callback_that_blocks_elsewhere_is_as_with_a_thread_there() -> None:
    """A legacy interpreter that only the process ends, with any thread in it, is a fatal error of
    CPython's up to 3.12. Should that change for threads, it has to for callbacks."""
    how = {}
    for what, code in BLOCKED.items():
        program = f"kept = create('legacy')\nrun_in(kept, {code!r})\nprint('exits', flush=True)"
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + program],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.stdout == "exits\n", done.stderr
        how[what] = (done.returncode, "Py_EndInterpreter" in done.stderr)
    assert how["a thread"] == how["a callback"]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="nothing ends an interpreter that is left")
@pytest.mark.parametrize("what", BLOCKED)
def test_exit_waits_for_what_blocks_elsewhere_until_it_ends(what: str) -> None:
    """For a thread as for a callback: both are of an interpreter that ends with the process."""
    code = BLOCKED[what].replace("daemon=True", "daemon=False")
    code = code.replace("threading.Event().wait()", "import os; os.read(0, 1)")
    program = f"kept = create('legacy')\nrun_in(kept, {code!r})\nprint('exits', flush=True)"
    with subprocess.Popen(
        [sys.executable, *WARNINGS, "-c", PRELUDE + program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "exits\n"
        assert process.communicate("x", timeout=60) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_figures_and_the_inspector_are_the_process_s_in_every_interpreter(kind: str) -> None:
    """The registry is one for all; an interpreter that ends leaves nothing in it but counts."""
    out = run(
        f"""
        import tempfile
        import hardsock as hs
        place = tempfile.mkdtemp()
        path = hs.inspect(directory=place + "/sockets")
        for _ in range(3):
            interpreter = create({kind!r})
            run_in(interpreter, '''
        import hardsock as hs
        with hs.listen(("127.0.0.1", 0)) as listener, hs.connect(listener.address) as conn:
            with listener.accept(), hs.Pool(listener.address, name="inner") as pool:
                told = hs.metrics()
                assert told["open_connections"]["connect"] == 1, told["open_connections"]
                assert [one["name"] for one in told["pools"]] == ["inner"]
                line = [r for r in hs.report("connections")["connections"] if r["how"] == "connect"]
                assert line[0]["site"]["line"] > 0
            try:
                hs.connect(("127.0.0.1", 1))
            except hs.ConnectError as error:
                assert error.hint
        assert hs.events()[-1].kind == "connect_failed"
        from hardsock import _core
        state = _core.Service("threads", "inner", 1)  # serve() itself may not be allowed threads.
        state.ended()
        assert [one["state"] for one in hs.report("servers")["services"]] == ["ended"]
        ''')
            interpreters.destroy(interpreter)
        told = hs.metrics()
        assert sum(told["open_connections"].values()) == 0, told["open_connections"]
        assert told["events"]["connect_failed"] == 3
        assert told["events"]["drained"] == 3
        from hardsock.lab.waits import poll_until
        def left():  # A pool's own threads let go of it when they are next run.
            told = hs.metrics()
            return told["pools"] + told["servers"] + told["services"]
        assert poll_until(lambda: not left(), 20), left()
        assert hs.inspect(False) is None
        import shutil
        shutil.rmtree(place)
        print("ok")
        """
    )
    assert out == "ok\n"
