"""``hardsock guard --dry-run PID``: what a guard would do about another process's connections."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hardsock.guard import Rule

__all__ = ["watch"]


def watch(pid: int, port: int | None, path: str | None, every: float, count: int) -> int:
    """Look *count* times (0: until it ends), print each decision, and how the rules stand at last.

    Returns 0, 1 if the process cannot be looked at or has ended, 3 for a wrong rules file.
    """
    from hardsock.guard import Foreign, Guard, article_2023
    from hardsock.guard.rules_file import RulesError, read_rules

    try:
        rules = _foreign_only(article_2023()) if path is None else read_rules(path)
        guard = Guard(Foreign(pid, port=port), *rules, every=every, log=_print, name=str(pid))
    except RulesError as exc:
        print(f"hardsock: {exc}", file=sys.stderr)
        return 3
    except (OSError, ValueError, TypeError, ImportError) as exc:
        print(f"hardsock: {exc}", file=sys.stderr)
        return 1
    logging.getLogger("hardsock.guard").addHandler(logging.NullHandler())  # It is told below.
    looks = 0
    while guard.failure is None and (count == 0 or looks < count):
        if looks > 0:
            time.sleep(every)
        guard.tick()
        looks += 1
    if guard.failure is not None:
        print(f"hardsock: process {pid} cannot be looked at: {guard.failure}", file=sys.stderr)
        return 1
    print(guard.explain(), file=sys.stderr)
    return 0


def _print(line: str) -> None:
    print(line, flush=True)


def _foreign_only(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Those of the preset whose actions another process's connections can have."""
    from hardsock.guard import CloseIdle, Diagnose

    return tuple(
        rule for rule in rules if all(isinstance(one, (CloseIdle, Diagnose)) for one in rule.then)
    )
