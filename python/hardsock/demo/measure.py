"""What the scenes have in common: clocks, and numbers as people write them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LIMIT = 300.0
"""Seconds for a part of a scene that is not what it measures: longer than the runner waits for all of it."""


class Stopwatch:
    """Seconds since it was made; stands still once stopped."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._end: float | None = None

    def stop(self) -> None:
        """Keep what it shows now."""
        if self._end is None:
            self._end = time.monotonic()

    @property
    def seconds(self) -> float:
        """What it shows."""
        return (time.monotonic() if self._end is None else self._end) - self._begin

    def __str__(self) -> str:
        return duration(self.seconds)


@contextmanager
def timed() -> Iterator[Stopwatch]:
    """A stopwatch that runs during the block."""
    watch = Stopwatch()
    try:
        yield watch
    finally:
        watch.stop()


def duration(seconds: float) -> str:
    """*seconds* with the unit that suits: ``"35 µs"``, ``"1.2 ms"``, ``"0.30 s"``."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.1:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.2f} s"


def median(values: list[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def error_of(function: Callable[[], object]) -> str:
    """Call *function*, which has to fail with an OSError; return what was raised, by name."""
    try:
        function()
    except OSError as exc:
        return type(exc).__name__
    raise AssertionError("it did not fail")
