"""The loops that all drivers share, so that each driver holds only its library's own calls."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Awaitable, Callable
from typing import Any

DEADLINE = 5.0  # seconds; no measured call ever comes near it
MESSAGE = b"x" * 64
OPS_PER_CLOCK_READ = 16
MEMORY_WARM_UP = 500  # connections that are held but not counted
LINES_PER_CLOCK_READ = 256
FRAMES_PER_CLOCK_READ = 16
LINE = 64


def rate(operation: Callable[[], object], seconds: float) -> dict[str, Any]:
    """Call operation for so many seconds."""
    clock = time.monotonic_ns
    ops = 0
    start = clock()
    end = start + int(seconds * 1e9)
    while True:
        for _ in range(OPS_PER_CLOCK_READ):
            operation()
        ops += OPS_PER_CLOCK_READ
        now = clock()
        if now >= end:
            return {"ops": ops, "ns": now - start}


async def rate_async(operation: Callable[[], Awaitable[object]], seconds: float) -> dict[str, Any]:
    """As rate, for a coroutine function."""
    clock = time.monotonic_ns
    ops = 0
    start = clock()
    end = start + int(seconds * 1e9)
    while True:
        for _ in range(OPS_PER_CLOCK_READ):
            await operation()
        ops += OPS_PER_CLOCK_READ
        now = clock()
        if now >= end:
            return {"ops": ops, "ns": now - start}


def flow(take: Callable[[], int], seconds: float) -> dict[str, Any]:
    """Call take, which returns how many messages it has taken, for so many seconds."""
    clock, ops = time.perf_counter_ns, 0
    start = clock()
    end = start + int(seconds * 1e9)
    while True:
        ops += take()
        now = clock()
        if now >= end:
            return {"ops": ops, "ns": now - start}


async def flow_async(take: Callable[[], Awaitable[int]], seconds: float) -> dict[str, Any]:
    """As flow, for a coroutine function."""
    clock, ops = time.perf_counter_ns, 0
    start = clock()
    end = start + int(seconds * 1e9)
    while True:
        ops += await take()
        now = clock()
        if now >= end:
            return {"ops": ops, "ns": now - start}


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
