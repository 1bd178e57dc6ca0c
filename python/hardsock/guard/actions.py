"""What a rule may do, and its budget. Plain values, which are checked when they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hardsock._options import _check_seconds as _check_optional

__all__ = [
    "Action",
    "Call",
    "CloseIdle",
    "Diagnose",
    "RefuseNew",
    "ShortenTimeouts",
    "UserTimeout",
]


def _check_seconds(name: str, value: object, low: float) -> None:
    if value is None:
        raise TypeError(f"{name} must be a number of seconds, not None")
    _check_optional(name, value, low)


@dataclass(frozen=True, kw_only=True)
class CloseIdle:
    """Close connections that are idle, the one idle for longest first.

    One that is lent, in use, young, owed an answer, or has bytes under way is never closed; each
    is looked at again in the moment of the act. Once ``connections`` is back at its clear level, if
    the rule asks for that, no more are closed.

    Attributes:
        over: Idle for longer than so many seconds.
        young: Younger ones are left alone, in seconds.
        at_most: How many in *per* seconds: a share of all below 1, else a number. At least one.
        per: Seconds. The same connection is not asked twice within them.
    """

    over: float = 60.0
    young: float = 10.0
    at_most: float = 0.05
    per: float = 60.0

    def __post_init__(self) -> None:
        _check_seconds("over", self.over, 0)
        _check_seconds("young", self.young, 0)
        _check_seconds("per", self.per, 0.001)
        if isinstance(self.at_most, bool) or not isinstance(self.at_most, (int, float)):
            raise TypeError(f"at_most must be a number, not {type(self.at_most).__name__}")
        if not self.at_most > 0 or (self.at_most > 1 and self.at_most != int(self.at_most)):
            raise ValueError(
                f"at_most must be a share between 0 and 1, or a whole number, got {self.at_most}"
            )

    def budget(self, n: int) -> int:
        """How many of *n* may be closed within *per* seconds."""
        return int(self.at_most) if self.at_most >= 1 else max(1, int(n * self.at_most))


@dataclass(frozen=True, kw_only=True)
class Diagnose:
    """Say who holds and who waits, with their stacks, when the rule sets in and every *per* s.

    Attributes:
        per: Seconds from one to the next.
    """

    per: float = 60.0

    def __post_init__(self) -> None:
        _check_seconds("per", self.per, 0.001)


@dataclass(frozen=True)
class Call:
    """Call ``function(rule name, quantities)`` when the rule sets in and every *per* seconds.

    It runs in the guard's thread and must not wait for long; what it raises disarms the guard.

    Attributes:
        function: Is called with the rule's name and the quantities by name; ``None`` is one that is
            not known.
        per: Seconds from one call to the next, while the rule lasts.
    """

    function: Callable[[str, dict[str, float | None]], Any]
    per: float = 60.0

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"function must be callable, not {type(self.function).__name__}")
        _check_seconds("per", self.per, 0.001)


@dataclass(frozen=True, kw_only=True)
class UserTimeout:
    """Shorten TCP_USER_TIMEOUT of all connections while the rule lasts; longer ones only.

    It ends those whose sent bytes nobody acknowledges. Idle connections do not feel it.

    Attributes:
        seconds: What it is shortened to.
    """

    seconds: float = 5.0

    def __post_init__(self) -> None:
        _check_seconds("seconds", self.seconds, 0.001)


@dataclass(frozen=True, kw_only=True)
class ShortenTimeouts:
    """Shorten a server's close time-outs while the rule lasts; what is shorter stays.

    Attributes:
        linger: Seconds that a server waits for its client's end; ``None``: left alone.
        idle_timeout: Seconds, of connections that come, or wait for their next message, from then
            on; ``None``: left alone.
    """

    linger: float | None = 0.5
    idle_timeout: float | None = None

    def __post_init__(self) -> None:
        _check_optional("linger", self.linger, 0)
        _check_optional("idle_timeout", self.idle_timeout, 0.001)
        if self.linger is None and self.idle_timeout is None:
            raise ValueError("ShortenTimeouts needs linger, idle_timeout or both")


@dataclass(frozen=True)
class RefuseNew:
    """Reset new connections of a server while the rule lasts."""


Action = CloseIdle | Diagnose | Call | UserTimeout | ShortenTimeouts | RefuseNew
"""What a rule may do when its condition holds."""
