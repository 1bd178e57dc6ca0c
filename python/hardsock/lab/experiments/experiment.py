"""What an experiment is: a claim, a failure that shows it, and the same work done with hardsock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Arrow", "Bar", "Chart", "Experiment", "Finding", "Line", "Side"]

Side = Literal["plain", "hardsock"]
"""Whose a mark of a chart is: ``"plain"`` (the standard library's) or ``"hardsock"``."""


@dataclass(frozen=True)
class Bar:
    """A span of a timeline: a row's label, where it begins and ends, and whose it is.

    Attributes:
        row: What stands in front of its row.
        begin: Where it begins, on the scale of the chart's *x*.
        end: Where it ends, on the same scale.
        side: ``"plain"`` (the standard library's sockets) or ``"hardsock"``; the colour.
        failed: Drawn hatched, so that no colour has to tell.
        note: What is written at its end.
    """

    row: str
    begin: float
    end: float
    side: Side
    failed: bool = False
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A line of a plot: values for a percentile plot, (x, y) pairs for one over time.

    Attributes:
        label: What the legend calls it.
        side: ``"plain"`` or ``"hardsock"``: the colour.
        points: Its values or pairs, in order.
    """

    label: str
    side: Side
    points: Sequence[Any]


@dataclass(frozen=True)
class Arrow:
    """A packet of a sequence: in which of its panels, which way, and what it was.

    Attributes:
        panel: The title of its panel.
        to_right: Whether it goes from left to right.
        label: What it was.
        failed: Drawn broken, so that no colour has to tell.
    """

    panel: str
    to_right: bool
    label: str
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is drawn: bars in rows, percentiles, lines over something, or packets between two ends.

    In a sequence *x* names the end on the left and *y* the one on the right; time goes downwards.

    Attributes:
        kind: Which of them it is.
        title: What stands above it.
        x: What is told from left to right, with its unit.
        y: What is told upwards, with its unit.
        bars: Of a timeline.
        lines: Of percentiles, and of lines.
        arrows: Of a sequence, in order.
        log: Whether the axis of the values is logarithmic.
        limit: A value on the scale of the chart that means something, and what.
    """

    kind: Literal["timeline", "percentiles", "lines", "sequence"]
    title: str
    x: str
    y: str = ""
    bars: Sequence[Bar] = ()
    lines: Sequence[Line] = ()
    arrows: Sequence[Arrow] = ()
    log: bool = False
    limit: tuple[float, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was measured, and what it means.

    Attributes:
        plain: Of the standard library's sockets: numbers by name, which has the unit.
        hardsock: The same of hardsock: numbers by name, which has the unit.
        shown: Whether the failure happened to the one and not to the other.
        text: A paragraph with the numbers.
        chart: What is drawn of it.
        invalid: Why nothing can be said, if so: then *shown* means nothing.
        conditions: What it depends on besides the machine: those of its `hardsock.lab.Wire`.
    """

    plain: Mapping[str, float]
    hardsock: Mapping[str, float]
    shown: bool
    text: str
    chart: Chart
    invalid: str = ""
    conditions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One page of docs/experiments.

    *measure* makes what it needs and takes it down again; it raises `hardsock.lab.Unavailable`
    where this machine lacks something.

    Attributes:
        name: As ``hardsock lab run`` takes it.
        title: The heading of its page.
        claim: One sentence, as it stands in textbooks and articles, put right where they are wrong.
        why: What happens, and where that is written.
        instead: What to do, with hardsock and without.
        measure: Does it, and returns what was found.
        seconds: About how long it takes.
        is_short: Whether it is run with each commit.
    """

    name: str
    title: str
    claim: str
    why: str
    instead: str
    measure: Callable[[], Finding]
    seconds: float
    is_short: bool = True
