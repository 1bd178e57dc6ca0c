"""What is told of a report, under which names: without any library's types.

Names and units are Prometheus's: base units, ``_total`` for counters. A series is a family and the
values of its labels; its value is a tuple, so that counters, gauges and histograms are summed up
in the same way: ``(n,)``, or for histograms ``(sum, count, *buckets)``, cumulative.

What a report tells is split by sources: the process itself, each pool, each listener. One of them
may end before the process does, and its counters must not go with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "FAMILIES",
    "NO_EDGES",
    "Family",
    "PoolNames",
    "Series",
    "Sources",
    "Values",
    "heir",
    "sources",
]

Series = tuple[str, tuple[str, ...]]
Values = tuple[float, ...]
Sources = dict[str, dict[Series, Values]]
NO_EDGES: tuple[float, ...] = ()


@dataclass(frozen=True)
class Family:
    """One metric."""

    name: str
    kind: str
    """``"counter"``, ``"gauge"``, ``"histogram"`` or ``"gaugehistogram"``."""
    help: str
    labels: tuple[str, ...] = ()
    most: bool = False
    """Of several processes the largest counts, not the sum."""

    @property
    def grows(self) -> bool:
        return self.kind in ("counter", "histogram")


_POOL_COUNTERS = {
    "opened": "Connections that were begun",
    "connected": "Connections that were made",
    "acquired": "Connections that were lent",
    "acquired_waited": "Connections that were lent to a caller that had waited",
    "timeouts": "Calls whose time was up before there was a connection",
    "cancelled": "Calls that were cancelled while they waited",
    "refused": "Calls that were refused: too many waited, or it would have been a deadlock",
    "failed": "Calls that got the error of a dial",
    "returned": "Connections that were returned",
    "overdue": "Connections that were lent for longer than overdue_after or leak_after",
    "dial_failures": "Dials that failed",
}
_POOL_STATES = ("idle", "lent", "dialing", "closing")
_POOL_HISTOGRAMS = {
    "wait_seconds": "How long callers waited for a connection, in vain or not",
    "use_seconds": "How long connections were lent",
    "dial_seconds": "How long dials took, failed ones, too",
}
_LISTENER_COUNTERS = {
    "accepted": "Connections that were accepted",
    "shed": "Connections that were accepted and closed at once for want of descriptors",
    "exhausted": "Times that descriptors or memory had run out",
    "aborted": "Connections whose peer had left before they were accepted",
    "handshakes_completed": "TLS handshakes that were completed by listeners",
}
_SERVER_COUNTERS = {
    "accepted": "Connections that servers have taken on",
    "handled": "Connections that ended in order, or by their peers",
    "failed": "Connections whose handler raised",
    "cut": "Connections that were ended by their server",
    "refused": "Connections that were refused while a guard's rule wanted it",
}
_SERVER_PHASES = ("waiting", "parked", "busy", "lingering")
_SERVER_STATES = ("accepting", "full", "failing", "draining")
_LISTENER_GAUGES = {
    "queue": ("hardsock_listener_queue", "Connections that wait to be accepted"),
    "backlog": ("hardsock_listener_backlog", "Connections that may wait to be accepted"),
    "handshakes": ("hardsock_listener_handshakes", "TLS handshakes of listeners in progress"),
}
_SPANS: dict[str, tuple[str, tuple[str, ...]]] = {
    "conn_age": ("socket_conn_age_seconds", ()),
    "read_stall_peer": ("socket_read_stall_seconds", ("peer",)),
    "read_stall_application": ("socket_read_stall_seconds", ("application",)),
    "read_stall_gil": ("socket_read_stall_seconds", ("gil",)),
    "write_stall_peer": ("socket_write_stall_seconds", ("peer",)),
    "connect": ("hardsock_connect_seconds", ()),
    "lookup": ("hardsock_lookup_seconds", ()),
    "handshake": ("hardsock_handshake_seconds", ()),
    "worker_wait": ("hardsock_worker_wait_seconds", ()),
}

_ALL = (
    Family(
        "hardsock_open_connections",
        "gauge",
        "Connections that are open, by how they were made",
        ("how",),
    ),
    Family("socket_conn_age_seconds", "histogram", "Age of connections when they ended"),
    Family(
        "socket_conn_live_age_seconds", "gaugehistogram", "Age of the connections that are open"
    ),
    Family(
        "socket_read_stall_seconds",
        "histogram",
        "Reads that had to wait for the peer; bytes that had to wait for the application to read "
        "them (1 read in 32); callers that had bytes and had to wait for the GIL",
        ("reason",),
    ),
    Family(
        "socket_write_stall_seconds",
        "histogram",
        "Writes that had to wait for the peer to take",
        ("reason",),
    ),
    Family("hardsock_connect_seconds", "histogram", "Connects, lookup and TLS included"),
    Family("hardsock_lookup_seconds", "histogram", "Lookups of names"),
    Family("hardsock_handshake_seconds", "histogram", "TLS handshakes that succeeded"),
    Family(
        "hardsock_worker_wait_seconds",
        "histogram",
        "Accepted connections that waited for their handler to begin (measure_delays=True)",
    ),
    Family("hardsock_descriptors_open", "gauge", "Descriptors that are open"),
    Family("hardsock_descriptors_limit", "gauge", "Descriptors that may be open: RLIMIT_NOFILE"),
    Family(
        "hardsock_descriptors_used_ratio",
        "gauge",
        "Open descriptors of the limit, in the process that has most",
        most=True,
    ),
    Family(
        "hardsock_resets_total",
        "counter",
        "Connections that ended with a reset, by whose it was",
        ("reason",),
    ),
    Family("hardsock_events_total", "counter", "Events of the flight recorder", ("kind",)),
    Family("hardsock_resolver_running", "gauge", "Lookups that run"),
    Family("hardsock_resolver_queued", "gauge", "Lookups that wait for a thread"),
    Family("hardsock_resolver_orphans", "gauge", "Lookups that nobody waits for any more"),
    Family(
        "hardsock_resolver_oldest_orphan_seconds",
        "gauge",
        "How long the oldest of them has run",
        most=True,
    ),
    Family("hardsock_resolver_lookups_total", "counter", "Lookups that were started"),
    Family("hardsock_resolver_abandoned_total", "counter", "Lookups that were given up"),
    Family(
        "hardsock_pool_connections", "gauge", "Connections of pools, by state", ("pool", "state")
    ),
    Family("hardsock_pool_max_connections", "gauge", "Connections that may be", ("pool",)),
    Family("hardsock_pool_pending_requests", "gauge", "Callers that wait for one", ("pool",)),
    *(
        Family(f"hardsock_pool_{n}_total", "counter", h, ("pool",))
        for n, h in _POOL_COUNTERS.items()
    ),
    Family(
        "hardsock_pool_closed_total",
        "counter",
        "Connections of pools that were closed, by reason",
        ("pool", "reason"),
    ),
    *(Family(f"hardsock_pool_{n}", "histogram", h, ("pool",)) for n, h in _POOL_HISTOGRAMS.items()),
    Family("hardsock_breaker_keys", "gauge", "What breakers tell apart, by state", ("state",)),
    *(Family(f"hardsock_listener_{n}_total", "counter", h) for n, h in _LISTENER_COUNTERS.items()),
    *(Family(name, "gauge", text) for name, text in _LISTENER_GAUGES.values()),
    Family(
        "hardsock_server_connections",
        "gauge",
        "Connections of servers: waiting for a worker, parked, busy, lingering",
        ("state",),
    ),
    Family("hardsock_server_max_connections", "gauge", "Connections that servers may have"),
    Family("hardsock_servers", "gauge", "Servers, by state", ("state",)),
    Family(
        "hardsock_server_draining_seconds",
        "gauge",
        "How long the server that has drained for longest has",
        most=True,
    ),
    *(Family(f"hardsock_server_{n}_total", "counter", h) for n, h in _SERVER_COUNTERS.items()),
    Family("hardsock_guards_running", "gauge", "Guards whose thread looks"),
    Family(
        "hardsock_guard_decisions_total",
        "counter",
        "What guards have decided; would_...: in a dry run",
        ("outcome",),
    ),
    Family("hardsock_processes", "gauge", "Processes that are summed up here", ("state",)),
)
FAMILIES = {family.name: family for family in _ALL}


class PoolNames:
    """What pools are called in labels: a bounded number of names, and none that is an address.

    A name keeps its label, "other" too: if it moved, one counter would fall and another would seem
    to have grown. Pools that had ended when they were first seen have as many names of their own:
    programs that make pools for a moment shall not take them from those that last.
    """

    def __init__(self, most: int, addresses: bool) -> None:
        self._most = most
        self._addresses = addresses
        self.known: set[str] = set()
        self.ended: set[str] = set()
        self.others: set[str] = set()

    def __call__(self, pool: Mapping[str, Any], ended: bool = False) -> str:
        if not pool["named"] and not self._addresses:
            return "unnamed"
        name = str(pool["name"])
        if name in self.others:
            return "other"
        if name not in self.known and name not in self.ended:
            names = self.ended if ended else self.known
            if len(names) >= self._most:
                self.others.add(name)
                return "other"
            names.add(name)
        return name


def _histogram(told: Mapping[str, Any]) -> Values:
    return (told["sum"], told["count"], *told["buckets"])


def _process(told: Mapping[str, Any]) -> Iterator[tuple[Series, Values]]:
    for how, n in told["open_connections"].items():
        yield ("hardsock_open_connections", (how,)), (n,)
    yield ("socket_conn_live_age_seconds", ()), _histogram(told["live_conn_age"])
    for name, series in _SPANS.items():
        yield series, _histogram(told["seconds"][name])
    fds = told["descriptors"]
    yield ("hardsock_descriptors_open", ()), (fds["open"],)
    if fds["limit"] is not None:
        yield ("hardsock_descriptors_limit", ()), (fds["limit"],)
        yield ("hardsock_descriptors_used_ratio", ()), (fds["open"] / max(1, fds["limit"]),)
    for reason, n in told["resets"].items():
        yield ("hardsock_resets_total", (reason,)), (n,)
    for kind, n in told["events"].items():
        yield ("hardsock_events_total", (kind,)), (n,)
    resolver = told["resolver"]
    for name in ("running", "queued", "orphans"):
        yield (f"hardsock_resolver_{name}", ()), (resolver[name],)
    yield ("hardsock_resolver_oldest_orphan_seconds", ()), (resolver["oldest_orphan"],)
    yield ("hardsock_resolver_lookups_total", ()), (resolver["started"],)
    yield ("hardsock_resolver_abandoned_total", ()), (resolver["abandoned"],)
    states = dict.fromkeys(("closed", "open", "half_open"), 0)
    for breaker in told["breakers"]:
        states[breaker["state"]] = states.get(breaker["state"], 0) + 1
    for state, n in states.items():
        yield ("hardsock_breaker_keys", (state,)), (n,)
    # Also of those that ended between two scrapes. An older version has none.
    if (ever := told.get("ever")) is not None:
        for name in _LISTENER_COUNTERS:
            yield (f"hardsock_listener_{name}_total", ()), (ever["listeners"][name],)
        for name in _SERVER_COUNTERS:
            yield (f"hardsock_server_{name}_total", ()), (ever["servers"][name],)
    yield ("hardsock_guards_running", ()), (told["guards"]["running"],)
    for outcome, n in told["guards"]["decisions"].items():
        yield ("hardsock_guard_decisions_total", (outcome.replace(" ", "_"),)), (n,)


def _pool(told: Mapping[str, Any], label: str) -> Iterator[tuple[Series, Values]]:
    for state in _POOL_STATES:
        yield ("hardsock_pool_connections", (label, state)), (told[state],)
    if not told["is_closed"]:
        yield ("hardsock_pool_max_connections", (label,)), (told["max_size"],)
    yield ("hardsock_pool_pending_requests", (label,)), (told["waiting"],)
    yield from _pool_counts(told, label)


def _pool_counts(told: Mapping[str, Any], label: str) -> Iterator[tuple[Series, Values]]:
    failures = told["dial_seconds"]["count"] - told["connected"]
    for name in _POOL_COUNTERS:
        number = failures if name == "dial_failures" else told[name]
        yield (f"hardsock_pool_{name}_total", (label,)), (number,)
    for reason, n in told["closed_by_reason"].items():
        yield ("hardsock_pool_closed_total", (label, reason)), (n,)
    for name in _POOL_HISTOGRAMS:
        yield (f"hardsock_pool_{name}", (label,)), _histogram(told[name])


def _listener(told: Mapping[str, Any]) -> Iterator[tuple[Series, Values]]:
    for name, (family, _) in _LISTENER_GAUGES.items():
        if told[name] is not None:
            yield (family, ()), (told[name],)


def _service(told: Mapping[str, Any]) -> Iterator[tuple[Series, Values]]:
    for phase in _SERVER_PHASES:
        yield ("hardsock_server_connections", (phase,)), (told[phase],)
    if told["state"] == "ended":
        return
    yield ("hardsock_server_max_connections", ()), (told["limit"],)
    for state in _SERVER_STATES:
        yield ("hardsock_servers", (state,)), (int(told["state"] == state),)
    yield ("hardsock_server_draining_seconds", ()), (told["draining"] or 0.0,)


_PROCESS = "process"
_ENDED = "ended"


def heir(source: str) -> str | None:
    """The source that has the counts of *source* as well once that is no more; None: nobody has.

    A process keeps what its pools have counted; see ``pools_ended`` of its report.
    """
    process, slash, name = source.rpartition("/")
    return f"{process}{slash}{_PROCESS}" if name.startswith("pool ") else None


def sources(told: Mapping[str, Any], label: PoolNames, *, ended: bool = False) -> Sources:
    """A report named ``metrics``, by what it is about; *ended*: of a process that is no more."""
    found = {_PROCESS: dict(_process(told))}
    for pool in told["pools"]:
        found[f"pool {pool['id']}"] = dict(_pool(pool, label(pool, ended or pool["is_closed"])))
    for pool in told["pools_ended"]:
        source = f"{_ENDED} {pool['named']} {pool['name']}"
        found[source] = dict(_pool_counts(pool, label(pool, True)))
    for listener in told["servers"]:
        found[f"listener {listener['id']}"] = dict(_listener(listener))
    for service in told["services"]:
        if service["kind"] != "processes":  # Its processes are asked themselves.
            found[f"server {service['id']}"] = dict(_service(service))
    return found
