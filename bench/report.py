"""Turns series into judged rows, the rows into the one table and the JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import works
from .model import Goal, Measure, Work
from .runner import Series
from .stats import Spread, quantile

HEADINGS = (
    "work",
    "implementation",
    "cost",
    "p50",
    "p99",
    "max",
    "per s",
    "x C",
    "x stdlib",
    "goal",
    "met?",
)
LEFT_ALIGNED = {"work", "implementation", "goal", "met?"}


@dataclass(frozen=True)
class Verdict:
    """A goal and what was measured; met is None when a side of the comparison is absent."""

    goal: Goal
    value: Spread | None
    met: bool | None


@dataclass(frozen=True)
class Row:
    """One work with one implementation."""

    work: Work
    series: Series
    cost: Spread | None
    p50: float | None
    p99: float | None
    longest: float | None
    against_floor: Spread | None
    against_stdlib: Spread | None
    verdicts: tuple[Verdict, ...]


def ratio(mine: Series, other: Series | None) -> Spread | None:
    """Median and quartiles of the ratios within the rounds."""
    if other is None or mine is other or not mine.costs or not other.costs:
        return None
    return Spread.of([a / b for a, b in zip(mine.costs, other.costs, strict=False)])


def ratio_beside(mine: Series, other: Series | None, beside: Series | None) -> Spread | None:
    """The same of what is left without the cost of a third."""
    if other is None or beside is None or not (mine.costs and other.costs and beside.costs):
        return None
    rounds = zip(mine.costs, other.costs, beside.costs, strict=False)
    return Spread.of([(a - c) / b for a, b, c in rounds])


def tail_ratio(mine: Series, other: Series | None) -> Spread | None:
    """Of the 99th percentiles of all rounds together."""
    if other is None or not mine.latencies_ns or not other.latencies_ns:
        return None
    return Spread.of([quantile(mine.latencies_ns, 0.99) / quantile(other.latencies_ns, 0.99)])


def judge(goal: Goal, mine: Series, by_name: dict[str, Series]) -> Verdict:
    if goal.tail:
        value = tail_ratio(mine, by_name.get(goal.against or ""))
    elif goal.beside is not None:
        value = ratio_beside(mine, by_name.get(goal.against or ""), by_name.get(goal.beside))
    elif goal.against is not None:
        value = ratio(mine, by_name.get(goal.against))
    else:
        value = Spread.of(mine.costs) if mine.costs else None
    return Verdict(goal, value, None if value is None else value.median <= goal.at_most)


def rows_of(work: Work, all_series: Sequence[Series]) -> list[Row]:
    by_name = {series.name: series for series in all_series}
    floor = by_name.get(work.floor) if work.floor is not None else None
    return [
        Row(
            work=work,
            series=series,
            cost=Spread.of(series.costs) if series.costs else None,
            p50=quantile(series.latencies_ns, 0.5) if series.latencies_ns else None,
            p99=quantile(series.latencies_ns, 0.99) if series.latencies_ns else None,
            longest=max(series.latencies_ns, default=None),
            against_floor=ratio(series, floor),
            against_stdlib=ratio(series, by_name.get("stdlib")),
            verdicts=tuple(judge(g, series, by_name) for g in work.goals if g.of == series.name),
        )
        for series in all_series
    ]


def _amount(measure: Measure, value: float | None) -> str:
    if value is None:
        return ""
    if measure is Measure.SHARES:
        return f"{value:.2f} x"
    return f"{value:,.0f} B" if measure is Measure.MEMORY else f"{value / 1000:.2f} us"


def _tail(measure: Measure, value: float | None) -> str:
    if measure is Measure.SHARES and value is not None:
        return f"{value / 1e9:.2f} s"
    return _amount(measure, value)


def _spread(value: Spread | None) -> str:
    if value is None:
        return ""
    if value.median < 0.095:
        return f"{value.median:.3f} [{value.q1:.3f}-{value.q3:.3f}]"
    return f"{value.median:.2f} [{value.q1:.2f}-{value.q3:.2f}]"


def _met(verdict: Verdict) -> str:
    if verdict.value is None or verdict.met is None:
        return "not measured"
    word = "yes" if verdict.met else "NO"
    if verdict.goal.against is None:
        number = verdict.value.median
        return f"{word}: {number:.2f}" if number < 100 else f"{word}: {number:,.0f}"
    if verdict.goal.at_most < 1:
        return f"{word}: {1 / verdict.value.median:.2f} x"
    return f"{word}: {verdict.value.median:.2f}"


def _lines(row: Row) -> list[list[str]]:
    """One line per row, and one more for each goal beyond the first."""
    measure = row.work.measure
    head = [row.work.title, row.series.name]
    if row.cost is None:
        return [[*head, row.series.absent or "no numbers", *[""] * (len(HEADINGS) - 3)]]
    is_rate = measure in (Measure.RATE, Measure.CPU)
    per_second = f"{1e9 / row.cost.median:,.0f}" if is_rate else ""
    goals = [(v.goal.text, _met(v)) for v in row.verdicts] or [("", "")]
    first = [
        *head,
        _amount(measure, row.cost.median),
        _tail(measure, row.p50) if is_rate else "",
        _tail(measure, row.p99),
        _tail(measure, row.longest) if is_rate else "",
        per_second,
        _spread(row.against_floor),
        _spread(row.against_stdlib),
        *goals[0],
    ]
    return [first, *[[*[""] * (len(HEADINGS) - 2), *goal] for goal in goals[1:]]]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    parts = [
        cell.ljust(width) if heading in LEFT_ALIGNED else cell.rjust(width)
        for cell, width, heading in zip(cells, widths, HEADINGS, strict=True)
    ]
    return "  ".join(parts).rstrip()


def table(rows: Sequence[Row]) -> str:
    """The plain text table. A text in place of numbers may run over the columns right of it."""
    body = [(row, line) for row in rows for line in _lines(row)]
    widths = [
        max(len(HEADINGS[i]), *(len(line[i]) for row, line in body if row.cost or i < 2), 0)
        for i in range(len(HEADINGS))
    ]
    out = [_aligned(HEADINGS, widths), "  ".join("-" * width for width in widths)]
    last_work: Work | None = None
    for row, line in body:
        if last_work is not None and row.work is not last_work:
            out.append("")
        if row.cost is None:
            start = _aligned([*line[:2], *[""] * (len(HEADINGS) - 2)], widths)
            out.append(f"{start.ljust(widths[0] + 2 + widths[1])}  {line[2]}")
        else:
            out.append(_aligned(line, widths))
        last_work = row.work
    return "\n".join(out)


LEGEND = """\
cost: median per operation (rate), p50 (latency), per connection (memory), or most served to least
served (beside it the longest wait); less is better. p50, p99 and max are of single operations.
x C, x stdlib: median over the rounds of the ratio within a round [quartiles]; goals are judged on
the medians. x C of a latency is against a bare eventfd wake. CPU: time that the worker (not its
peer) was on a CPU; per s is then per second of that.
What each work measures stands at the top of bench/works/<work>.py."""


def _spread_json(value: Spread | None) -> dict[str, float] | None:
    if value is None:
        return None
    return {"median": value.median, "q1": value.q1, "q3": value.q3, "rounds": value.n}


_UNITS = {Measure.MEMORY: "bytes", Measure.SHARES: "most served to least served"}


def _row_json(row: Row) -> dict[str, Any]:
    unit = _UNITS.get(row.work.measure, "ns")
    latencies = row.series.latencies_ns
    return {
        "work": row.work.name,
        "implementation": row.series.name,
        "version": row.series.version,
        "absent": row.series.absent,
        "measure": row.work.measure.value,
        "unit": unit,
        "cost": _spread_json(row.cost),
        "p50": row.p50,
        "p99": row.p99,
        "max": row.longest,
        "samples": len(latencies) or None,
        "connections": row.series.connections,
        "ratio_to_c": _spread_json(row.against_floor),
        "ratio_to_stdlib": _spread_json(row.against_stdlib),
        "costs_by_round": row.series.costs,
        "goals": [
            {
                "text": v.goal.text,
                "against": v.goal.against,
                "beside": v.goal.beside,
                "at_most": v.goal.at_most,
                "measured": _spread_json(v.value),
                "met": v.met,
            }
            for v in row.verdicts
        ],
    }


def document(rows: Sequence[Row], machine: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": 1,
        "machine": machine,
        "plan": plan,
        "results": [_row_json(row) for row in rows],
    }


def put(document: dict[str, Any], work: Work, rows: Sequence[Row], plan: dict[str, Any]) -> None:
    """Take the rows of a work, in the place of those that the document has of it."""
    names = [one.name for one in works.ALL]
    names_cpu = {f"{name}_cpu": name for name in names}
    kept = [r for r in document["results"] if names_cpu.get(r["work"], r["work"]) != work.name]
    kept += map(_row_json, rows)
    document["results"] = sorted(
        kept, key=lambda row: names.index(names_cpu.get(row["work"], row["work"]))
    )
    document["plan"][work.name] = plan
