"""Sums over sources that come and go: what grows never goes down.

A pool that ends takes its counters with it, and so does a process; to Prometheus a sum that has
become smaller is a counter that began anew, so that all of it would be counted once more. So what
a source had last said stays in the sum when it is no more, unless there is an heir: a process goes
on telling what its pools had counted.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from hardsock.metrics.families import FAMILIES, Series, Sources, Values, heir

__all__ = ["Totals", "less"]


def _add(into: dict[Series, Values], series: Series, values: Values) -> None:
    had = into.get(series)
    if had is None:
        into[series] = values
    elif FAMILIES[series[0]].most:
        into[series] = tuple(map(max, had, values))
    else:
        into[series] = tuple(a + b for a, b in zip(had, values, strict=True))


def less(now: Sources, before: Sources) -> Sources:
    """What has been counted since: for a forked child, whose counters began as its parent's."""
    found: Sources = {}
    for source, all_series in now.items():
        had = before.get(source, {})
        found[source] = {
            series: _since(values, had[series])
            if series in had and FAMILIES[series[0]].grows
            else values
            for series, values in all_series.items()
        }
    return found


def _since(now: Values, before: Values) -> Values:
    """It began anew if any is less now."""
    since = tuple(a - b for a, b in zip(now, before, strict=True))
    return now if min(since) < 0 else since


def _pack(all_series: Mapping[Series, Values]) -> list[Any]:
    return [[name, labels, values] for (name, labels), values in all_series.items()]


def _unpack(told: Iterable[Any]) -> dict[Series, Values]:
    """Without what another version knew."""
    return {
        (name, tuple(labels)): tuple(values)
        for name, labels, values in told
        if name in FAMILIES and len(labels) == len(FAMILIES[name].labels)
    }


class Totals:
    """Not safe for threads by itself."""

    def __init__(self) -> None:
        self._last: Sources = {}
        self._gone: dict[Series, Values] = {}

    def update(self, now: Sources, *, silent: Container[str] = ()) -> dict[Series, Values]:
        """The sums. Sources that are in neither have ended; *silent* ones have not said anything."""
        kept: Sources = {}
        for source, all_series in self._last.items():
            if source in now or heir(source) in now:
                continue
            if source in silent:
                kept[source] = all_series
            else:
                for series, values in all_series.items():
                    _add(self._gone, series, values)
        for source, all_series in now.items():
            kept[source] = {s: v for s, v in all_series.items() if FAMILIES[s[0]].grows}
        self._last = kept
        return self._sum(now)

    def _sum(self, now: Sources) -> dict[Series, Values]:
        total = dict(self._gone)
        for source, all_series in self._last.items():
            for series, values in now.get(source, all_series).items():
                _add(total, series, values)
        return total

    def sources(self) -> Iterable[str]:
        """Those that have not ended."""
        return self._last.keys()

    def saved(self) -> dict[str, Any]:
        """For ``restored``, as JSON has it."""
        last = {source: _pack(all_series) for source, all_series in self._last.items()}
        return {"gone": _pack(self._gone), "last": last}

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> Totals:
        totals = cls()
        totals._gone = _unpack(saved["gone"])
        totals._last = {source: _unpack(told) for source, told in saved["last"].items()}
        return totals
