"""``hardsock lab list`` and ``hardsock lab run``."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

from hardsock.lab.experiments import EXPERIMENTS, Experiment
from hardsock.lab.experiments.page import circumstances, verdict_of, write_index, write_page
from hardsock.lab.unavailable import Unavailable

_NOT_SHOWN, _USAGE, _NOT_KNOWN = 1, 2, 3


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line says; return the exit status."""
    if arguments.action == "list":
        for one in EXPERIMENTS:
            print(f"{one.name:18} {one.claim}")
        return 0
    by_name = {one.name: one for one in EXPERIMENTS}
    names = list(by_name) if "all" in arguments.names else arguments.names
    unknown = [name for name in names if name not in by_name]
    if unknown:
        print(
            f"hardsock lab: there is no experiment {unknown[0]!r}; there are "
            f"{', '.join(by_name)}, and all",
            file=sys.stderr,
        )
        return _USAGE
    out = Path(arguments.out) if arguments.out is not None else None
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    statuses = [_run_one(by_name[name], out) for name in names]
    if out is not None:
        write_index(EXPERIMENTS, out)
    return _NOT_SHOWN if _NOT_SHOWN in statuses else max(statuses)


def _run_one(experiment: Experiment, out: Path | None) -> int:
    print(f"{experiment.name}: {experiment.claim}", flush=True)
    try:
        before = circumstances()
        finding = experiment.measure()
        if out is not None:
            from hardsock.lab.experiments.picture import draw

            draw(finding.chart, out, experiment.name)
            write_page(experiment, finding, out, before)
    except Unavailable as exc:
        print(f"  cannot run here: {exc}\n", flush=True)
        return _NOT_KNOWN
    verdict = verdict_of(finding)
    print(textwrap.indent(textwrap.fill(finding.invalid or finding.text, 96), "  "))
    print(f"  {verdict}\n", flush=True)
    return {"shown": 0, "not shown": _NOT_SHOWN, "INVALID": _NOT_KNOWN}[verdict]
