"""`python3.13t -m bench.freethreaded`: what a second thread is worth where there is no global lock.

Each work is done by one thread and by two, in slices that alternate; the number is how much two get done
of what one does, the median of the rounds. Works:

- pool: `acquire` and `release` at one pool that all threads share; pool, own: each has its own.
- tokens: a child of one token that all threads share, made and cancelled; tokens, own: each has its own.
- streams: 64 bytes there and back through a pair of sockets of the thread's own.

The goal is 1.8 for pool, tokens and streams, on two CPUs of which nobody else wants any. Exit status 1:
missed. What they cannot be better than, by the same measure:

- C: the same calls of the core without an interpreter (core/threads.c), shared and own; and arithmetic,
  which shares nothing: what this machine can give at all. Needs make and a C compiler.
- arithmetic: twenty steps in a Python function that all threads call; code of its own: in a copy of that
  function for each, so that nothing is common to them but the interpreter.
- objects: what a token's child is to Python, without hardsock: an object of a class of Python that refers
  to one that all share; own: to one of the thread's own, by code of its own.
- socket: streams with `socket`.

"own" also means code of its own: an interpreter may count references to a function's code where all who
call it look. Each thread has a CPU of its own, and begins its slice when all are there. A slice counts if
none was taken from its CPU meanwhile, so that other work on the machine costs rounds, and not the ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FunctionType

import hardsock as hs

from . import build
from .stats import Spread

GOAL = 1.8
BATCH = 50  # calls between two looks at the clock
MESSAGE = b"x" * 64
LATE = 0.05  # of a slice: so much later than the first the last thread may begin
TRIES = 20  # for each round that is wanted
ENOUGH = 5  # rounds, to say anything

Step = Callable[[], object]


@dataclass(frozen=True)
class Slice:
    """What threads did together: calls in a second, and whether it counts."""

    rate: float
    counts: bool


Measure = Callable[[int, float], Slice]
"""Of so many threads, for so many seconds."""


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


def with_own_code(step: Step) -> Step:
    """A function that does the same, of which nothing but what it refers to is another's."""
    assert isinstance(step, FunctionType)
    code = step.__code__.replace()
    return FunctionType(code, step.__globals__, step.__name__, None, step.__closure__)


# ---- Steps


def pool_steps(stack: ExitStack, threads: int, own: bool) -> list[Step]:
    address = stack.enter_context(echo_server())

    def one(pool: hs.Pool) -> Step:
        def step() -> None:
            pool.release(pool.acquire())

        return step

    pools = [stack.enter_context(hs.Pool(address, max_size=8)) for _ in range(threads)]
    return [one(pools[at if own else 0]) for at in range(threads)]


def token_steps(stack: ExitStack, threads: int, own: bool) -> list[Step]:
    def one(parent: hs.CancelToken) -> Step:
        def step() -> None:
            parent.child().cancel()

        return step

    parents = [hs.CancelToken() for _ in range(threads)]
    return [one(parents[at if own else 0]) for at in range(threads)]


class Child:
    """What refers to something."""

    __slots__ = ("parent",)

    def __init__(self, parent: object) -> None:
        self.parent = parent


def object_steps(stack: ExitStack, threads: int, own: bool) -> list[Step]:
    def one(parent: object) -> Step:
        def step() -> None:
            Child(parent)

        return step

    parents = [Child(None) for _ in range(threads)]
    return [one(parents[at if own else 0]) for at in range(threads)]


def stream_steps(stack: ExitStack, threads: int, own: bool) -> list[Step]:
    def one() -> Step:
        left, right = (stack.enter_context(hs.adopt(end)) for end in socket.socketpair())

        def step() -> None:
            left.sendall(MESSAGE, timeout=30)
            right.recv(64, timeout=30)
            right.sendall(MESSAGE, timeout=30)
            left.recv(64, timeout=30)

        return step

    return [one() for _ in range(threads)]


def socket_steps(stack: ExitStack, threads: int, own: bool) -> list[Step]:
    def one() -> Step:
        left, right = (stack.enter_context(end) for end in socket.socketpair())

        def step() -> None:
            left.sendall(MESSAGE)
            right.recv(64)
            right.sendall(MESSAGE)
            left.recv(64)

        return step

    return [one() for _ in range(threads)]


def arithmetic_steps(stack: ExitStack, threads: int, own: bool) -> list[Step]:
    def step() -> None:
        number = 1
        for _ in range(20):
            number = number * 3 % 1021

    return [step] * threads


# ---- Slices


CPUS = sorted(os.sched_getaffinity(0))


def run_slice(steps: list[Step], seconds: float) -> Slice:
    rates, began, switched = ([0.0] * len(steps) for _ in range(3))
    arrived: list[int] = []

    def run(at: int) -> None:
        os.sched_setaffinity(0, {CPUS[at % len(CPUS)]})  # Of this thread.
        step, done = steps[at], 0
        step()
        arrived.append(at)
        while len(arrived) < len(steps):
            pass
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
        start = began[at] = time.perf_counter()
        while time.perf_counter() - start < seconds:
            for _ in range(BATCH):
                step()
            done += BATCH
        rates[at] = done / (time.perf_counter() - start)
        switched[at] = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw - before

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(steps))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Slice(sum(rates), not any(switched) and max(began) - min(began) <= LATE * seconds)


