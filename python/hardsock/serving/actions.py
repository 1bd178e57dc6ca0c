"""What is due now: the answer of everything that a driver asks again and again."""

from __future__ import annotations

from typing import NamedTuple

from hardsock.serving.ledger import Served

__all__ = ["Actions"]


class Actions(NamedTuple):
    """What a driver has to do, outside its locks, in this order. Nothing of it waits."""

    last: list[tuple[Served, float]]
    """Let it wait for no further message, and for a first one until so many seconds after it was
    accepted."""
    cancel: list[tuple[Served, str]]
    """Cancel the token, with the reason."""
    close: list[Served]
    abort: list[Served]
    wait: float | None
    """Seconds until the next look; None: there is none."""

    def perform(self) -> None:
        """Do it."""
        for served, seconds in self.last:
            served.conn._expect_no_more(seconds)
        for served, reason in self.cancel:
            if served.token is not None:
                served.token.cancel(reason)
        for served in self.close:
            served.conn.close()
        for served in self.abort:
            served.conn.abort()
