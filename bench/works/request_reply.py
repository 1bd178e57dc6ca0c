"""Small request/reply: time to send 64 bytes and receive 64 back on one open connection.

Every exchange has a 5 s deadline, given the way each library's users would (per call where it can
be). The peer echoes in C. Worker and peer share one CPU: then an exchange costs two context
switches and no wake-up of an idle CPU, which on virtual machines is ten times dearer than all the
rest and would hide every difference.
"""

from __future__ import annotations

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
    goals=(Goal(text="<= 1.05 x stdlib", of="hardsock", against="stdlib", at_most=1.05),),
)
