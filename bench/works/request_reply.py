"""Small request/reply: time to send 64 bytes and receive 64 back on one open connection.

Every exchange has a 5 s deadline, given the way each library's users would (per call where it can
be). The peer echoes in C. Worker and peer share one CPU: then an exchange costs two context
switches and no wake-up of an idle CPU, which on virtual machines is ten times dearer than all the
rest and would hide every difference. Awaited: the same in event loops; asyncio, uvloop and trio have
one deadline around the exchange, as their users would write it, hardsock-aio one for each call.
"""

from __future__ import annotations

import dataclasses

from ..model import Goal, Measure, Placement, Work

WORK = Work(
    name="request_reply",
    title="request/reply, 64 B",
    measure=Measure.RATE,
    peer_mode="echo",
    placement=Placement.SHARED,
    implementations=(
        "c-blocking",
        "c",
        "hardsock",
        "stdlib",
        "asyncio",
        "uvloop",
        "trio",
        "gevent",
        "go",
    ),
    c_programs={"c": ("request_reply", "deadline"), "c-blocking": ("request_reply", "blocking")},
    goals=(Goal(text="<= 1.00 x stdlib", of="hardsock", against="stdlib", at_most=1.00),),
)

AWAITED = dataclasses.replace(
    WORK,
    name="aio_request_reply",
    function="request_reply",
    title="awaited request/reply",
    implementations=(
        "c",
        "hardsock-aio",
        "hardsock-aio-uvloop",
        "hardsock-aio-trio",
        "stdlib",
        "asyncio",
        "uvloop",
        "trio",
        "go",
    ),
    goals=(
        Goal(text=">= 2.5 x asyncio", of="hardsock-aio", against="asyncio", at_most=1 / 2.5),
        Goal(text=">= 2.5 x uvloop", of="hardsock-aio-uvloop", against="uvloop", at_most=1 / 2.5),
    ),
)
