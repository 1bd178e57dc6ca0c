"""The night's gate: every stage that is too slow for each commit, with a log each and one table.

    nightly.py [STAGE...]    all stages, or those named; --list names them

A stage that fails stops no other. Stages of the Python suite run one after another; those of the C
programs run beside them, so two cores have work and no more than two stages run at once. Then comes
what needs the machine for itself. LANES=1 runs all one after another. A target `nightly-NAME` of the
Makefile is a stage NAME.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import common

LOGS = common.ROOT / "build/nightly"
FUZZ_SECONDS = os.environ.get("FUZZ_SECONDS", "300")
COUNTED = re.compile(r"\b(\d+ passed.*|\d+ failed.*)$", re.M)


@dataclass
class Stage:
    name: str
    goals: list[str]
    lane: str
    state: str = "not run"
    seconds: float = 0.0
    counted: str = ""

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"


def known_stages() -> list[Stage]:
    python, native, last = "python", "native", "last"
    stages = [
        Stage("trixie", ["check-distros", "SUITES=trixie"], python),
        Stage("sid", ["check-distros", "SUITES=sid"], python),
        Stage("freethreaded", ["check-freethreaded"], python),
        Stage("adapters", ["check-adapters"], python),
        Stage("tsan-py", ["tsan-py", "PYTEST_LIMIT=5400"], python),
        Stage("asan-py", ["asan-py", "PYTEST_LIMIT=3600"], python),
        Stage("marked", ["test-nightly", "PYTEST_LIMIT=3600"], python),
        Stage("asan", ["asan"], native),
        Stage("tsan", ["tsan"], native),
        Stage("torture", ["torture"], native),
        Stage("valgrind", ["valgrind"], native),
        Stage("fuzz", ["fuzz", f"FUZZ_SECONDS={FUZZ_SECONDS}"], native),
        Stage("install", ["check-install"], native),
        Stage("timing", ["test-timing", "PYTEST_LIMIT=3600"], last),
    ]
    text = (common.ROOT / "Makefile").read_text()
    for name in re.findall(r"^nightly-([a-z0-9-]+):", text, re.M):
        stages.append(Stage(name, [f"nightly-{name}"], native))
    return stages


def run(stage: Stage, environment: dict[str, str]) -> None:
    start = time.monotonic()
    with open(stage.log, "wb") as log:
        done = subprocess.run(
            ["make", *stage.goals],
            cwd=common.ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    stage.seconds = time.monotonic() - start
    stage.state = "FAIL" if done.returncode else "ok"
    found = COUNTED.findall(stage.log.read_text(errors="replace"))
    stage.counted = found[-1].strip("= ") if found else ""
    print(line_of(stage), flush=True)


def line_of(stage: Stage) -> str:
    return f"  {stage.state:<7} {stage.name:<14} {stage.seconds:7.0f} s  {stage.counted}"


def run_lane(stages: list[Stage], environment: dict[str, str]) -> None:
    for stage in stages:
        run(stage, environment)


def summary(stages: list[Stage], seconds: float) -> str:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=common.ROOT, capture_output=True, text=True
    ).stdout.strip()
    failed = sum(s.state != "ok" for s in stages)
    lines = [f"nightly of {commit or 'an unpacked tree'}: {seconds:.0f} s", *map(line_of, stages)]
    return "\n".join([*lines, f"{len(stages) - failed} passed, {failed} failed", ""])


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Run the night's stages.")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("stages", nargs="*")
    args = parser.parse_args(argv)
    known = known_stages()
    names = [s.name for s in known]
    if args.list:
        print("\n".join(f"{s.name:<14} make {' '.join(s.goals)}" for s in known))
        return 0
    if unknown := [n for n in args.stages if n not in names]:
        print(f"nightly: no stage {', '.join(unknown)}; there are {', '.join(names)}")
        return 2
    chosen = [s for s in known if not args.stages or s.name in args.stages]
    lanes = [[s for s in chosen if s.lane == lane] for lane in ("python", "native")]
    if os.environ.get("LANES", "2") == "1":
        lanes = [lanes[0] + lanes[1]]
    environment = common.without_make()
    LOGS.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    # What several stages want is made before they start.
    subprocess.run(["make", "build"], cwd=common.ROOT, env=environment, check=True)
    threads = [threading.Thread(target=run_lane, args=(lane, environment)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run_lane([s for s in chosen if s.lane == "last"], environment)
    text = summary(chosen, time.monotonic() - start)
    (LOGS / "summary.txt").write_text(text)
    print(text, end="")
    return 1 if any(s.state != "ok" for s in chosen) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
