"""What rules decide: figures and candidates in, decisions out. No clock, no thread, no socket.

Invariants:
- A rule is on from the step at which all its conditions had held for ``for_`` seconds, at each
  step in between, until the first step at which one of them is back at its clear level.
- Within any ``per`` seconds at most the budget's number is chosen, of the connections that there
  were at the moment of choosing; none is chosen twice within them.
- Each that is chosen was idle for longer than ``over`` and not young, and of those the longest.
- One that is ending, by an earlier step or by another action of this one, is no longer too many: it
  is not chosen again, and nobody is chosen in its place.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hardsock.guard.actions import Action, Call, CloseIdle, Diagnose
from hardsock.guard.quantities import Quantities
from hardsock.guard.rules import Rule

__all__ = ["Candidate", "Decision", "Engine", "Kind"]


class Kind:
    """Kinds of decisions."""

    ARMED = "armed"
    CLEARED = "cleared"
    BEGIN = "begin"
    """An action that lasts as long as its rule."""
    END = "end"
    DO = "do"
    """An action that is done once."""
    CLOSE = "close"
    """One connection."""
    OVER_BUDGET = "over budget"


@dataclass(frozen=True)
class Candidate:
    """A connection, as it was seen."""

    id: int
    peer: str
    age: float
    idle: float
    state: str
    """``"idle"`` and ``"pooled"`` may be closed; all others say why not."""
    local: str = ""

    def may_close(self, action: CloseIdle) -> bool:
        """Whether *action* is about it."""
        return (
            self.state in ("idle", "pooled")
            and self.idle > action.over
            and self.age >= action.young
        )


class Decision(NamedTuple):
    """What is to be done, and why."""

    kind: str
    rule: Rule
    action: Action | None = None
    victim: Candidate | None = None
    number: int = 0
    """How many more there were: of OVER_BUDGET."""


@dataclass
class _Spent:
    """What one action has done lately."""

    chosen: dict[int, float] = field(default_factory=dict)
    """When each connection was chosen."""
    last: float = -math.inf
    said: int = 0
    """What was said last to be over the budget."""

    def forget(self, before: float) -> None:
        for ident in [i for i, at in self.chosen.items() if at <= before]:
            del self.chosen[ident]


class State:
    """How a rule stands."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.since: float | None = None
        """Since when all conditions hold; None: they do not."""
        self.on = False
        self.spent = [_Spent() for _ in rule.then]

    def look(self, now: float, figures: Quantities) -> bool:
        """Whether it has changed."""
        was = self.on
        values = [(one, figures.get(one.quantity)) for one in self.rule.when]
        if self.on:
            self.on = all(one.lasts(value) for one, value in values)
            if not self.on:
                self.since = None
        elif not all(one.begins(value) for one, value in values):
            self.since = None
        else:
            self.since = now if self.since is None else self.since
            self.on = now - self.since >= self.rule.for_
        return self.on != was


class Engine:
    """The decisions of some rules over time."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.states = [State(rule) for rule in rules]

    def step(
        self,
        now: float,
        figures: Quantities,
        candidates: Sequence[Candidate],
        ending: Collection[int] = (),
    ) -> list[Decision]:
        """Decide, at a time that never goes back; *ending*: those chosen before that are there yet.

        An end takes its time: a connection is seen until its own thread has closed it.
        """
        decisions: list[Decision] = []
        for state in self.states:
            if state.look(now, figures):
                decisions += _changed(state)
            if not state.on:
                continue
            for action, spent in zip(state.rule.then, state.spent, strict=True):
                going = {d.victim.id for d in decisions if d.victim is not None}.union(ending)
                decisions += self._act(now, state.rule, action, spent, figures, candidates, going)
        return decisions

    def _act(
        self,
        now: float,
        rule: Rule,
        action: Action,
        spent: _Spent,
        figures: Quantities,
        candidates: Sequence[Candidate],
        going: set[int],
    ) -> list[Decision]:
        if isinstance(action, (Diagnose, Call)):
            if now - spent.last < action.per:
                return []
            spent.last = now
            return [Decision(Kind.DO, rule, action)]
        if not isinstance(action, CloseIdle):
            return []
        spent.forget(now - action.per)
        found = choose(action, going.union(spent.chosen), candidates)
        found = found[: surplus(rule, figures, candidates, going)]
        room = max(0, action.budget(len(candidates)) - len(spent.chosen))
        decisions = [Decision(Kind.CLOSE, rule, action, victim) for victim in found[:room]]
        spent.chosen.update((victim.id, now) for victim in found[:room])
        left = len(found) - len(decisions)
        if left and left != spent.said:
            decisions.append(Decision(Kind.OVER_BUDGET, rule, action, number=left))
        spent.said = left
        return decisions

    def end(self) -> list[Decision]:
        """Take back what lasts: there will be no other step."""
        decisions = []
        for state in self.states:
            if state.on:
                state.on = False
                decisions += _changed(state)
            state.since = None
        return decisions


def _changed(state: State) -> list[Decision]:
    """What to do when a rule has set in, or ended."""
    lasting = [
        Decision(Kind.BEGIN if state.on else Kind.END, state.rule, action)
        for action in state.rule.then
        if not isinstance(action, (CloseIdle, Diagnose, Call))
    ]
    if state.on:
        for spent in state.spent:
            spent.last = -math.inf
    return [Decision(Kind.ARMED if state.on else Kind.CLEARED, state.rule), *lasting]


def choose(
    action: CloseIdle, but: Collection[int], candidates: Sequence[Candidate]
) -> list[Candidate]:
    """Those that may be closed, the one idle for longest first."""
    found = [one for one in candidates if one.id not in but and one.may_close(action)]
    return sorted(found, key=lambda one: (-one.idle, one.id))


def surplus(
    rule: Rule, figures: Quantities, candidates: Sequence[Candidate], going: Collection[int]
) -> int | None:
    """How many are too many, if the rule is about their number; None: as many as there are."""
    n = len(candidates)
    for one in rule.when:
        if not one.above or one.quantity not in ("connections", "connections_share"):
            continue
        value = figures.get(one.quantity)
        if value is not None and value > 0:
            there_yet = sum(candidate.id in going for candidate in candidates)
            return max(0, math.ceil(n - one.clear * n / value) - there_yet)
    return None
