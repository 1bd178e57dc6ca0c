"""Drawing a chart: four kinds, readable in light and dark, at 700 pixels, without colour vision.

Needs matplotlib (the extra ``lab``). Two SVG files are made, one for each background; text stays
text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hardsock.lab.experiments.experiment import Chart
from hardsock.lab.unavailable import Unavailable

# Of Okabe and Ito's palette, which tells apart for every kind of colour vision; and hatches, dashes
# and labels say the same without any.
_COLOURS = {
    "light": {"plain": "#d55e00", "hardsock": "#0072b2", "text": "#1f2328", "grid": "#d0d7de"},
    "dark": {"plain": "#e69f00", "hardsock": "#56b4e9", "text": "#e6edf3", "grid": "#3d444d"},
}
_BACKGROUND = {"light": "#ffffff", "dark": "#0d1117"}
_DASHES = {"plain": (None, None), "hardsock": (5, 2)}
_INCH = 100  # pixels: what is 7 wide is 700


def draw(chart: Chart, directory: Path, name: str, *, suffix: str = "svg") -> list[Path]:
    """Write NAME-light.svg and NAME-dark.svg.

    Raises:
        Unavailable: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise Unavailable("pictures need matplotlib: pip install 'hardsock[lab]'") from None
    matplotlib.use("Agg")
    made = []
    for theme, colours in _COLOURS.items():
        style: Any = {
            "svg.fonttype": "none",
            "svg.hashsalt": name,
            "font.family": "sans-serif",
            "font.size": 11,
            "text.color": colours["text"],
            "axes.labelcolor": colours["text"],
            "axes.edgecolor": colours["grid"],
            "xtick.color": colours["text"],
            "ytick.color": colours["text"],
            "axes.facecolor": _BACKGROUND[theme],
            "figure.facecolor": _BACKGROUND[theme],
            "hatch.linewidth": 1.2,
        }
        path = directory / f"{name}-{theme}.{suffix}"
        with matplotlib.rc_context(style):
            _draw_one(chart, path, colours)
        made.append(path)
    return made


def _draw_one(chart: Chart, path: Path, colours: dict[str, str]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, _height(chart)), dpi=_INCH, layout="constrained")
    if chart.kind == "sequence":
        _draw_sequence(chart, figure, colours)
        _save(figure, path)
        return
    axes = figure.add_subplot()
    axes.set_title(chart.title, loc="left", fontsize=12)
    axes.set_xlabel(chart.x)
    axes.set_ylabel(chart.y)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _KINDS[chart.kind](chart, axes, colours)
    _save(figure, path)


def _height(chart: Chart) -> float:
    """In inches."""
    if chart.kind == "timeline":
        return max(2.2, 1.1 + 0.24 * len({bar.row for bar in chart.bars}))
    if chart.kind == "sequence":
        most = max(Counter(arrow.panel for arrow in chart.arrows).values())
        return 1.2 + 0.3 * most
    return 3.6


def _save(figure: Any, path: Path) -> None:
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    figure.savefig(path, metadata=metadata, transparent=False)


def _draw_sequence(chart: Chart, figure: Any, colours: dict[str, str]) -> None:
    """Panels side by side, each with its two ends as lines, and packets between them."""
    panels = list(dict.fromkeys(arrow.panel for arrow in chart.arrows))
    figure.suptitle(chart.title, x=0.02, ha="left", fontsize=12)
    longest = max(Counter(arrow.panel for arrow in chart.arrows).values())
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1)
        side = "plain" if number == 0 else "hardsock"
        axes.set_title(panel, fontsize=11, color=colours[side])
        axes.axis("off")
        axes.set(xlim=(-0.12, 1.12), ylim=(longest + 0.6, -0.9))
        for x, name in ((0, chart.x), (1, chart.y)):
            axes.plot([x, x], [-0.3, longest + 0.4], color=colours["grid"], linewidth=1.5)
            axes.text(x, -0.45, name, ha="center", va="bottom", fontsize=10)
        for row, arrow in enumerate(one for one in chart.arrows if one.panel == panel):
            begin, end = (0, 1) if arrow.to_right else (1, 0)
            axes.annotate(
                "",
                (end, row + 0.75),
                xytext=(begin, row + 0.5),
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": colours[side],
                    "linewidth": 1.8,
                    "linestyle": "--" if arrow.failed else "-",
                    "shrinkA": 0,
                    "shrinkB": 0,
                },
            )
            axes.text(0.5, row + 0.34, arrow.label, ha="center", va="center", fontsize=9.5)


