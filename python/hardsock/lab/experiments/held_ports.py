"""Closed, and the port is not free: a server that is stuck never ends its side."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from contextlib import ExitStack
from typing import Any

import hardsock as hs
from hardsock.lab import inside
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.namespaces import run_in_namespace

_ADDRESS, _PORT = "10.5.0.1", 7100
_FIRST, _LAST = 40000, 40199
_REQUESTS = 300
_PATIENCE = 0.005
_LIMIT = 30.0
_CLOSED = ("fin_wait1", "fin_wait2", "closing", "last_ack", "time_wait")


def _held() -> int:
    """Ports of connections that this side has closed, and that are not over."""
    counts = hs.tcp_counts()
    return sum(counts.get(state, 0) for state in _CLOSED)


def _take_and_forget(listener: socket.socket) -> None:
    """A server that is stuck: its kernel accepts and acknowledges, and it never reads or closes."""
    with ExitStack() as stack, contextlib.suppress(OSError):
        while True:
            stack.enter_context(listener.accept()[0])


def _ask_plainly() -> None:
    with socket.create_connection((_ADDRESS, _PORT), timeout=_LIMIT) as sock:
        sock.sendall(b"q")
        sock.settimeout(_PATIENCE)
        with contextlib.suppress(TimeoutError):
            sock.recv(1)


def _ask() -> None:
    with hs.connect((_ADDRESS, _PORT), timeout=_LIMIT) as conn:
        conn.sendall(b"q")
        try:
            conn.recv(1, timeout=_PATIENCE)
        except hs.DeadlineExceeded:
            conn.abort()  # Nobody wants an answer any more, nor its end.


def measure_inside() -> dict[str, Any]:
    """(requests, ports held) as requests are made; and what ended the plain ones."""
    inside.add_address(f"{_ADDRESS}/24")
    inside.write_sysctl("net.ipv4.ip_local_port_range", f"{_FIRST} {_LAST}")
    found: dict[str, list[tuple[int, int]]] = {"hardsock": [], "plain": []}
    failed = (_REQUESTS, 0)
    with listen(_ADDRESS, _PORT, backlog=2 * _REQUESTS) as listener:
        server = threading.Thread(target=_take_and_forget, args=(listener,))
        server.start()
        for number in range(_REQUESTS):
            if number % 20 == 0:
                found["hardsock"].append((number, _held()))
            _ask()
        found["hardsock"].append((_REQUESTS, _held()))
        try:
            for number in range(_REQUESTS):
                if number % 20 == 0:
                    found["plain"].append((number, _held()))
                _ask_plainly()
        except OSError as exc:
            failed = (number, exc.errno or 0)
        found["plain"].append((failed[0], _held()))
        listener.shutdown(socket.SHUT_RDWR)
        server.join()
    return {**found, "failed": failed}


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=240.0)
    number, code = found["failed"]
    held, ours = found["plain"][-1][1], found["hardsock"][-1][1]
    ports = _LAST - _FIRST + 1
    return Finding(
        plain={"requests": number, "errno": code, "ports_held": held},
        hardsock={"requests": _REQUESTS, "ports_held": ours},
        shown=code == errno.EADDRNOTAVAIL and ours < ports / 10,
        text=f"A server that had stopped to read, and {ports} local ports. Each request gave up after "
        f"{_PATIENCE * 1e3:g} ms and closed its connection; request {number + 1} failed with "
        f"{errno.errorcode.get(code, 'no error')}: {held} ports were held by connections that were closed here and "
        f"not there. With `conn.abort()` after the deadline all {_REQUESTS} had their connection, and {ours} ports "
        "were held at the end.",
        chart=Chart(
            kind="lines",
            title="Ports held by connections that are closed",
            x="requests",
            y="ports",
            lines=[
                Line("close()", "plain", found["plain"]),
                Line("hardsock: abort()", "hardsock", found["hardsock"]),
            ],
            limit=(ports, "all"),
        ),
    )


HELD_PORTS = Experiment(
    name="held-ports",
    title="Closed here, and not there",
    claim="Closing a connection does not free its port while the peer has not ended its side: each request that "
    "gives up on a stuck server holds a port for a minute.",
    why="close sends FIN. The peer's kernel acknowledges it, and its program, which is stuck, sends none of its "
    "own: the connection stays in FIN_WAIT_2 without an owner for `tcp_fin_timeout`, 60 s (tcp(7)). If the peer's "
    "buffers are full, the FIN is behind data that nobody takes, and it is FIN_WAIT_1 for longer still. This is "
    "what `tcp_fin_timeout` is for; it has nothing to do with TIME_WAIT.",
    instead="After an exchange that failed nothing is left that an orderly end could save: `conn.abort()` sends RST, "
    "and both sides are free; a `Pool` does so by itself with what an exception has left. (With plain sockets: SO_LINGER with zero seconds, for this one connection, never "
    "for a listener.) And fewer connections to a server that does not answer: a pool's `max_size`, a breaker.",
    measure=_measure,
    seconds=5,
)
