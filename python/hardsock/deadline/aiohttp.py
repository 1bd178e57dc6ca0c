"""aiohttp's client: each request carries what is left of the scope.

    session = aiohttp.ClientSession(trace_configs=[hardsock.deadline.aiohttp.trace_config()])

By aiohttp's public tracing; it runs for each redirect, too. The scope itself ends what the session
waits for, in the task that has it (``hardsock.aio.timeout``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import aiohttp

from hardsock._core import CancelToken
from hardsock.deadline._headers import DEFAULT_NAMES, headers

__all__ = ["trace_config"]


def trace_config(
    token: CancelToken | None = None,
    *,
    names: Iterable[str] = DEFAULT_NAMES[:1],
    spend: float = 0.0,
    floor: float = 0.001,
) -> aiohttp.TraceConfig:
    """Return a trace configuration; the parameters are those of ``hardsock.deadline.headers``.

    A request raises DeadlineExceeded rather than ask in vain: nothing was sent then.
    """
    wanted = tuple(names)
    config = aiohttp.TraceConfig()

    async def send_along(_session: Any, _context: Any, params: Any) -> None:
        for name in wanted:
            params.headers.pop(name, None)
        params.headers.update(headers(token, names=wanted, spend=spend, floor=floor))

    config.on_request_start.append(send_along)
    config.on_request_redirect.append(send_along)
    return config
