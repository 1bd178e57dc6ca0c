"""What a guard says of itself: how each rule stands, and what comes of it in how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardsock.guard.actions import CloseIdle
from hardsock.guard.engine import State, choose, surplus
from hardsock.guard.quantities import QUANTITIES, Condition
from hardsock.guard.scopes import Seen

if TYPE_CHECKING:
    from hardsock.guard.guard import Guard

__all__ = ["explain"]


def explain(guard: Guard, now: float, seen: Seen | None) -> str:
    """Return the text of ``Guard.explain``."""
    mode = "enforcing" if guard.enforce else "dry run"
    lines = [f"guard {guard.name}: {mode}, looks every {guard.every:g} s"]
    if guard.failure is not None:
        lines.append(f"  disarmed: {type(guard.failure).__name__}: {guard.failure}")
    if seen is None:
        return "\n".join([*lines, "  has not looked yet"])
    for state in guard._engine.states:
        lines += _of_rule(state, now, seen, guard._ending)
    return "\n".join(lines)


def _of_rule(state: State, now: float, seen: Seen, ending: set[int]) -> list[str]:
    rule = state.rule
    values = [_value(one, seen) for one in rule.when]
    if state.on:
        head = "on"
    elif all(one.begins(seen.figures.get(one.quantity)) for one in rule.when):
        since = now if state.since is None else state.since
        head = f"sets in in {max(0.0, rule.for_ - (now - since)):.0f} s if that lasts"
    else:
        head = "off" + _forecast(state, seen)
    lines = [f"  rule {rule.name!r} is {head}: " + "; ".join(values)]
    verb = "does" if state.on else "would"
    for action, spent in zip(rule.then, state.spent, strict=True):
        if isinstance(action, CloseIdle):
            lines.append(_of_close(action, set(spent.chosen), ending, state, verb, seen))
        else:
            lines.append(f"    {verb} {action!r}")
    return lines


def _value(condition: Condition, seen: Seen) -> str:
    value = seen.figures.get(condition.quantity)
    if value is None:
        return f"{condition.quantity} is not known here ({condition})"
    unit = QUANTITIES[condition.quantity].unit
    clear = "" if condition.clear == condition.level else f", clear at {condition.clear:g}"
    return f"{condition.quantity} is {value:.6g}{' ' + unit if unit else ''} ({condition}{clear})"


def _forecast(state: State, seen: Seen) -> str:
    """When the number of connections will be over its level, should it grow on as it does."""
    growth, n = seen.figures.get("growth"), seen.figures.get("connections")
    if len(state.rule.when) != 1 or not growth or growth <= 0 or not n:
        return ""
    only = state.rule.when[0]
    value = seen.figures.get(only.quantity)
    if not only.above or only.quantity not in ("connections", "connections_share") or not value:
        return ""
    seconds = (only.level * n / value - n) / growth + state.rule.for_
    return f" (sets in in {seconds:.0f} s at {growth:.3g} more a second)"


def _of_close(
    action: CloseIdle, chosen: set[int], ending: set[int], state: State, verb: str, seen: Seen
) -> str:
    n, asked = len(seen.connections), chosen | ending
    found = choose(action, asked, seen.connections)
    wanted = surplus(state.rule, seen.figures, seen.connections, ending)
    budget = action.budget(n)
    now = min(len(found), budget - len(chosen), n if wanted is None else wanted)
    reasons: dict[str, int] = {}
    for one in seen.connections:
        why = _why_not(action, one.id in asked, one)
        if why is not None:
            reasons[why] = reasons.get(why, 0) + 1
    text = (
        f"    {verb} close {max(0, now)} now of {len(found)} idle over {action.over:g} s; budget "
        f"{budget} in {action.per:g} s, {len(chosen)} used"
    )
    if found:
        text += f"; first {found[0].peer}, idle {found[0].idle:.0f} s"
    if reasons:
        text += "; spares " + ", ".join(f"{n} {why}" for why, n in sorted(reasons.items()))
    return text


def _why_not(action: CloseIdle, asked: bool, one: object) -> str | None:
    from hardsock.guard.engine import Candidate

    assert isinstance(one, Candidate)
    if asked:
        return "asked lately"
    if one.state not in ("idle", "pooled"):
        return one.state
    if one.age < action.young:
        return "young"
    return None if one.idle > action.over else "fresh"
