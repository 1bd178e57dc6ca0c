"""The caller hangs up, and nobody behind the first service hears of it."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hardsock as hs
from hardsock.lab.experiments.experiment import Bar, Chart, Experiment, Finding, Side
from hardsock.lab.namespaces import run_in_namespace

_CALLS = 3
_PATIENCE = 0.1
_STEPS, _STEP = 10, 0.05
_LIMIT = 60.0

_Address = tuple[str, int]


class _Log:
    """What the last service did, call by call."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.work: list[tuple[float, float, int]] = []
        self._ended = threading.Semaphore(0)

    def now(self) -> float:
        return time.monotonic() - self.begin

    @contextmanager
    def working(self) -> Iterator[list[float]]:
        """One call of the last service; in the block a step adds its time to the list."""
        steps: list[float] = []
        begin = self.now()
        try:
            yield steps
        finally:
            self.work.append((begin, self.now(), len(steps)))
            self._ended.release()

    def wait_until_idle(self) -> None:
        """Callers come one after the other here."""
        if not self._ended.acquire(timeout=_LIMIT):
            raise TimeoutError("the last service never ended its work")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


@contextmanager
def _plain_server(handle: Callable[[socket.socket], None]) -> Iterator[_Address]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                handle(self.request)

    with _Server(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            host, port = server.server_address[:2]
            yield str(host), int(port)
        finally:
            server.shutdown()
            serving.join()


@contextmanager
def _plain(log: _Log) -> Iterator[_Address]:
    """B asks C, with sockets."""

    def back(conn: socket.socket) -> None:
        conn.recv(1)
        with log.working() as steps:
            for _ in range(_STEPS):
                time.sleep(_STEP)
                steps.append(log.now())
        conn.sendall(b"a")

    def middle(conn: socket.socket) -> None:
        conn.recv(1)
        with socket.create_connection(onward, timeout=_LIMIT) as other:
            other.sendall(b"q")
            conn.sendall(other.recv(1))

    with _plain_server(back) as onward, _plain_server(middle) as address:
        yield address


@contextmanager
def _ours(log: _Log) -> Iterator[_Address]:
    """The same, with hardsock: two calls of `cancel_on_end` more, and no parameter is passed on."""

    def back(conn: hs.Connection) -> None:
        conn.recv_exactly(1)
        conn.cancel_on_end()
        with log.working() as steps:
            for _ in range(_STEPS):
                hs.sleep(_STEP)
                steps.append(log.now())
        conn.sendall(b"a")

    def middle(conn: hs.Connection) -> None:
        conn.recv_exactly(1)
        conn.cancel_on_end()
        with hs.connect(onward, timeout=_LIMIT) as other:
            other.sendall(b"q")
            conn.sendall(other.recv_exactly(1))

    local = ("127.0.0.1", 0)
    with hs.serve(back, local, drain_timeout=10) as last:
        onward = last.address
        with hs.serve(middle, local, drain_timeout=10) as first:
            yield first.address


def _call(address: _Address) -> None:
    """A, whose user has little patience, and hangs up."""
    with socket.create_connection(address, timeout=_LIMIT) as conn:
        conn.sendall(b"q")
        conn.settimeout(_PATIENCE)
        with contextlib.suppress(TimeoutError):
            conn.recv(1)


def measure_inside() -> dict[str, Any]:
    """Per side: when each caller waited, and when and how much the last service worked for it."""
    found: dict[str, Any] = {}
    for side, servers in (("plain", _plain), ("hardsock", _ours)):
        log, waits = _Log(), []
        with servers(log) as address:
            for _ in range(_CALLS):
                begin = log.now()
                _call(address)
                waits.append((begin, log.now()))
                log.wait_until_idle()
        found[side] = {"waits": waits, "work": log.work}
    return found


def _bars(found: dict[str, Any]) -> list[Bar]:
    bars = []
    sides: tuple[Side, Side] = ("plain", "hardsock")
    for side in sides:
        pairs = zip(found[side]["waits"], found[side]["work"], strict=True)
        for number, ((begin, end), (start, stop, _steps)) in enumerate(pairs, 1):
            bars.append(Bar(f"{side} {number}: caller", 0, end - begin, side))
            bars.append(
                Bar(f"{side} {number}: work", start - begin, stop - begin, side, failed=True)
            )
    return bars


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=240.0)
    steps = {side: sum(n for *_, n in one["work"]) for side, one in found.items()}
    all_of_them = _CALLS * _STEPS
    return Finding(
        plain={"steps_of_work": steps["plain"]},
        hardsock={"steps_of_work": steps["hardsock"]},
        shown=steps["plain"] == all_of_them and steps["plain"] > 2 * steps["hardsock"],
        text=f"A asks B, B asks C, and A hangs up after {_PATIENCE * 1e3:.0f} ms. For {_CALLS} calls C did "
        f"{steps['plain']} of {all_of_them} steps of {_STEP * 1e3:.0f} ms: B was waiting for C, and did not look at "
        f"A. With hardsock's servers it did {steps['hardsock']}: A's end cancelled B's handler, which closed its "
        "connection to C, and that cancelled C's.",
        chart=Chart(
            kind="timeline",
            title=f"{_CALLS} calls: who waits, and who works (hatched)",
            x="seconds",
            bars=_bars(found),
            limit=(_PATIENCE, "the caller hangs up"),
        ),
    )


CANCEL_LOST = Experiment(
    name="cancel-lost",
    title="Nobody told the one behind",
    claim="Who hangs up ends a connection, not the work: a service that waits for another one does not look at its "
    "caller, and so neither hears that the caller is gone nor tells it to the next.",
    why="A caller's end is an event on a socket that nobody reads meanwhile. What a program would need is a context "
    "that is cancelled by it and that every call below obeys; sockets know none, and where there is one, it has to be "
    "a parameter of every function on the way, and is lost in the first that has none. No deadline replaces it: the "
    "caller may leave long before. (FIN alone does not say that the caller is gone, since it may have ended its side "
    "and wait for the answer; whether it has is for the protocol to know.)",
    instead="`hs.serve` and `aio.serve` watch the connection of a handler that is at work: a reset cancels its token, "
    "and after `conn.cancel_on_end()` an end does. All calls below obey it without being given it, those to other "
    "services too; leaving their connections, they pass it on. What is no call of hardsock's asks `hs.current()`. In "
    "Go, a context; with plain sockets, a look at the caller's socket (`poll` for POLLRDHUP) beside every wait.",
    measure=_measure,
    seconds=4,
)
