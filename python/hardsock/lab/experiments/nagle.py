"""Two small writes and a read: Nagle's algorithm waits for an acknowledgement that is delayed."""

from __future__ import annotations

import socket
import threading
import time

import hardsock as hs
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.namespaces import run_in_namespace

_REQUESTS = 50
_SIZE = 20
# An acknowledgement is delayed by 40 ms or more (tcp(7), TCP_QUICKACK).
_DELAYED = 0.03


def _serve(listener: socket.socket) -> None:
    conn, _ = listener.accept()
    with conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while _read(conn, 2 * _SIZE):
            conn.sendall(b"a" * _SIZE)


def _read(conn: socket.socket, size: int) -> bool:
    while size > 0:
        data = conn.recv(size)
        size -= len(data)
        if not data:
            return False
    return True


def measure_inside() -> dict[str, list[float]]:
    """Seconds of each request, whose head and body are written one after the other."""
    took: dict[str, list[float]] = {"plain": [], "hardsock": []}
    for side in took:
        with listen() as listener:
            server = threading.Thread(target=_serve, args=(listener,))
            server.start()
            address = listener.getsockname()
            if side == "plain":
                with socket.create_connection(address, timeout=10) as sock:
                    for _ in range(_REQUESTS):
                        begin = time.perf_counter()
                        sock.sendall(b"h" * _SIZE)
                        sock.sendall(b"b" * _SIZE)
                        _read(sock, _SIZE)
                        took[side].append(time.perf_counter() - begin)
            else:
                with hs.connect(address, timeout=10) as conn:
                    for _ in range(_REQUESTS):
                        begin = time.perf_counter()
                        conn.sendall(b"h" * _SIZE)
                        conn.sendall(b"b" * _SIZE)
                        conn.recv_exactly(_SIZE)
                        took[side].append(time.perf_counter() - begin)
            server.join()
    return took


def _measure() -> Finding:
    took = run_in_namespace(measure_inside, timeout=60.0)
    late = {side: sum(one > _DELAYED for one in values) for side, values in took.items()}
    median = {side: sorted(values)[len(values) // 2] for side, values in took.items()}
    return Finding(
        plain={"median_seconds": median["plain"], "delayed": late["plain"]},
        hardsock={"median_seconds": median["hardsock"], "delayed": late["hardsock"]},
        shown=late["plain"] > _REQUESTS / 2 and late["hardsock"] < late["plain"] / 2,
        text=f"Of {_REQUESTS} requests, each a head and a body in two writes, {late['plain']} took "
        f"longer than {_DELAYED * 1e3:.0f} ms with a plain socket (median "
        f"{median['plain'] * 1e3:.1f} ms), and {late['hardsock']} with hardsock (median "
        f"{median['hardsock'] * 1e3:.2f} ms). Nothing was busy: both ends waited for each other.",
        chart=Chart(
            kind="percentiles",
            title="A request in two writes, on loopback",
            x="requests",
            y="milliseconds",
            log=True,
            lines=[
                Line("socket", "plain", [one * 1e3 for one in took["plain"]]),
                Line("hardsock", "hardsock", [one * 1e3 for one in took["hardsock"]]),
            ],
            limit=(40, "delayed acknowledgement"),
        ),
    )


NAGLE = Experiment(
    name="nagle",
    title="Forty milliseconds for nothing",
    claim="Two small writes before a read cost 40 ms, by Nagle's algorithm and delayed "
    "acknowledgements together; either alone is harmless.",
    why="Nagle's algorithm (RFC 896) holds a small segment back while an earlier one is not "
    "acknowledged. The receiver delays its acknowledgement (RFC 1122 section 4.2.3.2) in the hope "
    "of an answer to send it with. The answer needs the second segment.",
    instead="hardsock sets TCP_NODELAY on every TCP connection. Better still, on any socket: one "
    "write per message (`sendmsg`, a buffered file). TCP_NODELAY alone makes two packets of it.",
    measure=_measure,
    seconds=4,
)
