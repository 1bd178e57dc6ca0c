"""A port range that takes in the ports of servers: a client has the port when the server comes back."""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import ExitStack
from typing import Any

from hardsock.lab import inside
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.namespaces import run_in_namespace

_HOME, _ELSEWHERE = "127.0.0.1", "127.0.0.2"
_SERVER = 8080
_FIRST, _LAST = 8080, 8095
"""Stands for a range from 1024 on: in a small one it happens at once."""
_CLIENTS = 12
_RESTARTS = 10
_PATIENCE = 60.0


def _restart(other: tuple[str, int]) -> bool:
    """Whether a server has its port again, if clients connected while it was away."""
    with ExitStack() as stack:
        for _ in range(_CLIENTS):
            client = stack.enter_context(socket.socket())
            client.settimeout(_PATIENCE)
            # Ports in TIME_WAIT are not the point here.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.connect(other)
        try:
            listen(_HOME, _SERVER).close()
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
            return False
        return True


def _restarts(reserved: str) -> list[bool]:
    inside.write_sysctl("net.ipv4.ip_local_reserved_ports", reserved)
    found = []
    for _ in range(_RESTARTS):
        with listen(_ELSEWHERE, 9000) as other:
            found.append(_restart(other.getsockname()))
    return found


def measure_inside() -> dict[str, list[bool]]:
    """Per side: which restarts had their port."""
    inside.write_sysctl("net.ipv4.ip_local_port_range", f"{_FIRST} {_LAST}")
    return {"hardsock": _restarts(str(_SERVER)), "plain": _restarts("")}


def _sums(there: list[bool]) -> list[tuple[int, int]]:
    return [(number, number - sum(there[:number])) for number in range(len(there) + 1)]


def _measure() -> Finding:
    found: dict[str, Any] = run_in_namespace(measure_inside, timeout=240.0)
    failed = {side: _RESTARTS - sum(there) for side, there in found.items()}
    return Finding(
        plain={"restarts": _RESTARTS, "failed": failed["plain"]},
        hardsock={"restarts": _RESTARTS, "failed": failed["hardsock"]},
        shown=failed["plain"] >= _RESTARTS / 3 and failed["hardsock"] == 0,
        text=f"A server on port {_SERVER}, and a range for outgoing connections that has this port in it ({_FIRST} to "
        f"{_LAST}, so that it happens at once). {_CLIENTS} connections to somebody else were made whenever the server "
        f"was away for a restart: {failed['plain']} of {_RESTARTS} times it could not come back (EADDRINUSE), and "
        "nobody listened on its port. With the port in `ip_local_reserved_ports` it was "
        f"{failed['hardsock']} times.",
        chart=Chart(
            kind="lines",
            title="Restarts of a server whose port is in the range of clients",
            x="restarts",
            y="restarts that failed",
            lines=[
                Line("the range alone", "plain", _sums(found["plain"])),
                Line("port reserved, as hardsock-tune asks", "hardsock", _sums(found["hardsock"])),
            ],
        ),
    )


WIDE_RANGE = Experiment(
    name="wide-range",
    title="The port that a client took",
    claim="A port range from 1024 to 65535 gives the ports of servers to clients: a server that restarts finds its "
    "own port taken, by a connection to somebody else.",
    why="connect takes any port of `ip_local_port_range` that is free at that moment, and the port of a server that is "
    "just restarting is. The error is EADDRINUSE, and no listener is to be found. The range of a kernel begins "
    "at 32768 for this reason, above the ports that servers are given.",
    instead="Leave the range, and use connections again: a pool needs few ports. If it has to be wide, every port of a "
    "server goes into `net.ipv4.ip_local_reserved_ports`: `hardsock-tune judge` says so of a range that is low, and "
    "its profile `high-churn-client` sets the two together.",
    measure=_measure,
    seconds=2,
)
