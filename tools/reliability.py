"""docs/reliability.md: what the library was put through, how often, and what came of it.

    python tools/reliability.py run torture faults   # runs them, and keeps what came of it
    python tools/reliability.py soak build/soak/result.json
    python tools/reliability.py write                # the page, of all that was kept

What was kept stands in docs/reliability.json. A technique that was never run has no row.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import run_ctests

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs" / "reliability.json"
PAGE = ROOT / "docs" / "reliability.md"
EXPERIMENTS = ROOT / "docs" / "experiments"

PROGRAMS = {
    "torture": ("Every call of a scenario fails in turn", "make torture"),
    "faults": (
        "Calls fail by a plan, in one thread and in many",
        "make build/debug/tests/c/test_faults && build/debug/tests/c/test_faults",
    ),
    "simulation": (
        "Calls in a simulated network keep their promises: one case is a seed",
        "make simulate SECONDS=60 FROM=1",
    ),
    "mutations": (
        "The core broken on purpose is found by the simulation: one case is a way to break it",
        "make check-simulate",
    ),
    "wire": (
        "The lab's wire against what it was asked for",
        "make build/debug/tests/c/test_wire_line && build/debug/tests/c/test_wire_line",
    ),
    "scan": (
        "The scan recorder against exact counts",
        "make build/debug/tests/c/test_scan && build/debug/tests/c/test_scan",
    ),
}
HEAD = """# Reliability

What the library was put through, and what came of it. A case is one test, one experiment, or one answer that
was compared with what had been asked; a violation is a promise that was broken. This page is made by
`python tools/reliability.py write` of what its runs have kept.

| technique | cases | survived | violations | command |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    technique: str
    cases: int
    survived: int
    violations: int
    command: str
    note: str = ""


def of_program(name: str, status: int, output: str) -> Row:
    """What a program of tests said; one that said nothing is a violation."""
    technique, command = PROGRAMS[name]
    found = run_ctests.judge(name, status, output, 0.0)
    passed, failed = found.passed, found.failed
    return Row(technique, passed + failed, passed, failed, command, f"Linux {platform.release()}")


def of_soak(result: dict[str, Any]) -> Row:
    """Answers that were right; calls that ended in an error of ours are the faults' doing."""
    outcomes = result["outcomes"]
    answered = sum(count for name, count in outcomes.items() if name.endswith(": answered"))
    slope = result["slopes"]["rests.in_use_kib"]
    memory = result["slopes"]["samples.memory_kib"]
    return Row(
        "Soak: everything at once, with faults, restarts and a bad wire",
        sum(outcomes.values()),
        sum(outcomes.values()) - len(result["violations"]),
        len(result["problems"]),
        f"make soak MINUTES={result['minutes']:g}",
        f"seed {result['seed']}: {answered:,} answers right, {result['faults']:,} faults, "
        f"{result['disturbed']['servers']} servers killed, {result['disturbed']['changes']} changes of "
        f"the wire; in use at rest {slope['per_second']:+.4f} +- {slope['within']:.4f} KiB/s, "
        f"memory as the kernel counts it {memory['per_second']:+.3f} +- {memory['within']:.3f} KiB/s",
    )


def of_experiments(directory: Path) -> Row:
    """Failures of plain sockets that were provoked, and did not happen to hardsock."""
    verdicts = [json.loads(one.read_text())["verdict"] for one in sorted(directory.glob("*.json"))]
    shown = verdicts.count("shown")
    return Row(
        "Failures provoked with plain sockets do not happen to hardsock",
        len(verdicts),
        shown,
        verdicts.count("not shown"),
        "hardsock lab run all",
        "[experiments](experiments/README.md)",
    )


def page(kept: dict[str, dict[str, Any]], experiments: Row) -> str:
    rows = [*(Row(**one) for one in kept.values()), experiments]
    lines = [
        f"| {one.technique} | {one.cases:,} | {one.survived:,} | {one.violations:,} | `{one.command}` |"
        for one in rows
    ]
    notes = [f"- {one.technique}: {one.note}." for one in rows if one.note]
    return HEAD + "\n".join([*lines, "", *notes, ""])


def read_kept() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    return found


def keep(name: str, row: Row) -> None:
    KEPT.write_text(json.dumps({**read_kept(), name: asdict(row)}, indent=1, sort_keys=True) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("run").add_argument("names", nargs="+", choices=sorted(PROGRAMS))
    actions.add_parser("soak").add_argument("file", type=Path)
    actions.add_parser("write")
    arguments = parser.parse_args()
    if arguments.action == "run":
        for name in arguments.names:
            done = subprocess.run(
                PROGRAMS[name][1], shell=True, cwd=ROOT, capture_output=True, text=True, check=False
            )
            keep(name, of_program(name, done.returncode, done.stdout + done.stderr))
    elif arguments.action == "soak":
        keep("soak", of_soak(json.loads(arguments.file.read_text())))
    PAGE.write_text(page(read_kept(), of_experiments(EXPERIMENTS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
