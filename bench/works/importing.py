"""What a program pays before its first line: the import, in an interpreter of its own each time.

A fresh interpreter imports the library, as a program would, and says how long that took and by how much
its anonymous memory grew (smaps_rollup), modules of the standard library included: what is imported on
the way has to be paid, too. asyncio's row is ``import ssl, asyncio``, stdlib's ``import socket, ssl``.
Starting the interpreter does not count. Files and byte code are in the kernel's cache.
"""

from __future__ import annotations

import dataclasses

from ..model import Goal, Measure, Placement, Work, with_cpu

_TIME = Work(
    name="import_time",
    function="importing",
    title="import",
    measure=Measure.RATE,
    peer_mode="hold",
    placement=Placement.SPLIT,
    implementations=("hardsock", "hardsock-aio", "stdlib", "asyncio", "uvloop", "trio"),
    floor=None,
    goals=(Goal(text="<= 25 ms", of="hardsock", at_most=25e6),),
)

TIME = with_cpu(_TIME)
MEMORY = dataclasses.replace(
    _TIME,
    name="import_memory",
    title="import, memory",
    measure=Measure.MEMORY,
    goals=(Goal(text="<= 4 MiB", of="hardsock", at_most=4 * 1024**2),),
    most_rounds=11,
)