def _draw_timeline(chart: Chart, axes: Any, colours: dict[str, str]) -> None:
    rows = list(dict.fromkeys(bar.row for bar in chart.bars))
    most = max(bar.end for bar in chart.bars)
    for bar in chart.bars:
        axes.barh(
            rows.index(bar.row),
            bar.end - bar.begin,
            left=bar.begin,
            height=0.62,
            color="none" if bar.failed else colours[bar.side],
            edgecolor=colours[bar.side] if bar.failed else axes.get_facecolor(),
            hatch="////" if bar.failed else None,
            linewidth=1,
        )
        if bar.note:
            axes.annotate(
                bar.note,
                (bar.end, rows.index(bar.row)),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
            )
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlim(0, most * (1.3 if any(bar.note for bar in chart.bars) else 1.05))
    axes.xaxis.grid(True, color=colours["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(_number)
    if chart.limit is not None:
        value, what = chart.limit
        axes.axvline(value, color=colours["text"], linewidth=1.2, linestyle=":")
        axes.annotate(
            what,
            (value, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -2),
            textcoords="offset points",
            va="top",
            fontsize=10,
            bbox=_behind(axes),
        )


def _draw_lines(chart: Chart, axes: Any, colours: dict[str, str]) -> None:
    for line in chart.lines:
        xs, ys = zip(*line.points, strict=True)
        _plot(axes, xs, ys, line.label, line.side, colours)
    _finish_plot(chart, axes, colours)
    if all(isinstance(x, int) for line in chart.lines for x, _ in line.points):
        axes.xaxis.get_major_locator().set_params(integer=True)  # There is no half a request.


def _draw_percentiles(chart: Chart, axes: Any, colours: dict[str, str]) -> None:
    for line in chart.lines:
        values = sorted(line.points)
        shares = [100 * (i + 1) / len(values) for i in range(len(values))]
        _plot(axes, shares, values, line.label, line.side, colours)
    axes.set_xlabel(f"share of {chart.x} that took no longer (%)")
    _finish_plot(chart, axes, colours)


def _plot(axes: Any, xs: Any, ys: Any, label: str, side: str, colours: dict[str, str]) -> None:
    marker = "o" if side == "plain" else "s"
    (drawn,) = axes.plot(
        xs, ys, color=colours[side], linewidth=2, marker=marker, markersize=3.5, label=label
    )
    if _DASHES[side][0] is not None:
        drawn.set_dashes(_DASHES[side])


def _finish_plot(chart: Chart, axes: Any, colours: dict[str, str]) -> None:
    if chart.log:
        axes.set_yscale("log")
    else:
        bottom, top = axes.get_ylim()
        axes.set_ylim(min(bottom, -0.04 * top), top)  # A line of zeros is one that is seen.
    axes.yaxis.set_major_formatter(_number)
    axes.grid(True, color=colours["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    if chart.limit is not None:
        value, what = chart.limit
        at_left, above = _clear_corner(axes, value)
        axes.axhline(value, color=colours["text"], linewidth=1.2, linestyle=":")
        axes.annotate(
            what,
            (0.01 if at_left else 0.99, value),
            xycoords=("axes fraction", "data"),
            xytext=(0, 5 if above else -5),
            textcoords="offset points",
            ha="left" if at_left else "right",
            va="bottom" if above else "top",
            fontsize=10,
            bbox=_behind(axes),
        )
    axes.legend(frameon=False, loc="best", labelcolor=colours["text"])


def _clear_corner(axes: Any, value: float) -> tuple[bool, bool]:
    """Where a label of the limit at *value* hides the fewest points: at the left, above the limit."""
    width, height = 0.3, 0.1
    to_share = axes.transData + axes.transAxes.inverted()
    _, level = to_share.transform((axes.get_xlim()[0], value))
    points = [one for line in axes.lines for one in to_share.transform(line.get_xydata())]

    def hidden(corner: tuple[bool, bool]) -> int:
        at_left, above = corner
        low, high = (level, level + height) if above else (level - height, level)
        return sum((x < width if at_left else x > 1 - width) and low < y < high for x, y in points)

    return min([(False, False), (True, False), (False, True), (True, True)], key=hidden)


def _behind(axes: Any) -> dict[str, Any]:
    """The box of a label that may lie on something."""
    return {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 1.5}


def _number(value: float, _position: int | None = None) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


_KINDS: dict[str, Callable[[Chart, Any, dict[str, str]], None]] = {
    "timeline": _draw_timeline,
    "percentiles": _draw_percentiles,
    "lines": _draw_lines,
}
