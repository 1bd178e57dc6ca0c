"""Cancel latency: from just before one thread cancels to the error caught in the blocked one.

The blocked thread (for event loops: the thread whose loop runs the blocked task) sits in a receive
that never gets data. The cancelling thread first sees it asleep in the kernel, then spins 200 us so
that what it leaves is equally asleep everywhere, then takes the time and cancels. stdlib cannot
cancel: its row is `shutdown` from the other thread, which costs the connection. Floor: a bare
eventfd wake between two C threads, with the same preparation. Ratios are of the p50s.

Measured twice. On one CPU: what the libraries themselves do, plus one context switch; this is what
the goals are judged on. Across CPUs, as the scheduler likes: what a user of this very machine sees.
There the wake-up of an idle CPU is in every number; on virtual machines it is so much of it that
even the bare wake is not three times faster than uvloop, so that goal says nothing there.
"""

from __future__ import annotations

import dataclasses

from ..model import Goal, Measure, Placement, Work

_AT_MOST_FOUR_WAKES = Goal(text="<= 4 x c", of="hardsock", against="c", at_most=4.0)
_THRICE_UVLOOP = Goal(
    text=">= 3 x faster than uvloop", of="hardsock", against="uvloop", at_most=1 / 3
)

WORK = Work(
    name="cancel_latency",
    title="cancel, one CPU",
    measure=Measure.LATENCY,
    peer_mode="hold",
    placement=Placement.SHARED,
    implementations=("c", "hardsock", "stdlib", "asyncio", "uvloop", "trio", "gevent", "go"),
    c_programs={"c": ("eventfd_wake", "")},
    goals=(_AT_MOST_FOUR_WAKES, _THRICE_UVLOOP),
)

ACROSS_CPUS = dataclasses.replace(
    WORK,
    name="cancel_latency_across",
    function="cancel_latency",
    title="cancel, across CPUs",
    placement=Placement.FREE,
    goals=(_AT_MOST_FOUR_WAKES,),
)
