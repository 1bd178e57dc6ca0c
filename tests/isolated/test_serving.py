"""Servers in processes of their own: Ctrl-C, exit, fork."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from support.require import free_threaded, need_testcapi

PRELUDE = """
import os, signal, sys, threading, time, warnings
import hardsock as hs

# A shell that starts us in the background has SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def echo(conn):
    while data := conn.recv(4096):
        conn.sendall(data)

def until_blocked(native_id):
    while True:
        with open(f"/proc/self/task/{native_id}/syscall") as file:
            if file.read().split()[0] in ("271", "7", "73"):  # ppoll, poll
                return

def interrupt_main_when_it_waits():
    main = threading.main_thread().native_id
    def interrupt():
        until_blocked(main)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt, daemon=True).start()
"""


def run(code: str) -> str:
    """Run code that must end well and warn of nothing; returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", PRELUDE + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


def test_ctrl_c_drains_and_exits() -> None:
    out = run(
        """
        finished = threading.Event()
        def handler(conn):
            data = conn.recv(100)
            interrupt_main_when_it_waits()
            assert hs.draining().wait(10)
            conn.sendall(data)
            finished.set()
        try:
            with hs.serve(handler, ("127.0.0.1", 0), drain_timeout=20) as server:
                client = hs.connect(server.address, timeout=30)
                client.sendall(b"whole answer")
                server.wait()
        except KeyboardInterrupt:
            print("interrupted", finished.is_set(), server.report.completed, server.report.clean)
            print(client.recv_exactly(12, timeout=30))
            client.close()
        """
    )
    assert out == "interrupted True 1 True\nb'whole answer'\n"


def test_a_second_ctrl_c_does_not_wait_for_the_drain() -> None:
    out = run(
        """
        started = threading.Event()
        def stubborn(conn):
            started.set()
            threading.Event().wait()
        began = time.monotonic()
        try:
            with hs.serve(stubborn, ("127.0.0.1", 0), drain_timeout=1000) as server:
                client = hs.connect(server.address, timeout=30)
                started.wait()
                interrupt_main_when_it_waits()
                try:
                    server.wait()
                except KeyboardInterrupt:
                    print("first")
                    interrupt_main_when_it_waits()
        except KeyboardInterrupt:
            print("second", time.monotonic() - began < 20, server.closed)
        client.close()
        warnings.simplefilter("ignore")
        """
    )
    assert out == "first\nsecond True False\n"


def test_a_signal_handler_may_stop_ask_and_drain() -> None:
    out = run(
        """
        def on_signal(*_):
            server.stats()
            server.stop("told by a signal")
            print(server.drain().reason)
        signal.signal(signal.SIGTERM, on_signal)
        with hs.serve(echo, ("127.0.0.1", 0), drain_timeout=20) as server:
            main = threading.main_thread().native_id
            def terminate():
                until_blocked(main)
                os.kill(os.getpid(), signal.SIGTERM)
            threading.Thread(target=terminate, daemon=True).start()
            print(server.wait())
        """
    )
    assert out == "told by a signal\nTrue\n"


def test_a_process_ends_while_its_server_runs() -> None:
    out = run(
        """
        server = hs.serve(echo, ("127.0.0.1", 0), drain_timeout=20)
        client = hs.connect(server.address, timeout=30)
        client.sendall(b"x")
        print(client.recv(1, timeout=30))
        client.close()
        warnings.simplefilter("ignore")
        """
    )
    assert out == "b'x'\n"


def test_a_child_forked_by_a_handler_is_no_server() -> None:
    out = run(
        """
        warnings.simplefilter("ignore")  # Python's own warning about fork in a threaded process
        def handler(conn):
            pid = os.fork()
            if pid == 0:
                for call in (server.drain, server.wait):
                    try:
                        call()
                    except RuntimeError:
                        pass
                    else:
                        os._exit(7)
                # The end of the last thread is exit(), whose handlers (OpenSSL's) use the heap. The
                # thread sanitizer has taken the thread's part of it away by then.
                if "libtsan" in os.environ.get("LD_PRELOAD", ""):
                    os._exit(0)
                return
            conn.sendall(str(os.waitpid(pid, 0)[1]).encode())
        with hs.serve(handler, ("127.0.0.1", 0), drain_timeout=20) as server:
            with hs.connect(server.address, timeout=30) as client:
                print(client.recv(100, timeout=20))
        print(server.report.clean)
        """
    )
    assert out == "b'0'\nTrue\n"


