"""A thread for each of two thousand connections: with work for all they are in each other's way."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import socketserver
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import hardsock as hs
from hardsock.lab import inside
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.namespaces import Namespace
from hardsock.lab.unavailable import Unavailable

_CLIENTS, _WORKERS = 2000, 8
_STEPS = 2000
"""Of the work for a request: some tens of microseconds of Python."""
_REQUEST, _BEGIN, _END = b"question", b"measure!", b"measured"
_SIZE = len(_REQUEST)
_STACK = 256 << 10
_PATIENCE = 120.0
_SO_TIMESTAMPING_NEW = 65
_SOFTWARE_STAMPS = 1 << 3 | 1 << 4


class _Waits:
    """Seconds that requests lay in the kernel's queue, and processor time, between two marks."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float, float]] = []
        self.count, self.seconds = 0, 0.0
        self.lock = threading.Lock()
        self.read: Callable[[], tuple[float, float]] = lambda: (self.count, self.seconds)
        """How many were measured until now, and their sum."""

    def add(self, seconds: float) -> None:
        with self.lock:
            self.count += 1
            self.seconds += seconds

    def mark(self) -> None:
        self.marks.append((time.process_time(), *self.read()))

    def result(self) -> dict[str, float]:
        cpu, count, seconds = (b - a for a, b in zip(*self.marks, strict=True))
        return {"cpu": cpu, "waited": seconds / max(1, count)}


_waits = _Waits()


def _work(request: bytes) -> bytes:
    """What both servers do for a request."""
    if request in (_BEGIN, _END):
        _waits.mark()
    total = 0
    for number in range(_STEPS):
        total += number
    return request


class _Plain(socketserver.ThreadingTCPServer):
    """The standard library's: a thread for each connection."""

    request_queue_size = _CLIENTS
    daemon_threads = True
    block_on_close = False


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING_NEW, _SOFTWARE_STAMPS)
        while True:
            data, control, _flags, _address = self.request.recvmsg(_SIZE, 128)
            if not data:
                return
            if control:
                seconds, nanoseconds = struct.unpack_from("=qq", control[0][2])
                _waits.add(time.time() - seconds - nanoseconds / 1e9)
            self.request.sendall(_work(data))


def _answer(conn: hs.Connection) -> None:
    conn.sendall(_work(conn.recv_exactly(_SIZE, timeout=_PATIENCE)), timeout=_PATIENCE)


def _make_room() -> None:
    """Let this process have a descriptor for each of them."""
    wanted = _CLIENTS + 200
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        raise Unavailable(f"the hard limit of descriptors is {hard}, below {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def serve(side: str) -> dict[str, float]:
    """Until told to stop; what the requests waited, and what the server computed."""
    _make_room()
    threading.stack_size(_STACK)
    if side == "hardsock":
        with hs.serve(
            _answer, ("127.0.0.1", 0), per="message", workers=_WORKERS, measure_delays=True,
            max_connections=_CLIENTS, drain_timeout=10,
        ) as server:  # fmt: skip

            def read() -> tuple[float, float]:
                queue = server.stats().delays["queue"]
                return queue.total, queue.seconds

            _waits.read = read
            inside.ready(server.address[1])
            inside.wait_for_stop()
            return _waits.result()
    with _Plain(("127.0.0.1", 0), _Handler) as plain:
        serving = threading.Thread(target=plain.serve_forever, args=(0.05,))
        serving.start()
        inside.ready(plain.server_address[1])
        inside.wait_for_stop()
        plain.shutdown()
        serving.join()
    return _waits.result()


class _Crowd:
    """Clients that all ask at the same moment; one thread plays them."""

    def __init__(self, port: int, stack: ExitStack) -> None:
        self._poller = select.epoll()
        stack.callback(self._poller.close)
        self._clients: list[socket.socket] = []
        self._asked: dict[int, float] = {}
        self.took: list[float] = []
        for _ in range(_CLIENTS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), _PATIENCE))
            self._clients.append(client)
            self._poller.register(client, select.EPOLLIN)
            self._ask(client)  # So that it has its thread, if it is to have one.
            self._take_all()
        self._ask(self._clients[0], _BEGIN)
        self._take_all()
        self.took.clear()

    def run(self, server: int) -> None:
        """Ask while the process *server* stands still, so that it finds all of them at once."""
        os.kill(server, signal.SIGSTOP)
        try:
            for client in self._clients:
                self._ask(client)
            self._asked = dict.fromkeys(self._asked, time.monotonic())
        finally:
            os.kill(server, signal.SIGCONT)
        self._take_all()
        self._ask(self._clients[0], _END)
        self._take_all()
        self.took.pop()

    def _ask(self, client: socket.socket, request: bytes = _REQUEST) -> None:
        self._asked[client.fileno()] = time.monotonic()
        client.send(request)

    def _take_all(self) -> None:
        until = time.monotonic() + _PATIENCE
        while self._asked:
            if time.monotonic() > until:
                raise TimeoutError(f"{len(self._asked)} clients were never answered")
            for fd, _ in self._poller.poll(1.0):
                if not os.read(fd, _SIZE):
                    raise ConnectionError("the server has ended a connection")
                self.took.append(time.monotonic() - self._asked.pop(fd))


