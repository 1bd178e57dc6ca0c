"""hardsock taking all messages that are there at once."""

from __future__ import annotations

from typing import Any

from ..model import Target
from . import _common, hardsock
from ._common import DEADLINE
from .hardsock import FRAMING, connect

version = hardsock.version


def lines(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target) as conn:
        return _common.rate_of(lambda: _common.each(conn.recv_lines(timeout=DEADLINE)), seconds)


def frames_1k(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target) as conn:
        return _common.rate_of(
            lambda: _common.each(conn.recv_frames(FRAMING, timeout=DEADLINE)), seconds
        )


frames_1m = frames_1k
