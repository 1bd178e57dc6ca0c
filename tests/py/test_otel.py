"""OpenTelemetry: names and units, histograms beside the SDK's, spans of connects."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

import hardsock as hs
import hardsock.aio
from hardsock.metrics.families import FAMILIES
from support.require import need_module
from support.tls import Identities

need_module("opentelemetry.sdk")

from opentelemetry.sdk.metrics import Histogram, MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import (  # noqa: E402
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402
from opentelemetry.trace import SpanKind, StatusCode  # noqa: E402

import hardsock.otel  # noqa: E402
from hardsock.otel.names import INSTRUMENTS, all_instruments  # noqa: E402


@pytest.fixture
def listener() -> Iterator[hs.Listener]:
    with hs.listen(("127.0.0.1", 0)) as found:
        yield found


def points(data: Any) -> dict[str, list[tuple[dict[str, str], Any]]]:
    """Attributes and points, by the metric's name."""
    return {
        metric.name: [(dict(point.attributes), point) for point in metric.data.data_points]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


@contextlib.contextmanager
def collected(**settings: Any) -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    made = hardsock.otel.instrument(meter_provider=provider, **settings)
    try:
        yield reader
    finally:
        made.uninstrument()
        provider.shutdown()


def test_names_and_units_are_the_conventions() -> None:
    assert {n for n, f in FAMILIES.items() if f.kind != "gaugehistogram"} == INSTRUMENTS.keys()
    names = [one.name for one in all_instruments()]
    assert len(set(names)) == len(names)
    for one in all_instruments():
        assert re.fullmatch(r"(hardsock|db\.client)(\.[a-z][a-z_]*)+", one.name), one
        assert not one.name.endswith((".total", "_total", "_seconds")), one
        assert (one.unit == "s") == one.name.endswith(("duration", "_time", "age")), one


def test_counters_and_gauges_are_read_when_they_are_collected(listener: hs.Listener) -> None:
    with collected() as reader, hs.Pool(listener.address, name="orders") as pool, pool.connection():
        found = points(reader.get_metrics_data())
        lent = {"hardsock.pool.name": "orders", "hardsock.state": "lent"}
        assert [p.value for a, p in found["hardsock.pool.connections"] if a == lent] == [1]
        assert sum(p.value for _, p in found["hardsock.open_connections"]) >= 1
        with pool.connection():
            found = points(reader.get_metrics_data())
        assert [p.value for a, p in found["hardsock.pool.connections"] if a == lent] == [2]


def test_pools_of_databases_have_the_conventions_names(listener: hs.Listener) -> None:
    with (
        collected(database_pools={"orders"}) as reader,
        hs.Pool(listener.address, name="orders", max_size=7) as pool,
        hs.Pool(listener.address, name="other"),
        pool.connection(),
    ):
        found = points(reader.get_metrics_data())
    states = {
        a["db.client.connection.state"]: p.value for a, p in found["db.client.connection.count"]
    }
    assert states == {"idle": 0, "used": 1}
    assert [(a, p.value) for a, p in found["db.client.connection.max"]] == [
        ({"db.client.connection.pool.name": "orders"}, 7)
    ]
    assert {a["hardsock.pool.name"] for a, _ in found["hardsock.pool.connections"]} == {"other"}


def test_no_attribute_is_a_peer_or_a_line(listener: hs.Listener) -> None:
    with (
        collected() as reader,
        hs.Pool(listener.address) as pool,
        pool.connection(),
        hs.connect(listener.address),
    ):
        text = str([a for p in points(reader.get_metrics_data()).values() for a, _ in p])
    assert "127.0.0.1" not in text
    assert str(listener.address[1]) not in text
    assert "test_otel" not in text


def test_nothing_is_told_after_it_was_switched_off() -> None:
    with collected() as reader:
        assert points(reader.get_metrics_data())
        made = hardsock.otel.instrument(
            meter_provider=MeterProvider([other := InMemoryMetricReader()])
        )
        made.uninstrument()
        data = other.get_metrics_data()
        assert data is None or not points(data)


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"max_pools.*-1"):
        hardsock.otel.instrument(max_pools=-1)
    with pytest.raises(ValueError, match=r"max_pools.*-1"):
        hardsock.otel.HistogramExporter(Kept(), max_pools=-1)


# ---- histograms


class Kept(MetricExporter):
    """Keeps what it is given."""

    def __init__(self, temporality: AggregationTemporality | None = None) -> None:
        super().__init__({Histogram: temporality} if temporality is not None else None)
        self.batches: list[Any] = []

    def export(self, metrics_data: Any, *_args: Any, **_kwargs: Any) -> MetricExportResult:
        self.batches.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, *_args: Any) -> bool:
        return True

    def shutdown(self, *_args: Any, **_kwargs: Any) -> None:
        pass


@contextlib.contextmanager
def exporting(kept: Kept) -> Iterator[MeterProvider]:
    exporter = hardsock.otel.HistogramExporter(kept, database_pools={"orders"})
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, 1e9)])
    provider.get_meter("program").create_counter("its.own").add(1)
    try:
        yield provider
    finally:
        provider.shutdown()


def waits_of(name: str) -> int:
    """How many waits pools of that name have had, those that are no more included."""
    told = hs.metrics()
    pools = [one for one in [*told["pools"], *told["pools_ended"]] if one["name"] == name]
    return sum(one["wait_seconds"]["count"] for one in pools)


