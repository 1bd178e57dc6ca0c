"""What a run leaves: a page, its figures as JSON, its pictures; and the page that leads to them."""

from __future__ import annotations

import json
import os
import platform
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hardsock.lab.experiments.chapters import CHAPTERS, WRONG, Chapter
from hardsock.lab.experiments.experiment import Experiment, Finding

__all__ = ["circumstances", "result_of", "verdict_of", "write_index", "write_page"]


def verdict_of(finding: Finding) -> str:
    """``"shown"``, ``"not shown"`` or ``"INVALID"``."""
    if finding.invalid:
        return "INVALID"
    return "shown" if finding.shown else "not shown"


def circumstances() -> dict[str, Any]:
    """What this machine is, and how much it has to do at the moment."""
    return {
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "processors": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
    }


def result_of(
    experiment: Experiment, finding: Finding, before: Mapping[str, Any]
) -> dict[str, Any]:
    """All that was found, for JSON; *before*: the `circumstances` in which it began."""
    return {
        "name": experiment.name,
        "claim": experiment.claim,
        "verdict": verdict_of(finding),
        "invalid": finding.invalid,
        "plain": dict(finding.plain),
        "hardsock": dict(finding.hardsock),
        "text": finding.text,
        **before,
        "conditions": dict(finding.conditions),
        "chart": asdict(finding.chart),
    }


def write_page(
    experiment: Experiment, finding: Finding, directory: Path, before: Mapping[str, Any]
) -> None:
    """NAME.json and NAME.md; the pictures are `picture.draw`'s."""
    result = result_of(experiment, finding, before)
    name = experiment.name
    (directory / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (directory / f"{name}.md").write_text(_page(experiment, finding, result))


def _page(experiment: Experiment, finding: Finding, result: dict[str, Any]) -> str:
    name = experiment.name
    rows = [
        f"| {key.replace('_', ' ')} | {_cell(finding.plain, key)} | {_cell(finding.hardsock, key)} |"
        for key in dict.fromkeys([*finding.plain, *finding.hardsock])
    ]
    return "\n".join(
        [
            f"# {experiment.title}",
            "",
            _wrapped(experiment.claim),
            "",
            "<picture>",
            f'  <source media="(prefers-color-scheme: dark)" srcset="{name}-dark.svg">',
            f'  <img alt="{finding.chart.title}" src="{name}-light.svg" width="700">',
            "</picture>",
            "",
            f"**{verdict_of(finding).capitalize()}.** ".replace("Invalid", "INVALID")
            + _wrapped(finding.invalid or finding.text),
            "",
            "## Why",
            "",
            _wrapped(experiment.why),
            "",
            "## Instead",
            "",
            _wrapped(experiment.instead),
            "",
            "## Figures",
            "",
            "| | plain sockets | hardsock |",
            "|---|---|---|",
            *rows,
            "",
            _wrapped(_circumstances(result)),
            f"Again: `hardsock lab run {name}` (about {experiment.seconds:g} s); all as [JSON]({name}.json).",
            "",
        ]
    )


def _circumstances(result: dict[str, Any]) -> str:
    said = (
        f"Linux {result['kernel']}, Python {result['python']}, {result['processors']} processors with a load of "
        f"{result['load']} when it began"
    )
    if result["load"] > result["processors"]:
        said += ", so others wanted them too, and times are longer than on a quiet machine"
    if wire := result["conditions"]:
        sysctls = wire["sysctls"]
        said += f". Wire: {wire['backend']}, seed {wire['seed']}, {sysctls['tcp_congestion_control']}, offloads off"
    return said + "."


def _cell(values: Any, key: str) -> str:
    value = values.get(key)
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 115, break_long_words=False, break_on_hyphens=False))


def write_index(experiments: Sequence[Experiment], directory: Path) -> None:
    """README.md: in chapters, every experiment that has a page in *directory*."""
    lines = [
        "# How networked programs fail",
        "",
        (
            "Each failure provoked on a real kernel, measured, and prevented. The verdicts are of the last run, "
            "made by"
        ),
        "`hardsock lab run all --out docs/experiments`; each page says how to have it again.",
        "",
    ]
    known = {name for chapter in CHAPTERS for name in chapter.names}
    rest = Chapter("Others", "", tuple(one.name for one in experiments if one.name not in known))
    for chapter in (*CHAPTERS, rest):
        rows = [
            _row(one, directory)
            for one in experiments
            if one.name in chapter.names and (directory / f"{one.name}.json").exists()
        ]
        if rows:
            table = ["| experiment | claim | verdict |", "|---|---|---|", *rows, ""]
            lines += [f"## {chapter.title}", "", _wrapped(chapter.text), "", *table]
    lines += ["## Often read, and wrong", "", *(f"- {_wrapped_item(one)}" for one in WRONG), ""]
    (directory / "README.md").write_text("\n".join(lines))


def _row(experiment: Experiment, directory: Path) -> str:
    verdict = json.loads((directory / f"{experiment.name}.json").read_text())["verdict"]
    return f"| [{experiment.title}]({experiment.name}.md) | {experiment.claim} | {verdict} |"


def _wrapped_item(text: str) -> str:
    return "\n  ".join(textwrap.wrap(text, 113, break_long_words=False, break_on_hyphens=False))