@contextmanager
def in_python(make: Callable[[ExitStack, int, bool], list[Step]], own: bool) -> Iterator[Measure]:
    with ExitStack() as stack:
        steps = make(stack, 2, own)
        if own:
            steps = [with_own_code(step) for step in steps]
        yield lambda threads, seconds: run_slice(steps[:threads], seconds)


@contextmanager
def in_core(work: str) -> Iterator[Measure]:
    command = [str(build.core_program("threads"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        asked, answers = program.stdin, program.stdout
        assert asked is not None
        assert answers is not None

        def measure(threads: int, seconds: float) -> Slice:
            print(work, threads, seconds, file=asked, flush=True)
            rate, gap_ns, switches = map(float, answers.readline().split())
            return Slice(rate, switches == 0 and gap_ns <= LATE * seconds * 1e9)

        yield measure


@dataclass(frozen=True)
class Work:
    """A line of the table."""

    name: str
    begin: Callable[[], contextlib.AbstractContextManager[Measure]]
    has_goal: bool = False


def in_core_work(name: str, work: str) -> Work:
    return Work(name, lambda: in_core(work))


def in_python_work(
    name: str,
    make: Callable[[ExitStack, int, bool], list[Step]],
    *,
    own: bool = False,
    has_goal: bool = False,
) -> Work:
    return Work(name, lambda: in_python(make, own), has_goal)


WORKS = (
    in_core_work("C: arithmetic", "arithmetic"),
    in_core_work("C: tokens", "tokens"),
    in_core_work("C: tokens, own", "tokens_own"),
    in_core_work("C: pool", "pool"),
    in_core_work("C: pool, own", "pool_own"),
    in_python_work("arithmetic", arithmetic_steps),
    in_python_work("arithmetic, own", arithmetic_steps, own=True),
    in_python_work("objects", object_steps),
    in_python_work("objects, own", object_steps, own=True),
    in_python_work("socket", socket_steps),
    in_python_work("streams", stream_steps, has_goal=True),
    in_python_work("tokens", token_steps, has_goal=True),
    in_python_work("tokens, own", token_steps, own=True),
    in_python_work("pool", pool_steps, has_goal=True),
    in_python_work("pool, own", pool_steps, own=True),
)


def rounds_of(
    measure: Measure, wanted: int, seconds: float
) -> tuple[list[tuple[float, float]], int]:
    """Rates of one and of two threads, of the rounds that count; and of how many."""
    found: list[tuple[float, float]] = []
    tried = 0
    while len(found) < wanted and tried < wanted * TRIES:
        tried += 1
        one, two = measure(1, seconds), measure(2, seconds)
        if one.counts and two.counts:
            found.append((one.rate, two.rate))
    return found, tried


def judge(work: Work, rounds: int, seconds: float) -> bool:
    """Measure and print; whether a goal was missed."""
    with work.begin() as measure:
        found, tried = rounds_of(measure, rounds, seconds)
    if len(found) < ENOUGH:
        print(f"{work.name:<16} {len(found)} of {tried} rounds were undisturbed: nothing is said")
        return work.has_goal
    ratio = Spread.of([two / one for one, two in found])
    cost = Spread.of([1e6 / one for one, _ in found])
    is_missed = work.has_goal and ratio.median < GOAL
    goal = f"  goal {GOAL}: {'MISSED' if is_missed else 'met'}" if work.has_goal else ""
    print(
        f"{work.name:<16} two threads do {ratio.median:.2f} ({ratio.q1:.2f}..{ratio.q3:.2f}) of one, "
        f"which takes {cost.median:.3f} us; {len(found)} of {tried} rounds{goal}",
        flush=True,
    )
    return is_missed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3.13t -m bench.freethreaded", description=__doc__)
    parser.add_argument("--rounds", type=int, default=61)
    parser.add_argument("--seconds", type=float, default=0.002, help="of one slice")
    parser.add_argument("--only", action="append", choices=[work.name for work in WORKS])
    args = parser.parse_args()
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        print(
            "this interpreter has a global lock, or something has switched it on", file=sys.stderr
        )
        return 2
    if len(CPUS) < 2:
        print("two threads need two CPUs, and this process may use one", file=sys.stderr)
        return 2
    version = sys.version.split()[0]
    load = os.getloadavg()[0]
    print(f"load {load:.1f} on {len(CPUS)} CPUs, hardsock {hs.__version__}, {version}t")
    chosen = [work for work in WORKS if args.only is None or work.name in args.only]
    missed = [judge(work, args.rounds, args.seconds) for work in chosen]
    return int(any(missed))


if __name__ == "__main__":
    sys.exit(main())
