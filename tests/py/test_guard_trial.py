"""The guard's trial: 2,000 connections, a quarter of them busy, and a rule that 1,200 have to go."""

from __future__ import annotations

import json
import resource
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import hardsock as hs
from hardsock import guard
from hardsock.lab.waits import poll_until
from support.require import Unavailable, available

CROWD, BUSY, STAYS = 2000, 500, 800
OVER, PER = 2.0, 0.5

pytestmark = pytest.mark.slow


def echo_once(conn: hs.Connection) -> None:
    conn.sendall(conn.recv(100))


@pytest.fixture
def room() -> Iterator[None]:
    """Both ends of all of them are in this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CROWD + 500
    if before[1] < wanted:
        with available():
            raise Unavailable(f"the hard limit of descriptors is below {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], wanted), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Busy:
    """Clients that ask again as soon as they have their answer, in one thread."""

    def __init__(self, socks: list[socket.socket]) -> None:
        self.hurt: list[str] = []
        self.answers: Counter[socket.socket] = Counter()
        self._socks = socks
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Busy:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in self._socks:
                selector.register(sock, selectors.EVENT_READ)
                sock.sendall(b"x")
            while not self._stop.is_set():
                for key, _ in selector.select(0.1):
                    self._serve(selector, key.fileobj)

    def _serve(self, selector: selectors.BaseSelector, sock: Any) -> None:
        try:
            answer = sock.recv(1)
            if answer:
                self.answers[sock] += 1
                sock.sendall(b"x")
        except OSError as exc:
            answer = b""
            self.hurt.append(repr(exc))
        if not answer:
            self.hurt.append("end")
            selector.unregister(sock)


def name_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()
    return f"{host}:{port}"


def check_budget(steps: list[tuple[float, int, int]], action: guard.CloseIdle) -> None:
    """What was chosen at a step is within the budget of those that there were then."""
    for now, chosen, n in steps:
        spent = sum(number for at, number, _ in steps if now - PER < at <= now)
        assert chosen == 0 or spent <= action.budget(n), (now, spent, n)


def test_no_busy_connection_is_hurt_the_budget_is_kept_and_all_is_explained(room: None) -> None:
    lines: list[dict[str, Any]] = []
    steps: list[tuple[float, int, int]] = []
    action = guard.CloseIdle(over=OVER, young=1, at_most=0.1, per=PER)
    rule = guard.Rule(
        "too many", when=guard.connections_share > 0.9, clear=STAYS / CROWD, then=action
    )
    with ExitStack() as stack:
        server = stack.enter_context(
            hs.serve(
                echo_once, ("127.0.0.1", 0), drain_timeout=20, per="message",
                max_connections=CROWD,
            )
        )  # fmt: skip
        socks = [
            stack.enter_context(socket.create_connection(server.address, 60)) for _ in range(CROWD)
        ]
        for sock in socks:
            sock.sendall(b"x")
        assert all(sock.recv(1) == b"x" for sock in socks)
        busy = stack.enter_context(Busy(socks[:BUSY]))
        one = hs.Guard(
            server, rule, enforce=True, every=0.05, log=lambda t: lines.append(json.loads(t))
        )
        quiet = {name_of(sock): sock for sock in socks[BUSY:]}
        look = one._scope.look
        assert poll_until(
            lambda: sum(c.idle > OVER for c in look(0.0).connections) >= CROWD - BUSY, 60
        )
        decide = one._engine.step

        def counted(now: float, figures: Any, candidates: Any, ending: Any) -> Any:
            made = decide(now, figures, candidates, ending)
            steps.append((now, sum(d.victim is not None for d in made), len(candidates)))
            return made

        dry = hs.Guard(server, rule, log=lambda text: None)
        dry.tick()
        assert dry.counters()[0][2:] == ("over budget", CROWD - STAYS - 200)
        assert ("too many", "CloseIdle", "would close", 200) in dry.counters()
        assert server.stats().active == CROWD

        one._engine.step = counted  # type: ignore[method-assign]
        assert poll_until(lambda: (one.tick(), server.stats().active <= STAYS)[1], 60)
        one.stop()
        answers = Counter(busy.answers)
        assert poll_until(lambda: all(busy.answers[s] > answers[s] for s in socks[:BUSY]), 60)
        assert busy.hurt == []

        closed = {line["peer"] for line in lines if line["outcome"] == "closed"}
        assert len(closed) == CROWD - STAYS
        assert [quiet[name].recv(1) for name in closed] == [b""] * len(closed)
        for name in quiet.keys() - closed:
            quiet[name].sendall(b"y")
            assert quiet[name].recv(1) == b"y"
    check_budget(steps, action)
    check_lines(lines, one)


def check_lines(lines: list[dict[str, Any]], one: hs.Guard) -> None:
    """Each decision has its line, each line its reason, and the counters are their sums."""
    counted: Counter[tuple[str, str, str]] = Counter()
    for line in lines:
        counted[line["rule"], line["action"], line["outcome"]] += line.get("number", 1)
        assert line["rule"] == "too many"
        if line["outcome"] == "closed":
            assert line["idle"] > OVER
            assert line["age"] >= 1
        elif line["outcome"] == "spared":
            assert line["why"]
        else:
            assert line["outcome"] in ("armed", "cleared", "stopped", "over budget", "gone")
    assert sorted((*key, n) for key, n in counted.items()) == one.counters()
