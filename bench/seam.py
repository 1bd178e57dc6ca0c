"""`python -m bench.seam`: what the seam of faults costs while nothing is asked for.

The core is built twice, with the branch that asks whether faults are on and without it, and the same
program of the core's C API is linked with each (`core/turns.c`). Instructions of user space are
counted by valgrind's callgrind in two runs of different length, so that the start of the process is
not in them: they hardly depend on what else the machine does. Times are processor times of runs that
alternate, and only their ratio is told: the median of pairs, with its quartiles.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from . import build

WORKS = {"exchange": (2000, 12000, 300_000), "connect": (200, 1200, 10_000)}
"""Turns of the two counted runs, and of a timed one."""
FLAVOURS = {"with": "release", "without": "bare"}


def programs_of_both() -> dict[str, Path]:
    """The two programs."""
    return {name: build.core_program("turns", flavour) for name, flavour in FLAVOURS.items()}


def counted(program: Path, work: str, turns: int) -> int:
    """Instructions of a run."""
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [
                *("valgrind", "--tool=callgrind", f"--callgrind-out-file={scratch}/out"),
                *(program, work, str(turns)),
            ],
            check=True,
            capture_output=True,
            text=True,
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def timed(program: Path, work: str, turns: int) -> tuple[float, float]:
    """Nanoseconds of processor time for a turn: in user space, and in all."""
    done = subprocess.run([program, work, str(turns)], check=True, capture_output=True, text=True)
    user, everything = map(float, done.stdout.split())
    return user, everything


def ratios(programs: dict[str, Path], work: str, turns: int, rounds: int) -> list[float]:
    """Of all processor time, with the seam to without; the runs of a pair in turns first."""
    found = []
    for number in range(rounds):
        order = ("with", "without") if number % 2 else ("without", "with")
        took = {name: timed(programs[name], work, turns)[1] for name in order}
        found.append(took["with"] / took["without"])
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.seam", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="pairs of timed runs")
    options = parser.parse_args()
    programs = programs_of_both()
    for work, (few, many, turns) in WORKS.items():
        each = {
            name: (counted(program, work, many) - counted(program, work, few)) / (many - few)
            for name, program in programs.items()
        }
        more = each["with"] - each["without"]
        low, middle, high = statistics.quantiles(ratios(programs, work, turns, options.rounds), n=4)
        print(
            f"{work}: {each['with']:,.0f} instructions with the seam, {more:+,.0f} "
            f"({more / each['without']:+.2%}); time x {middle:.3f} ({low:.3f} to {high:.3f})",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
