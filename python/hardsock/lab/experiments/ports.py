"""A connection for each request uses up the ports of this machine."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading

import hardsock as hs
from hardsock.lab import inside
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.namespaces import run_in_namespace

_ADDRESS = "10.5.0.1"  # Not 127/8: there ports are taken again after a second (tcp_tw_reuse).
_FIRST, _LAST = 40000, 40499
_REQUESTS = 800


def _time_wait() -> int:
    return hs.tcp_counts().get("time_wait", 0)


def _serve(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            conn, _ = listener.accept()
            with conn:
                while conn.recv(1):
                    conn.sendall(b"a")


def measure_inside() -> dict[str, list[tuple[int, int]]]:
    """(requests, ports in TIME_WAIT) as requests are made; and the errno that ended it, or 0."""
    inside.add_address(f"{_ADDRESS}/24")
    inside.write_sysctl("net.ipv4.ip_local_port_range", f"{_FIRST} {_LAST}")
    inside.write_sysctl("net.ipv4.tcp_tw_reuse", 0)
    found: dict[str, list[tuple[int, int]]] = {"hardsock": [], "plain": []}
    failed = 0
    with listen(_ADDRESS, 7100) as listener:
        server = threading.Thread(target=_serve, args=(listener,), daemon=True)
        server.start()
        with hs.Pool((_ADDRESS, 7100), max_size=1, reuse="answered") as pool:
            for number in range(_REQUESTS + 1):
                if number % 50 == 0:
                    found["hardsock"].append((number, _time_wait()))
                with pool.connection(timeout=20) as conn:
                    conn.sendall(b"q")
                    conn.recv_exactly(1, timeout=20)
        for number in range(_REQUESTS + 1):
            if number % 50 == 0:
                found["plain"].append((number, _time_wait()))
            try:
                with socket.create_connection((_ADDRESS, 7100), timeout=20) as sock:
                    sock.sendall(b"q")
                    sock.recv(1)
            except OSError as exc:
                failed = exc.errno or 0
                found["plain"].append((number, _time_wait()))
                break
        found["failed"] = [(number, failed)]
        listener.shutdown(socket.SHUT_RDWR)
        server.join()
    return found


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=120.0)
    ((number, code),) = found["failed"]
    ours = found["hardsock"][-1]
    name = errno.errorcode.get(code, "no error")
    return Finding(
        plain={"requests": number, "errno": code, "time_wait": found["plain"][-1][1]},
        hardsock={"requests": ours[0], "time_wait": ours[1]},
        shown=code == errno.EADDRNOTAVAIL and ours[0] == _REQUESTS and ours[1] < 5,
        text=f"With {_LAST - _FIRST + 1} local ports, request {number + 1} of one connection each "
        f"failed with {name}: {found['plain'][-1][1]} ports were in TIME_WAIT, for a minute. A "
        f"`Pool` of one connection made {ours[0]} requests and left {ours[1]}. A machine has 28,232 "
        "ports towards one address by default, that is 470 new connections a second.",
        chart=Chart(
            kind="lines",
            title=f"Ports in TIME_WAIT, of {_LAST - _FIRST + 1}",
            x="requests",
            y="ports",
            lines=[
                Line("a connection each", "plain", found["plain"]),
                Line("hardsock.Pool", "hardsock", found["hardsock"]),
            ],
            limit=(_LAST - _FIRST + 1, f"{name}"),
        ),
    )


PORTS = Experiment(
    name="ports",
    title="Out of ports, with nothing open",
    claim="Connections that this side closes keep their ports for a minute (TIME_WAIT), so a "
    "connection per request runs out of ports towards one server.",
    why="Who closes first waits for 2 MSL, 60 s on Linux, so that late segments reach no successor "
    "(RFC 9293 section 3.6.1). The ports are those of one source, towards one destination: other "
    "destinations have theirs. On loopback Linux takes such a port again after a second "
    "(`net.ipv4.tcp_tw_reuse=2`), which [hides the failure from tests](loopback-ports.md).",
    instead="Keep connections: `hardsock.Pool`. A wider `ip_local_port_range` moves the limit; "
    "`tcp_tw_reuse=1` needs timestamps at both ends; SO_LINGER 0 trades the wait for lost data.",
    measure=_measure,
    seconds=4,
)
