"""hardsock.aio under trio taking all messages that are there at once."""

from __future__ import annotations

from typing import Any

import trio

from ..model import Target
from . import _hardsock_aio, hardsock_aio_trio

version = hardsock_aio_trio.version


def lines(target: Target, seconds: float, count: int) -> dict[str, Any]:
    result: dict[str, Any] = trio.run(_hardsock_aio.batches_of_lines, target, seconds)
    return result


def frames_1k(target: Target, seconds: float, count: int) -> dict[str, Any]:
    result: dict[str, Any] = trio.run(_hardsock_aio.batches_of_frames, target, seconds)
    return result
