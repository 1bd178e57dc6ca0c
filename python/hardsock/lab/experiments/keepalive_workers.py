"""Clients that keep their connections, and a server with fewer threads than clients."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from hardsock.adapters.socketserver import Mixin
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.namespaces import run_in_namespace

_WORKERS, _CLIENTS = 8, 64
_KEPT = 0.75
"""Seconds that a client keeps its connection after the answer."""
_BACKLOG = 2 * _CLIENTS
_PATIENCE = 60.0
_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
_ANSWER = b"hello"


class _Handler(BaseHTTPRequestHandler):
    """Of both servers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(_ANSWER)))
        self.end_headers()
        self.wfile.write(_ANSWER)

    def log_message(self, *_arguments: object) -> None:
        pass


class _Plain(HTTPServer):
    """The usual recipe for a bounded number of threads: each works for a connection to its end."""

    request_queue_size = _BACKLOG

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._threads = ThreadPoolExecutor(_WORKERS)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._threads.submit(self._work, request, client_address)

    def _work(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        finally:
            self.shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        self._threads.shutdown()


class _Ours(Mixin, HTTPServer):
    """The same number of threads at work; one that waits for its client is at no work."""

    request_queue_size = _BACKLOG
    workers = _WORKERS
    max_connections = _CLIENTS


class _Crowd:
    """Clients that ask once and stay for a while; one thread plays all of them."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.answered: list[float] = []
        self.left: list[float] = []
        self.stood_still = 0.0
        """By how much this thread was late, at worst."""
        self._address = address
        self._leave: dict[socket.socket, float] = {}

    def knock(self) -> None:
        """Wait until the server serves."""
        with socket.create_connection(self._address, _PATIENCE) as client:
            client.sendall(_REQUEST)
            client.recv(1)

    def run(self) -> None:
        with selectors.DefaultSelector() as selector, ExitStack() as stack:
            for _ in range(_CLIENTS):
                client = stack.enter_context(socket.create_connection(self._address, _PATIENCE))
                client.sendall(_REQUEST)
                selector.register(client, selectors.EVENT_READ, bytearray())
            begin = time.monotonic()
            while len(self.left) < _CLIENTS and time.monotonic() - begin < _PATIENCE:
                self._turn(selector, begin)

    def _turn(self, selector: selectors.BaseSelector, begin: float) -> None:
        asked = time.monotonic()
        wait = min([*self._leave.values(), asked + _PATIENCE]) - asked
        ready = selector.select(max(0.0, wait))
        now = time.monotonic()
        self.stood_still = max(self.stood_still, now - asked - max(0.0, wait))
        for key, _ in ready:
            client: Any = key.fileobj
            key.data.extend(client.recv(4096))
            if key.data.endswith(b"\r\n\r\n" + _ANSWER):
                self.answered.append(now - begin)
                self._leave[client] = now + _KEPT
        for client, when in list(self._leave.items()):
            if when <= now:
                del self._leave[client]
                selector.unregister(client)
                client.close()
                self.left.append(now - begin)


def measure_inside() -> dict[str, Any]:
    """Per side: when each client was answered, and when the first of them left."""
    found = {}
    for side, kind in (("plain", _Plain), ("hardsock", _Ours)):
        with kind(("127.0.0.1", 0), _Handler) as server:
            serving = threading.Thread(target=server.serve_forever, args=(0.05,))
            serving.start()
            crowd = _Crowd(server.socket.getsockname())
            try:
                crowd.knock()
                crowd.run()
            finally:
                server.shutdown()
                serving.join()
        found[side] = {
            "answered": crowd.answered,
            "first_left": min(crowd.left, default=_PATIENCE),
            "stood_still": crowd.stood_still,
        }
    return found


def _at_once(side: dict[str, Any]) -> int:
    """How many had their answer before anybody had left."""
    return sum(when < side["first_left"] for when in side["answered"])


def _steps(answered: list[float], end: float) -> list[tuple[float, int]]:
    points = [(0.0, 0)]
    for number, when in enumerate(answered):
        points += [(when, number), (when, number + 1)]
    return [*points, (end, len(answered))]


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=180.0)
    plain, ours = found["plain"], found["hardsock"]
    at_once = {side: _at_once(one) for side, one in found.items()}
    last = {side: max(one["answered"], default=0.0) for side, one in found.items()}
    late = max(one["stood_still"] for one in found.values())
    end = max(last.values())
    return Finding(
        plain={"answered_before_any_left": at_once["plain"], "last_answer_seconds": last["plain"]},
        hardsock={
            "answered_before_any_left": at_once["hardsock"],
            "last_answer_seconds": last["hardsock"],
        },
        shown=at_once["plain"] <= _WORKERS and at_once["hardsock"] >= _CLIENTS / 2,
        invalid=""
        if late < _KEPT
        else f"the clients stood still for {late:.2f} s, and stay for {_KEPT:g} s only",
        text=f"{_CLIENTS} clients asked once each and kept their connections for {_KEPT:g} s; a server of "
        f"`http.server` had {_WORKERS} threads, each for a connection. {at_once['plain']} clients were "
        "answered; the others waited, beside threads that did nothing, until one of those had left: the last "
        f"for {last['plain']:.1f} s. With the same handler and the same {_WORKERS} threads at work, but with "
        f"hardsock's `Mixin` before the server's class, {at_once['hardsock']} were answered before anybody "
        f"had left, the last after {last['hardsock'] * 1e3:.0f} ms.",
        chart=Chart(
            kind="lines",
            title=f"{_CLIENTS} clients that stay, {_WORKERS} threads: how many are answered",
            x="seconds",
            y="clients",
            lines=[
                Line("a thread per connection", "plain", _steps(plain["answered"], end)),
                Line("hardsock, same handler", "hardsock", _steps(ours["answered"], end)),
            ],
            limit=(_WORKERS, f"{_WORKERS} threads"),
        ),
    )


KEEPALIVE_WORKERS = Experiment(
    name="keepalive-workers",
    title="Threads that wait for quiet clients",
    claim="Keep-alive clients that say nothing starve a server with a bounded number of threads: it has "
    "nothing to do, and answers nobody.",
    why="A thread that serves a connection to its end spends most of its time in `recv`, waiting for a "
    "request that may never come. As many quiet clients as there are threads are an outage, with a "
    "processor that idles: browsers, pools of clients and load balancers all keep connections on purpose.",
    instead="Do not wait with a thread. `hs.serve` gives the place of a handler that waits for its client to "
    'the next one, and with `per="message"` a quiet connection has no thread at all; `idle_timeout` '
    "bounds how long it may stay. Without hardsock: an event loop, or a server that parks quiet "
    "connections, as gunicorn's gthread does; a short keep-alive timeout alone only shortens the wait.",
    measure=_measure,
    seconds=8,
)
