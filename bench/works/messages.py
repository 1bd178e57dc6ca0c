"""Lines of 64 bytes, and frames of 1 KiB and 1 MiB behind a length of four bytes: time for each.

The peer sends without end, so the receiver is what is measured. stdlib is the buffered file of
makefile("rb"), which keeps no deadline for the whole message; hardsock has one for each. hardsock
iterates (lines) or takes one frame at a time; hardsock-batch takes all that is there with
recv_lines and recv_frames. asyncio and uvloop use StreamReader, trio a buffer as its users write it.
The floor reads 64 KiB at once and finds the messages in them.
"""

from __future__ import annotations

import dataclasses

from ..model import Goal, Measure, Placement, Work

_IMPLEMENTATIONS = (
    "c",
    "stdlib",
    "hardsock",
    "hardsock-batch",
    "hardsock-asyncio",
    "hardsock-uvloop",
    "hardsock-trio",
    "asyncio",
    "uvloop",
    "trio",
    "go",
)

LINES = Work(
    name="lines",
    title="lines, 64 B",
    measure=Measure.RATE,
    peer_mode="lines",
    placement=Placement.SPLIT,
    implementations=_IMPLEMENTATIONS,
    c_programs={"c": ("messages", "lines")},
    goals=(
        Goal(text=">= 1.5 x stdlib", of="hardsock", against="stdlib", at_most=1 / 1.5),
        Goal(text=">= 10 x asyncio", of="hardsock", against="asyncio", at_most=1 / 10),
        Goal(text=">= 3.5 x stdlib", of="hardsock-batch", against="stdlib", at_most=1 / 3.5),
    ),
)

FRAMES_1K = dataclasses.replace(
    LINES,
    name="frames_1k",
    function="frames",
    title="frames, 1 KiB",
    peer_mode="frames_1k",
    c_programs={"c": ("messages", "frames")},
    goals=(),
)

FRAMES_1M = dataclasses.replace(
    FRAMES_1K, name="frames_1m", title="frames, 1 MiB", peer_mode="frames_1m", seconds=0.2
)
