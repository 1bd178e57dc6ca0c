"""What to do about an event of the flight recorder, in one sentence."""

from __future__ import annotations

import errno
from typing import Any

__all__ = ["hint_of"]

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