def need_allocations_that_fail_here_only() -> None:
    need_testcapi()
    if free_threaded():
        pytest.skip("set_nomemory() is for all threads, and here the others run meanwhile")


TAKEN_WITHOUT_MEMORY = """
import asyncio, logging, socket, sys, threading
from _testcapi import remove_mem_hooks, set_nomemory
from hardsock import aio
from hardsock.lab.threads import IO_WAITS, wait_until_blocked
from hardsock.lab.waits import poll_until

BATCH = 3
said = []

class Saying(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())

logger = logging.getLogger("hardsock.serve")
logger.propagate = False
logger.addHandler(Saying())

def batch(listener):
    clients = [socket.create_connection(listener.address) for _ in range(BATCH)]
    assert poll_until(lambda: listener.stats().queue_length >= BATCH, 20)
    for client in clients:
        client.sendall(b"x")
        client.settimeout(20)
    return clients, listener.accept_many(BATCH, timeout=30)

def take(server, conns, nth):
    "With the nth allocation failing: none may be left over, and at most one given up."
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # No worker runs until that is over: it would be hit instead.
    set_nomemory(nth, nth + 1)
    try:
        server._take(conns)
    finally:
        remove_mem_hooks()
        sys.setswitchinterval(interval)
    assert conns == [], nth

def answer_of(client):
    try:
        return client.recv(1)
    except ConnectionResetError:
        return b""

def judge(nth, answers):
    lost = answers.count(b"")
    assert lost <= 1 and answers.count(b"x") == BATCH - lost, (nth, answers)
    return lost

def answer_all(server, n):
    "So that no worker starts later: allocations fail in every thread, and it would be hit as well."
    clients = [socket.create_connection(server.address) for _ in range(n)]
    for client in clients:
        client.sendall(b"x")
    assert [client.recv(1) for client in clients] == [b"x"] * n
    for client in clients:
        client.close()
    assert poll_until(lambda: not server.stats().active, 20)

def rest(server):
    "Until all workers wait for work: an allocation that fails now would fail in them as well."
    workers = server._workers
    assert poll_until(lambda: not server.stats().active and workers._free == workers.count, 60)
    for thread in threading.enumerate():
        if thread.name.startswith("hardsock-serve"):
            wait_until_blocked(thread.native_id, ("futex", *IO_WAITS))

def books_balance(stats):
    assert stats.active == 0, stats
    assert stats.accepted == stats.handled + stats.failed + stats.cut, stats
"""


def test_the_threaded_server_loses_no_other_connection_for_want_of_memory() -> None:
    need_allocations_that_fail_here_only()
    out = run(
        TAKEN_WITHOUT_MEMORY
        + """
listener = hs.listen(("127.0.0.1", 0))
lost = 0
with hs.serve(echo, ("127.0.0.1", 0), workers=4, drain_timeout=20) as server:
    answer_all(server, 4)
    for nth in range(120):
        clients, conns = batch(listener)
        rest(server)
        take(server, conns, nth)
        lost += judge(nth, [answer_of(client) for client in clients])
        for client in clients:
            client.close()
books_balance(server.stats())
listener.close()
assert lost > 0 and any("no memory" in line for line in said), (lost, said)
print("done")
"""
    )
    assert out == "done\n"


def test_the_awaited_server_loses_no_other_connection_for_want_of_memory() -> None:
    need_allocations_that_fail_here_only()
    out = run(
        TAKEN_WITHOUT_MEMORY
        + """
async def echo(conn):
    while data := await conn.recv(4096):
        await conn.sendall(data)

async def main():
    listener = hs.listen(("127.0.0.1", 0))
    loop, lost = asyncio.get_running_loop(), 0
    async with aio.serve(echo, ("127.0.0.1", 0), drain_timeout=20) as server:
        for nth in range(120):
            clients, conns = batch(listener)
            take(server, conns, nth)
            answers = [loop.run_in_executor(None, answer_of, client) for client in clients]
            lost += judge(nth, list(await asyncio.gather(*answers)))
            for client in clients:
                client.close()
    books_balance(server.stats())
    listener.close()
    assert lost > 0 and any("no memory" in line for line in said), (lost, said)

# In debug mode the allocations that fail are those of asyncio's tracebacks, and CPython 3.13 crashes.
# A task that could not be made whole is told by asyncio, too.
logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
asyncio.run(main(), debug=False)
print("done")
"""
    )
    assert out == "done\n"
