"""What a server's costs do as its connections grow in number: the figures of docs/scaling.md.

    python -m bench.scaling             # 100 to 19,500 connections: some minutes
    python -m bench.scaling --most 2000 --kind aio-messages

Each line is a server in a process of its own on one CPU, with the clients of peers/http_crowd.c on
another. All connections are opened and asked on once; then 64 requests are on their way at any time,
on connections in a random order, while the others are idle.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hardsock as hs
from hardsock import aio

from . import build, runner
from .drivers import _common, _crowd, _hardsock_http, hardsock_messages, hardsock_threads
from .model import Measure, Placement, Target, Work

SIZES = (100, 1_000, 2_000, 5_000, 10_000, 19_500)
KINDS = ("aio", "aio-uvloop", "aio-messages", "messages", "threads")
MOST_THREADS = 2_000  # a thread for each connection
SECONDS = 2.0
IN_FLIGHT = 64
WORK = Work(
    name="scaling",
    title="scaling",
    measure=Measure.RATE,
    peer_program="http_crowd",
    peer_mode=str(IN_FLIGHT),
    placement=Placement.SPLIT,
    implementations=(),
    goals=(),
)
SETTINGS: dict[str, Any] = {
    "drain_timeout": 30,
    "idle_timeout": 600,  # so that each wait has its time, as in a real server
    "max_connections": 19_800,
    "backlog": _common.BACKLOG,
}


class Measured:
    """One server of ours, and how to ask and drain it from the main thread."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.server: Any
        self.stats: Callable[[], hs.ServerStats]
        self.drain: Callable[[], hs.DrainReport]

    def serve(self, announce: _crowd.Announce) -> None:
        if self._kind in ("threads", "messages"):
            self._serve_in_threads(announce)
        elif self._kind == "aio-uvloop":
            import uvloop

            uvloop.run(self._serve_awaited(announce))
        else:
            asyncio.run(self._serve_awaited(announce))

    def _serve_in_threads(self, announce: _crowd.Announce) -> None:
        settings: dict[str, Any] = {"workers": 64, **SETTINGS}
        handler = hardsock_threads._raw
        if self._kind == "messages":
            settings["per"], handler = "message", hardsock_messages._raw
        with hs.serve(handler, ("127.0.0.1", 0), **settings) as server:
            self.server, self.stats, self.drain = server, server.stats, server.drain
            announce(server.address[1])
            server.wait()

    async def _serve_awaited(self, announce: _crowd.Announce) -> None:
        loop = asyncio.get_running_loop()
        settings, handler = SETTINGS, _hardsock_http._raw
        if self._kind == "aio-messages":
            settings, handler = {**SETTINGS, "per": "message"}, _hardsock_http._raw_message
        async with aio.serve(handler, ("127.0.0.1", 0), **settings) as server:
            self.server, self.stats = server, server.stats
            self.drain = lambda: asyncio.run_coroutine_threadsafe(server.drain(), loop).result(60)
            announce(server.address[1])
            await server.wait()


def kernel_bytes() -> int:
    """What the kernel holds in slabs, of all processes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Slab:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Slab: in meminfo")


def seconds_of(call: Callable[[], object]) -> float:
    """The CPU time of one call: the machine may be busy."""
    begun = time.thread_time()
    call()
    return time.thread_time() - begun


def measure(kind: str, count: int, target: Target) -> dict[str, Any]:
    server = Measured(kind)
    crowd = _crowd.only(target, server.serve)
    crowd.command(f"open {crowd.port} {IN_FLIGHT}")
    user, kernel, cpu = _common.anonymous_bytes(), kernel_bytes(), time.process_time()
    rest = max(1, count - IN_FLIGHT)
    crowd.command(f"open {crowd.port} {rest}")
    opening = (time.process_time() - cpu) / rest
    user, kernel = _common.anonymous_bytes() - user, kernel_bytes() - kernel
    cpu = time.process_time()
    asked = crowd.command(f"ask {SECONDS}")
    request = (time.process_time() - cpu) / asked["ops"]
    latencies = sorted(asked["latencies_ns"])
    stats, collect = (seconds_of(call) for call in (server.stats, gc.collect))
    cpu = time.process_time()
    time.sleep(SECONDS)
    idle = (time.process_time() - cpu) / SECONDS
    report = server.drain()
    return {
        "open_us": opening * 1e6,
        "user_bytes": user / rest,
        "kernel_bytes": kernel / rest / 2,  # the clients' sockets are as large
        "request_us": request * 1e6,
        "p50_us": latencies[len(latencies) // 2] / 1e3,
        "p99_us": latencies[len(latencies) * 99 // 100] / 1e3,
        "stats_ms": stats * 1e3,
        "collect_ms": collect * 1e3,
        "idle_percent": idle * 100,
        "drain_ms": report.elapsed * 1e3,
        "idle_closed": report.idle_closed,
    }


HEADINGS = {
    "open_us": "open, us CPU",
    "user_bytes": "user B",
    "kernel_bytes": "kernel B",
    "request_us": "request, us CPU",
    "p50_us": "p50 us",
    "p99_us": "p99 us",
    "stats_ms": "stats() ms",
    "collect_ms": "gc.collect() ms",
    "idle_percent": "idle, % of a CPU",
    "drain_ms": "drain ms",
}


def run_all(most: int, kinds: Sequence[str] = KINDS) -> None:
    peer_cpus, worker_cpus = runner.cpus_for(Placement.SPLIT)
    print(f"| server | connections | {' | '.join(HEADINGS.values())} |")
    print("|---|" + "---:|" * (len(HEADINGS) + 1))
    for kind in kinds:
        for count in SIZES:
            if count > (min(most, MOST_THREADS) if kind == "threads" else most):
                continue
            with runner.peer(WORK, peer_cpus) as target, runner.on_cpus(worker_cpus):
                argv = [sys.executable, "-m", "bench.scaling", "--one", kind]
                done = subprocess.run(
                    [*argv, str(count), target.host, str(target.port)],
                    cwd=build.ROOT,
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                    timeout=300,
                )
            found = json.loads(done.stdout)
            cells = [f"{found[name]:,.1f}" for name in HEADINGS]
            print(f"| {kind} | {count:,} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="connections at most")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this (repeatable)")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is None:
        run_all(options.most, options.kind or KINDS)
        return
    kind, count, host, port = options.one
    _common.allowed_connections(0)
    print(json.dumps(measure(kind, int(count), Target(host, int(port)))), flush=True)


if __name__ == "__main__":
    main()
