"""Servers in processes of their own: Ctrl-C, exit, fork."""

from __future__ import annotations

import subprocess
import sys
import textwrap

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
        timeout=30,
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
                client = hs.connect(server.address, timeout=5)
                client.sendall(b"whole answer")
                server.wait()
        except KeyboardInterrupt:
            print("interrupted", finished.is_set(), server.report.completed, server.report.clean)
            print(client.recv_exactly(12, timeout=5))
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
                client = hs.connect(server.address, timeout=5)
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
        client = hs.connect(server.address, timeout=5)
        client.sendall(b"x")
        print(client.recv(1, timeout=5))
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
                return
            conn.sendall(str(os.waitpid(pid, 0)[1]).encode())
        with hs.serve(handler, ("127.0.0.1", 0), drain_timeout=20) as server:
            with hs.connect(server.address, timeout=5) as client:
                print(client.recv(100, timeout=20))
        print(server.report.clean)
        """
    )
    assert out == "b'0'\nTrue\n"
