"""The last look at a listener before it is closed: who was left outside."""

from __future__ import annotations

from typing import NamedTuple

from hardsock._core import Listener

__all__ = ["LeftOutside", "close_listener"]


class LeftOutside(NamedTuple):
    """Clients that a closed listener has turned away."""

    unaccepted: int | None = None
    handshakes: int = 0


def close_listener(listener: Listener) -> LeftOutside:
    """Close it; says who waited in its queue, and in the middle of a TLS handshake."""
    if listener.closed:
        return LeftOutside()
    stats = listener.stats()
    listener.close()
    if stats.handshakes is None:
        return LeftOutside(stats.queue_length)
    silent = stats.handshakes.silent
    queued = None if stats.queue_length is None else stats.queue_length + silent
    return LeftOutside(queued, stats.handshakes.in_progress - silent)
