"""An import, measured from within an interpreter that is started for it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from ..model import Target

# Nothing is imported besides: what is read here, the statement would read, too, or the interpreter has.
_PROGRAM = """
from time import monotonic_ns, process_time_ns
def anonymous():
    with open("/proc/self/smaps_rollup", "rb") as smaps:
        for line in smaps:
            if line.startswith(b"Anonymous:"):
                return int(line.split()[1]) * 1024
anonymous()
before, cpu, begin = anonymous(), process_time_ns(), monotonic_ns()
{statement}
took, cpu = monotonic_ns() - begin, process_time_ns() - cpu
print('{{"ns": %d, "cpu_ns": %d, "bytes": %d}}' % (took, cpu, anonymous() - before))
"""


def of(statement: str) -> Callable[[Target, float, int], dict[str, Any]]:
    """The slice of a driver: as many interpreters as there is time for, one at least."""
    command = [sys.executable, "-c", _PROGRAM.format(statement=statement)]

    def importing(target: Target, seconds: float, count: int) -> dict[str, Any]:
        ops = ns = cpu_ns = grown = 0
        end = time.monotonic() + seconds
        while not ops or time.monotonic() < end:
            said = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            ops += 1
            ns += said["ns"]
            cpu_ns += said["cpu_ns"]
            grown += said["bytes"]
        return {"ops": ops, "ns": ns, "cpu_ns": cpu_ns, "connections": ops, "bytes": grown}

    return importing
