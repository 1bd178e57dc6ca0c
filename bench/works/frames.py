"""Frames that stream in: time per frame of 1 KiB or 1 MiB behind a length of four bytes.

The peer sends frames without end. "hardsock" iterates over frames(), "hardsock-call" calls
recv_frame, "hardsock-batch" takes lists; so with hardsock-aio. "stdlib" reads length and payload
from makefile, asyncio and uvloop with readexactly, Go with io.ReadFull from a bufio.Reader, trio
from the buffer around receive_some that its users write. "c" receives into one buffer and steps
over the frames in it. Deadlines as in works/lines.py.
"""

from __future__ import annotations

import dataclasses

from ..model import Measure, Placement, Work
from .lines import ON_TRIO

ONE_KIB = Work(
    name="frames_1k",
    title="frame, 1 KiB",
    measure=Measure.RATE,
    peer_mode="frames_1k",
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
    c_programs={"c": ("stream", "frames")},
    goals=ON_TRIO,
)

ONE_MIB = dataclasses.replace(
    ONE_KIB,
    name="frames_1m",
    title="frame, 1 MiB",
    peer_mode="frames_1m",
    implementations=tuple(n for n in ONE_KIB.implementations if "batch" not in n),
    goals=(),
)
