"""One TLS 1.3 connection in use, and many that are idle.

Request/reply: as works/request_reply.py, both drivers in one table.

Idle: as works/idle_memory.py, with 2000 connections, of which the first 500 do not count (asyncio
takes a quarter of a MiB for each). "c" is the least that OpenSSL takes, with all its buffers
released. No session is resumed, so each connection has its peer's certificate to itself, as if all
were to different servers; "hardsock-resumed" is hardsock's default, where those to one server share
it.

On the server's side (the clients are peers/tls_crowd.c) hardsock, stdlib and "c" hold what they
accepted, while with hardsock-aio, asyncio, uvloop and Go a task waits on each connection in a
receive of at most 4096 bytes, as in every server of theirs.
"""

from __future__ import annotations

import dataclasses

from ..model import Goal, Measure, Placement, Work

_IDLE_GOALS = (
    Goal(text="<= 16 KiB", of="hardsock", at_most=16 * 1024.0),
    Goal(text="<= 1.10 x c", of="hardsock", against="c", at_most=1.10),
    Goal(text="<= 16 KiB", of="hardsock-resumed", at_most=16 * 1024.0),
)

REQUEST_REPLY = Work(
    name="tls_request_reply",
    title="TLS request/reply",
    measure=Measure.RATE,
    peer_program="tls_peer",
    peer_mode="echo",
    placement=Placement.SHARED,
    implementations=(
        "c",
        "hardsock",
        "stdlib",
        "hardsock-aio",
        "hardsock-aio-uvloop",
        "asyncio",
        "uvloop",
        "go",
    ),
    c_programs={"c": ("tls_request_reply", "")},
    goals=(
        Goal(text="<= 1.00 x stdlib", of="hardsock", against="stdlib", at_most=1.00),
        Goal(text="ahead of asyncio", of="hardsock-aio", against="asyncio", at_most=1.00),
        Goal(text="ahead of uvloop", of="hardsock-aio-uvloop", against="uvloop", at_most=1.00),
    ),
    tls=True,
)

IDLE = dataclasses.replace(
    REQUEST_REPLY,
    name="tls_idle_memory",
    title="idle, TLS client",
    measure=Measure.MEMORY,
    peer_mode="hold",
    placement=Placement.FREE,
    c_programs={"c": ("tls_idle", "")},
    implementations=(*REQUEST_REPLY.implementations, "hardsock-resumed"),
    goals=_IDLE_GOALS,
    count=2000,
    fresh_worker=True,
)

IDLE_SERVER = dataclasses.replace(
    IDLE,
    name="tls_idle_memory_server",
    title="idle, TLS server",
    peer_program="tls_crowd",
    implementations=REQUEST_REPLY.implementations,
    peer_mode="64",
    c_programs={"c": ("tls_server", "hold")},
    goals=_IDLE_GOALS[:-1],  # Resuming is a client's.
)
