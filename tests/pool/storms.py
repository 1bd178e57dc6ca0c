"""Storms: is everybody served, and are all places in the pool still usable afterwards?"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pool.adapters import Adapter, Place, Wrong
from pool.awaited import AWAITED

SEED = 5
HOLD = 0.010  # seconds
CROWD, ITEMS = 20, 2
STORM_SIZE = 4


@dataclass(frozen=True)
class Cell:
    """What one pool did in one case."""

    text: str
    good: bool


class Interrupted(KeyboardInterrupt):
    """What Ctrl-C raises here."""


def fairness(make: Callable[[Place], Adapter], place: Place, seconds: float) -> Cell:
    """20 threads share 2 connections, each is held for 10 ms: who gets how many?"""
    pool = make(replace(place, size=ITEMS, wait=60.0))
    served, worst = [0] * CROWD, [0.0] * CROWD
    start = threading.Barrier(CROWD)
    over = threading.Event()

    def borrower(i: int) -> None:
        start.wait()
        while not over.is_set():
            asked = time.monotonic()
            held = pool.take()
            if not over.is_set():
                served[i] += 1
                worst[i] = max(worst[i], time.monotonic() - asked)
                time.sleep(HOLD)  # The work.
            pool.give(held)

    threads = [threading.Thread(target=borrower, args=(i,), daemon=True) for i in range(CROWD)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)  # The length of the measurement.
    over.set()
    join_all(threads)
    # Who was never served waited all along.
    waits = [wait if n else seconds for n, wait in zip(served, worst, strict=True)]
    good = min(served) >= 0.8 * max(served)
    return Cell(f"{min(served)}..{max(served)}, {max(waits):.2f} s", good)


def join_all(threads: list[threading.Thread]) -> None:
    """Wait for them; one that hangs for ever in its pool is left behind."""
    give_up = time.monotonic() + 4.0
    for thread in threads:
        thread.join(max(0.0, give_up - time.monotonic()))


def usable(take: Callable[[], object], size: int) -> int:
    """How many connections can be had at the same time; more than there should be, too."""
    got: list[object] = []

    def one() -> None:
        with contextlib.suppress(Exception):
            got.append(take())

    threads = [threading.Thread(target=one, daemon=True) for _ in range(size + 2)]
    for thread in threads:
        thread.start()
    join_all(threads)
    return len(got)


def said(there: int, size: int, wrong: int) -> Cell:
    text = f"{there} of {size}" + (f", {wrong} wrong" if wrong else "")
    return Cell(text, there == size and not wrong)


class Interrupts:
    """Raises Interrupted in the main thread, at most once in each `attempt`, at random moments."""

    def __init__(self) -> None:
        self._armed = False
        self._over = threading.Event()
        self.raised = 0
        signal.signal(signal.SIGINT, self._handler)

    def _handler(self, *_details: object) -> None:
        if self._armed:
            self._armed = False
            self.raised += 1
            raise Interrupted

    def attempt(self, function: Callable[[], object]) -> None:
        """Call it; an interrupt ends it, and so does any error that is not a wrong answer."""
        try:
            self._armed = True
            function()
            self._armed = False
        except Wrong:
            self._armed = False
            raise
        except (Exception, Interrupted):
            self._armed = False

    def blow(self) -> None:
        """A thread's: send signals until `calm`."""
        chance = random.Random(SEED)
        while not self._over.wait(chance.uniform(0.0002, 0.005)):
            os.kill(os.getpid(), signal.SIGINT)

    def calm(self) -> None:
        self._over.set()


def interrupted(make: Callable[[Place], Adapter], place: Place, seconds: float) -> Cell:
    """Ctrl-C in the main thread while other threads borrow too, some with hardly any patience."""
    pool = make(replace(place, size=STORM_SIZE, wait=0.5))
    numbers = itertools.count(1)
    wrong = 0
    over = threading.Event()

    def other(seed: int) -> None:
        nonlocal wrong
        chance = random.Random(seed)
        while not over.is_set():
            try:
                pool.exchange(next(numbers), chance.choice((0.0005, 0.002, 0.5)))
            except Wrong:
                wrong += 1
            except Exception:
                continue

    threads = [threading.Thread(target=other, args=(i,), daemon=True) for i in range(6)]
    interrupts = Interrupts()
    wind = threading.Thread(target=interrupts.blow, daemon=True)
    for thread in (*threads, wind):
        thread.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            interrupts.attempt(lambda: pool.exchange(next(numbers)))
        except Wrong:
            wrong += 1
    interrupts.calm()
    over.set()
    join_all([*threads, wind])
    return said(usable(lambda: pool.take(1.0), STORM_SIZE), STORM_SIZE, wrong)


async def _cancel_storm(name: str, place: Place, seconds: float) -> Cell:
    size = 10
    pool: Any = AWAITED[name](replace(place, size=size))
    await pool.open()
    chance = random.Random(SEED)
    numbers = itertools.count(1)
    wrong = 0

    async def one() -> None:
        nonlocal wrong
        try:
            await pool.exchange(next(numbers))
        except Wrong:
            wrong += 1

    end = time.monotonic() + seconds
    alive: set[asyncio.Task[None]] = set()
    while time.monotonic() < end:
        while len(alive) < CROWD:
            alive.add(asyncio.ensure_future(one()))
        await asyncio.sleep(chance.uniform(0.0, 0.002))
        for task in chance.sample(sorted(alive, key=id), 5):
            task.cancel()
        done = {task for task in alive if task.done()}
        await asyncio.gather(*done, return_exceptions=True)
        alive -= done
    if alive:
        await asyncio.wait(alive, timeout=4.0)
    takers = [asyncio.ensure_future(pool.take()) for _ in range(size + 2)]
    await asyncio.wait(takers, timeout=3.0)
    there = sum(t.done() and not t.cancelled() and t.exception() is None for t in takers)
    return said(there, size, wrong)


def cancelled(name: str, place: Place, seconds: float) -> Cell:
    """20 tasks on 10 connections, some cancelled every millisecond."""
    return asyncio.run(_cancel_storm(name, place, seconds))
