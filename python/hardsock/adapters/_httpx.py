"""Clients and transports of httpx and httpx2 over hardsock's connections; `clients` makes the classes.

Public hooks: transports, httpcore's network backends, request extensions, the ``send`` of a client.
Private ones: ``HTTPTransport._pool`` and its ``_network_backend`` and ``_max_connections``, and the
clients' ``_init_transport`` and ``_init_proxy_transport``, so that proxies of the environment are
used, too. `check_hooks` looks for them on import.
"""

from __future__ import annotations

import functools
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import hardsock as hs
from hardsock._core import scope as _ambient
from hardsock.adapters._causes import cause_of, handled
from hardsock.adapters._httpcore import backends
from hardsock.adapters._outcomes import Outcomes, outcomes
from hardsock.adapters._total import Queue, QueueTimeout, Total, scope_has_ended

__all__ = ["Clients", "clients"]

_KEY = "hardsock"
_OURS = ("total", "tls", "proxy_tls", "socket", "breaker", "breaker_statuses", "dial_limits")
_ALPN = {False: ("http/1.1",), True: ("h2", "http/1.1")}


class Clients(NamedTuple):
    """The classes for one library."""

    client: Any
    async_client: Any
    transport: Any
    async_transport: Any


def check_hooks(library: Any) -> None:
    """Refuse a version that lacks what is not public, rather than go round hardsock unseen."""
    missing = [
        f"{owner.__name__}.{name}"
        for owner in (library.Client, library.AsyncClient)
        for name in ("_init_transport", "_init_proxy_transport")
        if not hasattr(owner, name)
    ]
    for transport in (library.HTTPTransport, library.AsyncHTTPTransport):
        if "_pool" not in transport.__init__.__code__.co_names:
            missing.append(f"{transport.__name__}._pool")
    if missing:
        raise ImportError(
            f"{library.__name__} {library.__version__} has no {', '.join(missing)}: this version "
            "of hardsock does not know it"
        )


@functools.cache
def _default_config(alpn: tuple[str, ...]) -> hs.TLSConfig:
    """One for all clients: to read what the system trusts takes tens of milliseconds."""
    return hs.TLSConfig(alpn=alpn)


@functools.cache
def _no_trust() -> ssl.SSLContext:
    """What the library's own part of a transport is given, whose context is not used: it would read
    what the system trusts for each client."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _config(
    tls: hs.TLSConfig | None, http1: bool, http2: bool, verify: Any, cert: Any
) -> hs.TLSConfig:
    """The TLS settings of a transport."""
    make = getattr(verify, "tls_config", None)
    if tls is None and callable(make) and cert is None:  # a context of hardsock.ssl_context
        made: hs.TLSConfig = make(False)
        return made
    for name, value, plain in (("verify", verify, True), ("cert", cert, None)):
        if value is not plain:
            raise ValueError(
                f"{name}={value!r} is not taken: TLS is hardsock's here. Say "
                "tls=hardsock.TLSConfig(ca=..., certificates=...) instead"
            )
    wanted = _ALPN[http2] if http1 else ("h2",)
    if tls is None:
        return _default_config(wanted)
    if not isinstance(tls, hs.TLSConfig):
        raise TypeError(f"tls must be a hardsock.TLSConfig or None, not {type(tls).__name__}")
    if http2 and "h2" not in (tls.alpn or ()):
        raise ValueError(
            "http2=True wants tls=TLSConfig(alpn=('h2', 'http/1.1')), which lacks 'h2'"
        )
    return tls


def _proxied(library: Any, proxy: Any, proxy_tls: hs.TLSConfig | None) -> dict[str, Any]:
    """What a backend has to know of a transport's proxy."""
    if proxy is None:
        if proxy_tls is not None:
            raise ValueError("proxy_tls has no use without proxy")
        return {"proxy": False}
    if isinstance(proxy, (str, library.URL)):
        proxy = library.Proxy(proxy)
    context = getattr(proxy, "ssl_context", None)
    make = getattr(context, "tls_config", None)
    if context is not None and not callable(make):
        raise ValueError(
            "the proxy's ssl_context is not taken: TLS is hardsock's here. Say "
            "proxy_tls=hardsock.TLSConfig(ca=...) instead, or give a hardsock.ssl_context()"
        )
    if proxy.url.scheme != "https":
        if proxy_tls is not None:
            raise ValueError(f"proxy_tls is for an https:// proxy, and proxy is {proxy.url}")
        return {"proxy": False}
    if proxy_tls is None:
        proxy_tls = make(False) if callable(make) else _default_config(("http/1.1",))
    netloc = proxy.url.netloc.decode()  # without user and password
    return {"proxy": f"https://{netloc}", "proxy_tls": proxy_tls}


def _ours_for(ours: dict[str, Any], proxy: Any) -> dict[str, Any]:
    """What a client was given, for the transport by one of its proxies, or by none."""
    if proxy is not None and proxy.url.scheme == "https":
        return ours
    return {**ours, "proxy_tls": None}


