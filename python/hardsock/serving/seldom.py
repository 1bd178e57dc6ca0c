"""Log messages that a crowd of connections would repeat: one a minute of each kind, with a count."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable

__all__ = ["Seldom"]

_INTERVAL = 60.0
_MOST_KINDS = 256
"""Further ones share a place."""


class _Kind:
    __slots__ = ("last", "level", "next", "unsaid")

    def __init__(self) -> None:
        self.next = 0.0
        self.unsaid = 0
        self.level = logging.WARNING
        self.last = ""


class Seldom:
    """Logs the first of a kind at once, and what follows within a minute as a number."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._kinds: dict[Hashable, _Kind] = {}

    def log(
        self,
        kind: Hashable,
        level: int,
        message: str,
        *args: object,
        exc_info: BaseException | None = None,
    ) -> None:
        """Log it, or count it."""
        now = time.monotonic()
        with self._lock:
            if kind not in self._kinds and len(self._kinds) >= _MOST_KINDS:
                kind = None
            known = self._kinds.setdefault(kind, _Kind())
            if now < known.next:
                known.unsaid += 1
                known.level, known.last = level, message % args if args else message
                return
            unsaid, known.unsaid = known.unsaid, 0
            known.next = now + _INTERVAL
        if unsaid:
            message += " (and %d times more in the last minutes)"
            args = (*args, unsaid)
        self._logger.log(level, message, *args, exc_info=exc_info)

    def flush(self) -> None:
        """Log what was only counted: there is nothing more to come."""
        with self._lock:
            unsaid = [(k.level, k.last, k.unsaid) for k in self._kinds.values() if k.unsaid]
            self._kinds.clear()
        for level, message, times in unsaid:
            self._logger.log(level, "%d times more in the last minute, at last: %s", times, message)
