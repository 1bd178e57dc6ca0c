"""Idle connections: user-space memory (anonymous resident bytes) per open connection.

A fresh process opens 10,000 connections (fewer when the descriptor limit says so) one after the
other, exchanges 64 bytes once on each, keeps them, and does nothing. Measured is the growth of its
anonymous memory (smaps_rollup) from the 500th to the last, after garbage collection, so that what
is paid once does not count. Nobody waits on the connections: no thread, task or goroutine each.
The peer, a process of its own, holds the other ends.

Awaited: the same in an event loop, and on each connection a task (Go: a goroutine) waits in a
receive of at most 4096 bytes.

Served: the other way round: the process is a server, and 10,000 clients (peers/crowd.c) connect, have
64 bytes echoed, and are quiet. A task waits on each in its echo loop, but for "hardsock-aio-messages"
and "hardsock-messages": there what waits is neither a task nor a thread (per="message"), and a handler
begins when a message does.
"""

from __future__ import annotations

import dataclasses

from ..model import Goal, Measure, Placement, Work

WORK = Work(
    name="idle_memory",
    title="idle connection",
    measure=Measure.MEMORY,
    peer_mode="hold",
    placement=Placement.FREE,
    implementations=("hardsock", "stdlib", "asyncio", "uvloop", "trio", "gevent", "go"),
    floor=None,
    goals=(Goal(text="<= 1024 B", of="hardsock", at_most=1024.0),),
    count=10_000,
    fresh_worker=True,
)

AWAITED = dataclasses.replace(
    WORK,
    name="idle_memory_aio",
    function="idle_memory_awaited",
    title="idle, awaited",
    implementations=(
        "hardsock-aio",
        "hardsock-aio-uvloop",
        "hardsock-aio-trio",
        "asyncio",
        "uvloop",
        "trio",
        "go",
    ),
    goals=(),
)

SERVED = dataclasses.replace(
    WORK,
    name="idle_memory_served",
    title="idle, served",
    peer_program="crowd",
    peer_mode="256",
    placement=Placement.SPLIT,
    implementations=(
        "hardsock-aio-messages",
        "hardsock-messages",
        "hardsock-aio",
        "hardsock-aio-uvloop",
        "hardsock-aio-trio",
        "asyncio",
        "uvloop",
        "trio",
    ),
    goals=(Goal(text="<= 1.5 KiB without a task", of="hardsock-aio-messages", at_most=1536.0),),
)
