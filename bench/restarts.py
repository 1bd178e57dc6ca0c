"""Requests that are lost when servers are restarted under load: python -m bench.restarts [TIMES].

The listening socket stays, as systemd keeps it: each server is given its descriptor, gets SIGTERM,
and is started again when it has ended. nginx has a socket of its own, and is reloaded instead. Eight
clients keep their connections, and go by "Connection: close"; a request that got no whole answer is
lost, wherever it was: also where a kept connection was closed while the request was on its way, which
a client may repeat (RFC 9112, 9.3.1). "Told": from SIGTERM on all answers say "Connection: close",
and the drain begins a second later, as docs/deploying.md has it. Beside it, the longest that a client waited: for the start of the next process,
but for nginx.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from . import build
from .drivers._http import BODY

CLIENTS = 8
BETWEEN = 0.5
LAG = "1"
PATIENCE = 60.0
ROOT = Path(__file__).resolve().parent.parent

OURS = """
import asyncio, signal, sys, threading
import hardsock as hs
from hardsock import aio
from bench.drivers._http import BODY, END

KIND, LAG, FD = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
leaving = threading.Event()

def answer():
    told = leaving.is_set() or hs.draining().cancelled
    close = b"Connection: close\\r\\n" if told else b""
    return b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n%s\\r\\n" % (len(BODY), close) + BODY

def handler(conn):
    conn.recv_until(END)
    over = leaving.is_set()
    conn.sendall(answer())
    if over:
        conn.close_write()

async def awaited(conn):
    over = False
    while not over:
        await conn.recv_until(END, token=hs.draining())
        over = leaving.is_set()
        await conn.sendall(answer())

def leave_later(server):
    def leave(*_signal):
        leaving.set()
        threading.Timer(LAG, server.stop).start()
    if LAG:
        signal.signal(signal.SIGTERM, leave)

async def main(listener):
    async with aio.serve(awaited, listener, max_connections=1000, drain_timeout=30) as server:
        leave_later(server)
        await server.wait()

listener = hs.listen(FD)
if KIND == "aio":
    asyncio.run(main(listener))
else:
    with hs.serve(handler, listener, per="message", workers=16, drain_timeout=30) as server:
        leave_later(server)
        server.wait()
"""

APPS = "bench.drivers._http_apps"
PYTHON: dict[str, list[str]] = {
    "hardsock-messages": ["-c", OURS, "messages", "0", "{fd}"],
    "hardsock-messages, told": ["-c", OURS, "messages", LAG, "{fd}"],
    "hardsock-aio": ["-c", OURS, "aio", "0", "{fd}"],
    "hardsock-aio, told": ["-c", OURS, "aio", LAG, "{fd}"],
    "gunicorn": [
        *("-m", "gunicorn", f"{APPS}:wsgi", "--bind", "fd://{fd}", "--workers", "1"),
        *("--worker-class", "gthread", "--threads", "16", "--log-level", "critical"),
    ],
    "uvicorn": ["-m", "uvicorn", f"{APPS}:asgi", "--fd", "{fd}", "--log-level", "critical"],
}


class Load:
    """Clients that ask until the end of the block."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        self.answered = self.lost = 0
        self.longest = 0.0

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        conn = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        while not self._over.is_set():
            begun = time.monotonic()
            try:
                conn.request("GET", "/")  # Connects anew where the last answer said "close".
                good = conn.getresponse().read() == BODY
            except (OSError, http.client.HTTPException):
                conn.close()
                good = False
            with self._lock:
                self.answered += good
                self.lost += not good
                self.longest = max(self.longest, time.monotonic() - begun)
        conn.close()

    def wait_for_more(self, count: int = 200) -> None:
        """Until so many more were answered."""
        until, end = self.answered + count, time.monotonic() + PATIENCE
        while self.answered < until:
            if time.monotonic() > end:
                raise RuntimeError("nobody answers")
            time.sleep(0.01)


def restart(argv: Callable[[int], list[str]], times: int) -> Load:
    """With a socket that stays."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as sock:
        os.set_inheritable(sock.fileno(), True)

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(argv(sock.fileno()), cwd=ROOT, close_fds=False)

        process = start()
        try:
            with Load(sock.getsockname()[1]) as load:
                for _ in range(times):
                    load.wait_for_more()
                    process.terminate()
                    process.wait(PATIENCE)
                    process = start()
                load.wait_for_more()
        finally:
            process.terminate()
            process.wait(PATIENCE)
    return load


def reload_nginx(program: str, times: int) -> Load:
    """Its own way: the master keeps the socket."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "nginx.conf")
        body = BODY.decode().replace("\n", "\\n")
        config.write_text(
            f"daemon off; pid {folder}/pid; error_log stderr crit; events {{}}\n"
            f"http {{ access_log off; server {{ listen 127.0.0.1:{port};\n"
            f'location / {{ return 200 "{body}"; }} }} }}\n'
        )
        with subprocess.Popen([program, "-c", str(config), "-p", folder]) as process:
            try:
                while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
                    time.sleep(0.01)
                with Load(port) as load:
                    for _ in range(times):
                        load.wait_for_more()
                        process.send_signal(signal.SIGHUP)
                        time.sleep(BETWEEN)
                    load.wait_for_more()
            finally:
                process.terminate()
    return load


def main(times: int) -> None:
    """Measure all that are here."""
    print(f"{'server':24} {'restarts':>8} {'answered':>9} {'lost':>6} {'longest wait':>13}")
    runs: dict[str, Callable[[], Load]] = {}
    for name, command in PYTHON.items():
        runs[name] = lambda command=command: restart(  # type: ignore[misc]
            lambda fd: [
                sys.executable,
                *(part.format(fd=fd) if part.endswith("{fd}") else part for part in command),
            ],
            times,
        )
    try:
        go = str(build.go_program())
        runs["go"] = lambda: restart(lambda fd: [go, "http_on_descriptor", str(fd)], times)
    except build.BuildError as error:
        print(f"go: {error}", file=sys.stderr)
    if (nginx := shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")) is not None:
        runs["nginx (reload)"] = lambda: reload_nginx(nginx, times)
    for name, run in runs.items():
        load = run()
        print(
            f"{name:24} {times:8} {load.answered:9,} {load.lost:6} {load.longest:11.3f} s",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
