"""What the adapters of openai and anthropic share: their clients come from one generator.

Those libraries take ``http_client=``, which is public. What is private, and looked for on import:
``_sleep_for_retry`` and ``_calculate_retry_timeout`` of their blocking clients, whose pause is a
``time.sleep`` that nothing can end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import hardsock as hs
from hardsock.adapters import httpx2

__all__ = ["Clients", "clients"]


class Clients(NamedTuple):
    """The makers for one library."""

    client: Any
    async_client: Any


def clients(library: Any, blocking: Any, awaited: Any, error: Any) -> Clients:
    """Make them; *error* is the root of the library's errors, which it never retries or wraps."""
    for name in ("_sleep_for_retry", "_calculate_retry_timeout"):
        if not hasattr(blocking, name):
            raise ImportError(
                f"{library.__name__} {library.__version__} has no {blocking.__name__}.{name}: "
                "this version of hardsock does not know it"
            )

    class Cancelled(hs.Cancelled, error):
        """``hardsock.Cancelled`` that the library takes for its own: neither retried nor wrapped."""

    class DeadlineExceeded(hs.DeadlineExceeded, error):
        """``hardsock.DeadlineExceeded``, likewise."""

    def mark(exc: BaseException) -> None:
        # The same object, so that nothing that it knows is lost.
        if type(exc) is hs.Cancelled:
            exc.__class__ = Cancelled
        elif type(exc) is hs.DeadlineExceeded:
            exc.__class__ = DeadlineExceeded

    class HTTPClient(httpx2.Client):
        def send(self, request: Any, **how: Any) -> Any:
            try:
                return super().send(request, **how)
            except hs.HardsockError as exc:
                mark(exc)
                raise

    class AsyncHTTPClient(httpx2.AsyncClient):
        async def send(self, request: Any, **how: Any) -> Any:
            try:
                return await super().send(request, **how)
            except hs.HardsockError as exc:
                mark(exc)
                raise

    class Client(blocking):
        def _sleep_for_retry(
            self, *, retries_taken: int, max_retries: int, options: Any, response: Any
        ) -> None:
            headers = response.headers if response else None
            hs.sleep(self._calculate_retry_timeout(max_retries - retries_taken, options, headers))

    def ours(make: Any, total: float | None, **connecting: Any) -> Any:
        settings = {} if total is None else {"timeout": total}
        return make(total=total, follow_redirects=True, **connecting, **settings)

    def client(
        *,
        total: float | None = None,
        tls: hs.TLSConfig | None = None,
        socket: hs.SocketOptions | None = None,
        dial_limits: hs.DialLimits | None = None,
        **settings: Any,
    ) -> Any:
        over = ours(HTTPClient, total, tls=tls, socket=socket, dial_limits=dial_limits)
        return Client(http_client=over, **settings)

    def async_client(
        *,
        total: float | None = None,
        tls: hs.TLSConfig | None = None,
        socket: hs.SocketOptions | None = None,
        dial_limits: hs.DialLimits | None = None,
        **settings: Any,
    ) -> Any:
        over = ours(AsyncHTTPClient, total, tls=tls, socket=socket, dial_limits=dial_limits)
        return awaited(http_client=over, **settings)

    return Clients(client, async_client)
