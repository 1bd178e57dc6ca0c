"""hardsock.aio where it needs a process of its own: exit, Ctrl-C, fork, subinterpreters, EMFILE."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap

import pytest

from support.forking import FORK
from support.require import need_testcapi

# -X dev switches on asyncio's debug mode, which logs each step that took 0.1 s: on a busy machine
# any may.
NO_CLOCK = """
import logging
logging.getLogger("asyncio").addFilter(lambda record: "took %.3f seconds" not in str(record.msg))
"""
PRELUDE = (
    NO_CLOCK
    + """
import asyncio, os, signal, socket, sys, threading, time, warnings
import hardsock as hs
from hardsock import aio

# A shell that starts us in the background has SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def pair():
    left, right = socket.socketpair()
    return aio.adopt(left), aio.adopt(right)

async def parked(task):
    while type(task._fut_waiter).__name__ != "Operation":
        assert not task.done(), task
        await asyncio.sleep(0)

def interrupt_when_asleep():
    main = threading.main_thread().native_id
    def interrupt():
        while True:
            with open(f"/proc/self/task/{main}/syscall") as file:
                if file.read().split()[0] in ("22", "232", "281", "441"):  # epoll_wait, epoll_pwait
                    break
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt, daemon=True).start()
"""
)


def run(code: str, *, timeout: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", PRELUDE + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result


def silent(code: str) -> None:
    """Run code that must end well and print nothing."""
    result = run(code)
    assert (result.stdout, result.stderr) == ("", "")


RUNNERS = {
    "asyncio": "run = asyncio.run\n",
    "uvloop": "import uvloop; run = uvloop.run\n",
}
if importlib.util.find_spec("uvloop") is None and os.environ.get("CI") != "true":
    del RUNNERS["uvloop"]
TALK = """
async def talk():
    ours, theirs = pair()
    async with ours, theirs:
        reading = asyncio.ensure_future(ours.recv(1))
        await parked(reading)
        await theirs.sendall(b"x")
        assert await reading == b"x"
"""


@pytest.mark.parametrize("runner", RUNNERS)
def test_prints_nothing_at_exit(runner: str) -> None:
    silent(RUNNERS[runner] + TALK + "run(talk())\nrun(talk())")


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_call_in_the_loop_of_its_connection_asks_no_python_code_for_it(runner: str) -> None:
    silent(
        RUNNERS[runner]
        + """
from hardsock.aio import _host
find, found = _host.current_hub, []

def counted():
    found.append(1)
    return find()

async def main():
    _host.current_hub = counted
    ours, theirs = pair()
    async with ours, theirs:
        for _ in range(10):
            await theirs.sendall(b"x")
            assert await ours.recv(1) == b"x"
        assert not found
        assert "trio" not in sys.modules

for _ in range(3):
    run(main())
"""
    )


def test_a_slow_machine_prints_nothing() -> None:
    silent("async def main(): time.sleep(0.11)  # of asyncio's debug mode\nasyncio.run(main())")


def test_prints_nothing_at_exit_of_trio() -> None:
    silent(
        """
        import trio
        async def main():
            ours, theirs = pair()
            async with ours, theirs, trio.open_nursery() as nursery:
                nursery.start_soon(theirs.sendall, b"x")
                assert await ours.recv(1) == b"x"
        trio.run(main)
        """
    )


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_connection_may_outlive_its_loop_and_the_interpreter(runner: str) -> None:
    silent(
        RUNNERS[runner]
        + """
async def make():
    ours, theirs = pair()
    with warnings.catch_warnings():
        reading = asyncio.ensure_future(ours.recv(1))
        await parked(reading)
    return ours, theirs
sys.modules["keep"] = kept = run(make())
warnings.simplefilter("ignore")  # unclosed
"""
    )


def test_a_second_import_has_hubs_of_its_own() -> None:
    silent(
        TALK
        + """
asyncio.run(talk())
first = aio.Connection
for name in [n for n in sys.modules if n.startswith("hardsock")]:
    del sys.modules[name]
from hardsock import aio
assert aio.Connection is not first
asyncio.run(talk())
"""
    )


IN_A_SUBINTERPRETER = (
    NO_CLOCK
    + """
import asyncio, socket
import hardsock as hs
from hardsock import aio

