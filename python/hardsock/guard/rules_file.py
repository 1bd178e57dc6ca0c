"""Rules from a YAML file, with errors that say where: needs PyYAML (extra ``guard``).

rules:
  - name: too many
    when: connections_share > 0.9
    clear: 0.75
    for: 30
    then:
      - close_idle: {over: 60, at_most: 0.05, per: 60}
      - diagnose
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hardsock.guard.actions import (
    Action,
    CloseIdle,
    Diagnose,
    RefuseNew,
    ShortenTimeouts,
    UserTimeout,
)
from hardsock.guard.quantities import QUANTITIES, Condition
from hardsock.guard.rules import Rule

__all__ = ["RulesError", "parse_rules", "read_rules"]

_ACTIONS: dict[str, Callable[..., Action]] = {
    "close_idle": CloseIdle,
    "diagnose": Diagnose,
    "refuse_new": RefuseNew,
    "shorten_timeouts": ShortenTimeouts,
    "user_timeout": UserTimeout,
}
_RULE_KEYS = ("name", "when", "clear", "for", "then")
_CONDITION = re.compile(r"\s*(\w+)\s*([<>])\s*(\S+)\s*")
_MAX_SIZE = 1 << 20


class RulesError(ValueError):
    """A rules file is wrong: ``FILE:LINE:COLUMN: what``."""


def read_rules(path: str | Path) -> tuple[Rule, ...]:
    """Read rules from a file.

    Raises:
        RulesError: Something in it is wrong; the message says where.
        OSError: It cannot be read.
        ImportError: PyYAML is missing.
    """
    with open(path, "rb") as file:
        raw = file.read(_MAX_SIZE + 1)
    if len(raw) > _MAX_SIZE:
        raise RulesError(f"{path}: larger than {_MAX_SIZE} bytes")
    return parse_rules(raw, str(path))


def parse_rules(text: str | bytes, name: str = "rules") -> tuple[Rule, ...]:
    """The same from a text; *name* is for messages."""
    try:
        import yaml
    except ImportError as exc:
        raise ImportError("rules from YAML need PyYAML: pip install hardsock[guard]") from exc
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = name if mark is None else f"{name}:{mark.line + 1}:{mark.column + 1}"
        raise RulesError(f"{where}: {exc.problem or exc.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise RulesError(f"{name}: {exc}") from None
    except RecursionError:
        raise RulesError(f"{name}: nested too deeply") from None
    return _Reader(name, yaml).rules(root)


class _Reader:
    def __init__(self, name: str, yaml: Any) -> None:
        self._name = name
        self._yaml = yaml

    def _wrong(self, node: Any, text: object) -> RulesError:
        mark = node.start_mark
        return RulesError(f"{self._name}:{mark.line + 1}:{mark.column + 1}: {text}")

    def _map(self, node: Any, known: tuple[str, ...], what: str) -> dict[str, Any]:
        if not isinstance(node, self._yaml.MappingNode):
            raise self._wrong(node, f"{what} must be a mapping")
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, self._yaml.ScalarNode) or key.value not in known:
                text = getattr(key, "value", "?")
                raise self._wrong(key, f"unknown key {text!r} in {what}; known: {', '.join(known)}")
            if key.value in found:
                raise self._wrong(key, f"{key.value!r} is there twice")
            found[key.value] = value
        return found

    def _scalar(self, node: Any, what: str) -> Any:
        if not isinstance(node, self._yaml.ScalarNode):
            raise self._wrong(node, f"{what} must be a single value")
        try:
            return self._yaml.SafeLoader("").construct_object(node)
        except (ValueError, self._yaml.YAMLError):
            raise self._wrong(node, f"{what} cannot be read: {node.value!r}") from None

    def _number(self, node: Any, what: str) -> float:
        value = self._scalar(node, what)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(node, f"{what} must be a number, got {node.value!r}")
        return value

    def _list(self, node: Any) -> list[Any]:
        return list(node.value) if isinstance(node, self._yaml.SequenceNode) else [node]

    def _make(self, node: Any, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except (ValueError, TypeError) as exc:
            if isinstance(exc, RulesError):
                raise
            raise self._wrong(node, exc) from None

    def rules(self, root: Any) -> tuple[Rule, ...]:
        if root is None:
            raise RulesError(f"{self._name}: there is nothing in it")
        listed = self._map(root, ("rules",), "the file").get("rules")
        if not isinstance(listed, self._yaml.SequenceNode) or not listed.value:
            raise self._wrong(root if listed is None else listed, "rules must be a list of rules")
        return tuple(self._rule(node) for node in listed.value)

    def _rule(self, node: Any) -> Rule:
        found = self._map(node, _RULE_KEYS, "a rule")
        for key in ("name", "when", "then"):
            if key not in found:
                raise self._wrong(node, f"the rule has no {key!r}")
        name = self._scalar(found["name"], "name")
        conditions = [self._condition(one) for one in self._list(found["when"])]
        actions = [self._action(one) for one in self._list(found["then"])]
        if "clear" in found and conditions:
            clear = self._number(found["clear"], "clear")
            conditions[0] = self._make(found["clear"], lambda: conditions[0].until(clear))
        seconds = self._number(found["for"], "for") if "for" in found else 0.0
        where = found.get("for", node)
        rule: Rule = self._make(
            where, lambda: Rule(name, when=conditions, then=actions, for_=seconds)
        )
        return rule

    def _condition(self, node: Any) -> Condition:
        text = self._scalar(node, "when")
        match = _CONDITION.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise self._wrong(node, f'when must be as "connections > 5000", got {node.value!r}')
        name, sign, level = match.groups()
        if name not in QUANTITIES:
            known = ", ".join(QUANTITIES)
            raise self._wrong(node, f"there is no quantity {name!r}; known: {known}")
        try:
            number = float(level)
        except ValueError:
            raise self._wrong(node, f"{level!r} is no number") from None
        quantity = QUANTITIES[name]
        made: Condition = self._make(
            node, lambda: quantity > number if sign == ">" else quantity < number
        )
        return made

    def _action(self, node: Any) -> Action:
        settings: dict[str, float] = {}
        where = node
        if isinstance(node, self._yaml.MappingNode) and len(node.value) == 1:
            where, given = node.value[0]
            name = self._scalar(where, "an action")
        else:
            name, given = self._scalar(node, "an action"), None
        kind = _ACTIONS.get(name) if isinstance(name, str) else None
        if kind is None:
            raise self._wrong(where, f"there is no action {name!r}; known: {', '.join(_ACTIONS)}")
        if given is not None:
            fields = tuple(getattr(kind, "__dataclass_fields__", {}))
            for key, value in self._map(given, fields, name).items():
                settings[key] = self._number(value, key)
        made: Action = self._make(where, lambda: kind(**settings))
        return made
