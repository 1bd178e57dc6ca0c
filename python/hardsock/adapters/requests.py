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

TLS is hardsock's, set up by ``verify=`` and ``cert=``. Not for SOCKS4 proxies. Everything else is
requests' own; the adapter can be mounted by itself: ``session.mount("https://", Adapter())``.

Tested with requests 2.32 to 2.34. All that it overrides is public; it stands on
``hardsock.adapters.urllib3``.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import requests
import requests.adapters
from requests.exceptions import ConnectTimeout, InvalidSchema
from urllib3.exceptions import EmptyPoolError
from urllib3.util.retry import Retry

from hardsock._core import Breaker, Scope
from hardsock._dial_limits import DialLimits
from hardsock.adapters import urllib3 as over
from hardsock.adapters._versions import check

__all__ = ["Adapter", "Session", "session"]

check("requests", version("requests"), "2.32", "2.34")


class Adapter(requests.adapters.HTTPAdapter):
    """``requests.adapters.HTTPAdapter`` over hardsock; the parameters are the same.

    Args:
        breaker: Learns from requests, as ``breaker_statuses``: see
            ``hardsock.adapters.urllib3.PoolManager``.
        dial_limits: For connections in the making: as ``hardsock.connect(limits=)``.
    """

    __attrs__ = [*requests.adapters.HTTPAdapter.__attrs__, "_learning"]  # noqa: RUF012

    def __init__(
        self,
        *args: Any,
        breaker: Breaker | None = None,
        breaker_statuses: Iterable[int] = (),
        dial_limits: DialLimits | None = None,
        **kwargs: Any,
    ) -> None:
        self._learning: dict[str, Any] = {
            "breaker": breaker,
            "breaker_statuses": tuple(breaker_statuses),
            "dial_limits": dial_limits,
        }
        super().__init__(*args, **kwargs)
        if type(self.max_retries) is Retry:  # once, so that no request has to
            self.max_retries = over.patient(self.max_retries)

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any
    ) -> None:
        """As requests has it, of hardsock's connections. InvalidSchema: a proxy that it cannot use."""
        super().init_poolmanager(connections, maxsize, block)
        self.poolmanager = over.PoolManager(
            num_pools=connections, maxsize=maxsize, block=block, **self._learning, **pool_kwargs
        )

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """As requests has it, of hardsock's connections.

        InvalidSchema: a proxy of a kind that it cannot use.
        """
        if proxy in self.proxy_manager:
            return self.proxy_manager[proxy]
        size: dict[str, Any] = {
            "num_pools": self._pool_connections,  # type: ignore[attr-defined,unused-ignore]
            "maxsize": self._pool_maxsize,  # type: ignore[attr-defined,unused-ignore]
            "block": self._pool_block,  # type: ignore[attr-defined,unused-ignore]
        }
        if not proxy.lower().startswith("socks"):
            made: Any = over.ProxyManager(
                proxy,
                proxy_headers=self.proxy_headers(proxy),
                **self._learning,
                **size,
                **proxy_kwargs,
            )
        else:
            try:
                made = over.PoolManager(via=proxy, **self._learning, **size, **proxy_kwargs)
            except ValueError as exc:  # socks4
                raise InvalidSchema(str(exc)) from exc
        self.proxy_manager[proxy] = made
        return made

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
        with Scope(None, self.total, "total of the session"):
            return super().send(request, **kwargs)


def session(total: float | None = None, **adapter: Any) -> Session:
    """Make a ``requests.Session`` each of whose requests takes *total* seconds at most.

    Args:
        total: Seconds; ``None``: the ambient scope alone decides.
        adapter: Parameters of ``requests.adapters.HTTPAdapter``: ``max_retries``, ``pool_maxsize``,
            ``pool_block``, ``pool_connections``, and of ``Adapter``: ``breaker``,
            ``breaker_statuses``, ``dial_limits``. Proxies are those of requests, of the environment too: ``http://``,
            ``https://``, and ``socks5://``, which looks names up as ``socks5h://`` does.
    """
    return Session(total, **adapter)