async def main():
    left, right = socket.socketpair()
    async with aio.adopt(left) as ours, aio.adopt(right) as theirs:
        try:
            await ours.recv(1, timeout=0.01)
        except hs.DeadlineExceeded:
            pass
        reading = asyncio.ensure_future(ours.recv_exactly(2))
        await asyncio.sleep(0)
        await theirs.sendall(b"ok")
        assert await reading == b"ok"
        reading = asyncio.ensure_future(ours.recv(1))
        await asyncio.sleep(0)
        reading.cancel()
        try:
            await reading
        except asyncio.CancelledError:
            return
        raise AssertionError

for _ in range(3):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
"""
)


@pytest.mark.parametrize("config", ["isolated", "legacy"])
def test_a_subinterpreter_runs_a_loop_of_its_own(config: str) -> None:
    if config == "isolated" and sys.version_info < (3, 13):
        # _asyncio and _socket of 3.12 refuse an interpreter with a GIL of its own.
        pytest.skip("this Python's asyncio runs in no isolated subinterpreter")
    silent(
        TALK
        + f"""
try:
    import _interpreters as interpreters
except ImportError:  # before Python 3.13
    import _xxsubinterpreters as interpreters
try:
    made = interpreters.create({config!r})
except TypeError:
    made = interpreters.create(isolated={config == "isolated"})
for _ in range(2):
    failed = interpreters.run_string(made, {IN_A_SUBINTERPRETER!r})
    assert failed is None, failed
interpreters.destroy(made)
asyncio.run(talk())
"""
    )


BLOCKERS = {
    "recv": "both[0].recv(1)",
    "sendall": "both[0].sendall(b'x' * (1 << 24))",
    "connect": "aio.connect(hole.address)",
    "accept": "(await aio.listen(('127.0.0.1', 0))).accept()",
}


@pytest.mark.parametrize("runner", [*RUNNERS, "trio"])
@pytest.mark.parametrize("name", BLOCKERS)
def test_ctrl_c_interrupts(name: str, runner: str) -> None:
    prelude = RUNNERS.get(runner, "import trio\ndef run(main): trio.run(lambda: main)\n")
    result = run(
        "from hardsock.lab.blackhole import BlackHole\nwarnings.simplefilter('ignore')\n"
        + prelude
        + f"""
async def main():
    both = pair()
    try:
        await {BLOCKERS[name]}
    finally:
        print("unwound")
with BlackHole() as hole:
    interrupt_when_asleep()
    began = time.monotonic()
    try:
        run(main())
    except KeyboardInterrupt:
        print("interrupted", time.monotonic() - began < 5)
"""
    )
    assert result.stdout.splitlines()[-2:] == ["unwound", "interrupted True"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Ctrl-C cancels the main task since 3.11")
def test_ctrl_c_lets_tasks_say_goodbye() -> None:
    result = run(
        """
        async def main():
            ours, theirs = pair()
            async with ours, theirs:
                await ours.sendall(b"hello")
                try:
                    await ours.recv(1)
                finally:
                    await ours.sendall(b" goodbye")
                    print((await theirs.recv_exactly(13)).decode())
        interrupt_when_asleep()
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert result.stdout == "hello goodbye\ninterrupted\n"


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_fork_in_a_running_loop_leaves_the_parent_its_connections(runner: str) -> None:
    silent(
        RUNNERS[runner]
        + FORK
        + """
async def main():
    ours, theirs = pair()
    listener = await aio.listen(("127.0.0.1", 0))
    reading = asyncio.ensure_future(ours.recv(4))
    writing = asyncio.ensure_future(ours.sendall(b"x" * (1 << 22)))
    accepting = asyncio.ensure_future(listener.accept())
    for task in (reading, writing, accepting):
        await parked(task)
    token = hs.CancelToken()

    def end_operations():
        for task in (reading, writing, accepting):
            task._fut_waiter.close()
        for conn in (ours, theirs, listener):
            conn.close()

    def close_then_end():
        ours.close()
        for task in (reading, writing):
            task._fut_waiter.close()

    def step():
        for task in (reading, writing):
            try:
                task._fut_waiter.send(None)
            except hs.WrongProcess:
                continue
            raise AssertionError("the child did the parent's work")

    def begin():
        try:
            theirs.recv(1).send(None)
        except hs.WrongProcess:
            return
        raise AssertionError

    def collect():
        ours._hub.run()
        token.cancel()
        ours.abort()
        ours._hub.close()
        for number in range(40):
            ours._hub.forget(number)

    for check in (end_operations, close_then_end, step, begin, collect):
        in_child(check)
    await theirs.sendall(b"safe")
    assert await asyncio.wait_for(reading, 30) == b"safe"
    assert len(await theirs.recv_exactly(1 << 22, timeout=60)) == 1 << 22
    await writing
    async with await aio.connect(listener.address, timeout=30), await accepting:
        pass
    for conn in (ours, theirs, listener):
        conn.close()
run(main())
"""
    )


