"""Figures of this process, and collectors of them for Prometheus.

    figures = hs.metrics()                                    # plain dicts and numbers
    hs.metrics.Collector(prometheus_client.REGISTRY)          # the extra `prometheus`

``hardsock.otel`` is the same for OpenTelemetry. What is told, and under which names, is in
``families.py``; ``totals.py`` keeps the counters of what has gone; ``siblings.py`` asks the other
processes of a program; ``collector.py`` speaks to prometheus_client. None of them is imported
before it is used.
"""

from __future__ import annotations

import os

from hardsock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import CollectorRegistry

__all__ = ["Collector", "metrics"]


class Collector:
    """What hardsock has, for prometheus_client; needs the extra ``prometheus``.

    Counters and histograms never go down, also when the pools and listeners that they are about
    end. No label is a peer's address or a line of the program: pools without a name of their own
    are summed up as ``pool="unnamed"``. A scrape has at most 5,000 lines with 20 pools.

    Args:
        registry: Where to register it; ``None``: nowhere yet.
        directory: With several processes: a directory that all of them share and nothing else
            uses, of this user's own and with mode 0700. Every process makes a ``Collector`` for
            it, early; whichever is scraped asks the others through their inspect sockets and sums
            up, so that it is not hurt by one that is busy. By default, if
            ``PROMETHEUS_MULTIPROC_DIR`` is set, ``hardsock`` in that; else this process stands for
            itself. Empty it before the program starts anew, as prometheus_client wants it as well.
        max_pools: So many names of pools, and as many of those that had ended before they were
            first seen; the others are summed up as ``pool="other"``.
        pool_addresses: Pools without a name are named after their addresses.
        timeout: Seconds for the other processes to answer; of those that do not, the counters
            stay as they were, and ``hardsock_processes{state="silent"}`` says how many they are.

    Raises:
        ImportError: Without prometheus_client.
        ValueError: *max_pools* is negative, or *timeout* not positive.
        PermissionError: *directory* is somebody else's, or others can enter.
        OSError: This process cannot be inspected there.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        directory: str | os.PathLike[str] | None = None,
        max_pools: int = 20,
        pool_addresses: bool = False,
        timeout: float = 1.0,
    ) -> None:
        from hardsock.metrics.collector import Source

        self._source = Source(directory, max_pools, pool_addresses, timeout)
        if registry is not None:
            registry.register(self)

    def describe(self) -> list[Metric]:
        """All families, without samples."""
        return self._source.describe()

    def collect(self) -> Iterator[Metric]:
        """Read, and sum up.

        Raises:
            TimeoutError: With several processes: another one has been collecting all the time.
            OSError: The directory cannot be read or written.
        """
        return iter(self._source.collect())


class _Metrics:
    """Call it for the figures; it has what exports them."""

    Collector = Collector

    def __call__(self) -> dict[str, Any]:
        """Counters, gauges and histograms of this process: ``report("metrics")``.

        - ``open_connections``: how many, by how they were made; ``live_conn_age``: a histogram of
          how old they are;
        - ``descriptors``: ``open`` and ``limit``; ``resets``; ``resolver``; ``events``: how often
          each kind of the flight recorder's events has been;
        - ``seconds``: histograms by name, each with ``count``, ``sum`` in seconds, and ``buckets``:
          how many took no longer than each of ``edges`` (seconds, the same for all; the rest took
          longer). ``read_stall_peer`` is how long calls waited for the peer to send,
          ``read_stall_application`` how long bytes had lain in the receive queue (one read in 32
          asks the kernel, which counts in ticks of up to 10 ms), ``read_stall_gil`` how long after
          the bytes were read their caller could go on. ``conn_age`` is observed when a connection
          ends;
        - ``pools``: a list with the counts of each, and ``wait_seconds``, ``use_seconds``,
          ``dial_seconds``; ``pools_ended``: the counts of those that are no more, by name;
          ``guards``: how many run, and what they have decided; ``servers``: listeners; ``ever``: the
          counts of all listeners and servers that there have been, the ended ones too;
          ``breakers``: keys and their states.

        In a forked child the counters go on from the parent's; ``ever`` begins at 0.
        """
        from hardsock._observe import report

        return report("metrics")


metrics = _Metrics()
