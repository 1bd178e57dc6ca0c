"""What OpenTelemetry calls the families of ``hardsock.metrics``.

The semantic conventions have names for the pools of database clients alone (``db.client.*``, from
"Semantic conventions for database client metrics"); whatever else there is begins with
``hardsock.``. Units are those of UCUM, and durations are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hardsock.metrics.families import FAMILIES, PoolNames, Series, Values, sources
from hardsock.metrics.totals import Totals

__all__ = ["INSTRUMENTS", "Instrument", "Reader", "instrument_of"]


@dataclass(frozen=True)
class Instrument:
    """One metric of OpenTelemetry."""

    name: str
    unit: str
    kind: str
    """``"counter"``, ``"updown"``, ``"gauge"`` or ``"histogram"``."""
    help: str


_PREFIXES = (
    ("hardsock_pool_", "hardsock.pool."),
    ("hardsock_resolver_", "hardsock.resolver."),
    ("hardsock_listener_", "hardsock.listener."),
    ("hardsock_server_", "hardsock.server."),
    ("hardsock_guard_", "hardsock.guard."),
    ("hardsock_guards_", "hardsock.guards."),
    ("hardsock_breaker_", "hardsock.breaker."),
    ("hardsock_descriptors_", "hardsock.descriptors."),
    ("hardsock_", "hardsock."),
    ("socket_conn_", "hardsock.connection."),
    ("socket_", "hardsock."),
)
_ENDS = (("_total", ""), ("_seconds", ".duration"), ("_ratio", ".ratio"))
# Durations of connections are their age, and need not say so twice.
_RENAMED = {
    "socket_conn_age_seconds": "hardsock.connection.age",
    "socket_conn_live_age_seconds": "hardsock.connection.live_age",
    "hardsock_pool_wait_seconds": "hardsock.pool.wait_time",
    "hardsock_pool_use_seconds": "hardsock.pool.use_time",
    "hardsock_pool_dial_seconds": "hardsock.pool.create_time",
    "hardsock_resolver_oldest_orphan_seconds": "hardsock.resolver.oldest_orphan.age",
    "hardsock_descriptors_used_ratio": "hardsock.descriptors.utilization",
}
_ATTRIBUTES = {
    "how": "hardsock.connection.origin",
    "reason": "hardsock.reason",
    "kind": "hardsock.event",
    "outcome": "hardsock.outcome",
    "pool": "hardsock.pool.name",
    "state": "hardsock.state",
}
_DATABASE = {
    "hardsock_pool_connections": ("db.client.connection.count", "{connection}"),
    "hardsock_pool_max_connections": ("db.client.connection.max", "{connection}"),
    "hardsock_pool_pending_requests": ("db.client.connection.pending_requests", "{request}"),
    "hardsock_pool_timeouts_total": ("db.client.connection.timeouts", "{timeout}"),
    "hardsock_pool_wait_seconds": ("db.client.connection.wait_time", "s"),
    "hardsock_pool_use_seconds": ("db.client.connection.use_time", "s"),
    "hardsock_pool_dial_seconds": ("db.client.connection.create_time", "s"),
}
_DATABASE_STATES = {"idle": "idle", "lent": "used"}


def _kind(family: str) -> str:
    known = FAMILIES[family]
    if known.kind == "gauge":
        return "gauge" if known.most else "updown"
    return known.kind


def _own(family: str) -> Instrument:
    known = FAMILIES[family]
    name = _RENAMED.get(family)
    if name is None:
        start, instead = next(pair for pair in _PREFIXES if family.startswith(pair[0]))
        name = instead + family[len(start) :]
        for end, other in _ENDS:
            if name.endswith(end):
                name = name[: -len(end)] + other
    seconds = family.endswith("_seconds")
    unit = "s" if seconds else "1" if family.endswith("_ratio") else "{count}"
    return Instrument(name, unit, _kind(family), known.help)


# A histogram of what is there now has no instrument: its points are neither sums nor gauges.
INSTRUMENTS = {name: _own(name) for name, f in FAMILIES.items() if f.kind != "gaugehistogram"}
_DATABASE_INSTRUMENTS = {
    family: Instrument(name, unit, _kind(family), FAMILIES[family].help)
    for family, (name, unit) in _DATABASE.items()
}


def instrument_of(
    series: Series, database_pools: frozenset[str]
) -> tuple[Instrument, dict[str, str]] | None:
    """The instrument of a series, and its attributes; ``None``: it has none."""
    family, values = series
    labels = dict(zip(FAMILIES[family].labels, values, strict=True))
    if family in _DATABASE and labels["pool"] in database_pools:
        attributes = {"db.client.connection.pool.name": labels["pool"]}
        if "state" in labels:
            if labels["state"] not in _DATABASE_STATES:
                return None  # Neither idle nor used.
            attributes["db.client.connection.state"] = _DATABASE_STATES[labels["state"]]
        return _DATABASE_INSTRUMENTS[family], attributes
    if family not in INSTRUMENTS:
        return None
    return INSTRUMENTS[family], {_ATTRIBUTES[name]: value for name, value in labels.items()}


def all_instruments() -> Iterator[Instrument]:
    """Each that there may be."""
    yield from INSTRUMENTS.values()
    yield from _DATABASE_INSTRUMENTS.values()


@dataclass
class Reader:
    """Reads this process's figures, by instrument."""

    report: Callable[[], Mapping[str, Any]]
    label: PoolNames
    database_pools: frozenset[str]
    _totals: Totals = field(default_factory=Totals)

    def read(self) -> tuple[dict[str, list[tuple[dict[str, str], Values]]], list[float]]:
        """Values by the instrument's name, and the edges of histograms."""
        told = self.report()
        found: dict[str, list[tuple[dict[str, str], Values]]] = {}
        for series, values in self._totals.update(sources(told, self.label)).items():
            if (pair := instrument_of(series, self.database_pools)) is not None:
                found.setdefault(pair[0].name, []).append((pair[1], values))
        return found, told["edges"]
