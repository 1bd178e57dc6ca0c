"""One path in five forgets to give its connection back."""

from __future__ import annotations

import contextlib
import gc
import queue
import socket
import threading
import warnings
from typing import Any

import hardsock as hs
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.namespaces import run_in_namespace
from hardsock.lab.waits import poll_until

_SIZE, _REQUESTS, _FORGETS = 10, 100, 5
_PATIENCE = 0.2


def _answer(listener: socket.socket) -> None:
    def one(conn: socket.socket) -> None:
        with conn, contextlib.suppress(OSError):
            while conn.recv(1):
                conn.sendall(b"a")

    threads = []
    with contextlib.suppress(OSError):
        while True:
            conn, _ = listener.accept()
            threads.append(threading.Thread(target=one, args=(conn,)))
            threads[-1].start()
    for thread in threads:
        thread.join()


def _plain(address: tuple[str, int]) -> tuple[int, list[tuple[int, int]]]:
    """Requests that were answered, and how many connections were out after each."""
    lost: list[socket.socket] = []  # The objects live on in a cache, a task, a traceback.
    pool: queue.LifoQueue[socket.socket] = queue.LifoQueue()
    for _ in range(_SIZE):
        pool.put(socket.create_connection(address, timeout=30))
    out = []
    for number in range(1, _REQUESTS + 1):
        try:
            conn = pool.get(timeout=_PATIENCE)
        except queue.Empty:
            break
        conn.sendall(b"q")
        conn.recv(1)
        if number % _FORGETS:
            pool.put(conn)
        else:
            lost.append(conn)
        out.append((number, len(lost)))
    for conn in lost:
        conn.close()
    while not pool.empty():
        pool.get().close()
    return len(out), out


def _ours(address: tuple[str, int]) -> tuple[int, list[tuple[int, int]], str]:
    out = []
    said = ""
    with hs.Pool(address, max_size=_SIZE, reuse="answered") as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore", hs.LeakWarning)
        for number in range(1, _REQUESTS + 1):
            conn = pool.acquire(timeout=30)
            conn.sendall(b"q")
            conn.recv_exactly(1, timeout=30)
            if number % _FORGETS:
                pool.release(conn)
            else:
                said = str(pool.lent()[0])
            del conn  # Forgotten: the ledger takes it back.
            gc.collect()
            out.append((number, len(pool.lent())))
        poll_until(lambda: not pool.lent(), 30.0)  # Who frees it may leave it to another thread.
        out[-1] = (len(out), len(pool.lent()))
    return len(out), out, said


def measure_inside() -> dict[str, Any]:
    """Per side: requests answered, and the connections that were out."""
    with listen() as listener:
        server = threading.Thread(target=_answer, args=(listener,))
        server.start()
        address = listener.getsockname()
        found = {"plain": _plain(address), "hardsock": _ours(address)}
        listener.shutdown(socket.SHUT_RDWR)
        server.join()
    return found


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=120.0)
    (plain, plain_out), (ours, ours_out, _said) = found["plain"], found["hardsock"]
    return Finding(
        plain={"requests": plain, "lost": plain_out[-1][1]},
        hardsock={"requests": ours, "lost": ours_out[-1][1]},
        shown=plain == _SIZE * _FORGETS and ours == _REQUESTS and ours_out[-1][1] == 0,
        text=f"A pool of {_SIZE}, and one request in {_FORGETS} does not give its connection back. A "
        f"pool that is a queue was dry after {plain} requests, and could not say who had what. With "
        f"`hardsock.Pool` all {ours} were answered: what is forgotten comes back when its object is "
        "freed, with a `LeakWarning` that names the line; `pool.lent()` says meanwhile who holds what.",
        chart=Chart(
            kind="lines",
            title=f"Connections that are out, of {_SIZE}",
            x="requests",
            y="connections",
            lines=[
                Line("a queue as a pool", "plain", plain_out),
                Line("hardsock.Pool", "hardsock", ours_out),
            ],
            limit=(_SIZE, "dry"),
        ),
    )


POOL_LEAK = Experiment(
    name="pool-leak",
    title="The pool that runs dry",
    claim="A rare path that forgets to give a connection back empties a pool in a time that depends on "
    "the traffic, and then every caller waits.",
    why="A queue of connections does not know what is out. The path is often an error's: an exception "
    "between taking and giving back.",
    instead="`with pool.connection() as conn:` cannot forget. The ledger accounts for every connection: "
    "opened = idle + lent + dialing + closing + closed. What is out for too long is reported with "
    "the line that took it (`leak_after=`, `on_leak=`).",
    measure=_measure,
    seconds=3,
)
