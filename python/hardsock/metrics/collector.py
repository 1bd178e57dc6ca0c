"""Families and their sums as prometheus_client has them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric

from hardsock._fork_locks import renew_in_child
from hardsock._observe import report
from hardsock.metrics.families import FAMILIES, Family, PoolNames, Series, Values, sources
from hardsock.metrics.siblings import Siblings, enroll
from hardsock.metrics.totals import Totals

__all__ = ["Source"]

_UNITS = ("seconds", "ratio")


def _shared_directory(given: str | os.PathLike[str] | None) -> Path | None:
    if given is not None:
        return Path(given).absolute()
    shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR") or os.environ.get(
        "prometheus_multiproc_dir"
    )
    return Path(shared, "hardsock").absolute() if shared else None


def _empty(family: Family) -> Metric:
    kinds = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
        "gaugehistogram": GaugeHistogramMetricFamily,
    }
    unit = next((unit for unit in _UNITS if family.name.endswith(f"_{unit}")), "")
    made = kinds[family.kind](family.name, family.help, labels=family.labels, unit=unit)
    assert isinstance(made, Metric)
    return made


def _buckets(values: Values, edges: Iterable[float]) -> list[tuple[str, float]]:
    count, counts = values[1], values[2:]
    told = [(str(edge), n) for edge, n in zip(edges, counts, strict=True)]
    return [*told, ("+Inf", count)]


def _filled(sums: Mapping[Series, Values], edges: list[float]) -> list[Metric]:
    found = {name: _empty(family) for name, family in FAMILIES.items()}
    for (name, labels), values in sorted(sums.items()):
        metric = found[name]
        if isinstance(metric, HistogramMetricFamily | GaugeHistogramMetricFamily):
            metric.add_metric(list(labels), _buckets(values, edges), values[0])
        else:
            assert isinstance(metric, CounterMetricFamily | GaugeMetricFamily)
            metric.add_metric(list(labels), values[0])
    return list(found.values())


class Source:
    """What a ``Collector`` collects: of this process, or of all that share a directory."""

    def __init__(
        self,
        directory: str | os.PathLike[str] | None,
        max_pools: int,
        pool_addresses: bool,
        timeout: float,
    ) -> None:
        if max_pools < 0:
            raise ValueError(f"max_pools must not be negative, got {max_pools}")
        if not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout}")
        self._lock = threading.Lock()
        renew_in_child(self)
        self._label = PoolNames(max_pools, pool_addresses)
        self._totals = Totals()
        self._siblings = None
        if (shared := _shared_directory(directory)) is not None:
            enroll(shared)
            self._siblings = Siblings(shared, max_pools, pool_addresses, timeout)

    def describe(self) -> list[Metric]:
        return [_empty(family) for family in FAMILIES.values()]

    def collect(self) -> list[Metric]:
        if self._siblings is not None:
            return _filled(*self._siblings.collect())
        with self._lock:  # Asked within it: two scrapes update in the order of what they were told.
            told = report("metrics")
            sums = self._totals.update(sources(told, self._label))
        sums[("hardsock_processes", ("answered",))] = (1,)
        sums[("hardsock_processes", ("silent",))] = (0,)
        return _filled(sums, told["edges"])
