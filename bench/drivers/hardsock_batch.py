"""hardsock's blocking connections, taking all that is there at once."""

from __future__ import annotations

from typing import Any

from ..model import Target
from . import _common
from ._common import DEADLINE
from .hardsock import FRAME, connect, version

__all__ = ["frames", "lines", "version"]


def lines(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target) as conn:
        return _common.flow(lambda: len(conn.recv_lines(timeout=DEADLINE)), seconds)


def frames(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target) as conn:
        return _common.flow(lambda: len(conn.recv_frames(FRAME, timeout=DEADLINE)), seconds)
