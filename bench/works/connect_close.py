"""connect + close on loopback: time of one connect to a numeric address and one close.

Every implementation connects with a 5 s deadline (hardsock also with a token) through the call that
its users would write, one connection at a time. The peer takes the connection, reads its end, and
closes with a reset, so that no port is left in TIME_WAIT (peers/peer.c). "c" is the least C that
keeps a deadline, "c-settings" also sets the socket options that hardsock sets, which no other row does
(Go sets some); "c-blocking" keeps no deadline. "hardsock-plain" leaves the options alone. Goals: on the
default, beside each of the first two.
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
        "c-settings",
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
    c_programs={
        "c": ("connect_close", "deadline"),
        "c-settings": ("connect_close", "settings"),
        "c-blocking": ("connect_close", "blocking"),
    },
    goals=(
        Goal(text="<= 1.10 x c-settings", of="hardsock", against="c-settings", at_most=1.10),
        Goal(text="<= 1.25 x c", of="hardsock", against="c", at_most=1.25),
        Goal(text="<= 1.00 x stdlib", of="hardsock", against="stdlib", at_most=1.00),
    ),
)
