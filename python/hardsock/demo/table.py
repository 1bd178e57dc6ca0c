"""The table: by rich on a terminal where it is installed, else as aligned text."""

from __future__ import annotations

import enum
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

from hardsock.demo.scene import Bound

_HEADINGS = ("", "scene", "stdlib", "hardsock", "bound on hardsock")
_MIN_WIDTH, _MAX_WIDTH, _DEFAULT_WIDTH = 80, 160, 120
# Of what the verdict and the gaps leave.
_SHARES = (0.22, 0.29, 0.29, 0.20)
_GAP = "  "


class Verdict(enum.Enum):
    """How a scene ended: mark in the table, word in the summary, colour."""

    PASSED = ("ok", "passed", "green")
    FAILED = ("FAIL", "failed", "red")
    SKIPPED = ("skip", "skipped", "yellow")

    def __init__(self, mark: str, word: str, colour: str) -> None:
        self.mark, self.word, self.colour = mark, word, colour


_ANSI = {"green": "\x1b[32m", "red": "\x1b[31m", "yellow": "\x1b[33m"}
_ANSI_BOLD, _ANSI_OFF = "\x1b[1m", "\x1b[0m"


@dataclass(frozen=True)
class Row:
    """What the table says about one scene."""

    name: str
    title: str
    stdlib: str
    hardsock: str
    bounds: Sequence[Bound]
    verdict: Verdict

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """One text per column."""
        bounds = "\n".join(map(str, self.bounds))
        return self.verdict.mark, self.title, self.stdlib, self.hardsock, bounds


class Table(Protocol):
    """Shows rows as they come; complete at the end of its block."""

    def __enter__(self) -> Table: ...
    def __exit__(self, *_details: object) -> None: ...
    def add(self, row: Row) -> None:
        """Show one more row."""


def make_table(*, plain: bool) -> Table:
    """The best table that standard output can show."""
    if not plain and sys.stdout.isatty():
        try:
            return _RichTable()
        except ImportError:
            pass
    return _PlainTable()


class _PlainTable:
    def __init__(self) -> None:
        self._colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        columns = shutil.get_terminal_size((_DEFAULT_WIDTH, 24)).columns
        total = max(_MIN_WIDTH, min(_MAX_WIDTH, columns))
        mark = max(len(verdict.mark) for verdict in Verdict)
        rest = total - mark - len(_GAP) * len(_SHARES)
        self._widths = (mark, *(int(rest * share) for share in _SHARES))

    def __enter__(self) -> _PlainTable:
        self._print(_HEADINGS, _ANSI_BOLD)
        self._print(tuple("-" * width for width in self._widths))
        return self

    def __exit__(self, *_details: object) -> None:
        pass

    def add(self, row: Row) -> None:
        self._print(row.cells, _ANSI[row.verdict.colour])
        print(flush=True)

    def _print(self, cells: Sequence[str], style: str = "") -> None:
        """Print one row, each cell wrapped to its column; *style* is for the first cell."""
        wrapped = [_wrap(cell, width) for cell, width in zip(cells, self._widths, strict=True)]
        for parts in zip_longest(*wrapped, fillvalue=""):
            padded = [part.ljust(width) for part, width in zip(parts, self._widths, strict=True)]
            if self._colours and style:
                padded[0] = f"{style}{padded[0]}{_ANSI_OFF}"
            print(_GAP.join(padded).rstrip(), flush=True)


def _wrap(text: str, width: int) -> list[str]:
    lines = []
    for line in text.split("\n"):
        lines += textwrap.wrap(line, width) or [""]
    return lines


class _RichTable:
    """A table per row, all with the same columns: whatever is shown stays as it is."""

    def __init__(self) -> None:
        import rich.console

        self._console = rich.console.Console(highlight=False)

    def __enter__(self) -> _RichTable:
        self._print(_HEADINGS, style="bold")
        return self

    def __exit__(self, *_details: object) -> None:
        pass

    def add(self, row: Row) -> None:
        self._print(row.cells, mark_style=row.verdict.colour)

    def _print(self, cells: Sequence[str], *, style: str = "", mark_style: str = "") -> None:
        import rich.table
        import rich.text

        table = rich.table.Table(box=None, show_header=False, expand=True)
        table.add_column(width=max(len(verdict.mark) for verdict in Verdict), style=mark_style)
        for share in _SHARES:
            table.add_column(ratio=round(share * 100), overflow="fold")
        table.add_row(*map(rich.text.Text, cells), style=style)
        self._console.print(table)
        self._console.rule(style="dim")
