"""The log of a guard: one JSON object for each decision, and counters."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from hardsock import _core

__all__ = ["Audit"]

logger = logging.getLogger("hardsock.guard")


class Audit:
    """Writes decisions down.

    Args:
        name: The guard's.
        write: Called with each line, without its newline; None: the logger ``hardsock.guard``.
    """

    def __init__(self, name: str, write: Callable[[str], object] | None) -> None:
        self._name = name
        self._write = write
        self.counts: Counter[tuple[str, str, str]] = Counter()
        """How often: by rule, action and outcome."""

    def tell(
        self, rule: str, action: str, outcome: str, details: dict[str, object], number: int = 1
    ) -> None:
        """Count it, and write its line."""
        self.counts[rule, action, outcome] += number
        _core._guard_count(outcome, number)
        line: dict[str, Any] = {
            "at": round(time.time(), 3),
            "guard": self._name,
            "rule": rule,
            "action": action,
            "outcome": outcome,
        }
        if number != 1:
            line["number"] = number
        line |= details
        text = json.dumps(line, ensure_ascii=True, default=str)
        if self._write is None:
            logger.info("%s", text)
        else:
            self._write(text)
