"""hardsock where each message is a call of its own, and not a step of an iteration."""

from __future__ import annotations

from typing import Any

from ..model import Target
from . import _common, hardsock
from ._common import DEADLINE, FRAMES_PER_CLOCK_READ, LINES_PER_CLOCK_READ
from .hardsock import FRAMING, connect

version = hardsock.version


def lines(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target) as conn:

        def take() -> int:
            for _ in range(LINES_PER_CLOCK_READ):
                conn.recv_line(timeout=DEADLINE)
            return LINES_PER_CLOCK_READ

        return _common.rate_of(take, seconds)


def _frames(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target) as conn:

        def take() -> int:
            for _ in range(count):
                conn.recv_frame(FRAMING, timeout=DEADLINE)
            return count

        return _common.rate_of(take, seconds)


def frames_1k(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _frames(target, seconds, FRAMES_PER_CLOCK_READ["frames_1k"])


def frames_1m(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _frames(target, seconds, FRAMES_PER_CLOCK_READ["frames_1m"])