def test_histograms_go_out_beside_those_of_the_program(listener: hs.Listener) -> None:
    kept, waited = Kept(), waits_of("orders")
    with exporting(kept) as provider, hs.Pool(listener.address, name="orders") as pool:
        with pool.connection():
            pass
        before = hs.metrics()["seconds"]["connect"]
        assert provider.force_flush()
        found = points(kept.batches[-1])
    assert "its.own" in found
    ((attributes, point),) = found["db.client.connection.wait_time"]
    assert attributes == {"db.client.connection.pool.name": "orders"}
    assert point.count == sum(point.bucket_counts) == waited + 1
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    ((_, point),) = found["hardsock.connect.duration"]
    assert point.count == before["count"]
    assert point.sum == pytest.approx(before["sum"])
    upto = 0
    for n, told in zip(point.bucket_counts, before["buckets"], strict=False):
        upto += n
        assert upto == told
    scopes = [s.scope.name for s in kept.batches[-1].resource_metrics[0].scope_metrics]
    assert scopes == ["program", "hardsock"]


def test_exporter_that_wants_differences_gets_them(listener: hs.Listener) -> None:
    kept = Kept(AggregationTemporality.DELTA)
    with exporting(kept) as provider:
        for times in (3, 2):
            for _ in range(times):
                with hs.connect(listener.address):
                    pass
            assert provider.force_flush()
        first, second = (points(b)["hardsock.connect.duration"][0][1] for b in kept.batches[:2])
    assert second.count == sum(second.bucket_counts) == 2
    assert second.start_time_unix_nano == first.time_unix_nano


# ---- spans


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    made = hardsock.otel.instrument(
        meter_provider=MeterProvider(), tracer_provider=provider, spans=True
    )
    yield exporter
    made.uninstrument()
    provider.shutdown()


def only(exporter: InMemorySpanExporter) -> Any:
    (span,) = exporter.get_finished_spans()
    return span


def test_connect_is_a_span_with_its_attempts(
    spans: InMemorySpanExporter, listener: hs.Listener
) -> None:
    port = listener.address[1]
    with hs.connect(listener.address):
        span = only(spans)
    assert (span.name, span.kind) == ("connect", SpanKind.CLIENT)
    assert dict(span.attributes) == {
        "server.address": "127.0.0.1",
        "server.port": port,
        "network.transport": "tcp",
        "network.peer.address": "127.0.0.1",
        "network.peer.port": port,
    }
    assert [event.name for event in span.events] == ["attempt.started", "attempt.ended"]
    assert span.events[1].attributes["hardsock.phase"] == "done"
    assert span.start_time <= span.events[0].timestamp <= span.events[1].timestamp


def test_lookup_is_told_with_what_it_found(
    spans: InMemorySpanExporter, listener: hs.Listener
) -> None:
    with hs.connect(("localhost", listener.address[1])):
        span = only(spans)
    ended = [event.attributes for event in span.events if event.name == "lookup.ended"]
    assert {"network.type": "ipv4", "hardsock.addresses": 1} in [dict(one) for one in ended]
    assert span.attributes["server.address"] == "localhost"


def test_failed_connect_is_an_error_that_says_where(spans: InMemorySpanExporter) -> None:
    with hs.listen(("127.0.0.1", 0)) as gone:
        address = gone.address
    with pytest.raises(hs.ConnectError):
        hs.connect(address)
    span = only(spans)
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "ConnectionRefused"
    assert span.attributes["hardsock.phase"] == "connect"
    names = [event.name for event in span.events]
    assert names == ["attempt.started", "attempt.ended", "exception"]
    assert span.events[1].attributes["error.type"] == "ECONNREFUSED"


def test_tls_is_told_and_its_failure(
    spans: InMemorySpanExporter, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ids = Identities(tmp_path_factory.mktemp("ca"))
    with hs.serve(
        lambda conn: conn.recv(1), ("127.0.0.1", 0), tls=ids.server(), drain_timeout=30
    ) as server:
        with hs.connect(server.address, tls=ids.client()):
            assert only(spans).attributes["tls.protocol.version"] == "1.3"
        spans.clear()
        with pytest.raises(hs.CertificateError):
            hs.connect(server.address, tls=True)
    span = only(spans)
    assert span.attributes["error.type"] == "CertificateError"
    (ended,) = (event for event in span.events if event.name == "attempt.ended")
    assert ended.attributes["hardsock.phase"] == "tls"
    assert ended.attributes["error.type"] == "verify"


def test_awaited_connect_is_the_same_span(
    spans: InMemorySpanExporter, listener: hs.Listener
) -> None:
    async def connect() -> None:
        async with await hardsock.aio.connect(listener.address):
            pass

    asyncio.run(connect())
    assert [event.name for event in only(spans).events] == ["attempt.started", "attempt.ended"]


def test_wrong_address_is_an_error_as_without_spans(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="address"):
        hs.connect("nonsense")
    assert only(spans).attributes["error.type"] == "ValueError"


def test_spans_end_with_the_instrumentation(listener: hs.Listener) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    hardsock.otel.instrument(
        meter_provider=MeterProvider(), tracer_provider=provider, spans=True
    ).uninstrument()
    with hs.connect(listener.address):
        pass
    assert exporter.get_finished_spans() == ()
