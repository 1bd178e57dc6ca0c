"""`python -m bench`: measure everything in one run, print one table, write the JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import build, machine, report, runner, works
from .model import Work

LATEST = build.OUT / "latest.json"
ROUNDS, QUICK_ROUNDS = 61, 9
LIVES, QUICK_LIVES = 6, 1
MEMORY_ROUNDS, QUICK_MEMORY_ROUNDS = 3, 1
# A quick run is for seeing that everything works; its numbers are too noisy to quote.
QUICK_SECONDS_FACTOR, QUICK_COUNT_FACTOR = 0.5, 0.25
BUSY_LOAD = 0.5
# Without these there is nothing to compare with.
REFERENCES = frozenset({"c", "stdlib"})


def arguments(argv: list[str] | None) -> argparse.Namespace:
    names = [work.name for work in works.ALL]
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure hardsock beside its peers."
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        choices=names,
        help=f"only this work (may be repeated): {', '.join(names)}",
    )
    parser.add_argument(
        "--impl",
        action="append",
        metavar="NAME",
        help="only this implementation (may be repeated); c and stdlib are always measured",
    )
    parser.add_argument("--quick", action="store_true", help="few short rounds; do not quote")
    parser.add_argument("--repeat", type=int, metavar="N", help=f"rounds (default {ROUNDS})")
    parser.add_argument(
        "--add", action="store_true", help="keep what the last run measured of other works"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the JSON here as well")
    options = parser.parse_args(argv)
    if options.repeat is not None and options.repeat < 1:
        parser.error("--repeat must be at least 1")
    known = {name for work in works.ALL for name in work.implementations}
    if unknown := set(options.impl or ()) - known:
        parser.error(f"--impl: unknown {', '.join(sorted(unknown))}; there are {sorted(known)}")
    return options


def plan_for(options: argparse.Namespace, work: Work) -> runner.Plan:
    if work.fresh_worker:  # one round is thousands of connections: few are enough
        rounds = QUICK_MEMORY_ROUNDS if options.quick else MEMORY_ROUNDS
        rounds = min(rounds, options.repeat or rounds)
    else:
        rounds = options.repeat or (QUICK_ROUNDS if options.quick else ROUNDS)
        rounds = min(rounds, work.most_rounds or rounds)
    return runner.Plan(
        rounds=rounds,
        lives=QUICK_LIVES if options.quick else LIVES,
        seconds_factor=QUICK_SECONDS_FACTOR if options.quick else 1.0,
        count_factor=QUICK_COUNT_FACTOR if options.quick else 1.0,
        only=frozenset(options.impl) | REFERENCES if options.impl else None,
    )


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def warnings(options: argparse.Namespace, described: dict[str, Any]) -> Iterator[str]:
    if options.quick:
        yield "This was a quick run: it shows that everything works; do not quote its numbers."
    if described["load_before"] > BUSY_LOAD:
        yield (
            f"The machine was busy when the run began (load {described['load_before']:.2f}): "
            "wide quartiles are its doing; run again when it is quiet."
        )


def write_json(paths: Iterable[Path | None], document: dict[str, Any]) -> None:
    for path in filter(None, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def earlier(described: dict[str, Any], quick: bool) -> dict[str, Any] | None:
    """The last run's document, if it is of the same machine with the same programs, and as long."""
    if not LATEST.exists():
        return None
    found: dict[str, Any] = json.loads(LATEST.read_text(encoding="utf-8"))
    same = ("cpu", "cpus", "kernel", "sysctl", "versions")
    if any(found["machine"].get(key) != described[key] for key in same):
        return None
    return found if found["plan"]["quick"] == quick else None


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    chosen = [work for work in works.ALL if options.only is None or work.name in options.only]
    described = machine.describe()
    document = report.document([], described, {"quick": options.quick})
    if options.add:
        if (found := earlier(described, options.quick)) is None:
            print(f"bench: --add: {LATEST} is of no such run on this machine", file=sys.stderr)
            return 1
        document = found
    rows: list[report.Row] = []
    try:
        build.c_programs()
        for work in chosen:
            plan = plan_for(options, work)
            how = {**asdict(plan), "only": sorted(plan.only) if plan.only else None}
            when = machine.moment()
            series = runner.run_work(work, plan, progress)
            new = report.rows_of(work, series)
            if work.cpu is not None:
                new += report.rows_of(work.cpu, [one.by_cpu() for one in series])
            rows += new
            # Hours of measuring are not lost to whatever goes wrong after them.
            report.put(document, work, new, {**how, **when})
            write_json((LATEST, options.json), document)
    except build.BuildError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    progress("")
    print(report.table(rows))
    print(f"\n{report.LEGEND}")
    for warning in warnings(options, described):
        print(warning)
    return 0


if __name__ == "__main__":
    sys.exit(main())
