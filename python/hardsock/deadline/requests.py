"""requests: each request carries what is left of the scope.

    session.mount("http://", hardsock.deadline.requests.carrying(requests.adapters.HTTPAdapter)())

By a transport adapter, which is public; it runs for each redirect. Tries of urllib3's ``Retry`` below
it repeat the header of the first one: give ``spend=`` what they may take, or let the caller retry.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hardsock._core import CancelToken
from hardsock.deadline._headers import DEFAULT_NAMES, headers

__all__ = ["carrying"]


def carrying(
    adapter: Any,
    token: CancelToken | None = None,
    *,
    names: Iterable[str] = DEFAULT_NAMES[:1],
    spend: float = 0.0,
    floor: float = 0.001,
) -> Any:
    """Return a subclass of *adapter*, a class of transport adapters of requests.

    The other parameters are those of ``hardsock.deadline.headers``. Its ``send`` raises
    DeadlineExceeded rather than ask in vain: nothing was sent then.
    """
    wanted = tuple(names)

    class Carrying(adapter):
        def send(self, request: Any, *args: Any, **settings: Any) -> Any:
            found = headers(token, names=wanted, spend=spend, floor=floor)
            for name in wanted:
                request.headers.pop(name, None)
            request.headers.update(found)
            return super().send(request, *args, **settings)

    return Carrying
