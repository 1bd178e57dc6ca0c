"""A listener that has run out of descriptors while 64 clients storm it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from hardsock.demo.measure import LIMIT, duration, timed
from hardsock.demo.scene import Bound, Outcome, Scene
from hardsock.lab import run_threaded
from hardsock.lab.waits import Deadline, poll_until, readable

_CLIENTS = 64
_HOLD = 3.0


class _ServerProcess:
    """The other end of `hardsock.demo.fd_server`: a question and an answer per line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, question: str = "") -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if question:
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
        if not readable(self._process.stdout.fileno(), LIMIT):
            raise TimeoutError(f"the server did not answer {question!r}")
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def _server(kind: str) -> Iterator[_ServerProcess]:
    process = subprocess.Popen(
        [sys.executable, "-m", "hardsock.demo.fd_server", kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield _ServerProcess(process)
        finally:
            process.kill()


def _storm(port: int, opened: ExitStack) -> int:
    """Clients, all at once, which wait for a word of the server; how many were turned away."""
    deadline = Deadline(_HOLD)

    def visit(_index: int) -> bool:
        try:
            sock = socket.create_connection(_address(port), timeout=LIMIT)
            opened.enter_context(sock)
            sock.settimeout(max(0.001, deadline.left()))
            return sock.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    visits = run_threaded(visit, _CLIENTS)
    poll_until(deadline.passed, _HOLD)
    return sum(visits)


def _time_to_serve(port: int) -> float:
    """How long it takes until a new client is served; one that is turned away comes again."""
    with timed() as watch:
        poll_until(lambda: _is_served(port), LIMIT)
    return watch.seconds


def _is_served(port: int) -> bool:
    try:
        with socket.create_connection(_address(port), timeout=LIMIT) as sock:
            return sock.recv(2) == b"ok"
    except ConnectionResetError:
        return False


def _address(port: int) -> tuple[str, int]:
    return "127.0.0.1", port


def _play(kind: str) -> tuple[dict[str, float], str]:
    with _server(kind) as server, ExitStack() as opened:
        port = server.ask()["port"]
        before = server.ask("report")
        turned_away = _storm(port, opened)
        after = server.ask("report")
        server.ask("release")
        recovery = _time_to_serve(port)
    cpu = after["cpu"] - before["cpu"]
    hanging = _CLIENTS - after["accepted"] - turned_away
    text = (
        f"{after['accepted']} taken in, {turned_away} turned away, {hanging} left hanging; "
        f"{after['failures']:,} failed accepts, CPU {duration(cpu)} of {_HOLD:g} s; "
        f"serving again {duration(recovery)} after the rush"
    )
    measured = {
        "turned away": turned_away,
        "left hanging": hanging,
        "CPU": cpu,
        "recovery": recovery,
        "counted": after["counted"],
    }
    return measured, text


def _stdlib() -> Outcome:
    return Outcome(_play("stdlib")[1])


def _hardsock() -> Outcome:
    measured, text = _play("hardsock")
    text += f"; its own count: {measured['counted']:.0f} turned away"
    measured["miscounted"] = abs(measured["counted"] - measured["turned away"])
    return Outcome(text, measured)


SCENE = Scene(
    name="fd-limit",
    title=f"{_CLIENTS} threads storm a listener at its descriptor limit, then it recovers",
    shows="Out of descriptors, it turns clients away and says so, instead of spinning.",
    stdlib=_stdlib,
    hardsock=_hardsock,
    bounds=(
        Bound(of="left hanging", at_most=0),
        Bound(of="turned away", at_least=1),
        Bound(of="miscounted", at_most=0),
        Bound(of="CPU", at_most=0.25, unit="s"),
        Bound(of="recovery", at_most=1.5, unit="s"),
    ),
)
