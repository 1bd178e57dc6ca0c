"""A connection that was kept, and that the server has ended meanwhile."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from typing import Any

import hardsock as hs
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.namespaces import run_in_namespace

_REQUESTS = 20
_KEPT = 0.02
"""Seconds of quiet after which the server ends a connection."""
_PATIENCE = 60.0


class _Server:
    """Answers, and ends a connection on which nothing has come for a while, as all servers do."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.ended = threading.Semaphore(0)
        """Counts the connections that it has ended."""
        self.answered = 0

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                conn, _ = self.listener.accept()
                with conn:
                    self._serve(conn)
                self.ended.release()

    def _serve(self, conn: socket.socket) -> None:
        conn.settimeout(_PATIENCE)
        with contextlib.suppress(OSError):
            while conn.recv(1):
                conn.sendall(b"a")
                self.answered += 1
                conn.settimeout(_KEPT)

    def wait_until_ended(self) -> None:
        """What the client does between two requests: think for longer than the server keeps it."""
        if not self.ended.acquire(timeout=_PATIENCE):
            raise TimeoutError("the server does not end its connection")


def _ask_plainly(pool: queue.LifoQueue[socket.socket], address: tuple[str, int]) -> bool:
    """With what a queue has, or a new connection; it goes back if it has served."""
    try:
        sock = pool.get_nowait()
    except queue.Empty:
        sock = socket.create_connection(address, timeout=_PATIENCE)
    try:
        sock.sendall(b"q")
        answered = sock.recv(1) == b"a"
    except OSError:
        answered = False
    if answered:
        pool.put(sock)
    else:
        sock.close()
    return answered


def measure_inside() -> dict[str, list[bool]]:
    """Per side: which requests were answered."""
    found: dict[str, list[bool]] = {"plain": [], "hardsock": []}
    with listen() as listener:
        server = _Server(listener)
        thread = threading.Thread(target=server.run)
        thread.start()
        address = listener.getsockname()
        idle: queue.LifoQueue[socket.socket] = queue.LifoQueue()
        for _ in range(_REQUESTS):
            found["plain"].append(_ask_plainly(idle, address))
            if found["plain"][-1]:
                server.wait_until_ended()
        while not idle.empty():
            idle.get().close()
        with hs.Pool(address, max_size=1, reuse="answered") as pool:
            for _ in range(_REQUESTS):
                with pool.connection(timeout=_PATIENCE) as conn:
                    conn.sendall(b"q")
                    found["hardsock"].append(conn.recv_exactly(1, timeout=_PATIENCE) == b"a")
                server.wait_until_ended()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    return found


def _sums(answered: list[bool]) -> list[tuple[int, int]]:
    return [(number, sum(answered[:number])) for number in range(len(answered) + 1)]


def _measure() -> Finding:
    found: dict[str, Any] = run_in_namespace(measure_inside, timeout=240.0)
    plain, ours = (sum(found[side]) for side in ("plain", "hardsock"))
    return Finding(
        plain={"requests": _REQUESTS, "answered": plain},
        hardsock={"requests": _REQUESTS, "answered": ours},
        shown=plain <= _REQUESTS / 2 and ours == _REQUESTS,
        text=f"A server that ends a connection after {_KEPT * 1e3:.0f} ms of quiet, and a client that thinks for "
        f"longer between its requests. With connections kept in a queue, {_REQUESTS - plain} of {_REQUESTS} "
        "requests were sent into one that the server had ended: the write succeeded, and there was no answer. A "
        f"`hs.Pool` looked before it lent one, and all {ours} were answered.",
        chart=Chart(
            kind="lines",
            title="Requests answered, by a server that ends quiet connections",
            x="requests",
            y="answered",
            lines=[
                Line("a queue of sockets", "plain", _sums(found["plain"])),
                Line("hs.Pool", "hardsock", _sums(found["hardsock"])),
            ],
        ),
    )


STALE_KEEPALIVE = Experiment(
    name="stale-keepalive",
    title="Kept for longer than the server does",
    claim="Who keeps connections for longer than the server does sends requests into connections that are over, "
    "and the write says nothing.",
    why="The server's FIN lies in the client's kernel; writing to a connection whose other direction has ended is "
    "allowed (RFC 9293, 3.6), so the request goes out, and is answered by a reset. Whether it was carried "
    "out is then a guess, which is why clients do not dare to send it again.",
    instead="Ask the kernel before a connection is lent, which costs no packet: `hs.Pool` does. Keep them for "
    "less time than the server (`idle_timeout`). What is ended in the moment of the request still "
    "fails: `conn.retry_is_safe` says whether nothing can have been done.",
    measure=_measure,
    seconds=4,
)
