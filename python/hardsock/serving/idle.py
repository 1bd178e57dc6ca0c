"""Connections on which nothing moves for too long while their handlers wait for a message.

A handler that computes, or that is in the middle of a message, is not idle however long it takes.
"""

from __future__ import annotations

from hardsock.serving.ledger import Ledger, Outcome, Served
from hardsock.serving.turn import Turn

__all__ = ["IdleTimeout"]

_SHORTEST_LOOK = 0.01
_LONGEST_LOOK = 5.0


class IdleTimeout:
    """The looks at one server's connections; one is ended at most an interval late."""

    def __init__(self, ledger: Ledger, seconds: float | None) -> None:
        self._ledger = ledger
        self._seconds = seconds
        self.interval = (
            None if seconds is None else min(max(seconds / 4, _SHORTEST_LOOK), _LONGEST_LOOK)
        )
        self._next = 0.0
        self._closing: list[Served] = []

    def step(self, now: float) -> Turn | None:
        """Say what is due; None if it is not time for a look."""
        if self._seconds is None or self.interval is None or now < self._next:
            return None
        self._next = now + self.interval
        close = [served for served in self._closing if not served.left]
        self._closing = [
            served
            for served in self._ledger.active
            if served.ended_by is None
            and (since := served.idle_since()) is not None
            and now - since >= self._seconds
        ]
        for served in self._closing:
            served.ended_by = Outcome.IDLE_TIMEOUT
        reason = f"idle for {self._seconds:g} s"
        return Turn([(served, reason) for served in self._closing], close, [], self.interval)
