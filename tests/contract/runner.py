"""Runs tests of the interpreter's own ``test`` package with connections of hardsock under them.

    runner.py OUT plain|injected|compat|run [-TEST...] MODULE[:CLASS,...][#I/N]...

Where the standard library makes a connected stream (``create_connection``, ``accept``,
``socketpair``) the test gets a `hardsock.Connection` instead of a `socket.socket`. Nothing else is
touched: what the test, or the module under test, then does with it is the contract.

With `compat` the `socket` module has the class and the functions of `hardsock.compat.socket`.
With `run` the process is as one of `hardsock run --deadline 100`.

Each outcome is a line of JSON in OUT, written before the next test begins, so that a test that
never ends is known by having begun. ``-TEST`` leaves one out.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import re
import signal
import socket
import sys
import unittest
from collections.abc import Iterator
from typing import Any

HANG = 60  # seconds; the slowest of these tests takes 12
STREAMS = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)

injected = 0


def take_over(sock: socket.socket) -> Any:
    """Return a connection with the timeout of *sock*, and its descriptor."""
    import hardsock as hs

    global injected
    if sock.type != socket.SOCK_STREAM or sock.family not in STREAMS:
        return sock
    injected += 1
    timeout = sock.gettimeout()
    conn = hs.adopt(sock)
    conn.settimeout(timeout)
    return conn


def inject() -> None:
    import hardsock as hs

    accept, socketpair = socket.socket.accept, socket.socketpair
    default: Any = socket._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]

    def create_connection(
        address: Any, timeout: Any = default, source_address: Any = None, **_: Any
    ) -> Any:
        global injected
        injected += 1
        seconds = socket.getdefaulttimeout() if timeout is default else timeout
        conn = hs.connect(tuple(address), timeout=seconds, source=source_address)
        conn.settimeout(seconds)
        return conn

    def accept_ours(self: socket.socket) -> Any:
        sock, address = accept(self)
        return take_over(sock), address

    socket.create_connection = create_connection
    socket.socket.accept = accept_ours  # type: ignore[method-assign]
    socket.socketpair = lambda *args, **kwargs: tuple(map(take_over, socketpair(*args, **kwargs)))  # type: ignore[assignment]


def stand_in() -> None:
    from hardsock.compat import socket as ours

    class Counted(ours.socket):  # The tests see it under the name that they know.
        __slots__ = ()

        def _connected(self, conn: Any) -> None:
            global injected
            injected += 1

    Counted.__name__ = Counted.__qualname__ = "socket"
    Counted.__module__ = "socket"
    ours.socket = Counted  # type: ignore[misc]
    for name in ("socket", "create_connection", "create_server", "fromfd", "socketpair"):
        setattr(socket, name, getattr(ours, name))


def put_under_run() -> None:
    from hardsock.running import begin, parse, routes

    class Counted(routes.Limits):
        __slots__ = ()

        def __init__(self, conn: Any) -> None:
            global injected
            injected += 1
            super().__init__(conn)

    routes.Limits = Counted  # type: ignore[misc]
    begin(parse("deadline=100 signal=none"))


def inject_test_socket(module: Any) -> None:
    """Its clients are made by ``socket()`` and ``connect()``: taken over when connected."""
    connect = module.SocketConnectedTest.clientSetUp

    def set_up(self: Any) -> None:
        connect(self)
        self.cli = self.serv_conn = take_over(self.cli)

    module.SocketConnectedTest.clientSetUp = set_up
    # Both use a private method of socket.socket, of which sendfile() is the public one.
    for case in (module.SendfileUsingSendTest, module.SendfileUsingSendfileTest):
        case.meth_from_sock = lambda self, sock: sock.sendfile


def repeat_alarms(module: Any) -> None:
    """An alarm that comes just before the wait that it is for does not end it: another follows."""

    def set_alarm(self: Any, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds, 100 * seconds)

    module.InterruptedTimeoutBase.setAlarm = set_alarm
    module.InterruptedTimeoutBase.timeout = 40


class Recorder(unittest.TestResult):
    """Writes what became of each test; of several outcomes (subtests) the first failure."""

    def __init__(self, out: str) -> None:
        super().__init__()
        self._out = open(out, "a", encoding="utf-8")
        self._failed = ""

    def _write(self, test: unittest.TestCase, outcome: str, text: str = "") -> None:
        line = {"test": test.id(), "outcome": outcome, "text": text, "injected": injected}
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._failed = ""
        self._write(test, "begun")
        faulthandler.dump_traceback_later(HANG, exit=True)

    def stopTest(self, test: unittest.TestCase) -> None:
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)

    def _fail(self, test: unittest.TestCase, err: Any) -> None:
        if not self._failed:
            self._failed = self._exc_info_to_string(err, test)  # type: ignore[attr-defined]
            self._write(test, "failed", self._failed)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self._fail(test, err)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._fail(test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self._fail(test, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._write(test, "skipped", reason)

    def addSuccess(self, test: unittest.TestCase) -> None:
        if not self._failed:
            self._write(test, "passed")

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.addSuccess(test)


def cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from cases(test)
        else:
            yield test


def load(target: str) -> unittest.TestSuite:
    name, _, classes = target.partition(":")
    module = importlib.import_module(name)
    loader = unittest.TestLoader()
    if not classes:
        return loader.loadTestsFromModule(module)
    # An older or newer interpreter may lack some.
    found = [getattr(module, one) for one in classes.split(",") if hasattr(module, one)]
    return unittest.TestSuite(map(loader.loadTestsFromTestCase, found))


def part(target: str) -> list[unittest.TestCase]:
    name, _, share = target.partition("#")
    found = list(cases(load(name)))
    if not share:
        return found
    which, of = map(int, share.split("/"))
    return found[len(found) * (which - 1) // of : len(found) * which // of]


def end_children() -> None:
    """What multiprocessing would do at an exit, which this process has none of."""
    multiprocessing = sys.modules.get("multiprocessing")
    for child in multiprocessing.active_children() if multiprocessing else ():
        child.kill()
        child.join()


def main() -> None:
    out, mode, *rest = sys.argv[1:]
    from test import support

    support.verbose = 0
    left_out = {one[1:] for one in rest if one.startswith("-")}
    targets = [one for one in rest if not one.startswith("-")]
    if mode == "compat":
        stand_in()
    elif mode == "run":
        put_under_run()
    elif mode == "injected":
        inject()
        if any(one.startswith("test.test_socket:") for one in targets):
            inject_test_socket(importlib.import_module("test.test_socket"))
    if any(re.match(r"test\.test_socket\b", one) for one in targets):
        repeat_alarms(importlib.import_module("test.test_socket"))
    chosen = [test for one in targets for test in part(one) if test.id() not in left_out]
    unittest.TestSuite(chosen).run(Recorder(out))
    sys.stdout.flush()
    end_children()
    os._exit(0)  # Threads that a failed test left behind are not waited for.


if __name__ == "__main__":
    main()
