"""Event hooks for httpx and httpx2: each request carries what is left of the scope.

    client = httpx.Client(event_hooks={"request": [hardsock.deadline.httpx.hook()]})
    client = httpx.AsyncClient(event_hooks={"request": [hardsock.deadline.httpx.async_hook()]})

They run for each redirect and each authentication step, and the library's limits are shortened to
what is left, too, for clients that are not over hardsock. Public hooks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from hardsock._core import CancelToken
from hardsock.deadline._headers import DEFAULT_NAMES, headers, remaining

__all__ = ["async_hook", "hook"]


def hook(
    token: CancelToken | None = None,
    *,
    names: Iterable[str] = DEFAULT_NAMES[:1],
    spend: float = 0.0,
    floor: float = 0.001,
) -> Callable[[Any], None]:
    """Return a request hook; the parameters are those of ``hardsock.deadline.headers``.

    The hook raises DeadlineExceeded rather than ask in vain: nothing was sent then.
    """
    wanted = tuple(names)

    def send_along(request: Any) -> None:
        found = headers(token, names=wanted, spend=spend, floor=floor)
        for name in wanted:
            request.headers.pop(name, None)  # of the try before
        request.headers.update(found)
        left = remaining(token)
        if left is not None:
            given = request.extensions.get("timeout") or {}
            request.extensions = {
                **request.extensions,
                "timeout": {
                    key: left if given.get(key) is None else min(left, given[key])
                    for key in ("connect", "read", "write", "pool")
                },
            }

    return send_along


def async_hook(
    token: CancelToken | None = None,
    *,
    names: Iterable[str] = DEFAULT_NAMES[:1],
    spend: float = 0.0,
    floor: float = 0.001,
) -> Callable[[Any], Awaitable[None]]:
    """As `hook`, for ``AsyncClient``."""
    send_along = hook(token, names=names, spend=spend, floor=floor)

    async def awaited(request: Any) -> None:
        send_along(request)

    return awaited
