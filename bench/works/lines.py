"""Lines that stream in: time per line of 64 bytes, its end included, that the user gets hold of.

The peer sends lines without end. Every implementation looks at each line in a loop: "stdlib" and
"hardsock" iterate, "asyncio" and "uvloop" iterate over their StreamReader, "hardsock-call" calls
recv_line, "hardsock-batch" takes lists of lines and iterates over those; so with hardsock-aio, on
asyncio and on trio. trio has no lines: there receive_some and split is what its users write, also a
batch. Go: bufio.Scanner. "c" looks for the ends in what recv brings. A deadline of 5 s where it can be
given at once (hardsock: for each line); asyncio, uvloop, trio and Go go without, since one for each
line would be their greatest cost. Worker and peer have a CPU each, so the fastest rows show the peer
and the kernel.
"""

from __future__ import annotations

from ..model import Goal, Measure, Placement, Work

# What is in the buffer already is not to cost a checkpoint each time; what users of trio write is a batch.
ON_TRIO = (
    Goal(text="<= 1.5 x asyncio's", of="hardsock-aio-trio", against="hardsock-aio", at_most=1.5),
    Goal(text="ahead of trio", of="hardsock-aio-trio-batch", against="trio", at_most=1.0),
)

WORK = Work(
    name="lines",
    title="line, 64 B",
    measure=Measure.RATE,
    peer_mode="lines",
    placement=Placement.SPLIT,
    implementations=(
        "c",
        "hardsock",
        "hardsock-call",
        "hardsock-batch",
        "stdlib",
        "hardsock-aio",
        "hardsock-aio-uvloop",
        "hardsock-aio-batch",
        "hardsock-aio-trio",
        "hardsock-aio-trio-batch",
        "asyncio",
        "uvloop",
        "trio",
        "go",
    ),
    c_programs={"c": ("stream", "lines")},
    goals=(
        Goal(text=">= 2 x makefile", of="hardsock", against="stdlib", at_most=1 / 2),
        Goal(text=">= 10 x asyncio", of="hardsock", against="asyncio", at_most=1 / 10),
        Goal(text=">= 3.5 x makefile", of="hardsock-batch", against="stdlib", at_most=1 / 3.5),
        *ON_TRIO,
    ),
)
