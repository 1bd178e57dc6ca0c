"""What to do about an event of the flight recorder, in one sentence."""

from __future__ import annotations

import errno
from typing import Any

__all__ = ["hint_of", "learned_hint"]

_LEAST = 2  # One other may be chance.

_BY_ERRNO = {
    errno.EADDRNOTAVAIL: "All local ports towards this address are in use: reuse connections through "
    "a pool, and see hs.tcp_counts() for TIME_WAIT.",
    errno.EMFILE: "The process is at its limit of descriptors: see which line holds most, and raise "
    "RLIMIT_NOFILE if that is what it needs.",
    errno.ENFILE: "The machine is out of file handles: fs.file-max.",
    errno.ECONNREFUSED: "Nothing listens there, or its queue is full and it refuses.",
    errno.EHOSTUNREACH: "There is no route, or a router or firewall says so.",
    errno.ENETUNREACH: "There is no route to that network.",
}
_BY_KIND = {
    "connect_failed": "No address could be connected: hardsock explain tells how they are tried.",
    "connect_slow": "It was connected, but only after a long time: a lost handshake, or a full queue.",
    "deadline": "The peer did not answer in time; the connection's waits say which side is slow.",
    "reset": "The peer has closed with data of ours unread, or has aborted, or was restarted.",
    "dead_peer": "Nothing acknowledged what was sent: the peer or the path is gone.",
    "fault": "It was injected by hs.faults.",
    "leaked": "This line made a connection and lost it without closing it.",
    "overdue": "This line has a pool's connection for longer than it should: see its stack.",
    "pool_timeout": "Nobody gave a connection back in time: see who holds the pool's.",
    "breaker_opened": "Calls to it fail and are refused for a while, to let it recover.",
    "shed": "Clients were sent away: there was no room, or they broke a limit.",
    "no_descriptors": "The process is at its limit of descriptors: see which line holds most.",
}


def hint_of(event: dict[str, Any]) -> str | None:
    """Return it, or None if there is nothing to be said."""
    return _BY_ERRNO.get(event["errno"]) or _BY_KIND.get(event["kind"])


def learned_hint(
    event: dict[str, Any], events: list[dict[str, Any]], pools: list[dict[str, Any]]
) -> str | None:
    """Return what *events* and *pools* as they are now tell about it, or None."""
    what = event["what"]
    if event["kind"] in ("connect_failed", "connect_slow") and what:
        same = [one for one in events if one["what"] == what and one is not event]
        failed = [one for one in same if one["kind"] == "connect_failed"]
        slow = [one for one in same if one["kind"] == "connect_slow"]
        told = [
            f"{len(them)} others {how}"
            for them, how in ((failed, "failed"), (slow, "took over 2 s"))
            if len(them) >= _LEAST
        ]
        if told:
            since = max(one["age"] for one in failed + slow)
            return f"Of the connects to this address in the last {since:.0f} s {', '.join(told)}."
    if event["kind"] == "pool_timeout":
        return _who_holds(next((one for one in pools if one["name"] == what), None))
    return None


def _who_holds(pool: dict[str, Any] | None) -> str | None:
    if pool is None or not pool["holders"]:
        return None
    first = max(pool["holders"], key=lambda one: float(one["age"]))
    site = first["site"]
    line = f"{site['file']}:{site['line']} in {site['function']}" if site else "an unknown line"
    return (
        f"Now {len(pool['holders'])} are lent and {pool['waiting']} callers wait; the longest is "
        f"held by {line} for {first['age']:.0f} s."
    )
