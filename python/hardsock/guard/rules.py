"""A rule: when, for how long, until when, and what then."""

from __future__ import annotations

from collections.abc import Sequence

from hardsock._options import _check_seconds
from hardsock.guard.actions import (
    Action,
    Call,
    CloseIdle,
    Diagnose,
    RefuseNew,
    ShortenTimeouts,
    UserTimeout,
)
from hardsock.guard.quantities import QUANTITIES, Condition

__all__ = ["Rule"]

_ACTIONS = (CloseIdle, Diagnose, Call, UserTimeout, ShortenTimeouts, RefuseNew)


class Rule:
    """Sets in when all conditions have held for some time, and ends when one is clear again.

    Args:
        name: For the log.
        when: A condition, such as ``guard.connections > 5000``, or several.
        then: An action, or several.
        clear: The clear level of the first condition; by default its level. Others have
            ``condition.until(level)``.
        for_: Seconds for which all conditions must have held without a break.

    Raises:
        ValueError, TypeError: A parameter is wrong.
    """

    def __init__(
        self,
        name: str,
        *,
        when: Condition | Sequence[Condition],
        then: Action | Sequence[Action],
        clear: float | None = None,
        for_: float = 0.0,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"name must be a str with something in it, got {name!r}")
        conditions = (when,) if isinstance(when, Condition) else tuple(when)
        actions = (then,) if isinstance(then, _ACTIONS) else tuple(then)
        if not conditions:
            raise ValueError(f"rule {name!r} needs a condition")
        if not actions:
            raise ValueError(f"rule {name!r} needs an action")
        for one in conditions:
            if not isinstance(one, Condition):
                raise TypeError(
                    f"when must be conditions such as connections > 100, not {type(one).__name__}"
                )
            if one.quantity not in QUANTITIES:
                raise ValueError(f"there is no quantity {one.quantity!r}")
        for action in actions:
            if not isinstance(action, _ACTIONS):
                raise TypeError(f"then must be actions, not {type(action).__name__}")
        _check_seconds("for_", for_, 0)
        if clear is not None:
            conditions = (conditions[0].until(clear), *conditions[1:])
        self.name = name
        self.when = conditions
        self.then: tuple[Action, ...] = actions
        self.for_ = float(for_)

    def __repr__(self) -> str:
        when = " and ".join(str(one) for one in self.when)
        then = ", ".join(type(one).__name__ for one in self.then)
        return f"<Rule {self.name!r}: {when} for {self.for_:g} s: {then}>"
