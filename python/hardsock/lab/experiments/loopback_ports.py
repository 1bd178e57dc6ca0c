"""Ports run out towards every address but those of loopback, where tests run."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time

import hardsock as hs
from hardsock.lab import inside
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.namespaces import run_in_namespace

_ELSEWHERE, _LOOPBACK, _PORT = "10.5.0.1", "127.0.0.1", 7100
_FIRST, _LAST = 40000, 40099
_PORTS = _LAST - _FIRST + 1
_REQUESTS = 3 * _PORTS
_PAUSE = 0.0125
"""Between two requests: with fewer than there are ports in a second none is ever missing on loopback."""
_LIMIT = 30.0
_ONLY_LOOPBACK = 2
"""Of tcp_tw_reuse, which is Linux' own setting."""

_Points = list[tuple[float, int]]


def _serve(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            conn, _ = listener.accept()
            with conn:
                while conn.recv(1):
                    conn.sendall(b"a")


def _ask_plainly(host: str) -> tuple[_Points, int]:
    """(seconds, answered) as answers come; and the errno that ended it, or 0."""
    begin, points = time.monotonic(), [(0.0, 0)]
    for number in range(1, _REQUESTS + 1):
        try:
            with socket.create_connection((host, _PORT), timeout=_LIMIT) as sock:
                sock.sendall(b"q")
                sock.recv(1)
        except OSError as exc:
            return points, exc.errno or 0
        points.append((time.monotonic() - begin, number))
        time.sleep(_PAUSE)
    return points, 0


def _ask_by_pool(host: str) -> int:
    with hs.Pool((host, _PORT), max_size=1, reuse="answered") as pool:
        for _ in range(_REQUESTS):
            with pool.connection(timeout=_LIMIT) as conn:
                conn.sendall(b"q")
                conn.recv_exactly(1, timeout=_LIMIT)
        return pool.stats().opened


def measure_inside() -> dict[str, tuple[_Points, int, int]]:
    """Per address: how a connection each went, what ended it, and how many a pool opened."""
    inside.add_address(f"{_ELSEWHERE}/24")
    inside.write_sysctl("net.ipv4.ip_local_port_range", f"{_FIRST} {_LAST}")
    inside.write_sysctl("net.ipv4.tcp_tw_reuse", _ONLY_LOOPBACK)
    found = {}
    for host in (_ELSEWHERE, _LOOPBACK):
        with listen(host, _PORT) as listener:
            server = threading.Thread(target=_serve, args=(listener,), daemon=True)
            server.start()
            opened = _ask_by_pool(host)
            points, failed = _ask_plainly(host)
            found[host] = (points, failed, opened)
            listener.shutdown(socket.SHUT_RDWR)
            server.join()
    return found


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=240.0)
    (elsewhere, code, opened), (loopback, on_loopback, opened_there) = (
        found[_ELSEWHERE],
        found[_LOOPBACK],
    )
    seconds, answered = loopback[-1]
    return Finding(
        plain={
            "requests_elsewhere": elsewhere[-1][1],
            "errno_elsewhere": code,
            "requests_on_loopback": answered,
            "errno_on_loopback": on_loopback,
            "seconds_on_loopback": seconds,
        },
        hardsock={
            "requests_elsewhere": _REQUESTS,
            "requests_on_loopback": _REQUESTS,
            "connections": opened + opened_there,
        },
        shown=code == errno.EADDRNOTAVAIL and answered == _REQUESTS and opened == opened_there == 1,
        text=f"The same program and the same {_PORTS} local ports, a connection for each request, at most "
        f"{1 / _PAUSE:.0f} a second. Towards {_ELSEWHERE} request {elsewhere[-1][1] + 1} failed with "
        f"{errno.errorcode.get(code, 'no error')}. Towards {_LOOPBACK} all {answered} were answered, in {seconds:.1f} s: "
        "when no port was left, connect took one that had been in TIME_WAIT for a second. A `Pool` needed one "
        "connection to each address.",
        chart=Chart(
            kind="lines",
            title=f"A connection for each request, with {_PORTS} ports",
            x="seconds",
            y="requests answered",
            lines=[
                Line(f"towards {_LOOPBACK}", "hardsock", loopback[:: max(1, len(loopback) // 100)]),
                Line(f"towards {_ELSEWHERE}, until it failed", "plain", elsewhere),
            ],
            limit=(_PORTS, "all ports used once"),
        ),
    )


LOOPBACK_PORTS = Experiment(
    name="loopback-ports",
    title="It never failed in the tests",
    claim="A test on loopback does not show that ports run out: there, and only there, Linux takes a port again that "
    "has been in TIME_WAIT for a second.",
    why="`net.ipv4.tcp_tw_reuse` is 2 by default since Linux 4.19: connects may take over connections in TIME_WAIT "
    "where both ends are on loopback (ip-sysctl). What they have to wait for is the second until the TCP timestamp has "
    "surely grown. With 28,232 ports that is 28,232 connections a second on loopback, and 470 towards any other "
    "address. (Nothing waits for that second: a connect that finds all ports younger fails there, too.)",
    instead="Test it where it happens: two addresses that are not of 127/8, as those of a `hardsock.lab.Wire`; or "
    "`tcp_tw_reuse=0` in a namespace of the test's own. And keep connections: `hardsock.Pool`.",
    measure=_measure,
    seconds=5,
)
