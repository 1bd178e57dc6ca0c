"""Connections on which nothing moves for too long while their handlers wait for a message.

A handler that computes, or that is in the middle of a message, is not idle however long it takes.
"""

from __future__ import annotations

from hardsock.serving.ledger import Ledger, Outcome, Served
from hardsock.serving.turn import Turn

__all__ = ["IdleTimeout", "SteadyIdle"]

_SHORTEST_LOOK = 0.01
_LONGEST_LOOK = 5.0


class SteadyIdle:
    """Connections found idle twice in a row, with not a byte in between.

    A reader looks idle, too, in the moment before it takes what the kernel has for it, and in the
    moment after: one look could end a connection whose request had come.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._seen: dict[Served, int] = {}

    def look(self, *, once: bool = False) -> dict[Served, float]:
        """Return since when they are; with *once* there is no time to look twice."""
        before, self._seen = self._seen, {}
        found = {}
        for served in self._ledger.active:
            if served.ended_by is None and (since := served.idle_since()) is not None:
                received = self._seen[served] = served.conn.bytes_received
                if once or before.get(served) == received:
                    found[served] = since
        return found


class IdleTimeout:
    """The looks at one server's connections; one is ended at most an interval late."""

    def __init__(self, ledger: Ledger, seconds: float | None) -> None:
        self._idle = SteadyIdle(ledger)
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
        idle = self._idle.look()
        self._closing = [served for served, since in idle.items() if now - since >= self._seconds]
        for served in self._closing:
            served.ended_by = Outcome.IDLE_TIMEOUT
        reason = f"idle for {self._seconds:g} s"
        return Turn([(served, reason) for served in self._closing], close, [], self.interval)
