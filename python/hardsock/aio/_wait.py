"""Waiting for a token to end."""

from __future__ import annotations

import asyncio
import math
import time

from hardsock._core import CancelToken
from hardsock._errors import HardsockError
from hardsock.aio._host import current_hub

__all__ = ["pause", "wait"]

_LOOK = 0.1  # seconds between two looks at a token that cannot wake us


async def wait(token: CancelToken, timeout: float | None = None) -> bool:
    """Wait until *token* has ended: True; False after *timeout* seconds.

    As ``CancelToken.wait``: the ambient scope does not apply. The event loop's cancelling does.
    """
    ended: bool = await token._op_wait(current_hub(), timeout)
    return ended


async def pause(token: CancelToken, seconds: float | None) -> bool:
    """As `wait`, for who must not fail: where the kernel refuses this wait, too, by the loop's own."""
    until = math.inf if seconds is None else time.monotonic() + seconds
    try:
        return await wait(token, seconds)
    except (HardsockError, MemoryError):
        while not token.cancelled and (left := until - time.monotonic()) > 0:
            await _sleep(min(left, _LOOK))
        return token.cancelled


async def _sleep(seconds: float) -> None:
    if current_hub().is_asyncio:
        await asyncio.sleep(seconds)
    else:
        import trio

        await trio.sleep(seconds)
