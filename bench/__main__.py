"""`python -m bench`: measure everything in one run, print one table, write the JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
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


def write_json(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    chosen = [work for work in works.ALL if options.only is None or work.name in options.only]
    described = machine.describe()
    rows: list[report.Row] = []
    plans: dict[str, object] = {"quick": options.quick}
    try:
        for work in chosen:
            plan = plan_for(options, work)
            plans[work.name] = {**asdict(plan), "only": sorted(plan.only) if plan.only else None}
            series = runner.run_work(work, plan, progress)
            rows += report.rows_of(work, series)
            if work.cpu is not None:
                rows += report.rows_of(work.cpu, [one.by_cpu() for one in series])
    except build.BuildError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    progress("")
    print(report.table(rows))
    print(f"\n{report.LEGEND}")
    for warning in warnings(options, described):
        print(warning)
    text = json.dumps(report.document(rows, described, plans), indent=1) + "\n"
    for path in filter(None, (LATEST, options.json)):
        write_json(path, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
