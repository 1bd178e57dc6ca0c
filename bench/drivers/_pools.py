"""The loops that the drivers of pools share. A driver gives its `Subject`, and `works` makes of it
the functions that works/pools.py names."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from ..model import Target
from . import _common
from ._common import MEMORY_WARM_UP

CYCLES_PER_CLOCK_READ = 256
CROWD, ITEMS = 20, 2
HOLD = 0.010  # seconds
THREADS = 8


class Subject(Protocol):
    """A pool of at most so many connections, open for as long as the worker lives."""

    def __init__(self, target: Target, size: int) -> None: ...

    def cycle(self, n: int) -> None:
        """Borrow and return, n times."""

    def take(self) -> Any:
        """Borrow."""

    def give(self, held: Any) -> None:
        """Return."""


def checkout(subject: Subject, seconds: float) -> dict[str, Any]:
    cycle = subject.cycle
    cycle(CYCLES_PER_CLOCK_READ)  # The dial is not measured.

    def take() -> int:
        cycle(CYCLES_PER_CLOCK_READ)
        return CYCLES_PER_CLOCK_READ

    return _common.rate_of(take, seconds)


def checkout_threads(subject: Subject, seconds: float) -> dict[str, Any]:
    """As checkout, from several threads at once; time is that of the clock on the wall."""
    all_held = [subject.take() for _ in range(THREADS)]
    for held in all_held:
        subject.give(held)
    counts = [0] * THREADS
    over = threading.Event()
    start = threading.Barrier(THREADS + 1)

    def borrow(i: int) -> None:
        start.wait()
        while not over.is_set():
            subject.cycle(CYCLES_PER_CLOCK_READ)
            counts[i] += CYCLES_PER_CLOCK_READ

    threads = [threading.Thread(target=borrow, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    cpu = time.process_time_ns()
    start.wait()
    began = time.monotonic_ns()
    time.sleep(seconds)
    over.set()
    for thread in threads:
        thread.join()
    took = time.monotonic_ns() - began
    return {"ops": sum(counts), "ns": took, "cpu_ns": time.process_time_ns() - cpu}


def fairness(subject: Subject, seconds: float) -> dict[str, Any]:
    served, worst = [0] * CROWD, [0] * CROWD
    over = threading.Event()
    start = threading.Barrier(CROWD + 1)

    def borrow(i: int) -> None:
        start.wait()
        while True:
            asked = time.monotonic_ns()
            held = subject.take()
            if not over.is_set():
                served[i] += 1
                worst[i] = max(worst[i], time.monotonic_ns() - asked)
                time.sleep(HOLD)
            subject.give(held)
            if over.is_set():
                return

    threads = [threading.Thread(target=borrow, args=(i,)) for i in range(CROWD)]
    for thread in threads:
        thread.start()
    start.wait()
    time.sleep(seconds)
    over.set()
    for thread in threads:
        thread.join()
    longest = max(w if n else int(seconds * 1e9) for n, w in zip(served, worst, strict=True))
    return {"least": min(served), "most": max(served), "latencies_ns": [longest]}


def fill(subject: Subject, count: int) -> None:
    """Leave so many idle connections in the pool."""
    all_held = [subject.take() for _ in range(count)]
    while all_held:
        subject.give(all_held.pop())


def idle_memory(make: Callable[[int], Subject], count: int) -> dict[str, Any]:
    count = _common.allowed_connections(count)
    subject = make(count)
    fill(subject, MEMORY_WARM_UP)
    before = _common.anonymous_bytes()
    fill(subject, count)
    grown = _common.anonymous_bytes() - before
    return {"connections": count - MEMORY_WARM_UP, "bytes": grown}


def watching(make: Callable[[int], Subject], seconds: float, count: int) -> dict[str, Any]:
    """An operation is a second in which nothing happens."""
    count = _common.allowed_connections(count)
    subject = make(count)
    fill(subject, count)
    time.sleep(0.5)  # What the returns set going is over.
    cpu, began = time.process_time_ns(), time.monotonic_ns()
    time.sleep(seconds)
    cpu_ns, took = time.process_time_ns() - cpu, time.monotonic_ns() - began
    subject.take()  # It is still there.
    return {"ops": took / 1e9, "ns": took, "cpu_ns": cpu_ns}


Slice = Callable[[Target, float, int], dict[str, Any]]


def works(make: type[Subject]) -> tuple[Slice, Slice, Slice]:
    """pool_checkout, pool_checkout_8, pool_fairness. The pools of the first two are kept, so that
    each slice finds its connections there."""
    kept: dict[int, Subject] = {}

    def subject(target: Target, size: int) -> Subject:
        if size not in kept:
            kept[size] = make(target, size)
        return kept[size]

    def pool_checkout(target: Target, seconds: float, count: int) -> dict[str, Any]:
        return checkout(subject(target, 1), seconds)

    def pool_checkout_8(target: Target, seconds: float, count: int) -> dict[str, Any]:
        return checkout_threads(subject(target, THREADS), seconds)

    def pool_fairness(target: Target, seconds: float, count: int) -> dict[str, Any]:
        return fairness(make(target, ITEMS), seconds)

    return pool_checkout, pool_checkout_8, pool_fairness


def works_of_many(make: type[Subject]) -> tuple[Slice, Slice, Slice]:
    """pool_idle_memory, pool_lent_memory, pool_watching."""

    def pool_idle_memory(target: Target, seconds: float, count: int) -> dict[str, Any]:
        return idle_memory(lambda size: make(target, size), count)

    def pool_lent_memory(target: Target, seconds: float, count: int) -> dict[str, Any]:
        subject = make(target, count)
        return _common.hold(subject.take, count)

    def pool_watching(target: Target, seconds: float, count: int) -> dict[str, Any]:
        return watching(lambda size: make(target, size), seconds, count)

    return pool_idle_memory, pool_lent_memory, pool_watching
