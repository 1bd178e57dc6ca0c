"""Switching it on: observable instruments, and spans."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import TracerProvider

from hardsock._core import version
from hardsock._fork_locks import renew_in_child
from hardsock._observe import report
from hardsock._observed import connects
from hardsock.metrics.families import PoolNames
from hardsock.otel.names import Instrument, Reader, all_instruments
from hardsock.otel.spans import ConnectSpans

__all__ = ["Instrumentation", "instrument"]


class _Snapshot:
    """One report for all instruments: the one that asks again begins the next."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        renew_in_child(self)
        self._asked: set[str] = set()
        self._found: dict[str, Any] | None = None

    def get(self, name: str) -> list[tuple[dict[str, str], Any]]:
        with self._lock:
            if self._found is None or name in self._asked:
                self._found, _ = self._reader.read()
                self._asked = set()
            self._asked.add(name)
            return self._found.get(name, [])


class Instrumentation:
    """What ``instrument`` has switched on; one for the process, and any thread may end it."""

    def __init__(self) -> None:
        self._on = True
        self._spans: ConnectSpans | None = None

    def uninstrument(self) -> None:
        """No more spans; instruments stay, as OpenTelemetry has it, and say nothing more."""
        self._on = False
        if self._spans is not None and connects.connect == self._spans.connect:
            connects.restore()

    def _observe(
        self, snapshot: _Snapshot, name: str
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            if not self._on:
                return []
            return [Observation(values[0], labels) for labels, values in snapshot.get(name)]

        return observe


def _make(
    meter: Any, one: Instrument, callback: Callable[[CallbackOptions], Iterable[Observation]]
) -> None:
    make = {
        "counter": meter.create_observable_counter,
        "updown": meter.create_observable_up_down_counter,
        "gauge": meter.create_observable_gauge,
    }[one.kind]
    make(one.name, callbacks=[callback], unit=one.unit, description=one.help)


def instrument(
    *,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
    spans: bool = False,
    database_pools: Iterable[str] = (),
    max_pools: int = 20,
    pool_addresses: bool = False,
) -> Instrumentation:
    """Tell OpenTelemetry what this process has, from now on.

    Counters and gauges are observable instruments, read when the SDK collects. Histograms are
    counted in the core and cannot be: see ``HistogramExporter``.

    Args:
        meter_provider: ``None``: the global one.
        tracer_provider: ``None``: the global one.
        spans: Also a span for each connect of ``hs.connect`` and ``hardsock.aio.connect``, with its
            lookups and attempts as events. Dials of pools have none. It costs each connect some
            tens of microseconds.
        database_pools: Names of pools whose peer is a database: their metrics are the conventions'
            ``db.client.connection.*``. Leave out those whose client library exports its own, or
            they are counted twice.
        max_pools: So many names of pools, and as many of those that had ended before they were
            first seen; the others are ``"other"``.
        pool_addresses: Pools without a name are named after their addresses.

    Returns:
        To switch it off again.

    Raises:
        ImportError: Without opentelemetry-api.
        ValueError: *max_pools* is negative.
    """
    if max_pools < 0:
        raise ValueError(f"max_pools must not be negative, got {max_pools}")
    made = Instrumentation()
    provider = meter_provider if meter_provider is not None else metrics.get_meter_provider()
    meter = provider.get_meter("hardsock", version)
    label = PoolNames(max_pools, pool_addresses)
    reader = Reader(lambda: report("metrics"), label, frozenset(database_pools))
    snapshot = _Snapshot(reader)
    for one in all_instruments():
        if one.kind != "histogram":
            _make(meter, one, made._observe(snapshot, one.name))
    if spans:
        traces = tracer_provider if tracer_provider is not None else trace.get_tracer_provider()
        made._spans = ConnectSpans(traces.get_tracer("hardsock", version))
        connects.connect, connects.op_connect = made._spans.connect, made._spans.op_connect
    return made
