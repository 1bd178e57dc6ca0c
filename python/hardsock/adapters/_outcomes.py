"""What a breaker learns from requests: a node that accepts and never answers is ejected, too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hardsock._core import Breaker, Permit
from hardsock._errors import BreakerOpen, HardsockError

__all__ = ["Outcomes", "breaker_open_in", "outcomes"]


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


def _behind(exc: BaseException) -> Iterator[BaseException]:
    """The exception and what has caused it; urllib3 has that among the arguments, too."""
    seen: set[int] = set()
    todo: list[Any] = [exc]
    while todo:
        one = todo.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            found = getattr(one, "hardsock_error", None)
            todo += [found, *one.args, one.__cause__, one.__context__]


def cause_of(exc: BaseException) -> BaseException:
    """What a breaker is to judge: hardsock's own word if there is one, else the system's."""
    for kind in (HardsockError, OSError):
        for one in _behind(exc):
            if isinstance(one, kind):
                return one
    return exc


def breaker_open_in(exc: BaseException) -> BreakerOpen | None:
    """The refusal that an exception of a library stands for, if it is one."""
    return next((one for one in _behind(exc) if isinstance(one, BreakerOpen)), None)
