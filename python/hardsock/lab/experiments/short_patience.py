"""TCP_USER_TIMEOUT of five seconds on a bad path: it ends connections that are in use."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import hardsock as hs
from hardsock.lab import inside
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.wire import InvalidResult, Wire

_DELAY, _LOSS = 0.04, 0.3
_CONNECTIONS = 60
_SHORT = 5.0
_SECONDS = 60.0
_PORT = 7100
_MESSAGE = b"x" * 100
_PATIENCE = 120.0


def serve() -> None:
    """Echo."""
    with listen(Wire.B, _PORT, backlog=512) as listener, selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        inside.ready()
        with ExitStack() as stack:
            while not inside.should_stop():
                for key, _ in selector.select(0.05):
                    one: Any = key.fileobj
                    if one is listener:
                        conn = stack.enter_context(listener.accept()[0])
                        selector.register(conn, selectors.EVENT_READ)
                    elif not _echo(one):
                        selector.unregister(one)


def _echo(conn: socket.socket) -> bool:
    try:
        data = conn.recv(4096)
        conn.sendall(data)
    except OSError:
        return False
    return bool(data)


class _Group:
    """Connections in use, a thread each: asking, and asking again as soon as there is an answer."""

    def __init__(self) -> None:
        self.deaths: list[float] = []
        """When each of those was over that ended, though both ends were there."""
        self.answers = 0
        self.longest = 0.0
        """Seconds that an answer took which came all the same."""
        self._lock = threading.Lock()

    def use(self, exchange: Callable[[], None], over: threading.Event, begin: float) -> None:
        while not over.is_set():
            asked = time.monotonic()
            try:
                exchange()
            except (OSError, hs.HardsockError):  # The kernel's: no call here has a timer.
                if not over.is_set():
                    with self._lock:
                        self.deaths.append(time.monotonic() - begin)
                return
            with self._lock:
                self.answers += 1
                self.longest = max(self.longest, time.monotonic() - asked)


def _plain_exchange(sock: socket.socket) -> None:
    sock.sendall(_MESSAGE)
    left = len(_MESSAGE)
    while left:
        data = sock.recv(left)
        if not data:
            raise ConnectionResetError
        left -= len(data)


def _our_exchange(conn: hs.Connection, token: hs.CancelToken) -> None:
    conn.sendall(_MESSAGE, token=token)
    conn.recv_exactly(len(_MESSAGE), token=token)


def use_them() -> dict[str, Any]:
    """Connect while the wire is whole; use all connections for a while once it is not."""
    groups = {"plain": _Group(), "hardsock": _Group()}
    over, token = threading.Event(), hs.CancelToken()
    with ExitStack() as stack:
        socks, conns = [], []
        for _ in range(_CONNECTIONS):
            sock = socket.create_connection((Wire.B, _PORT), timeout=_PATIENCE)
            socks.append(stack.enter_context(sock))
            sock.settimeout(None)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(_SHORT * 1000))
            conn = hs.connect((Wire.B, _PORT), timeout=_PATIENCE)
            stack.callback(conn.abort)
            conns.append(conn)
        inside.ready()
        inside.wait_for_stop()  # The wire loses packets from now on.
        begin = time.monotonic()
        work: list[tuple[_Group, Callable[[], None]]] = [
            *((groups["plain"], lambda sock=sock: _plain_exchange(sock)) for sock in socks),
            *((groups["hardsock"], lambda conn=conn: _our_exchange(conn, token)) for conn in conns),
        ]
        threads = [
            threading.Thread(target=group.use, args=(exchange, over, begin))
            for group, exchange in work
        ]
        for thread in threads:
            thread.start()
        over.wait(_SECONDS)
        over.set()
        token.cancel()
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
    return {
        side: {
            "deaths": sorted(group.deaths),
            "answers": group.answers,
            "longest": group.longest,
        }
        for side, group in groups.items()
    }


def _alive(deaths: list[float]) -> list[tuple[float, int]]:
    points = [(0.0, _CONNECTIONS)]
    for number, when in enumerate(deaths):
        points += [(when, _CONNECTIONS - number), (when, _CONNECTIONS - number - 1)]
    return [*points, (_SECONDS, _CONNECTIONS - len(deaths))]


def _measure() -> Finding:
    invalid = ""
    with Wire(delay=_DELAY, seed=14) as wire, wire.b.start(serve, timeout=300.0) as server:
        server.wait_ready()
        with wire.a.start(use_them, timeout=300.0) as client:
            client.wait_ready()
            wire.set(loss=_LOSS)
            found: dict[str, Any] = client.stop()
        conditions = wire.conditions()
        try:
            wire.judge()
        except InvalidResult as exc:
            invalid = str(exc)
    plain, ours = found["plain"], found["hardsock"]
    dead, our_dead = len(plain["deaths"]), len(ours["deaths"])
    return Finding(
        plain=_figures(plain),
        hardsock=_figures(ours),
        shown=dead >= 5 and dead > 4 * our_dead,
        invalid=invalid,
        conditions=conditions,
        text=f"Two times {_CONNECTIONS} connections in use, {2e3 * _DELAY:.0f} ms there and back, and "
        f"{_LOSS:.0%} of all packets lost; both ends were there all the while. TCP_USER_TIMEOUT of {_SHORT:g} s "
        f"ended {dead} of {_CONNECTIONS} within {_SECONDS:g} s. With hardsock's default, `dead_after` of 45 s, it "
        f"was {our_dead}; the answer that took longest came after {ours['longest']:.1f} s.",
        chart=Chart(
            kind="lines",
            title=f"{_LOSS:.0%} of packets lost: connections in use that are alive",
            x="seconds",
            y="connections",
            lines=[
                Line(f"TCP_USER_TIMEOUT {_SHORT:g} s", "plain", _alive(plain["deaths"])),
                Line("hs.connect: dead_after 45 s", "hardsock", _alive(ours["deaths"])),
            ],
        ),
    )


def _figures(found: dict[str, Any]) -> dict[str, float]:
    return {
        "connections": _CONNECTIONS,
        "ended": len(found["deaths"]),
        "answers": found["answers"],
        "longest_answer_seconds": found["longest"],
    }


SHORT_PATIENCE = Experiment(
    name="short-patience",
    title="Declared dead while at work",
    claim="A short TCP_USER_TIMEOUT does not clear away what is idle; it ends connections that are in use, on "
    "a path that is bad for a moment.",
    why="The timer runs while sent data is unacknowledged, and only then (RFC 5482; tcp(7)). A lost segment is "
    "sent again after the measured round trip, then after twice that, and so on: five seconds are about five "
    "tries. On a path that loses packets, or is away for the moment of a failover, all of them are lost now and "
    "then. The idle connections, for which the advice is given, send nothing and feel nothing.",
    instead="Leave death to a time that a path needs to come back (`dead_after`, 45 s by default), and waiting "
    "to a deadline on each call: that ends the call, with an error that says so. Against too many idle "
    "connections: `idle_timeout`, or `hs.Guard`.",
    measure=_measure,
    seconds=65,
    is_short=False,
)
