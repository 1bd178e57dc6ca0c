"""OpenTelemetry: metrics by its semantic conventions, and spans of connects; the extra ``otel``.

    import hardsock.otel
    hardsock.otel.instrument(spans=True, database_pools={"orders"})
    reader = PeriodicExportingMetricReader(hardsock.otel.HistogramExporter(OTLPMetricExporter()))

Nothing happens before it is asked for. No attribute of a metric is a peer's address or a line of
the program; spans have the peer's address, as the conventions want it.
"""

from __future__ import annotations

from hardsock.otel.histograms import HistogramExporter
from hardsock.otel.instruments import Instrumentation, instrument

__all__ = ["HistogramExporter", "Instrumentation", "instrument"]
