"""`python -m bench.loops`: servers on hardsock's event loop, beside asyncio's own and uvloop.

Each server is a process of its own on one CPU, with the clients of peers/http_crowd.c on another: 32
requests are on their way at any time. "kept": on connections that stay. "new": connect, one request,
end. Rounds alternate between the loops; the ratios are medians of the rounds' ratios, ours to
asyncio's and to uvloop's. CPU is the time of the server's process per request, and says more than the
rate does on a machine with other work to do. Go by it: the goal is less than asyncio's, and at most
1 / 0.9 of uvloop's.

raw: a protocol that finds the end of a head and answers. streams: the same by asyncio's streams.
uvicorn: httptools, the smallest ASGI application. aiohttp: aiohttp.web, the smallest handler.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import build, runner
from .drivers import _common, _http, _http_apps, _streams_http
from .model import Measure, Placement, Target, Work

LOOPS = ("hardsock", "asyncio", "uvloop")
SERVERS = ("raw", "streams", "uvicorn", "aiohttp")
IN_FLIGHT = 32
WORK = Work(
    name="loops",
    title="loops",
    measure=Measure.RATE,
    peer_program="http_crowd",
    peer_mode=str(IN_FLIGHT),
    placement=Placement.SPLIT,
    implementations=(),
    goals=(),
)


# ---- the server's process


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    if name == "hardsock":
        from hardsock.aio.loop import EventLoop

        return EventLoop()
    return asyncio.new_event_loop()


class Raw(asyncio.Protocol):
    """Answers each head that comes in one piece."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(_http.END):
            self._transport.write(_http.ANSWER)


async def serve_raw(sock: socket.socket) -> None:
    server = await asyncio.get_running_loop().create_server(Raw, sock=sock, backlog=4096)
    await server.serve_forever()


async def serve_streams(sock: socket.socket) -> None:
    server = await asyncio.start_server(_streams_http._raw, sock=sock, backlog=4096)
    await server.serve_forever()


async def serve_uvicorn(sock: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        _http_apps.asgi,
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=3600,
    )
    await uvicorn.Server(config).serve(sockets=[sock])


async def serve_aiohttp(sock: socket.socket) -> None:
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=_http.BODY)

    app = web.Application()
    app.router.add_get("/", answer)
    started = web.AppRunner(app, access_log=None, keepalive_timeout=3600)
    await started.setup()
    await web.SockSite(started, sock, backlog=4096).start()
    await asyncio.Event().wait()


SERVE: dict[str, Callable[[socket.socket], Coroutine[Any, Any, None]]] = {
    "raw": serve_raw,
    "streams": serve_streams,
    "uvicorn": serve_uvicorn,
    "aiohttp": serve_aiohttp,
}


def be_server(loop_name: str, server: str) -> None:
    """Print the port, and serve until the parent ends it."""
    _common.allowed_connections(0)
    loop = new_loop(loop_name)
    asyncio.set_event_loop(loop)
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as sock:
        print(sock.getsockname()[1], flush=True)
        loop.run_until_complete(SERVE[server](sock))


# ---- the clients'


class Side:
    """One server, and the crowd's process that asks it."""

    def __init__(self, opened: ExitStack, loop: str, server: str, target: Target) -> None:
        argv = [sys.executable, "-m", "bench.loops", "--serve", loop, server]
        process = subprocess.Popen(argv, cwd=build.ROOT, stdout=subprocess.PIPE)
        opened.callback(process.wait)
        opened.callback(process.kill)
        assert process.stdout is not None
        opened.callback(process.stdout.close)
        port = int(process.stdout.readline())
        self._statistics = Path(f"/proc/{process.pid}/schedstat")
        control = opened.enter_context(socket.create_connection((target.host, target.port)))
        self._control = opened.enter_context(control.makefile("rwb"))
        self._command(f"open {port} {IN_FLIGHT}")

    def _command(self, text: str) -> dict[str, Any]:
        self._control.write(text.encode() + b"\n")
        self._control.flush()
        answer: dict[str, Any] = json.loads(self._control.readline())
        return answer

    def _cpu(self) -> int:
        return int(self._statistics.read_text().split()[0])

    def slice(self, what: str, seconds: float) -> tuple[float, float]:
        """Requests per second, and the server's CPU time for each, in microseconds."""
        before = self._cpu()
        done = self._command(f"{what} {seconds}")
        return done["ops"] / (done["ns"] / 1e9), (self._cpu() - before) / done["ops"] / 1e3


def compare(server: str, kind: str, options: argparse.Namespace) -> Iterator[str]:
    peer_cpus, worker_cpus = runner.cpus_for(Placement.SPLIT)
    what = "ask" if kind == "kept" else "churn"
    with ExitStack() as opened:
        target = opened.enter_context(runner.peer(WORK, peer_cpus))
        with runner.on_cpus(worker_cpus):
            sides = {loop: Side(opened, loop, server, target) for loop in LOOPS}
        found: dict[str, list[tuple[float, float]]] = {loop: [] for loop in LOOPS}
        for number in range(options.rounds + 1):
            for loop in LOOPS if number % 2 else reversed(LOOPS):
                measured = sides[loop].slice(what, options.seconds)
                if number:  # The first warms up.
                    found[loop].append(measured)
        for other in LOOPS[1:]:
            pairs = list(zip(found["hardsock"], found[other], strict=True))
            rate = statistics.median(ours[0] / theirs[0] for ours, theirs in pairs)
            cpu = statistics.median(ours[1] / theirs[1] for ours, theirs in pairs)
            yield f"rate {rate:.2f}, CPU {cpu:.2f} of {other}'s"
        yield f"{statistics.median(cpu for _, cpu in found['hardsock']):.1f} us"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.loops", description=__doc__)
    parser.add_argument("--only", choices=SERVERS, action="append", help="(repeatable)")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a slice")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        with contextlib.suppress(KeyboardInterrupt):
            be_server(*options.serve)
        return
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for server in options.only or SERVERS:
        for kind in ("kept", "new"):
            print(f"{server:<8} {kind:<5} {'; '.join(compare(server, kind, options))}", flush=True)


if __name__ == "__main__":
    main()
