"""What threads share for a moment is not lost to a child that is forked in that moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

import hardsock as hs
from hardsock.adapters._total import Queue
from hardsock.debug._history import History
from tests.support.require import need_module


def collector() -> tuple[Any, Callable[[], object]]:
    need_module("prometheus_client", "prometheus")
    made = hs.metrics.Collector()
    return made._source, lambda: list(made.collect())


def snapshot() -> tuple[Any, Callable[[], object]]:
    need_module("opentelemetry.sdk.metrics", "otel")
    from hardsock.metrics.families import PoolNames
    from hardsock.otel.instruments import _Snapshot
    from hardsock.otel.names import Reader

    made = _Snapshot(Reader(hs.metrics, PoolNames(1, False), frozenset()))
    return made, lambda: made.get("hardsock.events")


def exporter() -> tuple[Any, Callable[[], object]]:
    need_module("opentelemetry.sdk.metrics", "otel")
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricsData

    from hardsock.otel import HistogramExporter

    with open(os.devnull, "w") as nowhere:
        made = HistogramExporter(ConsoleMetricExporter(out=nowhere, formatter=lambda _: ""))
        made.export(MetricsData([]))
    return made, made._metrics


def history() -> tuple[Any, Callable[[], object]]:
    made = History()
    return made, made.samples


def queue() -> tuple[Any, Callable[[], object]]:
    made = Queue(1)
    return made, lambda: made.take(1)


@pytest.mark.parametrize("make", [collector, snapshot, exporter, history, queue])
def test_a_child_does_not_wait_for_a_thread_that_it_has_not(
    make: Callable[[], tuple[Any, Callable[[], object]]],
) -> None:
    owner, use = make()
    with owner._lock:  # As another thread may have it.
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            try:
                with owner._lock:
                    pass
                use()
            except BaseException:
                os._exit(1)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
