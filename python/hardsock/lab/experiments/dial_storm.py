"""A server comes back, and all who waited come at once: it works for those who have given up."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import hardsock as hs
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.namespaces import run_in_namespace

_CLIENTS = 200
_LOGIN = 0.005
"""Seconds that the server takes for each: what a TLS handshake and a login cost."""
_TRY = 0.4
_WATCHED = 5.0
_AT_ONCE = 8
_PATIENCE = 60.0


class _Server:
    """One login after the other, in the order in which they came."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.logins = 0
        self._queue: queue.SimpleQueue[socket.socket | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._accept),
            threading.Thread(target=self._work),
        ]

    def __enter__(self) -> _Server:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._queue.put(self.listener.accept()[0])
        self._queue.put(None)

    def _work(self) -> None:
        held = []  # Who is in stays.
        while (conn := self._queue.get()) is not None:
            time.sleep(_LOGIN)
            self.logins += 1
            with contextlib.suppress(OSError):
                conn.sendall(b"welcome")
            held.append(conn)
        for conn in held:
            conn.close()


class _Clients:
    """Threads that try until they are in, or until it is over."""

    def __init__(self, attempt: Callable[[], bool]) -> None:
        self.entered: list[float] = []
        self._attempt = attempt
        self._over = threading.Event()
        self._all = threading.Event()
        self._lock = threading.Lock()
        self._begin = 0.0

    def run(self, seconds: float) -> None:
        threads = [threading.Thread(target=self._one) for _ in range(_CLIENTS)]
        self._begin = time.monotonic()
        for thread in threads:
            thread.start()
        self._all.wait(seconds)
        self._over.set()
        for thread in threads:
            thread.join()

    def _one(self) -> None:
        while not self._over.is_set():
            if self._attempt():
                with self._lock:
                    self.entered.append(time.monotonic() - self._begin)
                    if len(self.entered) == _CLIENTS:
                        self._all.set()
                return


def _plain(address: tuple[str, int]) -> Callable[[], bool]:
    def attempt() -> bool:
        with contextlib.suppress(OSError):
            with socket.create_connection(address, timeout=_TRY) as sock:
                return sock.recv(7) == b"welcome"
        return False

    return attempt


def _ours(address: tuple[str, int]) -> Callable[[], bool]:
    limits = hs.DialLimits(in_flight=_AT_ONCE)

    def attempt() -> bool:
        with contextlib.suppress(hs.HardsockError), limits.place(timeout=_PATIENCE):
            with hs.connect(address, timeout=_TRY) as conn:
                return conn.recv_exactly(7, timeout=_TRY) == b"welcome"
        return False

    return attempt


def measure_inside() -> dict[str, Any]:
    """Per side: when each client was in, and how many logins the server did."""
    found = {}
    sides = (("hardsock", _ours, _PATIENCE), ("plain", _plain, _WATCHED))
    for side, make, seconds in sides:
        with listen(backlog=4096) as listener, _Server(listener) as server:
            clients = _Clients(make(listener.getsockname()))
            clients.run(seconds)
            found[side] = {"entered": sorted(clients.entered), "logins": server.logins}
    return found


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=240.0)
    plain, ours = found["plain"], found["hardsock"]
    entered, our_entered = len(plain["entered"]), len(ours["entered"])
    return Finding(
        plain=_figures(plain),
        hardsock=_figures(ours),
        shown=entered < 0.8 * _CLIENTS and our_entered == _CLIENTS,
        text=f"{_CLIENTS} clients came at once to a server that takes {_LOGIN * 1e3:g} ms for a login, and gave up "
        f"after {_TRY:g} s to try again. {entered} of them were in within {_WATCHED:g} s; the server had done "
        f"{plain['logins']} logins, most of them for clients that had given up, and those that had not stood "
        f"behind them. With `hs.DialLimits(in_flight={_AT_ONCE})` all {our_entered} were in after "
        f"{max(ours['entered'], default=0.0):.1f} s, with {ours['logins']} logins.",
        chart=Chart(
            kind="lines",
            title=f"{_CLIENTS} clients come at once: how many are in",
            x="seconds",
            y="clients",
            lines=[
                Line("try, give up, try again", "plain", _steps(plain["entered"], _WATCHED)),
                Line("with hs.DialLimits", "hardsock", _steps(ours["entered"], _WATCHED)),
            ],
            limit=(_CLIENTS, "all"),
        ),
    )


def _steps(entered: list[float], end: float) -> list[tuple[float, int]]:
    points = [(0.0, 0), *((when, number + 1) for number, when in enumerate(entered))]
    return [*points, (max(end, points[-1][0]), len(entered))]


def _figures(found: dict[str, Any]) -> dict[str, float]:
    return {
        "clients": _CLIENTS,
        "in": len(found["entered"]),
        "logins_of_the_server": found["logins"],
        "last_in_seconds": max(found["entered"], default=0.0),
    }


DIAL_STORM = Experiment(
    name="dial-storm",
    title="All at once, and nobody gets in",
    claim="When many connect at the same moment and give up after a while, a server that could serve all of them "
    "within seconds serves almost nobody: it works for those who have left.",
    why="Who waits longer than a try may take gives up and comes again, to the end of the queue; what it leaves "
    "there is served all the same, since a server does not look whether anybody is still waiting. As soon as the "
    "queue is longer than a try, every answer is late, and the storm keeps itself going after its cause is "
    "gone. Shorter timeouts make it worse.",
    instead="Let few connections be in the making at a time: `hs.DialLimits(in_flight=, per_second=)`, shared by all "
    "who connect to the same servers, or `max_dials` of a pool. Waiting for a place is not a try: it uses nothing "
    "up, and is in the order of arrival. And pauses between tries that grow, with chance in them; a breaker's "
    "do.",
    measure=_measure,
    seconds=9,
    is_short=False,
)
