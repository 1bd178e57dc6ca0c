"""A connection for each request pays for the distance twice."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

import hardsock as hs
from hardsock.lab import inside
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.wire import InvalidResult, Wire

_DELAY = 0.04
_REQUESTS = 10
_PORT = 7100


def serve() -> None:
    """One request after the other: until the client ends."""
    with listen(Wire.B, _PORT) as listener:
        listener.settimeout(0.05)
        inside.ready()
        while not inside.should_stop():
            with contextlib.suppress(TimeoutError):
                conn, _ = listener.accept()
                with conn:
                    conn.settimeout(60)
                    while conn.recv(1):
                        conn.sendall(b"a")


def ask(requests: int) -> dict[str, list[float]]:
    """Seconds of each of so many requests, a connection for each of them, and through a pool."""
    took: dict[str, list[float]] = {"plain": [], "hardsock": []}
    for _ in range(requests):
        begin = time.perf_counter()
        with socket.create_connection((Wire.B, _PORT), timeout=60) as sock:
            sock.sendall(b"q")
            sock.recv(1)
        took["plain"].append(time.perf_counter() - begin)
    with hs.Pool((Wire.B, _PORT), max_size=1, reuse="answered") as pool:
        for number in range(requests + 1):
            begin = time.perf_counter()
            with pool.connection(timeout=60) as conn:
                conn.sendall(b"q")
                conn.recv_exactly(1, timeout=60)
            if number:  # The first one dials.
                took["hardsock"].append(time.perf_counter() - begin)
    return took


def _measure() -> Finding:
    invalid = ""
    with Wire(delay=_DELAY, seed=12) as wire:
        with wire.b.start(serve, timeout=120.0) as server:
            server.wait_ready()
            took: dict[str, Any] = wire.a.run(ask, _REQUESTS, timeout=120.0)
        conditions = wire.conditions()
        try:
            wire.judge()
        except InvalidResult as exc:
            invalid = str(exc)
    middle = {side: sorted(values)[len(values) // 2] for side, values in took.items()}
    least = {side: min(values) for side, values in took.items()}
    return Finding(
        plain={"median_seconds": middle["plain"], "least_seconds": least["plain"]},
        hardsock={"median_seconds": middle["hardsock"], "least_seconds": least["hardsock"]},
        shown=least["plain"] >= 4 * _DELAY > least["hardsock"] >= 2 * _DELAY,
        invalid=invalid,
        conditions=conditions,
        text=f"With {_DELAY * 1e3:.0f} ms each way, a request of one byte took "
        f"{middle['plain'] * 1e3:.0f} ms with a connection of its own and "
        f"{middle['hardsock'] * 1e3:.0f} ms with one from a `Pool` (median of {_REQUESTS}; "
        f"{conditions['sysctls']['tcp_congestion_control']}, wire: {conditions['backend']}). With "
        "TLS 1.3 it would be one round trip more, with TLS 1.2 two.",
        chart=Chart(
            kind="percentiles",
            title=f"A request of one byte, {_DELAY * 1e3:.0f} ms away",
            x="requests",
            y="milliseconds",
            lines=[
                Line("a connection each", "plain", [one * 1e3 for one in took["plain"]]),
                Line("hardsock.Pool", "hardsock", [one * 1e3 for one in took["hardsock"]]),
            ],
            limit=(2 * _DELAY * 1e3, "one round trip"),
        ),
    )


FAR_AWAY = Experiment(
    name="far-away",
    title="Every connection begins with a journey",
    claim="A new connection costs a round trip before the first byte, which no faster machine takes "
    "away.",
    why="TCP's handshake is a round trip (RFC 9293 section 3.5); TLS 1.3 adds one, TLS 1.2 two. TCP Fast "
    "Open would spare it, and is dropped by too many boxes on the way to rely on.",
    instead="Keep connections: `hardsock.Pool`. It asks the kernel at each lend whether the peer has "
    "ended the connection meanwhile, which costs no round trip.",
    measure=_measure,
    seconds=5,
)
