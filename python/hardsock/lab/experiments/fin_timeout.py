"""tcp_fin_timeout, set against TIME_WAIT: it is about another state."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import hardsock as hs
from hardsock.lab import inside
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Bar, Chart, Experiment, Finding
from hardsock.lab.namespaces import run_in_namespace
from hardsock.lab.unavailable import Unavailable
from hardsock.lab.waits import poll_until

_LONG, _SHORT = 60, 5
_CONNECTIONS = 20
_TIME_WAIT, _FIN_WAIT2 = "06", "05"
_TICKS = 100.0
"""Of /proc/net/tcp, a second."""
_PATIENCE = 60.0


def _left(state: str, port: int) -> list[float]:
    """Seconds for which the kernel will keep each connection to *port* that is in *state*."""
    rows = (line.split() for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:])
    return [
        int(row[5].partition(":")[2], 16) / _TICKS
        for row in rows
        if row[3] == state and row[2].endswith(f":{port:04X}")
    ]


def _close_and_look(state: str) -> float:
    """Connect, close, and have the peer close too, or not; how long the kernel will keep that."""
    with listen() as listener:
        address = listener.getsockname()
        client = socket.create_connection(address, timeout=_PATIENCE)
        server, _ = listener.accept()
        with server:
            client.close()
            server.recv(1)
            if state == _TIME_WAIT:
                server.close()
            if not poll_until(lambda: bool(_left(state, address[1])), _PATIENCE):
                raise Unavailable("the kernel does not show a connection that is closed")
            return max(_left(state, address[1]), default=0.0)


def _answer(listener: socket.socket) -> None:
    conn, _ = listener.accept()
    with conn:
        while conn.recv(1):
            conn.sendall(b"a")


def _pooled() -> int:
    """TIME_WAIT that a pool has made by so many requests."""
    with listen() as listener:
        server = threading.Thread(target=_answer, args=(listener,))
        server.start()
        address = listener.getsockname()
        with hs.Pool(address, max_size=1, reuse="answered") as pool:
            for _ in range(_CONNECTIONS):
                with pool.connection(timeout=_PATIENCE) as conn:
                    conn.sendall(b"q")
                    conn.recv_exactly(1, timeout=_PATIENCE)
            found = len(_left(_TIME_WAIT, address[1]))
        server.join()
    return found


def measure_inside() -> dict[str, Any]:
    """Seconds by state and setting, and what a pool leaves."""
    found: dict[str, Any] = {}
    for seconds in (_LONG, _SHORT):
        inside.write_sysctl("net.ipv4.tcp_fin_timeout", seconds)
        found[f"time_wait_{seconds}"] = _close_and_look(_TIME_WAIT)
        found[f"fin_wait2_{seconds}"] = _close_and_look(_FIN_WAIT2)
    return {**found, "pooled": _pooled()}


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=240.0)
    pooled = found.pop("pooled")
    wait = {seconds: found[f"time_wait_{seconds}"] for seconds in (_LONG, _SHORT)}
    fin = {seconds: found[f"fin_wait2_{seconds}"] for seconds in (_LONG, _SHORT)}
    return Finding(
        plain={f"seconds_of_{name}": seconds for name, seconds in found.items()},
        hardsock={"requests": _CONNECTIONS, "in_time_wait": pooled},
        shown=wait[_SHORT] > 2 * _SHORT and fin[_SHORT] <= 2 * _SHORT < fin[_LONG] and pooled == 0,
        text=f"With `tcp_fin_timeout` at {_LONG} the kernel was to keep a connection in TIME_WAIT for {wait[_LONG]:.0f} "
        f"s; with it at {_SHORT}, for {wait[_SHORT]:.0f} s. What did change was FIN_WAIT_2, of a connection that the "
        f"peer does not end: {fin[_LONG]:.0f} s, and {fin[_SHORT]:.0f} s. A `Pool` made {_CONNECTIONS} requests and "
        f"had left {pooled} connections in TIME_WAIT.",
        chart=Chart(
            kind="timeline",
            title="How long a closed connection is kept, by tcp_fin_timeout",
            x="seconds",
            bars=[
                Bar(f"TIME_WAIT, at {_LONG}", 0, wait[_LONG], "plain", note=f"{wait[_LONG]:.0f} s"),
                Bar(
                    f"TIME_WAIT, at {_SHORT}",
                    0,
                    wait[_SHORT],
                    "plain",
                    failed=True,
                    note=f"{wait[_SHORT]:.0f} s, too",
                ),
                Bar(f"FIN_WAIT_2, at {_LONG}", 0, fin[_LONG], "plain", note=f"{fin[_LONG]:.0f} s"),
                Bar(
                    f"FIN_WAIT_2, at {_SHORT}", 0, fin[_SHORT], "plain", note=f"{fin[_SHORT]:.0f} s"
                ),
                Bar("TIME_WAIT of a Pool", 0, 0, "hardsock", note="none"),
            ],
        ),
    )


FIN_TIMEOUT = Experiment(
    name="fin-timeout",
    title="The wrong timeout",
    claim="A smaller `tcp_fin_timeout` does not shorten TIME_WAIT, which is sixty seconds in any case.",
    why="TIME_WAIT is a constant of Linux (TCP_TIMEWAIT_LEN), so that late packets of a connection do not come into "
    "the next one of the same ports (RFC 9293, 3.6.1). `tcp_fin_timeout` is for connections that this side has "
    "closed and the other has not (FIN_WAIT_2, tcp(7)): a peer that is stuck. The names are alike, and so are "
    "the lists of tips.",
    instead="Close fewer connections: `hs.Pool`. `tcp_tw_reuse` lets a connect take a port in TIME_WAIT after a second; "
    "by default on loopback only, which is why no test shows the lack. `hardsock-tune explain "
    "net.ipv4.tcp_fin_timeout` says what it does.",
    measure=_measure,
    seconds=2,
)
