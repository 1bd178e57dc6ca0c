"""`python3.13t -m bench.freethreaded`: what a second thread is worth where there is no global lock.

Each work is done by one thread and by two, in slices that alternate; the number is how much two get done
of what one does, the median of the rounds. Works:

- pool: `acquire` and `release` at one pool that all threads share.
- tokens: a child of one token that all threads share, made and cancelled.
- streams: 64 bytes there and back through a pair of sockets of the thread's own.
- socket: the same with `socket`, and arithmetic: neither has anything in common with another thread but the
  interpreter, so they tell what it and this machine can give at all.

The goal is 1.8 for the first three, on two CPUs of which nobody else wants any. Exit status 1: missed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import hardsock as hs

from .stats import Spread

GOAL = 1.8
BATCH = 50  # calls between two looks at the clock
MESSAGE = b"x" * 64

Step = Callable[[], object]
Maker = Callable[[ExitStack, int], list[Step]]


@contextmanager
def echo_server() -> Iterator[tuple[str, int]]:
    """Takes connections and keeps them."""
    with hs.listen(("127.0.0.1", 0)) as listener, ExitStack() as kept:

        def take() -> None:
            with contextlib.suppress(hs.Closed):
                while True:
                    kept.enter_context(listener.accept())

        thread = threading.Thread(target=take)
        thread.start()
        yield listener.getsockname()
        listener.close()
        thread.join()


def make_pool(stack: ExitStack, threads: int) -> list[Step]:
    pool = stack.enter_context(hs.Pool(stack.enter_context(echo_server()), max_size=8))

    def one() -> Step:
        def step() -> None:
            pool.release(pool.acquire())

        return step

    return [one() for _ in range(threads)]


def make_tokens(stack: ExitStack, threads: int) -> list[Step]:
    parent = hs.CancelToken()

    def one() -> Step:
        def step() -> None:
            parent.child().cancel()

        return step

    return [one() for _ in range(threads)]


def make_streams(stack: ExitStack, threads: int) -> list[Step]:
    def one() -> Step:
        left, right = (stack.enter_context(hs.adopt(end)) for end in socket.socketpair())

        def step() -> None:
            left.sendall(MESSAGE, timeout=30)
            right.recv(64, timeout=30)
            right.sendall(MESSAGE, timeout=30)
            left.recv(64, timeout=30)

        return step

    return [one() for _ in range(threads)]


def make_socket(stack: ExitStack, threads: int) -> list[Step]:
    def one() -> Step:
        left, right = (stack.enter_context(end) for end in socket.socketpair())

        def step() -> None:
            left.sendall(MESSAGE)
            right.recv(64)
            right.sendall(MESSAGE)
            left.recv(64)

        return step

    return [one() for _ in range(threads)]


def make_arithmetic(stack: ExitStack, threads: int) -> list[Step]:
    def one() -> Step:
        def step() -> None:
            number = 1
            for _ in range(20):
                number = number * 3 % 1021

        return step

    return [one() for _ in range(threads)]


WORKS: dict[str, tuple[Maker, bool]] = {
    "arithmetic": (make_arithmetic, False),
    "socket": (make_socket, False),
    "streams": (make_streams, True),
    "tokens": (make_tokens, True),
    "pool": (make_pool, True),
}


def rate(steps: list[Step], seconds: float) -> float:
    """Calls in a second, of all threads together."""
    counts = [0.0] * len(steps)
    together = threading.Barrier(len(steps))

    def run(at: int) -> None:
        step, done = steps[at], 0
        together.wait()
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            for _ in range(BATCH):
                step()
            done += BATCH
        counts[at] = done / (time.perf_counter() - began)

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(steps))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3.13t -m bench.freethreaded", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=0.2, help="of one slice")
    args = parser.parse_args()
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        print(
            "this interpreter has a global lock, or something has switched it on", file=sys.stderr
        )
        return 2
    version = sys.version.split()[0]
    load = os.getloadavg()[0]
    print(f"load {load:.1f} on {os.cpu_count()} cores, hardsock {hs.__version__}, {version}t")
    missed = False
    for name, (make, has_goal) in WORKS.items():
        with ExitStack() as stack:
            one, two = make(stack, 1), make(stack, 2)
            ratios, costs = [], []
            for _ in range(args.rounds):
                alone = rate(one, args.seconds)
                ratios.append(rate(two, args.seconds) / alone)
                costs.append(1e6 / alone)
        found, cost = Spread.of(ratios), Spread.of(costs)
        goal = (
            "" if not has_goal else f"  goal {GOAL}: {'met' if found.median >= GOAL else 'MISSED'}"
        )
        print(
            f"{name:<11} two threads do {found.median:.2f} ({found.q1:.2f}..{found.q3:.2f}) "
            f"of one, which takes {cost.median:.2f} us{goal}"
        )
        missed |= has_goal and found.median < GOAL
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
