"""The decisions of a guard against a model that keeps the whole past and looks it up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hardsock import guard
from hardsock.guard.engine import Candidate, Decision, Engine, Kind

STATES = ("idle", "pooled", "busy", "lent", "owed", "bytes")


def a_rule(**kwargs: object) -> guard.Rule:
    given: dict[str, object] = {
        "when": guard.connections > 10,
        "then": guard.CloseIdle(over=5, young=2, at_most=2, per=10),
        **kwargs,
    }
    return guard.Rule("r", **given)  # type: ignore[arg-type]


def idle(ident: int, seconds: float, age: float = 100, state: str = "idle") -> Candidate:
    return Candidate(ident, f"peer{ident}", age, seconds, state)


def kinds(decisions: Sequence[Decision]) -> list[str]:
    return [one.kind for one in decisions]


class Model(RuleBasedStateMachine):
    """One rule with one condition, one budget; time, figures and connections do what they like."""

    @initialize(
        level=st.integers(1, 20),
        hysteresis=st.integers(0, 5),
        for_=st.sampled_from([0.0, 3.0, 7.5]),
        at_most=st.sampled_from([0.1, 0.5, 1, 3]),
        per=st.sampled_from([2.0, 10.0]),
    )
    def begin(self, level: int, hysteresis: int, for_: float, at_most: float, per: float) -> None:
        self.level, self.clear, self.for_ = level, max(0, level - hysteresis), for_
        self.action = guard.CloseIdle(over=5, young=2, at_most=at_most, per=per)
        self.lasting = guard.RefuseNew()
        one = guard.Rule(
            "r",
            when=guard.connections > level,
            clear=self.clear,
            for_=for_,
            then=[self.action, self.lasting],
        )
        self.engine = Engine([one])
        self.now = 0.0
        self.past: list[tuple[float, float | None]] = []
        self.chosen: list[tuple[float, int]] = []
        self.was_on = False
        self.began = self.ended = 0

    def should_be_on(self) -> bool:
        """From the whole past: the last step at which it set in is after the last that cleared."""
        on, since = False, None
        for at, value in self.past:
            if on:
                on = value is not None and value > self.clear
                since = since if on else None
            elif value is not None and value > self.level:
                since = at if since is None else since
                on = at - since >= self.for_
            else:
                since = None
        return on

    @rule(
        passed=st.sampled_from([0.0, 0.5, 1.0, 4.0, 30.0]),
        known=st.booleans() | st.just(True),
        crowd=st.lists(
            st.tuples(st.integers(0, 40), st.floats(0, 100), st.sampled_from(STATES)),
            max_size=30,
            unique_by=lambda one: one[0],
        ),
        ending=st.sets(st.integers(0, 40), max_size=10),
    )
    def step(
        self, passed: float, known: bool, crowd: list[tuple[int, float, str]], ending: set[int]
    ) -> None:
        self.now += passed
        found = [idle(i, seconds, seconds + i % 4, state) for i, seconds, state in crowd]
        value = float(len(found)) if known else None
        self.past.append((self.now, value))
        decisions = self.engine.step(self.now, {"connections": value}, found, ending)
        on = self.should_be_on()
        self.check_changes(decisions, on)
        self.check_victims(decisions, found, ending, on)
        self.was_on = on

    def check_changes(self, decisions: list[Decision], on: bool) -> None:
        told = [k for k in kinds(decisions) if k in (Kind.ARMED, Kind.CLEARED)]
        expected = [] if on == self.was_on else [Kind.ARMED if on else Kind.CLEARED]
        assert told == expected
        self.began += kinds(decisions).count(Kind.BEGIN)
        self.ended += kinds(decisions).count(Kind.END)

    def check_victims(
        self, decisions: list[Decision], found: list[Candidate], ending: set[int], on: bool
    ) -> None:
        victims = [one.victim for one in decisions if one.victim is not None]
        assert on or not victims
        recent = {i for at, i in self.chosen if self.now - at < self.action.per}
        fit = [
            one
            for one in found
            if one.state in ("idle", "pooled")
            and one.idle > 5
            and one.age >= 2
            and one.id not in recent | ending
        ]
        room = self.action.budget(len(found)) - len(recent)
        too_many = len(found) - self.clear - sum(one.id in ending for one in found)
        if on:
            assert len(victims) == max(0, min(len(fit), room, too_many))
        assert all(victim in fit for victim in victims)
        spared = [one for one in fit if one not in victims]
        if victims and spared:
            assert min(v.idle for v in victims) >= max(one.idle for one in spared)
        self.chosen += [(self.now, victim.id) for victim in victims]

    @rule()
    def end(self) -> None:
        self.ended += kinds(self.engine.end()).count(Kind.END)
        self.past.append((self.now, None))
        self.was_on = False

    @invariant()
    def what_lasts_does_so_while_the_rule_does(self) -> None:
        assert self.began - self.ended == int(self.was_on)


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestModel = Model.TestCase


def test_a_rule_waits_for_its_time_without_a_break() -> None:
    engine = Engine([a_rule(for_=5)])
    over, under = {"connections": 11.0}, {"connections": 10.0}
    for now, figures in ((0, over), (4, over), (4.5, under), (5, over), (9.9, over)):
        assert engine.step(now, figures, []) == []
    assert kinds(engine.step(10, over, [])) == [Kind.ARMED]


def test_all_conditions_must_hold_and_one_that_is_clear_ends_it() -> None:
    engine = Engine([a_rule(when=[guard.connections > 10, (guard.mean_age < 5).until(8)])])
    assert engine.step(0, {"connections": 11, "mean_age": 5}, []) == []
    assert kinds(engine.step(1, {"connections": 11, "mean_age": 4}, [])) == [Kind.ARMED]
    assert engine.step(2, {"connections": 11, "mean_age": 7.9}, []) == []
    assert kinds(engine.step(3, {"connections": 11, "mean_age": 8}, [])) == [Kind.CLEARED]


def test_what_is_not_known_is_no_reason_to_act_and_none_to_go_on() -> None:
    engine = Engine([a_rule()])
    assert engine.step(0, {}, []) == []
    engine.step(1, {"connections": 11}, [])
    assert kinds(engine.step(2, {"connections": None}, [])) == [Kind.CLEARED]


def test_two_rules_do_not_choose_the_same_connection_at_once() -> None:
    engine = Engine([a_rule(clear=0), a_rule(clear=0)])
    crowd = [idle(i, 50 + i) for i in range(3)]
    chosen = [one.victim.id for one in engine.step(0, {"connections": 11}, crowd) if one.victim]
    assert chosen == [2, 1, 0]


def test_two_actions_together_choose_no_more_than_are_too_many() -> None:
    two = [guard.CloseIdle(over=5, at_most=6, per=10), guard.CloseIdle(over=1, at_most=6, per=10)]
    engine = Engine([a_rule(clear=10, then=two)])
    crowd = [idle(i, 50 + i) for i in range(20)]
    chosen = [one.victim.id for one in engine.step(0, {"connections": 20}, crowd) if one.victim]
    assert chosen == list(range(19, 9, -1))


def test_nobody_is_chosen_in_the_place_of_one_that_is_ending() -> None:
    engine = Engine([a_rule(clear=10)])
    crowd = [idle(i, 50 + i) for i in range(12)]
    first = [one.victim.id for one in engine.step(0, {"connections": 12}, crowd) if one.victim]
    assert first == [11, 10]
    for now in (5, 11, 30):
        assert kinds(engine.step(now, {"connections": 12}, crowd, {10, 11})) == []
    spared = engine.step(31, {"connections": 12}, crowd, {11})
    assert [one.victim.id for one in spared if one.victim] == [10]


def test_being_over_the_budget_is_said_once_for_each_number() -> None:
    engine = Engine([a_rule(clear=0)])
    crowd = [idle(i, 50 + i) for i in range(20)]
    first = engine.step(0, {"connections": 20}, crowd)
    assert [(one.kind, one.number) for one in first[-1:]] == [(Kind.OVER_BUDGET, 18)]
    assert engine.step(1, {"connections": 20}, crowd) == []


def test_diagnosing_is_repeated_and_begins_anew_with_the_rule() -> None:
    engine = Engine([a_rule(then=guard.Diagnose(per=60))])
    over, under = {"connections": 11.0}, {"connections": 1.0}
    assert kinds(engine.step(0, over, [])) == [Kind.ARMED, Kind.DO]
    assert kinds(engine.step(59, over, [])) == []
    assert kinds(engine.step(60, over, [])) == [Kind.DO]
    engine.step(61, under, [])
    assert kinds(engine.step(62, over, [])) == [Kind.ARMED, Kind.DO]


@given(st.floats(0.001, 0.999), st.integers(0, 100_000))
def test_a_share_is_at_least_one_and_never_more_than_asked(share: float, n: int) -> None:
    budget = guard.CloseIdle(at_most=share).budget(n)
    assert 1 <= budget <= max(1, math.floor(n * share))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: guard.connections > float("nan"), ValueError, "finite"),
        (lambda: guard.connections > "1", TypeError, "connections must be compared"),
        (lambda: (guard.connections > 5).until(6), ValueError, "not above 5"),
        (lambda: (guard.idle_share < 0.5).until(0.4), ValueError, "not below 0.5"),
        (lambda: bool(guard.connections > 5), TypeError, "no truth"),
        (lambda: a_rule(when=[]), ValueError, "needs a condition"),
        (lambda: a_rule(then=[]), ValueError, "needs an action"),
        (lambda: a_rule(then=[1]), TypeError, "then must be actions"),
        (lambda: a_rule(when=[1]), TypeError, "when must be conditions"),
        (lambda: a_rule(for_=-1), ValueError, "for_ must be in"),
        (lambda: a_rule(clear=11), ValueError, "clear must be not above 10"),
        (lambda: guard.CloseIdle(at_most=1.5), ValueError, "at_most must be a share"),
        (lambda: guard.CloseIdle(at_most=0), ValueError, "at_most must be a share"),
        (lambda: guard.CloseIdle(over=-1), ValueError, "over must be in"),
        (lambda: guard.CloseIdle(per=None), TypeError, "per must be a number"),
        (lambda: guard.ShortenTimeouts(linger=None), ValueError, "needs linger"),
        (lambda: guard.UserTimeout(seconds=0), ValueError, "seconds must be in"),
        (lambda: guard.Call("f"), TypeError, "function must be callable"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_its_name(make: object, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        make()  # type: ignore[operator]
