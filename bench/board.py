"""`make board`: docs/benchmarks.md with a picture for each work that has a goal, from one JSON.

    python -m bench.board [JSON] [DOCS]     build/bench/latest.json and docs, if not said

Beside that JSON, which `make bench` writes, compare-*.json of `make compare` become a table each.

Nothing on the page comes from elsewhere, so it cannot say more than was measured: goals that were missed
and works without numbers are listed beside those that were met.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from . import build

Row = dict[str, Any]
NOT_MET, MET, UNKNOWN = "**missed**", "met", "not measured"
# Divisor, digits and name of a unit where a goal is an amount.
ABSOLUTE = {"ns": (1e6, 1, "ms"), "bytes": (1, 0, "B")}
FEW_LIVES = 5
BUSY = 2.0  # What the bench itself leaves behind is less.
# A picture: names at the left, bars to the right of them, numbers at their ends.
LEFT, BAR, RIGHT, LINE, TOP = 190, 400, 110, 24, 34
# One file for both backgrounds. Ours is darker and has a border: it is told apart without colours.
STYLE = """
text { font: 13px sans-serif; fill: #1f2328; }
.other { fill: #b9c2cc; } .ours { fill: #0b5d86; stroke: #1f2328; }
.spread { stroke: #1f2328; stroke-width: 2; } .goal { stroke: #b35900; stroke-width: 2; stroke-dasharray: 5 3; }
.said { fill: #b35900; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .other { fill: #4d5866; } .ours { fill: #7cc4e8; stroke: #e6edf3; }
  .spread { stroke: #e6edf3; } .goal { stroke: #ffb366; } .said { fill: #ffb366; }
}"""


def by_work(results: Sequence[Row]) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = {}
    for row in results:
        grouped.setdefault(f"{row['work']}, {row['measure']}", []).append(row)
    return grouped


def spread(value: Row | None) -> str:
    if value is None:
        return ""
    digits = 2 if value["median"] >= 0.095 else 3
    return f"{value['median']:.{digits}f} ({value['q1']:.{digits}f} to {value['q3']:.{digits}f})"


def amount(row: Row) -> str:
    cost = row["cost"]
    if cost is None:
        return row["absent"] or "no numbers"
    if row["unit"] == "ns":
        return f"{cost['median'] / 1000:,.2f} us"
    return f"{cost['median']:,.0f} B" if row["unit"] == "bytes" else f"{cost['median']:.2f} x"


def judged(row: Row, goal: Row) -> str:
    """Return what was measured: a ratio, or (against nothing) in the unit of the work."""
    if goal["met"] is None:
        return UNKNOWN
    said = spread(goal["measured"])
    if goal["against"] is None and row["unit"] in ABSOLUTE:
        divisor, digits, unit = ABSOLUTE[row["unit"]]
        of = {key: f"{value / divisor:,.{digits}f}" for key, value in goal["measured"].items()}
        said = f"{of['median']} {unit} ({of['q1']} to {of['q3']})"
    return f"{MET if goal['met'] else NOT_MET}: {said}"


# ---- pictures


def limit_of(rows: Sequence[Row], goal: Row) -> float | None:
    """Return the cost at which the goal is just met."""
    costs = {r["implementation"]: float(r["cost"]["median"]) for r in rows if r["cost"]}
    if goal["against"] is None:
        return float(goal["at_most"])
    beside = goal.get("beside")
    if goal["against"] not in costs or (beside is not None and beside not in costs):
        return None
    return float(goal["at_most"] * costs[goal["against"]] + (costs[beside] if beside else 0.0))


def picture(title: str, rows: Sequence[Row]) -> str:
    """Return an SVG: the cost of each, its quartiles, and a dashed line for each goal."""
    shown = sorted((r for r in rows if r["cost"]), key=lambda r: float(r["cost"]["median"]))
    goals = [(r, g, limit_of(rows, g)) for r in shown for g in r["goals"]]
    longest = max(
        [r["cost"]["q3"] for r in shown] + [limit for _, _, limit in goals if limit is not None]
    )
    height = TOP + LINE * len(shown) + 12
    width = LEFT + BAR + RIGHT
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'

    def x(value: float) -> float:
        return LEFT + BAR * value / longest

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<text x="4" y="16">{escape(title)}: less is better</text>',
    ]
    for i, row in enumerate(shown):
        y = TOP + LINE * i
        kind = "ours" if row["implementation"].startswith("hardsock") else "other"
        cost = row["cost"]
        out += [
            f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(row["implementation"])}</text>',
            f'<rect class="{kind}" x="{LEFT}" y="{y}" height="16" width="{x(cost["median"]) - LEFT:.1f}"/>',
            f'<path class="spread" d="M{x(cost["q1"]):.1f} {y + 8}H{x(cost["q3"]):.1f}"/>',
            f'<text x="{max(x(cost["q3"]), x(cost["median"])) + 6:.1f}" y="{y + 13}">{escape(amount(row))}</text>',
        ]
    for row, _, limit in goals:
        if limit is None:
            continue
        y = TOP + LINE * shown.index(row)
        out.append(f'<path class="goal" d="M{x(limit):.1f} {y - 5}V{y + 21}"/>')
    return "\n".join([*out, "</svg>"]) + "\n"


# ---- the page


def head(document: Row) -> Iterator[str]:
    machine = document["machine"]
    versions = ", ".join(
        f"{name} {str(value).splitlines()[0]}"
        for name, value in machine["versions"].items()
        if value
    )
    plan = document["plan"]
    parts = [p for p in plan.values() if isinstance(p, dict)]
    lives = {p.get("lives", 1) for p in parts}
    loads = [p.get("load_before", machine["load_before"]) for p in parts]
    times = [p.get("time", machine["time"]) for p in parts] or [machine["time"]]
    sources = {json.dumps(p.get("source", machine["source"])) for p in parts}
    yield "# Benchmarks\n"
    yield (
        "Written by `make board` from what `make bench` measured; nothing here was put in by hand. How it is "
        "measured, and how to\nrepeat it: [`bench/README.md`](../bench/README.md). A ratio is the median of "
        "ratios within rounds, in brackets its quartiles;\nless is better.\n"
    )
    if plan.get("quick"):
        yield "**This was a quick run: it shows that everything works. Do not quote its numbers.**\n"
    elif max(lives, default=1) < FEW_LIVES:
        yield "**Each worker was one process only: twins differ more than these quartiles say.**\n"
    if max(loads, default=0.0) > BUSY:
        yield f"**The machine was busy before some of the works: load up to {max(loads):.1f}.**\n"
    yield "| | |\n|---|---|"
    first, last = min(times), max(times)
    yield f"| when | {first}{'' if first == last else f' to {last}'} |"
    for source in map(json.loads, sorted(sources)):
        yield f"| source | {source['commit'][:12]}{', changed' if source['changed'] else ''} |"
    yield f"| machine | {machine['cpu']}, {machine['cpus']} CPUs, {machine['memory_bytes'] >> 20} MiB, {machine['machine']} |"
    yield f"| kernel | {machine['kernel']} |"
    yield f"| versions | {versions} |"
    yield f"| settings | {', '.join(f'{k} = {v}' for k, v in machine['sysctl'].items())} |\n"


def goals_table(results: Sequence[Row]) -> Iterator[str]:
    rows = [(row, goal) for row in results for goal in row["goals"]]
    counts = [sum(g["met"] is state for _, g in rows) for state in (True, False, None)]
    yield f"## Goals\n\n{counts[0]} met, {counts[1]} missed, {counts[2]} not measured.\n"
    yield "| work | implementation | goal | measured |\n|---|---|---|---|"
    for row, goal in rows:
        yield f"| {row['work']} | {row['implementation']} | {goal['text']} | {judged(row, goal)} |"
    yield ""


def works(results: Sequence[Row], folder: str) -> Iterator[str]:
    yield "## Works\n"
    for title, rows in by_work(results).items():
        name = title.replace(", ", "-")
        yield f"### {title}\n"
        if any(row["goals"] for row in rows) and any(row["cost"] for row in rows):
            yield f"![{title}]({folder}/{name}.svg)\n"
        yield "| implementation | cost | of C | of the standard library |\n|---|---|---|---|"
        for row in rows:
            ratios = f"{spread(row['ratio_to_c'])} | {spread(row['ratio_to_stdlib'])}"
            yield f"| {row['implementation']} | {amount(row)} | {ratios} |"
        yield ""


def hard_cases(found: Sequence[Row]) -> Iterator[str]:
    """A table for each comparison: what each library did in a case that goes wrong."""
    if not found:
        return
    yield "## The same hard cases\n"
    for one in found:
        versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
        yield f"### {one['title']}\n"
        yield f"`make compare`, {one['time']}; {versions}.\n"
        yield f"| case | {' | '.join(one['columns'])} |\n|---|{'---|' * len(one['columns'])}"
        for row in one["rows"]:
            cells = [row["case"], *(row["cells"].get(column, "") for column in one["columns"])]
            yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
        yield ""


def write(document: Row, docs: Path, compared: Sequence[Row] = ()) -> list[Path]:
    results = document["results"]
    folder = docs / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    made = [docs / "benchmarks.md"]
    lines = [
        *head(document),
        *goals_table(results),
        *works(results, folder.name),
        *hard_cases(compared),
    ]
    made[0].write_text("\n".join(lines).rstrip() + "\n")
    for title, rows in by_work(results).items():
        if any(row["goals"] for row in rows) and any(row["cost"] for row in rows):
            made.append(folder / f"{title.replace(', ', '-')}.svg")
            made[-1].write_text(picture(title, rows))
    return made


def main(argv: Sequence[str]) -> int:
    source = Path(argv[0]) if argv else build.OUT / "latest.json"
    docs = Path(argv[1]) if len(argv) > 1 else build.ROOT / "docs"
    if not source.exists():
        print(f"board: no {source}: make bench", file=sys.stderr)
        return 1
    compared = [json.loads(p.read_text()) for p in sorted(source.parent.glob("compare-*.json"))]
    made = write(json.loads(source.read_text()), docs, compared)
    print(f"board: {made[0]}, {len(made) - 1} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
