"""`python -m bench.observing`: what it costs to look.

Rows, with their goals:

- open_connections: `hs.open_connections()` of 10,000 connections, wall and CPU time; median at most 30 ms.
- report: `hs.report("connections")` and `hs.metrics()` of the same, for comparison.
- p99: of requests of 64 bytes and their answers over one connection of this process, alone and while another
  process asks the inspect socket for all of 200 connections: ten times a second, which is what ten who watch
  ask for, and without a pause; slices alternate. The median of the ratios of a round at most 1.05 at ten times
  a second. Without a pause the asker and the thread that answers it take two CPUs for themselves, and on a
  machine with two there is none left for the one that is measured: told, without a goal.

Goals are judged on a quiet machine: exit status 1 if one is missed.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import hardsock as hs

CONNECTIONS = 10_000
GOAL_SECONDS = 0.030
GOAL_RATIO = 1.05

ASKER = """
import socket, sys, time
with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as file:
    sock.connect(sys.argv[1])
    pause = float(sys.argv[2])
    for line in sys.stdin:
        while True:
            sock.sendall(b"connections\\n")
            if not file.readline():
                break
            sys.stdout.write(".")
            sys.stdout.flush()
            time.sleep(pause)
"""


def timed(call: Callable[[], object], times: int) -> tuple[float, float, float]:
    """Median of wall time, median of CPU time, longest wall time; seconds."""
    wall, cpu = [], []
    for _ in range(times):
        gc.collect()
        at, used = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - at)
        cpu.append(time.process_time() - used)
    return statistics.median(wall), statistics.median(cpu), max(wall)


@contextmanager
def crowd(n: int) -> Iterator[None]:
    """So many connections, and as many of their peers, which are not counted: plain sockets."""
    import socket

    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(4096)
        for _ in range(n):
            stack.enter_context(hs.connect(listener.getsockname()))
            stack.enter_context(listener.accept()[0])
        yield


def listing(n: int, times: int) -> bool:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n = min(n, (hard - 100) // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with crowd(n):
        rows = {
            "open_connections": hs.open_connections,
            'report("connections")': lambda: hs.report("connections"),
            "metrics": hs.metrics,
        }
        found = {name: timed(call, times) for name, call in rows.items()}
    for name, (wall, cpu, most) in found.items():
        scaled = f", for 10,000: {wall * CONNECTIONS / n * 1e3:.1f} ms" if n != CONNECTIONS else ""
        print(
            f"{name:<24} of {n}: median {wall * 1e3:.1f} ms wall, {cpu * 1e3:.1f} ms CPU, "
            f"most {most * 1e3:.1f} ms{scaled}"
        )
    return found["open_connections"][0] * CONNECTIONS / n <= GOAL_SECONDS


def p99(conn: hs.Connection, seconds: float) -> float:
    """Of request and answer, so long."""
    taken = []
    until = time.perf_counter() + seconds
    while (at := time.perf_counter()) < until:
        conn.sendall(b"x" * 64)
        conn.recv_exactly(64, timeout=20)
        taken.append(time.perf_counter() - at)
    return statistics.quantiles(taken, n=100)[98]


@contextmanager
def answering() -> Iterator[hs.Connection]:
    """A connection whose other end is a thread that answers."""
    with hs.listen(("127.0.0.1", 0)) as listener, hs.connect(listener.address) as conn:
        peer = listener.accept()

        def answer() -> None:
            with peer:
                while request := peer.recv(64):
                    peer.sendall(request)

        thread = threading.Thread(target=answer)
        thread.start()
        yield conn
        conn.close()
        thread.join()


def inspected(rounds: int, seconds: float, pause: float) -> float:
    """Rounds of two slices, in the order that changes from one to the next."""
    ratios = []
    with tempfile.TemporaryDirectory() as held, crowd(200), answering() as conn:
        path = hs.inspect(directory=Path(held, "sockets"))
        assert path is not None
        p99(conn, seconds)  # Warm.
        for i in range(rounds):
            found = {}
            for asked in (i % 2 == 0, i % 2 == 1):
                if asked:
                    with subprocess.Popen(
                        [sys.executable, "-c", ASKER, path, str(pause)],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                    ) as asker:
                        assert asker.stdin is not None
                        assert asker.stdout is not None
                        asker.stdin.write("go\n")
                        asker.stdin.flush()
                        assert asker.stdout.read(1) == "."
                        found[asked] = p99(conn, seconds)
                        asker.kill()
                else:
                    found[asked] = p99(conn, seconds)
            ratios.append(found[True] / found[False])
        hs.inspect(False)
    low, middle, high = statistics.quantiles(ratios, n=4)
    how = f"every {pause:g} s" if pause else "without a pause"
    print(f"p99 while asked {how}: {middle:.3f} ({low:.3f}..{high:.3f}) of p99 alone")
    return middle


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="python -m bench.observing", description=__doc__)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--times", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a slice")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, hardsock {hs.__version__}")
    goals = {
        f"open_connections at most {GOAL_SECONDS * 1e3:.0f} ms": listing(
            options.connections, options.times
        ),
        f"p99 while asked ten times a second at most {GOAL_RATIO}": inspected(
            options.rounds, options.seconds, 0.1
        )
        <= GOAL_RATIO,
    }
    inspected(options.rounds, options.seconds, 0.0)
    for text, met in goals.items():
        print(f"goal {'met' if met else 'MISSED'}: {text}")
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
