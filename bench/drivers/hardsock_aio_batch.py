"""hardsock.aio on asyncio taking all messages that are there at once."""

from __future__ import annotations

import asyncio
from typing import Any

from ..model import Target
from . import _hardsock_aio, hardsock

version = hardsock.version


def lines(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return asyncio.run(_hardsock_aio.batches_of_lines(target, seconds))


def frames_1k(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return asyncio.run(_hardsock_aio.batches_of_frames(target, seconds))


frames_1m = frames_1k
