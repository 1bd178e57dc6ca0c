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
        row: TODO str
        begin: TODO float
        end: TODO float
        side: TODO Side
        failed: Drawn hatched, so that no colour has to tell.
        note: TODO str
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
        label: TODO str
        side: TODO Side
        points: TODO Sequence[Any]
    """

    label: str
    side: Side
    points: Sequence[Any]


@dataclass(frozen=True)
class Arrow:
    """A packet of a sequence: in which of its panels, which way, and what it was.

    Attributes:
        panel: TODO str
        to_right: TODO bool
        label: TODO str
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
        kind: TODO Literal['timeline', 'percentiles', 'lines', 'sequence']
        title: TODO str
        x: TODO str
        y: TODO str
        bars: TODO Sequence[Bar]
        lines: TODO Sequence[Line]
        arrows: TODO Sequence[Arrow]
        log: TODO bool
        limit: A value that means something, and what.
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
        plain: Of the standard library's sockets.
        hardsock: TODO Mapping[str, float]
        shown: Whether the failure happened to the one and not to the other.
        text: A paragraph with the numbers.
        chart: TODO Chart
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
        name: TODO str
        title: TODO str
        claim: One sentence, as it stands in textbooks and articles, put right where they are wrong.
        why: What happens, and where that is written.
        instead: What to do, with hardsock and without.
        measure: TODO Callable[[], Finding]
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
