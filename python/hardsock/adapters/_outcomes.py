"""What a breaker learns from requests: a node that accepts and never answers is ejected, too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hardsock._core import Breaker, Permit

__all__ = ["Outcomes", "outcomes"]


@dataclass(frozen=True)
class Outcomes:
    """A breaker, and which statuses count as failures of the node."""

    breaker: Breaker
    statuses: frozenset[int]

    def permit(self, host: str, port: int) -> Permit:
        """Leave for one try. BreakerOpen: the node has kept failing."""
        return self.breaker.permit((host.strip("[]"), port))

    def answered(self, permit: Permit, status: int) -> None:
        """The head of an answer has come."""
        permit.record("application" if status in self.statuses else None)


def outcomes(breaker: Breaker | None, statuses: Iterable[int]) -> Outcomes | None:
    """Check what a client was given."""
    wanted = frozenset(statuses)
    for one in wanted:
        if isinstance(one, bool) or not isinstance(one, int) or not 100 <= one <= 999:
            raise ValueError(f"breaker_statuses must be statuses of HTTP, got {one!r}")
    if breaker is None:
        if wanted:
            raise ValueError("breaker_statuses has no use without breaker")
        return None
    if not isinstance(breaker, Breaker):
        raise TypeError(f"breaker must be a hardsock.Breaker, not {type(breaker).__name__}")
    return Outcomes(breaker, wanted)
