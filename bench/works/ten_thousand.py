"""A server with 10,000 connections open, one process, one loop: the clients are peers/crowd.c.

Echo: 64 bytes there and back, on connections in a random order, 256 messages on their way at any
time. Churn: besides the 10,000, connections come (accept), get 64 bytes echoed, and go (with a
reset, so that no port stays behind), 256 at any time. The connections are opened once, in the round
that warms up, and stay open over all rounds.

Every server does what its users would write: a task (Go: a goroutine) for each connection that
receives up to 4096 bytes and sends them back, in a loop; a queue of 4096 to be accepted. asyncio
and uvloop: start_server; trio: serve_listeners; hardsock-aio: accept_many and a task for each. "c"
is one epoll loop. No deadlines, since a server's connections may be idle for ever. The crowd takes
about as much time for an operation as "c", so that against "c" no ratio is too large but some are
too small. Fewer connections where the limit on descriptors says so.
"""

from __future__ import annotations

import dataclasses

from ..model import Goal, Measure, Placement, Work

ECHO = Work(
    name="ten_thousand_echo",
    function="crowd_echo",
    title="echo, 10,000 open",
    measure=Measure.RATE,
    peer_program="crowd",
    peer_mode="256",
    placement=Placement.SPLIT,
    implementations=(
        "c",
        "hardsock-aio",
        "hardsock-aio-uvloop",
        "hardsock-aio-trio",
        "asyncio",
        "uvloop",
        "trio",
        "go",
    ),
    c_programs={"c": ("crowd_server", "echo")},
    goals=(
        Goal(text=">= 2 x asyncio", of="hardsock-aio", against="asyncio", at_most=1 / 2),
        Goal(text="ahead of uvloop", of="hardsock-aio", against="uvloop", at_most=1.0),
        Goal(text=">= 2 x asyncio", of="hardsock-aio-uvloop", against="asyncio", at_most=1 / 2),
        Goal(text="ahead of uvloop", of="hardsock-aio-uvloop", against="uvloop", at_most=1.0),
    ),
    count=10_000,
)

CHURN = dataclasses.replace(
    ECHO,
    name="ten_thousand_churn",
    function="crowd_churn",
    title="accept, 10,000 open",
    c_programs={"c": ("crowd_server", "churn")},
)
