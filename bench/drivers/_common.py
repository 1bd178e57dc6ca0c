"""The loops that all drivers share, so that each driver holds only its library's own calls."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from typing import Any

DEADLINE = 5.0  # seconds; no measured call ever comes near it
MESSAGE = b"x" * 64
OPS_PER_CLOCK_READ = 16
# The same for messages that stream in: it must not show beside one.
LINES_PER_CLOCK_READ = 4096
FRAMES_PER_CLOCK_READ = {"frames_1k": 512, "frames_1m": 4}
RECEIVE_SIZE = 4096  # what one asks for who does not know what will come
BACKLOG = 4096
MEMORY_WARM_UP = 500  # connections that are held but not counted
MOST_SERVED = 19_000  # connections that a server takes which has a limit


def rate(operation: Callable[[], object], seconds: float) -> dict[str, Any]:
    """Call operation for so many seconds."""
    clock, cpu_clock = time.monotonic_ns, time.process_time_ns
    ops = 0
    cpu_start = cpu_clock()
    start = clock()
    end = start + int(seconds * 1e9)
    while True:
        for _ in range(OPS_PER_CLOCK_READ):
            operation()
        ops += OPS_PER_CLOCK_READ
        now = clock()
        if now >= end:
            return {"ops": ops, "ns": now - start, "cpu_ns": cpu_clock() - cpu_start}


async def rate_async(operation: Callable[[], Awaitable[object]], seconds: float) -> dict[str, Any]:
    """As rate, for a coroutine function."""
    clock, cpu_clock = time.monotonic_ns, time.process_time_ns
    ops = 0
    cpu_start = cpu_clock()
    start = clock()
    end = start + int(seconds * 1e9)
    while True:
        for _ in range(OPS_PER_CLOCK_READ):
            await operation()
        ops += OPS_PER_CLOCK_READ
        now = clock()
        if now >= end:
            return {"ops": ops, "ns": now - start, "cpu_ns": cpu_clock() - cpu_start}


def rate_of(take: Callable[[], int], seconds: float) -> dict[str, Any]:
    """Call take, which takes some messages and says how many, for so many seconds."""
    clock, cpu_clock = time.monotonic_ns, time.process_time_ns
    ops = 0
    cpu_start = cpu_clock()
    start = clock()
    end = start + int(seconds * 1e9)
    while True:
        ops += take()
        now = clock()
        if now >= end:
            return {"ops": ops, "ns": now - start, "cpu_ns": cpu_clock() - cpu_start}


async def rate_of_async(take: Callable[[], Awaitable[int]], seconds: float) -> dict[str, Any]:
    """As rate_of, for a coroutine function."""
    clock, cpu_clock = time.monotonic_ns, time.process_time_ns
    ops = 0
    cpu_start = cpu_clock()
    start = clock()
    end = start + int(seconds * 1e9)
    while True:
        ops += await take()
        now = clock()
        if now >= end:
            return {"ops": ops, "ns": now - start, "cpu_ns": cpu_clock() - cpu_start}


def all_of(messages: Iterator[object], count: int) -> int:
    """Look at count messages of an endless iterator; counting them would be a cost of its own."""
    for _ in islice(messages, count - 1):
        pass
    next(messages)  # raises if there was an end
    return count


async def all_of_async(messages: AsyncIterator[object], count: int) -> int:
    """As all_of, for an asynchronous iterator."""
    n = 0
    async for _ in messages:
        n += 1
        if n == count:
            return n
    raise EOFError("the peer closed")


def each(batch: list[Any]) -> int:
    """Look at each message of a batch, as its user would."""
    for _ in batch:
        pass
    return len(batch)


def checked(reply: bytes) -> None:
    if len(reply) != len(MESSAGE):
        raise EOFError(f"reply of {len(reply)} bytes")


def anonymous_bytes() -> int:
    """Resident anonymous memory of this process, exact (not the kernel's batched counters)."""
    gc.collect()
    with open("/proc/self/smaps_rollup", "rb") as smaps:
        for line in smaps:
            if line.startswith(b"Anonymous:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("no Anonymous: in smaps_rollup")


def allowed_connections(count: int) -> int:
    """Raise the descriptor limit as far as it goes; how many of count connections fit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return count if hard == resource.RLIM_INFINITY else min(count, hard - 200)


def hold(open_one: Callable[[], object], count: int) -> dict[str, Any]:
    """Memory of connections made by open_one (which exchanges one message on each)."""
    count = allowed_connections(count)
    kept: list[object] = [None] * count
    before = 0
    for i in range(count):
        if i == MEMORY_WARM_UP:
            before = anonymous_bytes()
        kept[i] = open_one()
    return {"connections": count - MEMORY_WARM_UP, "bytes": anonymous_bytes() - before}


async def hold_waiting(
    open_one: Callable[[], Awaitable[object]], wait_on: Callable[[Any], object], count: int
) -> dict[str, Any]:
    """As hold_async; wait_on starts a task that receives on the connection, and waits."""

    async def open_and_wait() -> object:
        conn = await open_one()
        return wait_on(conn)

    return await hold_async(open_and_wait, count)


async def hold_async(open_one: Callable[[], Awaitable[object]], count: int) -> dict[str, Any]:
    """As hold, for a coroutine function."""
    count = allowed_connections(count)
    kept: list[object] = [None] * count
    before = 0
    for i in range(count):
        if i == MEMORY_WARM_UP:
            before = anonymous_bytes()
        kept[i] = await open_one()
    return {"connections": count - MEMORY_WARM_UP, "bytes": anonymous_bytes() - before}
