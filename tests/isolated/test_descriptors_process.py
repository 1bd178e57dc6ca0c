"""What is open, without memory, in two interpreters, and at the end of the process."""

from __future__ import annotations

import subprocess
import sys

from support.require import need_testcapi

PRELUDE = """
import gc, socket, sys, threading
import hardsock as hs
from hardsock import _core

listener = hs.listen(("127.0.0.1", 0))
address = listener.getsockname()
"""


def silent(code: str) -> None:
    """Run code that must end well and print nothing."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", PRELUDE + code],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)


WITHOUT_MEMORY = """
from _testcapi import remove_mem_hooks, set_nomemory

def fail_each(call):
    "Call it with the first, the second, ... allocation failing, until it wants no more of them."
    failures = 0
    for nth in range(1, 500):
        set_nomemory(nth, nth + 1)
        try:
            value = call()
        except MemoryError:
            failures += 1
        else:
            remove_mem_hooks()
            if nth > 5 * failures + 50:
                return failures
            del value
        finally:
            remove_mem_hooks()
    return failures

conns = [hs.connect(address) for _ in range(3)]
accepted = listener.accept_many(8)
before = _core._opened()
calls = {
    "opened": _core._opened,
    "list": _core._fd_list,
}
for name, call in calls.items():
    assert fail_each(call) > 0, name
assert before == _core._opened()

import os
ours, theirs = socket.socketpair()

def adopt(fd):
    "A new frame each time, for which looking at the place has to make an object."
    return hs.adopt(fd)

failures = 0
hs.adopt  # Loads it, which is not what is to fail.
_core._tell_owners(True)
for nth in range(60):
    fd = os.dup(ours.fileno())
    set_nomemory(nth, nth + 1)
    try:
        conn = adopt(fd)
    except MemoryError:
        remove_mem_hooks()
        failures += 1
        try:
            os.close(fd)  # Taken and closed, if it was the object that could not be made.
        except OSError:
            pass
    else:
        remove_mem_hooks()
        conn.close()
assert failures > 0
_core._tell_owners(False)
ours.close()
theirs.close()
assert before == _core._opened()
"""


def test_telling_without_memory_fails_cleanly() -> None:
    need_testcapi()
    silent(WITHOUT_MEMORY + "for conn in [*conns, *accepted, listener]:\n    conn.close()\n")


def test_nothing_is_lost_when_places_are_noted_over_and_over() -> None:
    """References to code and owners: what is made and closed leaves no trace of itself."""
    silent(
        """
if not hasattr(sys, "_is_gil_enabled") or sys._is_gil_enabled():
    owner = object()
    _core._tell_owners(True)
    _core.owner.set(owner)

    def connect():
        with hs.connect(address) as conn, listener.accept() as accepted:
            with conn.makefile("rb"):
                assert len(_core._opened()) == 4

    for _ in range(3):
        connect()
    counts = sys.getrefcount(owner), sys.getrefcount(connect.__code__)
    for _ in range(50):
        connect()
    assert counts == (sys.getrefcount(owner), sys.getrefcount(connect.__code__))
    with hs.Pool(address) as pool:
        def borrow():
            with pool.connection(timeout=5.0):
                assert [one for one in _core._opened() if one[0] == "lent"]
        for _ in range(3):
            borrow()
        counts = sys.getrefcount(owner), sys.getrefcount(borrow.__code__)
        for _ in range(50):
            borrow()
        assert counts == (sys.getrefcount(owner), sys.getrefcount(borrow.__code__))
    _core._tell_owners(False)
listener.close()
"""
    )


def test_interpreter_that_ends_with_open_connections_and_a_watch() -> None:
    result = subprocess.run(
        [
            sys.executable,
            "-X",
            "dev",
            "-W",
            "ignore",
            "-c",
            PRELUDE + "watch = hs.fd_watch(count=1, share=None, on_alarm=lambda alarm: None)\n"
            "_core._tell_owners(True)\n_core.owner.set(object())\n"
            "kept = [hs.connect(address) for _ in range(10)]\n",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)


def test_subinterpreters_tell_of_their_own() -> None:
    silent(
        """
try:
    import _interpreters as interpreters
except ImportError:  # before Python 3.13
    import _xxsubinterpreters as interpreters
other = interpreters.create()
try:
    interpreters.run_string(other, '''
try:
    import hardsock as hs
    from hardsock import _core
except ImportError:
    pass  # This Python cannot load such modules twice.
else:
    assert _core._opened() == []
    with hs.listen(("127.0.0.1", 0)) as listener:
        assert len(hs.open_connections()) == 1
''')
finally:
    interpreters.destroy(other)
assert len(hs.open_connections()) == 1
listener.close()
"""
    )
