"""Waiting for a token to end."""

from __future__ import annotations

from hardsock._core import CancelToken
from hardsock.aio._host import current_hub

__all__ = ["wait"]


async def wait(token: CancelToken, timeout: float | None = None) -> bool:
    """Wait until *token* has ended: True; False after *timeout* seconds.

    As ``CancelToken.wait``: the ambient scope does not apply. The event loop's cancelling does.
    """
    ended: bool = await token._op_wait(current_hub(), timeout)
    return ended
