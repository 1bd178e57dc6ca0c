"""connect + close on loopback: time of one connect to a numeric address and one close.

Every implementation connects with a 5 s deadline (hardsock also with a token) through the call that
its users would write, one connection at a time. The peer takes the connection, reads its end, and
closes with a reset, so that no port is left in TIME_WAIT (peers/peer.c). "c" is the least C that
keeps a deadline; "c-blocking" keeps none. hardsock sets and reads back its default socket options,
which no other row does (Go sets some); "hardsock-plain" leaves them alone. Goals: on the default.
"""

from __future__ import annotations

from ..model import Goal, Measure, Placement, Work

WORK = Work(
    name="connect_close",
    title="connect + close",
    measure=Measure.RATE,
    peer_mode="accept_close",
    placement=Placement.SPLIT,
    implementations=(
        "c-blocking",
        "c",
        "hardsock",
        "hardsock-plain",
        "stdlib",
        "asyncio",
        "uvloop",
        "trio",
        "gevent",
        "go",
    ),
    c_programs={"c": ("connect_close", "deadline"), "c-blocking": ("connect_close", "blocking")},
    goals=(
        Goal(text="<= 1.10 x c", of="hardsock", against="c", at_most=1.10),
        Goal(text="<= 1.00 x stdlib", of="hardsock", against="stdlib", at_most=1.00),
    ),
)
