"""The guard over the connections of another process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import hardsock as hs
from hardsock import guard
from hardsock.lab.waits import poll_until

# Not hardsock's: it echoes, and answers "?" never.
SERVER = """
import selectors, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
chosen = selectors.DefaultSelector()
chosen.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in chosen.select():
        if key.fileobj is listener:
            chosen.register(listener.accept()[0], selectors.EVENT_READ)
            continue
        try:
            data = key.fileobj.recv(100)
        except OSError as exc:
            print(type(exc).__name__, flush=True)
            data = b""
        if not data:
            chosen.unregister(key.fileobj)
            key.fileobj.close()
        elif data != b"?":
            key.fileobj.sendall(data)
"""

RULE = guard.Rule(
    "all",
    when=guard.connections > 0,
    then=[guard.CloseIdle(over=0.05, young=0, at_most=100, per=600), guard.Diagnose()],
)


class Process:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.pid = process.pid
        self.out = process.stdout
        self.address = ("127.0.0.1", int(self.out.readline()))


@pytest.fixture
def process() -> Iterator[Process]:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as it:
        yield Process(it)
        it.kill()


def talked(address: Any, text: bytes = b"x") -> socket.socket:
    sock = socket.create_connection(address, 30)
    sock.sendall(b"x")
    assert sock.recv(1) == b"x"
    if text != b"x":
        sock.sendall(text)
    return sock


def idle(scope: guard.Foreign, n: int) -> bool:
    return sum(one.state == "idle" and one.idle > 0.05 for one in scope.look(1.0).connections) == n


def test_a_dry_run_lists_and_only_an_allowed_guard_destroys(process: Process) -> None:
    lines: list[dict[str, Any]] = []
    with talked(process.address) as quiet, talked(process.address, b"?") as owed:
        scope = guard.Foreign(process.pid)
        assert poll_until(lambda: idle(scope, 2) or idle(scope, 1), 30)
        if idle(scope, 2):  # It was asked in the tick of the last answer: ask again.
            owed.sendall(b"?")
        assert poll_until(lambda: idle(scope, 1), 30)
        for one in (
            hs.Guard(scope, RULE, log=lambda text: lines.append(json.loads(text))),
            hs.Guard(scope, RULE, enforce=True, log=lambda text: lines.append(json.loads(text))),
        ):
            one.tick()
            assert "1 owed" in one.explain()
        scope.act = "destroy"
        host, port = quiet.getsockname()
        hs.Guard(scope, RULE, enforce=True, log=lambda text: lines.append(json.loads(text))).tick()
        with pytest.raises(ConnectionResetError):
            quiet.recv(1)
        owed.sendall(b"y")
        assert owed.recv(1) == b"y"
    closing = [one for one in lines if one["action"] == "CloseIdle"]
    assert [one["outcome"] for one in closing] == ["would close", "spared", "closed"]
    assert {one["peer"] for one in closing} == {f"{host}:{port}"}
    assert closing[1]["why"] == "not allowed"
    diagnosis = next(one for one in lines if one["action"] == "Diagnose")
    assert diagnosis["peers"] == {"127.0.0.1": 2}
    assert process.out.readline() in ("ConnectionAbortedError\n", "ConnectionResetError\n")


def test_one_that_speaks_between_look_and_act_is_spared_by_its_cookie(process: Process) -> None:
    lines: list[dict[str, Any]] = []
    scope = guard.Foreign(process.pid, port=process.address[1], act="destroy")
    with talked(process.address) as sock, talked(process.address) as other:
        assert poll_until(lambda: idle(scope, 2), 30)
        seen = scope.look(1.0)
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        other.close()  # Its number may be another's soon; its cookie is not.
        assert poll_until(lambda: len(guard.Foreign(process.pid).look(1.0).connections) == 1, 30)
        scope.look = lambda now: seen  # type: ignore[method-assign]
        rule = guard.Rule(
            "all",
            when=guard.connections > 0,
            then=guard.CloseIdle(over=5, young=0, at_most=100, per=600),
        )
        for one in seen.connections:
            object.__setattr__(one, "idle", 10.0)
        hs.Guard(scope, rule, enforce=True, log=lambda t: lines.append(json.loads(t))).tick()
        sock.sendall(b"y")
        assert sock.recv(1) == b"y"
    outcomes = sorted(one["outcome"] for one in lines if one["action"] == "CloseIdle")
    assert outcomes == ["gone", "spared"]
    assert "fresh" in [one.get("why") for one in lines]


def test_what_was_there_before_the_first_look_is_young(process: Process) -> None:
    with talked(process.address):
        scope = guard.Foreign(process.pid)
        assert [one.age for one in scope.look(5.0).connections] == [0.0]
        assert [one.age for one in scope.look(7.5).connections] == [2.5]


def test_a_process_that_ends_disarms_the_guard() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as it:
        one = hs.Guard(guard.Foreign(Process(it).pid), RULE, log=lambda text: None)
        one.tick()
        assert one.failure is None
        it.kill()
    one.tick()
    assert isinstance(one.failure, OSError)


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"pid": "1"}, TypeError, "pid must be an int"),
        ({"pid": 2**22 + 5}, ProcessLookupError, "no process"),
        ({"pid": os.getpid(), "port": "80"}, TypeError, "port must be an int"),
        ({"pid": os.getpid(), "act": "kill"}, ValueError, "act must be"),
    ],
)
def test_what_is_wrong_is_refused(kwargs: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        guard.Foreign(**kwargs)


def test_no_action_that_needs_the_process_itself_is_taken_on_it() -> None:
    rule = guard.Rule("r", when=guard.connections > 0, then=guard.UserTimeout())
    with pytest.raises(TypeError, match="UserTimeout cannot be done to Foreign"):
        hs.Guard(guard.Foreign(os.getpid()), rule)