def test_a_child_of_a_running_loop_exits_cleanly() -> None:
    """Not so on uvloop, with or without us: a child that ends its loop stops the parent's.

    From CPython 3.14 on, asyncio forgets the current task in a child. When the task raises
    SystemExit there, leaving it fails with a RuntimeError that takes the exit's place, and the loop
    goes on for ever; with plain streams as well. So there the child ends without its loop.
    """
    silent(
        """
warnings.simplefilter("ignore")
async def main():
    global kept
    ours, theirs = kept = pair()
    reading = asyncio.ensure_future(ours.recv(4))
    await parked(reading)
    pid = os.fork()
    if pid == 0:
        ours.close()
        theirs.close()
        import gc, logging
        logging.disable()  # "Task was destroyed but it is pending!"
        if sys.version_info >= (3, 14):
            gc.collect()
            os._exit(7)
        raise SystemExit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    await theirs.sendall(b"safe")
    assert await reading == b"safe"
    ours.close()
    theirs.close()
asyncio.run(main())
"""
    )


EXHAUSTED = """
import resource
warnings.simplefilter("ignore")

async def main():
    listener = await aio.listen(("127.0.0.1", 0))
    client = socket.socket()
    client.setblocking(False)
    turns = 0
    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.005)
    counting = asyncio.ensure_future(count())
    accepting = asyncio.ensure_future(listener.accept())
    await parked(accepting)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    burnt = time.process_time()
    client.connect_ex(listener.address)
    while listener.stats().exhausted < 2:  # it backs off, and tries again
        assert not accepting.done()
        await asyncio.sleep(0.001)
    burnt = time.process_time() - burnt
    os.dup2(held[0], client.fileno())  # Closes it, and leaves its number taken.
    before = turns
    try:
        await listener.accept(timeout=0.5)  # Long enough for a sanitizer on a busy machine.
        raise AssertionError
    except hs.DeadlineExceeded:
        pass
    assert turns - before > 5, "the loop stood still"
    try:
        await aio.connect(("127.0.0.1", 9), timeout=30)
        raise AssertionError
    except OSError as exc:
        assert exc.errno == 24, exc
    client.close()
    for fd in held:
        os.close(fd)
    async with await aio.connect(listener.address, timeout=30) as ours, await accepting as theirs:
        await ours.sendall(b"recovered")
        assert await theirs.recv_exactly(9, timeout=30) == b"recovered"
    assert listener.stats().shed >= 1
    listener.close()
    counting.cancel()
    return burnt
assert run(main()) < 1
"""


@pytest.mark.parametrize("runner", RUNNERS)
def test_out_of_descriptors_accepting_sheds_backs_off_and_recovers(runner: str) -> None:
    silent(RUNNERS[runner] + EXHAUSTED)


def test_no_hub_without_descriptors_is_an_error_that_passes() -> None:
    silent(
        TALK
        + """
import resource
async def main():
    held = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    left, right = socket.socketpair()
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for spare in range(3):  # three descriptors are needed
        try:
            aio.adopt(left)
            raise AssertionError
        except hs.HardsockError as exc:
            assert exc.errno == 24, exc
        os.close(held.pop())
    async with aio.adopt(left) as ours:
        right.send(b"x")
        assert await ours.recv(1) == b"x"
    right.close()
    for fd in held:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
asyncio.run(main())
asyncio.run(talk())
"""
    )


