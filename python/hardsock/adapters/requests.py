"""requests over hardsock: the total time-out that requests has not, and a Stop button.

    import hardsock.adapters.requests

    session = hardsock.adapters.requests.session(total=10)
    session.get("https://example.org/")     # ends within ten seconds, whatever the peer does

*total* (or a scope, ``with hardsock.timeout(10):``) covers the wait for a connection of the pool,
the lookup, connecting, TLS, all redirects, the pauses of ``max_retries``, and every byte of the
body, also one that is streamed after the call has returned. ``timeout=`` of requests counts
besides, and each of its reads is a total for that read.

At the deadline: ``requests.exceptions.ConnectTimeout`` or ``ReadTimeout``; while a body is streamed
``requests.exceptions.ConnectionError``, as requests has it; ``hardsock.DeadlineExceeded`` is among
their causes. After a cancel, from any thread: ``hardsock.Cancelled``.

    token = hardsock.CancelToken()
    with hardsock.scope(token):
        session.get(url)        # another thread: token.cancel("stop")

TLS is hardsock's, set up by ``verify=`` and ``cert=``. Not for SOCKS proxies. Everything else is
requests' own; the adapter can be mounted by itself: ``session.mount("https://", Adapter())``.

Tested with requests 2.32 to 2.34. All that it overrides is public; it stands on
``hardsock.adapters.urllib3``.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import requests
import requests.adapters
from requests.exceptions import ConnectTimeout, InvalidSchema
from urllib3.exceptions import EmptyPoolError

from hardsock._scope import timeout
from hardsock.adapters import urllib3 as over
from hardsock.adapters._versions import check

__all__ = ["Adapter", "Session", "session"]

check("requests", version("requests"), "2.32", "2.34")


class Adapter(requests.adapters.HTTPAdapter):
    """``requests.adapters.HTTPAdapter`` over hardsock; the parameters are the same."""

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any
    ) -> None:
        """As requests has it, of hardsock's connections."""
        super().init_poolmanager(connections, maxsize, block)
        self.poolmanager = over.PoolManager(
            num_pools=connections, maxsize=maxsize, block=block, **pool_kwargs
        )

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """As requests has it, of hardsock's connections."""
        if proxy.lower().startswith("socks"):
            raise InvalidSchema(f"no SOCKS proxies over hardsock, got {proxy!r}")
        if proxy not in self.proxy_manager:
            self.proxy_manager[proxy] = over.ProxyManager(
                proxy,
                proxy_headers=self.proxy_headers(proxy),
                num_pools=self._pool_connections,  # type: ignore[attr-defined,unused-ignore]
                maxsize=self._pool_maxsize,  # type: ignore[attr-defined,unused-ignore]
                block=self._pool_block,  # type: ignore[attr-defined,unused-ignore]
                **proxy_kwargs,
            )
        return self.proxy_manager[proxy]

    def build_connection_pool_key_attributes(
        self, request: Any, verify: Any, cert: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As requests has it, without the SSLContext that all its sessions share: no sharing here."""
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        pool.pop("ssl_context", None)
        return host, pool

    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """As requests has it; no connection of the pool in time is a ``ConnectTimeout``."""
        try:
            return super().send(request, *args, **kwargs)
        except EmptyPoolError as exc:
            raise ConnectTimeout(exc, request=request) from exc


class Session(requests.Session):
    """``requests.Session`` over hardsock.

    Attributes:
        total: Seconds for each request as a whole, its redirects and its body included; ``None``:
            the ambient scope alone decides. May be changed at any time.
    """

    total: float | None
    __attrs__ = [*requests.Session.__attrs__, "total"]  # noqa: RUF012

    def __init__(self, total: float | None = None, **adapter: Any) -> None:
        super().__init__()
        self.total = total
        for scheme in ("https://", "http://"):
            self.mount(scheme, Adapter(**adapter))

    def send(self, request: Any, **kwargs: Any) -> Any:
        """As requests has it, within ``total``: redirects are sent by this, too, and only tighten."""
        with timeout(self.total, name="total of the session"):
            return super().send(request, **kwargs)


def session(total: float | None = None, **adapter: Any) -> Session:
    """Make a ``requests.Session`` each of whose requests takes *total* seconds at most.

    Args:
        total: Seconds; ``None``: the ambient scope alone decides.
        adapter: Parameters of ``requests.adapters.HTTPAdapter``: ``max_retries``, ``pool_maxsize``,
            ``pool_block``, ``pool_connections``.
    """
    return Session(total, **adapter)
