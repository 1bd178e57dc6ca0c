"""What a rule may ask for: named figures, and conditions on them.

A quantity compared with a number is a condition: ``connections > 5000``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

__all__ = ["QUANTITIES", "Condition", "Quantity", "Quantities"]

Quantities = Mapping[str, "float | None"]
"""Figures by name; None: not known here."""


@dataclass(frozen=True)
class Condition:
    """A quantity is above a level, or below one.

    Attributes:
        quantity: Its name.
        above: Whether it holds above the level; False: below it.
        level: In the quantity's unit. The level itself is not above, and not below.
        clear: Once it holds it does so until the quantity is back at this level, in the same unit.
    """

    quantity: str
    above: bool
    level: float
    clear: float

    def until(self, clear: float) -> Condition:
        """Return the same with another clear level.

        Raises:
            ValueError: If *clear* is on the far side of the level.
        """
        _check_number("clear", clear)
        if (clear > self.level) if self.above else (clear < self.level):
            side = "not above" if self.above else "not below"
            raise ValueError(f"clear must be {side} {self.level:g} for {self}, got {clear:g}")
        return replace(self, clear=float(clear))

    def begins(self, value: float | None) -> bool:
        """Whether it holds from now on; what is not known does not."""
        return value is not None and (value > self.level if self.above else value < self.level)

    def lasts(self, value: float | None) -> bool:
        """Whether it holds still, having begun; what is not known any more does not."""
        if self.begins(value):
            return True
        return value is not None and (value > self.clear if self.above else value < self.clear)

    def __str__(self) -> str:
        return f"{self.quantity} {'>' if self.above else '<'} {self.level:g}"

    def __bool__(self) -> bool:
        raise TypeError(f"{self} is a condition for a rule, which has no truth by itself")


@dataclass(frozen=True, eq=False)
class Quantity:
    """A named figure. Compare it with ``>`` or ``<`` for a condition.

    Attributes:
        name: The name by which it is imported and reported.
        unit: ``"s"``, ``"per s"``, ``"of 1"`` (a share), or empty: a count.
        text: What it counts, in words.
    """

    name: str
    unit: str
    text: str

    def __gt__(self, level: float) -> Condition:
        return self._condition(True, level)

    def __lt__(self, level: float) -> Condition:
        return self._condition(False, level)

    def _condition(self, above: bool, level: float) -> Condition:
        _check_number(self.name, level)
        return Condition(self.name, above, float(level), float(level))


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be compared with a number, not {type(value).__name__}")
    if math.isnan(value) or math.isinf(value):
        raise ValueError(f"{name} must be compared with a finite number, got {value}")


QUANTITIES: dict[str, Quantity] = {
    one.name: one
    for one in (
        Quantity("connections", "", "how many are open"),
        Quantity("connections_share", "of 1", "the same, of the limit"),
        Quantity("idle_share", "of 1", "how many of them are idle, and could be closed"),
        Quantity("mean_age", "s", "the mean of their ages; says nothing by itself"),
        Quantity("oldest_idle", "s", "how long the one idle for longest has been so"),
        Quantity("growth", "per s", "how many more there are, over the last minute"),
        Quantity("descriptors", "", "how many the process has open"),
        Quantity("descriptors_share", "of 1", "the same, of RLIMIT_NOFILE"),
        Quantity("queue_length", "", "connections that wait to be accepted"),
        Quantity("pool_waiting", "", "callers that wait for a pool's connection"),
        Quantity("pool_lent_share", "of 1", "how much of the pools is lent"),
        Quantity("application_stall_p99", "s", "how long bytes lay unread, since the last look"),
        Quantity("gil_stall_p99", "s", "how long readers waited for the GIL, since the last look"),
    )
}
