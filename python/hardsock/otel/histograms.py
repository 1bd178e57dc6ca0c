"""Histograms, which are counted in the core, among what an exporter is given.

The API has no observable histogram: what it records it counts itself, one value at a time. Reads
are too many for that. So whole points are put beside the SDK's own, just before they leave.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable
from typing import Any

from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from hardsock._core import version
from hardsock._fork_locks import renew_in_child
from hardsock._observe import report
from hardsock.metrics.families import PoolNames, Values
from hardsock.otel.names import Reader, all_instruments

__all__ = ["HistogramExporter"]


class HistogramExporter(MetricExporter):
    """Exports what it is given, and the histograms of this process, through *exporter*.

    Args:
        exporter: What exports; its preferences hold, cumulative or delta.
        database_pools, max_pools, pool_addresses: As of ``instrument``.

    Raises:
        ValueError: *max_pools* is negative.
    """

    def __init__(
        self,
        exporter: MetricExporter,
        *,
        database_pools: Iterable[str] = (),
        max_pools: int = 20,
        pool_addresses: bool = False,
    ) -> None:
        if max_pools < 0:
            raise ValueError(f"max_pools must not be negative, got {max_pools}")
        temporality = exporter._preferred_temporality
        super().__init__(temporality, exporter._preferred_aggregation)
        wanted = (temporality or {}).get(HistogramInstrument, AggregationTemporality.CUMULATIVE)
        self._delta = wanted is AggregationTemporality.DELTA
        self._temporality = wanted
        self._exporter = exporter
        label = PoolNames(max_pools, pool_addresses)
        self._reader = Reader(lambda: report("metrics"), label, frozenset(database_pools))
        self._lock = threading.Lock()
        renew_in_child(self)
        self._began = time.time_ns()
        self._before: dict[Any, Values] = {}

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        with self._lock:
            scope = ScopeMetrics(
                scope=InstrumentationScope("hardsock", version),
                metrics=self._metrics(),
                schema_url="",
            )
        given = list(metrics_data.resource_metrics)
        if given:
            first = given[0]
            given[0] = ResourceMetrics(
                resource=first.resource,
                scope_metrics=[*first.scope_metrics, scope],
                schema_url=first.schema_url,
            )
        else:
            given = [
                ResourceMetrics(resource=Resource.create(), scope_metrics=[scope], schema_url="")
            ]
        return self._exporter.export(MetricsData(given), timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._exporter.shutdown(timeout_millis, **kwargs)

    def _metrics(self) -> list[Metric]:
        found, edges = self._reader.read()
        now, made = time.time_ns(), []
        for one in all_instruments():
            if one.kind != "histogram" or one.name not in found:
                continue
            points = [
                self._point(one.name, attributes, values, edges, now)
                for attributes, values in found[one.name]
            ]
            data = Histogram(data_points=points, aggregation_temporality=self._temporality)
            made.append(Metric(name=one.name, description=one.help, unit=one.unit, data=data))
        if self._delta:
            self._began = now
        return made

    def _point(
        self, name: str, attributes: dict[str, str], values: Values, edges: list[float], now: int
    ) -> HistogramDataPoint:
        if self._delta:
            key = (name, tuple(sorted(attributes.items())))
            before = self._before.get(key, (0.0,) * len(values))
            self._before[key] = values
            values = tuple(a - b for a, b in zip(values, before, strict=True))
        total, count, *upto = values
        upto = [0, *upto, count]
        return HistogramDataPoint(
            attributes=attributes,
            start_time_unix_nano=self._began,
            time_unix_nano=now,
            count=int(count),
            sum=total,
            bucket_counts=[int(b - a) for a, b in itertools.pairwise(upto)],
            explicit_bounds=edges,
            min=None,  # type: ignore[arg-type]  # Optional on the wire, and not known here.
            max=None,  # type: ignore[arg-type]
        )
