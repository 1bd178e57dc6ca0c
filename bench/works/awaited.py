"""Event loops: request/reply, idle connections, ten thousand connections at once; all awaited.

Request/reply: 64 bytes there and back on one connection, a 5 s deadline on every exchange, worker and
peer on one CPU, as in the work of threads.

Idle: memory per connection (anonymous resident bytes) with a task parked in a receive on each.

Crowd: the worker is the server, one process; a C client (peers/crowd.c) in another process opens
10,000 connections (fewer when the descriptor limit says so) and exchanges 64 bytes on each: that is
"accept". Then it exchanges 64 bytes on them in a random order, 100 at a time: "echo". hardsock serves
with aio.serve, asyncio and uvloop with start_server, trio with serve_listeners.
"""

from __future__ import annotations

import dataclasses

from ..model import Goal, Measure, Placement, Work


def _faster(than: str, times: float, of: str) -> Goal:
    return Goal(text=f">= {times:g} x {than}", of=of, against=than, at_most=1 / times)


REQUEST_REPLY = Work(
    name="awaited_request_reply",
    function="request_reply",
    title="awaited request/reply",
    measure=Measure.RATE,
    peer_mode="echo",
    placement=Placement.SHARED,
    implementations=(
        "c",
        "hardsock-asyncio",
        "asyncio",
        "hardsock-uvloop",
        "uvloop",
        "hardsock-trio",
        "trio",
        "go",
    ),
    c_programs={"c": ("request_reply", "deadline")},
    goals=(
        _faster("asyncio", 1.5, of="hardsock-asyncio"),
        _faster("uvloop", 1.5, of="hardsock-uvloop"),
    ),
)

IDLE = Work(
    name="idle_memory_awaited",
    title="idle, awaited",
    measure=Measure.MEMORY,
    peer_mode="hold",
    placement=Placement.FREE,
    implementations=("hardsock-asyncio", "hardsock-uvloop", "asyncio", "uvloop"),
    floor=None,
    goals=(),
    count=10_000,
    fresh_worker=True,
)

ACCEPT = Work(
    name="accept_crowd",
    title="10,000: accept",
    measure=Measure.RATE,
    peer_program="crowd",
    peer_mode="100",
    placement=Placement.SPLIT,
    implementations=(
        "hardsock-asyncio",
        "hardsock-uvloop",
        "hardsock-trio",
        "asyncio",
        "uvloop",
        "trio",
    ),
    floor=None,
    goals=(
        _faster("asyncio", 2, of="hardsock-asyncio"),
        _faster("uvloop", 1, of="hardsock-uvloop"),
    ),
    count=10_000,
    seconds=1.0,
    fresh_worker=True,
)

ECHO = dataclasses.replace(ACCEPT, name="echo_crowd", title="10,000: echo")