def ask(port: int, server: int) -> list[float]:
    """Seconds until each answer since the server could begin, the shortest first."""
    _make_room()
    with ExitStack() as stack:
        crowd = _Crowd(port, stack)
        crowd.run(server)
        return sorted(crowd.took)


def _curve(values: list[float]) -> list[float]:
    """Milliseconds at a hundred shares: what is drawn."""
    return [1e3 * values[round(share / 100 * (len(values) - 1))] for share in range(101)]


def _doubt(costly: bool, slower: bool) -> str:
    """Why nothing can be said: processor time is a server's own, answers wait for others as well."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "this Python has no interpreter lock for threads to wait for"
    if costly != slower:
        return "processor time and answers contradict each other: the machine was busy with others"
    return ""


def _measure() -> Finding:
    took: dict[str, list[float]] = {}
    figures: dict[str, dict[str, float]] = {}
    for side in ("plain", "hardsock"):
        with Namespace() as home, home.start(serve, side, timeout=300.0) as server:
            took[side] = home.run(ask, server.wait_ready(), server.pid, timeout=300.0)
            of_server = server.stop()
        figures[side] = {
            "requests": len(took[side]),
            "median_seconds": took[side][len(took[side]) // 2],
            "longest_seconds": took[side][-1],
            "mean_seconds_in_the_kernels_queue": of_server["waited"],
            "processor_seconds": of_server["cpu"],
        }
    plain, ours = figures["plain"], figures["hardsock"]
    costly = plain["processor_seconds"] > 3 * ours["processor_seconds"]
    slower = plain["median_seconds"] > 2 * ours["median_seconds"]
    return Finding(
        plain=plain,
        hardsock=ours,
        shown=costly and slower,
        invalid=_doubt(costly, slower),
        text=f"{_CLIENTS:,} requests were there at the same moment, for some tens of microseconds "
        "of Python each. With a thread per connection half of the answers took longer than "
        f"{plain['median_seconds']:.2f} s, and the last {plain['longest_seconds']:.1f} s; a request lay in the "
        f"kernel's queue for {plain['mean_seconds_in_the_kernels_queue']:.2f} s on average until its thread took "
        f"it, and the server computed for {plain['processor_seconds']:.1f} s. With {_WORKERS} threads and parked "
        f"connections it was {ours['median_seconds']:.2f} s, {ours['longest_seconds']:.1f} s, "
        f"{ours['mean_seconds_in_the_kernels_queue']:.2f} s, and {ours['processor_seconds']:.1f} s of processor "
        "time for the same work.",
        chart=Chart(
            kind="percentiles",
            title=f"{_CLIENTS:,} requests are there at the same moment",
            x="requests",
            y="milliseconds",
            log=True,
            lines=[
                Line("a thread per connection", "plain", _curve(took["plain"])),
                Line(f"parked, {_WORKERS} threads", "hardsock", _curve(took["hardsock"])),
            ],
        ),
    )


THREAD_COLLAPSE = Experiment(
    name="thread-collapse",
    title="Two thousand threads and one lock",
    claim="A thread for each connection works until many have something to do at the same moment: then they "
    "take the processor from each other, and do little with it.",
    why="Python runs one thread at a time. Each of those that have a request waits for the interpreter's lock, "
    "wakes up every 5 ms to ask for it (`sys.getswitchinterval`), and is put to sleep again: with two thousand "
    "of them that is most of what the machine does. Neither the load average of a quiet hour nor the age of "
    "connections tells of it; how long requests lie in the kernel's queue until a thread takes them does.",
    instead='`hs.serve(..., per="message", workers=8)`: a quiet connection has no thread, and what is ready '
    "waits in a queue instead of for a lock. Or an event loop: `aio.serve`. `measure_delays=True` shows "
    "how long requests lie in the queue and threads wait for the lock (`stats().delays`).",
    measure=_measure,
    seconds=20,
    is_short=False,
)