def test_operations_and_hubs_are_freed() -> None:
    silent(
        TALK
        + """
import gc
from hardsock._core import Hub, Operation, _live

def census():
    gc.collect()
    return sum(isinstance(o, (Hub, Operation)) for o in gc.get_objects())

async def cancelled():
    ours, theirs = pair()
    async with ours, theirs:
        for _ in range(10):
            token = hs.CancelToken()
            reading = asyncio.ensure_future(ours.recv(1, token=token))
            await parked(reading)
            reading.cancel()
            try:
                await reading
            except asyncio.CancelledError:
                pass
        before = census()
        for _ in range(200):
            await theirs.sendall(b"x")
            await ours.recv(1)
        assert census() == before

assert census() == 0
for _ in range(3):
    asyncio.run(talk())
    asyncio.run(cancelled())
    assert census() == 0
assert not any(_live().values()), _live()
"""
    )


WITHOUT_MEMORY = """
from _testcapi import remove_mem_hooks, set_nomemory

async def attempt(call, nth):
    ours, theirs = pair()
    await theirs.sendall(b"data")
    operation = call(ours)
    coroutine = wait_for(operation)
    try:
        set_nomemory(nth, nth + 1)
        try:
            coroutine.send(None)
        finally:
            remove_mem_hooks()
    except StopIteration:
        pass
    except MemoryError:
        failed.append(nth)
    if received[0] is None:
        try:
            assert await ours.recv_exactly(4, timeout=30) == b"data"
        except hs.Poisoned:
            poisoned.append(nth)
    ours.close()
    theirs.close()
    received[0] = None

async def wait_for(operation):
    received[0] = await operation

async def main():
    for call in (
        lambda c: c.blocking._op_recv(c._hub, 100),
        lambda c: c.blocking._op_recv_exactly(c._hub, 4),
    ):
        failed.clear()
        for nth in range(20):
            await attempt(call, nth)
        assert failed

received, failed, poisoned = [None], [], []
asyncio.run(main())
assert poisoned  # Where the last step failed: what was received is gone, and that is told.
"""


def test_what_is_lost_for_want_of_memory_is_told() -> None:
    need_testcapi()
    silent(WITHOUT_MEMORY)


ACCEPTED_WITHOUT_MEMORY = """
from _testcapi import remove_mem_hooks, set_nomemory

BATCH = 3
result = [None]

async def keep(awaitable):  # As a task takes it: without a StopIteration.
    result[0] = await awaitable

async def main():
    listener = await aio.listen(("127.0.0.1", 0))
    core, hub = listener._listener, listener._hub
    calls = {
        "many": core.accept_many,
        "one": core.accept,
        "awaited many": listener.accept_many,
        "awaited one": listener.accept,
    }
    for name, call in calls.items():
        failed = False
        for nth in range(60):
            clients = [socket.create_connection(listener.address) for _ in range(BATCH)]
            while core.stats().queue_length < BATCH:
                await asyncio.sleep(0)
            got = []
            count = () if name.endswith("one") else (BATCH,)
            result[0] = None
            keeping = keep(call(*count)) if "awaited" in name else None
            try:
                set_nomemory(nth, nth + 1)
                try:
                    if keeping is None:
                        result[0] = call(*count, timeout=30)
                    else:
                        keeping.send(None)
                finally:
                    remove_mem_hooks()
            except StopIteration:
                pass
            except MemoryError:
                failed = True
            if result[0] is not None:
                got += result[0] if isinstance(result[0], list) else [result[0]]
            while len(got) < BATCH:  # None may be lost: the others are to be had.
                got += await listener.accept_many(BATCH, timeout=30)
            assert len(got) == BATCH, (name, nth, got)
            for client in clients:
                client.sendall(b"x")
            for conn in got:
                assert getattr(conn, "blocking", conn).recv(1, timeout=30) == b"x", (name, nth)
                conn.close()
            for client in clients:
                client.close()
        assert failed, name
    listener.close()

asyncio.run(main())
"""


def test_accepting_loses_no_connection_for_want_of_memory() -> None:
    need_testcapi()
    silent(ACCEPTED_WITHOUT_MEMORY)


def test_a_child_forked_in_the_middle_of_a_wait_can_close_the_hub() -> None:
    silent(
        FORK
        + """
from hardsock._core import Hub
from hardsock.lab.threads import Call

hub = Hub(find=lambda: hub)
call = Call(hub.wait, None)
call.wait_until_blocked()
number = hub.fileno()

def check():
    hub.close()
    assert hub.fileno() == -1
    assert not os.path.exists(f"/proc/self/fd/{number}")

in_child(check)
assert call.running
hub.close()
assert call.result() is None
"""
    )