def _clamped(timeouts: Any, total: Total) -> dict[str, Any]:
    """The limit of the library's own queue is not more than what is left: no token reaches it."""
    given = dict(timeouts or {})
    left = total.token.remaining
    if left is not None and (given.get("pool") is None or given["pool"] > left):
        given["pool"] = max(0.0, left)
    return given


def clients(library: Any, core: Any) -> Clients:
    """Make the classes over *library* (httpx or httpx2) and *core* (httpcore or httpcore2)."""
    check_hooks(library)
    made = backends(core)

    def late(exc: hs.DeadlineExceeded, request: Any) -> Exception:
        """What stands for the total's end: an error of the library, as its own limits have it."""
        if scope_has_ended():
            return exc
        error: Exception = library.PoolTimeout(str(exc), request=request)
        error.hardsock_error = exc  # type: ignore[attr-defined]
        return error

    def running(request: Any) -> Total | None:
        """Its total, which is entered already; None for a transport in a client of the library's own,
        and for a request that was sent before, whose time was another one."""
        total = request.extensions.get(_KEY)
        return total if isinstance(total, Total) and total.is_entered() else None

    @contextmanager
    def judged(learning: Outcomes, request: Any) -> Iterator[Callable[[int], None]]:
        """One try, of which a breaker is told; call what is yielded with the status."""
        before, url = handled(), request.url
        try:
            permit = learning.permit(url.host, url.port or (443 if url.scheme == "https" else 80))
        except hs.BreakerOpen as exc:
            error: Exception = library.ConnectError(str(exc), request=request)
            error.hardsock_error = exc  # type: ignore[attr-defined]
            raise error from exc
        try:
            yield lambda status: learning.answered(permit, status)
        except BaseException as exc:
            permit.record(cause_of(exc, before))
            raise

    class BoundStream(library.SyncByteStream):
        """A body whose every piece is read in the scope of its exchange."""

        def __init__(self, stream: Any, total: Total, queue: Queue | None) -> None:
            self._stream, self._total, self._queue = stream, total, queue

        def __iter__(self) -> Iterator[bytes]:
            pieces, total = iter(self._stream), self._total
            while True:
                if _ambient.get() is total.token:  # The call reads the body itself.
                    piece = next(pieces, None)
                else:
                    with total.enter():
                        piece = next(pieces, None)
                if piece is None:
                    return
                yield piece

        def close(self) -> None:
            queue, self._queue = self._queue, None
            try:
                self._stream.close()
            finally:
                if queue is not None:
                    queue.give()

    class Secured:
        """What both transports are made of; their names, and what they say, are the library's."""

        _backend: Callable[..., Any]
        _pool: Any
        _queue: Queue | None = None

        def __init__(
            self,
            *,
            total: float | None = None,
            tls: hs.TLSConfig | None = None,
            proxy_tls: hs.TLSConfig | None = None,
            socket: hs.SocketOptions | None = None,
            breaker: hs.Breaker | None = None,
            breaker_statuses: Iterable[int] | None = None,
            dial_limits: hs.DialLimits | None = None,
            verify: Any = True,
            cert: Any = None,
            http1: bool = True,
            http2: bool = False,
            **settings: Any,
        ) -> None:
            config = _config(tls, http1, http2, verify, cert)
            proxied = _proxied(library, settings.get("proxy"), proxy_tls)
            super().__init__(verify=_no_trust(), http1=http1, http2=http2, **settings)  # type: ignore[call-arg]
            self._total = total
            self._outcomes = outcomes(breaker, breaker_statuses or ())
            self._pool._network_backend = self._backend(
                tls=config, options=socket, dial_limits=dial_limits, **proxied
            )
            self._ready(http2)

        def _ready(self, http2: bool) -> None:
            """It is made."""

    class Transport(Secured, library.HTTPTransport):
        """A transport: ``Client(transport=Transport(total=10))``, with the library's parameters.

        Args:
            total: Seconds for each exchange, from its place in the queue to the last byte of its
                body. A `Client` of this module counts redirects and authentication in.
            tls: With targets. ``None``: hardsock's defaults, with the right ``alpn``.
            proxy_tls: With an ``https://`` proxy. ``None``: the proxy's ``ssl_context``, which has
                to be one of ``hardsock.ssl_context()``, else whom the system trusts.
            socket: Options for the sockets.
            breaker: Learns from requests: a node that keeps failing, by refusing, by silence until a
                limit of a second or more (see its ``patience``) or by a reset, is not tried for a
                while: ``ConnectError`` with ``BreakerOpen``. Share one. A body that is streamed
                later is not seen.
            breaker_statuses: Statuses that are failures of the node as well, such as 503.
            dial_limits: For connections in the making: as ``hardsock.connect(limits=)``. (*limits*
                is the library's, for its pool.)
        """

        _backend = staticmethod(made.sync)

        def _ready(self, http2: bool) -> None:
            size = self._pool._max_connections
            # With HTTP/2 exchanges share connections: the library's own queue decides.
            self._queue = None if http2 or size >= sys.maxsize else Queue(size)

        def handle_request(self, request: Any) -> Any:
            total = running(request)
            if total is not None:
                return self._timely(request, total)
            total = Total(self._total)
            with total.enter():
                return self._timely(request, total)

        def _timely(self, request: Any, total: Total) -> Any:
            try:
                return self._exchange(request, total)
            except hs.DeadlineExceeded as exc:
                raise late(exc, request) from exc

        def _exchange(self, request: Any, total: Total) -> Any:
            timeouts = request.extensions.get("timeout")
            if self._queue is None:
                extensions = {**request.extensions, "timeout": _clamped(timeouts, total)}
                request.extensions = extensions
            else:
                try:
                    self._queue.take((timeouts or {}).get("pool"))
                except QueueTimeout:
                    raise library.PoolTimeout(
                        "no connection became free in time", request=request
                    ) from None
            try:
                if self._outcomes is None:
                    response = super().handle_request(request)
                else:
                    with judged(self._outcomes, request) as answered:
                        response = super().handle_request(request)
                        answered(response.status_code)
            except BaseException as exc:
                if self._queue is not None:
                    self._queue.give()
                elif isinstance(exc, library.PoolTimeout):
                    total.token.check()  # Its end was the queue's limit.
                raise
            response.stream = BoundStream(response.stream, total, self._queue)
            return response

    class AsyncBoundStream(library.AsyncByteStream):
        def __init__(self, stream: Any, total: Total) -> None:
            self._stream, self._total = stream, total

        async def __aiter__(self) -> AsyncIterator[bytes]:
            pieces, total = aiter(self._stream), self._total
            while True:
                try:
                    if _ambient.get() is total.token:
                        piece = await anext(pieces)
                    else:
                        with total.enter():
                            piece = await anext(pieces)
                except StopAsyncIteration:
                    return
                yield piece

        async def aclose(self) -> None:
            await self._stream.aclose()

    class AsyncTransport(Secured, library.AsyncHTTPTransport):
        """The awaited twin of `Transport`, on asyncio, uvloop and trio."""

        _backend = staticmethod(made.asynchronous)

        async def handle_async_request(self, request: Any) -> Any:
            entered = running(request)
            total = Total(self._total) if entered is None else entered
            try:
                if self._outcomes is not None:
                    with total.enter(), judged(self._outcomes, request) as answered:
                        response = await super().handle_async_request(request)
                        answered(response.status_code)
                elif entered is not None:
                    response = await super().handle_async_request(request)
                else:
                    with total.enter():
                        response = await super().handle_async_request(request)
            except hs.DeadlineExceeded as exc:
                raise late(exc, request) from exc
            response.stream = AsyncBoundStream(response.stream, total)
            return response

    def split(settings: dict[str, Any]) -> dict[str, Any]:
        """What goes to the transports; the rest stays with the client."""
        total = settings.get("total")
        if total is not None:
            settings.setdefault("timeout", total)
        return {name: settings.pop(name, None) for name in _OURS}

    class Equipped:
        """What both clients are made of: every transport of theirs is one of ours."""

        _transport_class: Any

        def __init__(self, **settings: Any) -> None:
            self._ours = split(settings)
            super().__init__(**settings)

        def _init_transport(self, *args: Any, transport: Any = None, **settings: Any) -> Any:
            ours = _ours_for(self._ours, None)
            return transport or self._transport_class(**ours, **named(args, settings))

        def _init_proxy_transport(self, proxy: Any, *args: Any, **settings: Any) -> Any:
            ours = _ours_for(self._ours, proxy)
            return self._transport_class(proxy=proxy, **ours, **named(args, settings))

    class Client(Equipped, library.Client):
        """A client: that of the library, with `Transport`'s parameters; see `client`."""

        _transport_class = Transport

        def send(self, request: Any, **how: Any) -> Any:
            total = Total(self._ours["total"])
            request.extensions = {**request.extensions, _KEY: total}
            with total.enter():
                try:
                    return super().send(request, **how)
                except hs.DeadlineExceeded as exc:
                    raise late(exc, request) from exc

    class AsyncClient(Equipped, library.AsyncClient):
        """The awaited twin of `Client`, on asyncio, uvloop and trio."""

        _transport_class = AsyncTransport

        async def send(self, request: Any, **how: Any) -> Any:
            total = Total(self._ours["total"])
            request.extensions = {**request.extensions, _KEY: total}
            try:
                with total.enter():
                    return await super().send(request, **how)
            except hs.DeadlineExceeded as exc:
                raise late(exc, request) from exc

    for cls in (Client, AsyncClient, Transport, AsyncTransport):
        cls.__qualname__ = cls.__name__
    return Clients(Client, AsyncClient, Transport, AsyncTransport)


def named(args: tuple[Any, ...], settings: dict[str, Any]) -> dict[str, Any]:
    """The hooks' settings; the libraries give them by name."""
    if args:
        raise TypeError("this version of the library calls its hooks in another way")
    return settings
