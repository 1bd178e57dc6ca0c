"""What the page shows, as plain values."""

from __future__ import annotations

from typing import Any

from hardsock._observe import report
from hardsock.debug._hints import hint_of, learned_hint
from hardsock.debug._history import History
from hardsock.pool.records import thread_name

__all__ = ["NO_FAILURES", "snapshot"]

_ROWS = 50
_PEOPLE = 20
NO_FAILURES = ("draining", "drained", "breaker_closed", "forked")


def snapshot(history: History) -> dict[str, Any]:
    """Return it; a part that holds much is cut to what is oldest, or worst."""
    metrics = report("metrics")
    listed = report("connections")["connections"]
    for one in listed:
        ages = [one["age"], one["last_read"], one["last_write"]]
        one["idle"] = min(age for age in ages if age is not None)
        one["site"] = one["holder"] or one["site"]
    listed.sort(key=lambda one: -one["idle"])
    pools = report("pools")["pools"]
    for pool in pools:
        for kind in ("holders", "waiters"):
            pool[kind] = sorted(pool[kind], key=lambda one: -one["age"])[:_PEOPLE]
            for one in pool[kind]:
                one["thread_name"] = thread_name(one["thread"])
    failures = [one for one in report("events")["events"] if one["kind"] not in NO_FAILURES]
    events = failures[-_ROWS:][::-1]
    for event in events:
        hints = (hint_of(event), learned_hint(event, failures, pools))
        event["hint"] = " ".join(one for one in hints if one) or None
    sites = sorted(report("sites")["sites"], key=lambda one: -one["open"])
    return {
        "pid": metrics["pid"],
        "at": metrics["at"],
        "metrics": {name: metrics[name] for name in ("open_connections", "descriptors", "resets")},
        "stalls": {
            name: _longest(metrics["seconds"][f"read_stall_{name}"], metrics["edges"])
            for name in ("gil", "application")
        },
        "history": history.samples(),
        "pools": pools,
        "servers": [one for one in metrics["services"] if one["state"] != "ended"],
        "listeners": metrics["servers"],
        "breakers": metrics["breakers"],
        "sites": sites[:_ROWS],
        "connections": listed[:_ROWS],
        "connections_total": len(listed),
        "events": events,
    }


def _longest(spread: dict[str, Any], edges: list[float]) -> float | None:
    """The edge that none was above: a mean or a percentile hides the few that hurt."""
    if not spread["count"]:
        return None
    for edge, count in zip(edges, spread["buckets"], strict=True):
        if count == spread["count"]:
            return edge
    return edges[-1]
