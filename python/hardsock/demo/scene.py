"""What a scene is: one experiment, done with the standard library and with hardsock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Outcome:
    """What one column has measured."""

    text: str
    """For the table."""
    measured: Mapping[str, float] = field(default_factory=dict)
    """For the bounds."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A limit that one measured value of the hardsock column has to keep."""

    of: str
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    def __str__(self) -> str:
        if self.at_least is None:
            text = f"{self.of} <= {self.at_most:g}"
        elif self.at_most is None:
            text = f"{self.of} >= {self.at_least:g}"
        elif self.at_least == self.at_most:
            text = f"{self.of} = {self.at_most:g}"
        else:
            text = f"{self.of} {self.at_least:g} to {self.at_most:g}"
        return f"{text} {self.unit}".rstrip()

    def kept_by(self, outcome: Outcome, patience: float = 1.0) -> bool:
        """Whether *outcome* has the value, within the limits; a time within *patience* times them."""
        value, at_most = outcome.measured.get(self.of), self.at_most
        if value is None:
            return False
        if at_most is not None and self.unit == "s":
            at_most *= patience
        return (self.at_least is None or value >= self.at_least) and (
            at_most is None or value <= at_most
        )


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One row of the table.

    Both functions make their own peers, take them down again, and end by themselves. They raise
    `hardsock.lab.Unavailable` where this machine lacks what the scene needs.
    """

    name: str
    """One word, for the command line."""
    title: str
    shows: str
    """What there is to learn from it, in a sentence."""
    stdlib: Callable[[], Outcome]
    hardsock: Callable[[], Outcome]
    bounds: tuple[Bound, ...]

    def missed(self, outcome: Outcome, patience: float = 1.0) -> list[str]:
        """The bounds that the hardsock column has not kept, in words."""
        return [
            f"MISSED {bound}: it is {outcome.measured.get(bound.of, float('nan')):.4g}"
            for bound in self.bounds
            if not bound.kept_by(outcome, patience)
        ]
