"""urllib3 over hardsock: one deadline for a request, cancelling from any thread, the ledger.

    from hardsock.adapters.urllib3 import PoolManager

    http = PoolManager(total=10)
    http.request("GET", "https://example.org/")

*total* (or a scope, ``with hardsock.timeout(10):``) covers the wait for a connection of the pool,
the lookup, connecting, TLS, each redirect, each pause before another try, and every byte of the
answer, also when it is read after the call has returned (``preload_content=False``). A ``Timeout``
of urllib3 counts besides, and each of its reads is a total for that read: a peer that drips bytes
buys nothing.

At the deadline: urllib3's own ``ConnectTimeoutError``, ``ReadTimeoutError``, ``EmptyPoolError`` or
``MaxRetryError`` of those, caused by ``hardsock.DeadlineExceeded``. After a cancel:
``hardsock.Cancelled``. Neither is tried again, and the connection is closed, never used for another
request.

TLS is hardsock's, set up by the usual parameters. ``ssl_context=`` must be made by
``hardsock.ssl_context()``. SOCKS proxies: ``PoolManager(via="socks5://...")``. Not for: a caller's
own ``ConnectionCls``, HTTP/2 (``urllib3.http2``), pyOpenSSL.

Tested with urllib3 2.0 to 2.8. What is not public there and used here: ``HTTPConnection._new_conn``,
``HTTPConnectionPool._new_conn`` and ``_make_request``, ``_dns_host``, ``_tunnel_host`` and ``_tunnel_scheme``, ``_connect_tls_proxy``,
``Retry._sleep_backoff`` and ``sleep_for_retry``, ``HTTPSConnection.proxy_config``.
"""

from __future__ import annotations

import copy
import importlib.util
import socket
import ssl
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any

import urllib3
import urllib3.connection
from urllib3.exceptions import (
    ConnectTimeoutError,
    EmptyPoolError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.util.retry import Retry
from urllib3.util.ssl_ import resolve_cert_reqs
from urllib3.util.timeout import Timeout

from hardsock._core import Breaker, ContextValue, Scope
from hardsock._core import scope as _ambient
from hardsock._dial_limits import DialLimits, dial_queue
from hardsock._errors import DeadlineExceeded, ResolveError
from hardsock._scope import current, sleep
from hardsock.adapters._causes import breaker_open_in, cause_of, handled, raise_if_cancelled
from hardsock.adapters._outcomes import Outcomes, outcomes
from hardsock.adapters._queue import ScopedQueue
from hardsock.adapters._tls import Contexts, checked
from hardsock.adapters._versions import check
from hardsock.connecting.connect import connect
from hardsock.connecting.create_connection import create_connection
from hardsock.connecting.proxies import parse_via
from hardsock.tls.ssl_context import SSLContext

__all__ = [
    "HTTPConnection",
    "HTTPConnectionPool",
    "HTTPSConnection",
    "HTTPSConnectionPool",
    "PoolManager",
    "ProxyManager",
]

if importlib.util.find_spec("urllib3.backend") is not None:
    raise ImportError(
        "the urllib3 that is installed is urllib3-future, which niquests puts in its place: there is "
        "no adapter for that. Install urllib3, or leave niquests out"
    )
check("urllib3", version("urllib3"), "2.0", "2.8")

_NODELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
"""urllib3's only default; hardsock has it, too."""
_contexts = Contexts()


# ---- TLS


def _trust_of(conn: urllib3.connection.HTTPSConnection) -> tuple[Any, ...]:
    return (
        conn.cert_reqs,
        conn.ssl_version,
        conn.ssl_minimum_version,
        conn.ssl_maximum_version,
        conn.ca_certs,
        conn.ca_cert_dir,
        conn.ca_cert_data,
    )


def _context_of(conn: urllib3.connection.HTTPSConnection) -> SSLContext:
    """The context for what the connection was told: made once, so that sessions are resumed."""
    own = (conn.cert_file, conn.key_file, conn.key_password)
    return _kept((*_trust_of(conn), *own, conn.assert_hostname, conn.assert_fingerprint), conn)


def _context_of_proxy(conn: urllib3.connection.HTTPSConnection, proxy: Any) -> SSLContext:
    """The context for the way to a proxy.

    It is never the target's: urllib3 loads the client's certificate into that, and no proxy may
    be offered it.
    """
    asserted = (proxy.assert_hostname, proxy.assert_fingerprint)
    return _kept(("proxy", *_trust_of(conn), *asserted), conn)


def _kept(key: tuple[Any, ...], conn: urllib3.connection.HTTPSConnection) -> SSLContext:
    return _contexts.get(key, lambda: _make_context(conn))


def _make_context(conn: urllib3.connection.HTTPSConnection) -> SSLContext:
    made = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion(conn.ssl_minimum_version or ssl.TLSVersion.TLSv1_2)
    if conn.ssl_maximum_version is not None:
        made.maximum_version = ssl.TLSVersion(conn.ssl_maximum_version)
    verify = resolve_cert_reqs(conn.cert_reqs)
    if verify != ssl.CERT_REQUIRED:
        made.check_hostname = False
    made.verify_mode = verify
    made.hostname_checks_common_name = False
    if conn.ca_certs or conn.ca_cert_dir or conn.ca_cert_data:
        made.load_verify_locations(conn.ca_certs, conn.ca_cert_dir, conn.ca_cert_data)
    else:
        made.load_default_certs()
    return made


# ---- Connections


class _Over:
    """What both kinds of connections do differently from urllib3's."""

    sock: Any
    via: str | None = None
    dial_limits: DialLimits | None = None

    def _new_conn(self: Any) -> Any:
        # On the way to a tunnel urllib3 has not resolved it.
        limit = Timeout.resolve_default_timeout(self.timeout)
        try:
            if self.via is None:
                conn = create_connection(
                    (self._dns_host, self.port), limit, self.source_address, limits=self.dial_limits
                )
            else:
                conn = _connect_through(self, limit)
        except ResolveError as exc:
            raise NameResolutionError(self.host, self, exc) from exc
        except DeadlineExceeded as exc:
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out: {exc}") from exc
        except OSError as exc:
            raise NewConnectionError(self, f"Failed to establish a new connection: {exc}") from exc
        try:
            for option in self.socket_options or ():
                if tuple(option) != _NODELAY:
                    conn.setsockopt(*option)
        except BaseException as exc:
            conn.close()
            if not isinstance(exc, OSError):
                raise
            raise NewConnectionError(self, f"socket_options cannot be set: {exc}") from exc
        sys.audit("http.client.connect", self, self.host, self.port)
        return conn

    def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        """As urllib3 has it; the scope in which it begins holds for the answer, too."""
        if self.sock is None:
            self.connect()
        self.sock.bind(_ambient.get())
        return super().request(*args, **kwargs)  # type: ignore[misc]

    @property
    def is_connected(self) -> bool:
        """Whether it could be used again: open, and nothing has come that nobody asked for."""
        return self.sock is not None and self.sock._is_quiet()


def _connect_through(conn: Any, limit: Any) -> Any:
    """To the target through a SOCKS proxy, which looks its name up."""
    made = connect(
        (conn._dns_host, conn.port),
        timeout=limit,
        source=conn.source_address,
        via=conn.via,
        limits=conn.dial_limits,
    )
    made.settimeout(limit)
    return made


class HTTPConnection(_Over, urllib3.connection.HTTPConnection):
    """urllib3's, over a ``hardsock.Connection``."""


class HTTPSConnection(_Over, urllib3.connection.HTTPSConnection):
    """urllib3's, over hardsock's TLS."""

    _secures_proxy = False

    def connect(self) -> None:
        """Connect, through a proxy if there is one, and do the handshakes."""
        if self.ssl_context is None:
            self.ssl_context = _context_of(self)
        checked(self.ssl_context, "ssl_context")
        proxy = self.proxy_config
        if proxy is not None:
            if proxy.ssl_context is None:
                self.proxy_config = proxy._replace(ssl_context=_context_of_proxy(self, proxy))
            else:
                checked(proxy.ssl_context, "proxy_ssl_context")
        if self._tunnel_host is None or self._tunnel_scheme != "https":
            super().connect()
            return
        # urllib3 would do the inner handshake through memory. Told that the way to the proxy is
        # plain, it takes our context for it, as for any other.
        self._secures_proxy, self._tunnel_scheme = True, "http"
        try:
            super().connect()
        finally:
            self._secures_proxy, self._tunnel_scheme = False, "https"

    def _new_conn(self) -> Any:
        conn = super()._new_conn()
        if not self._secures_proxy:
            return conn
        try:
            return self._connect_tls_proxy(self.host, conn)
        except BaseException:
            conn.close()
            raise


# ---- Trying again

_before: ContextVar[BaseException | None] = ContextVar("hardsock_urllib3_before", default=None)
"""What was being handled when the request began; not in the ``Retry``, which outlives it."""


class _Patient(Retry):
    """A ``Retry`` that ends with the ambient scope."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: Any = None,
    ) -> Any:
        token = current()
        if error is not None and (refused := breaker_open_in(error, _before.get())) is not None:
            raise MaxRetryError(_pool, url or "", error) from refused
        if error is not None and token is not None and token.wait(0):
            if isinstance(error, ReadTimeoutError) or self.total is False:  # as urllib3 has it
                raise error.with_traceback(_stacktrace)
            raise MaxRetryError(_pool, url or "", error) from (error.__cause__ or error)
        return super().increment(method, url, response, error, _pool, _stacktrace)

    def _pause(self, seconds: float) -> None:
        try:
            sleep(seconds)
        except DeadlineExceeded as exc:
            url = self.history[-1].url if self.history else None
            raise ReadTimeoutError(
                None,  # type: ignore[arg-type]
                url,
                f"no time left in the pause before another try: {exc}",
            ) from exc

    def _sleep_backoff(self) -> None:
        if (seconds := self.get_backoff_time()) > 0:
            self._pause(seconds)

    def sleep_for_retry(self, response: Any) -> bool:
        seconds = self.get_retry_after(response)
        if not seconds:
            return False
        self._pause(seconds)
        return True


_patient: dict[type[Retry], type[Retry]] = {}


def patient(given: Retry) -> Retry:
    """The same that ends with the scope; a class of the caller's own keeps what it does."""
    kind = type(given)
    if kind is Retry:  # As copy.copy() would, at a fifth of its price: each request has one.
        made = _Patient.__new__(_Patient)
        made.__dict__.update(given.__dict__)
        return made
    if issubclass(kind, _Patient):
        return given
    if kind not in _patient:
        _patient[kind] = type(kind.__name__, (_Patient, kind), {})
    same = copy.copy(given)
    same.__class__ = _patient[kind]
    return same


# ---- Pools


class _Pooled:
    """What both kinds of pools do differently from urllib3's."""

    QueueCls = ScopedQueue
    retries: Any
    via: str | None = None
    dial_limits: DialLimits | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.retries, Retry):  # once, so that no request has to
            self.retries = patient(self.retries)

    def _new_conn(self) -> Any:
        conn = super()._new_conn()  # type: ignore[misc]
        conn.via, conn.dial_limits = self.via, self.dial_limits
        return conn

    def urlopen(  # as urllib3 has it
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Any = None,
        retries: Any = None,
        redirect: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As urllib3 has it, within the ambient scope."""
        if retries is None:
            retries = self.retries
        if not isinstance(retries, _Patient):
            retries = patient(Retry.from_int(retries, redirect=redirect))
        before = sys.exc_info()[1]  # handled(), without a call for it
        try:
            if before is None:
                return super().urlopen(  # type: ignore[misc]
                    method, url, body, headers, retries, redirect, *args, **kwargs
                )
            with ContextValue(_before, before):
                return super().urlopen(  # type: ignore[misc]
                    method, url, body, headers, retries, redirect, *args, **kwargs
                )
        except EmptyPoolError as exc:
            raise_if_cancelled(exc, before)
            raise


class HTTPConnectionPool(_Pooled, urllib3.HTTPConnectionPool):  # type: ignore[misc]
    """urllib3's, over hardsock."""

    ConnectionCls = HTTPConnection


class HTTPSConnectionPool(_Pooled, urllib3.HTTPSConnectionPool):  # type: ignore[misc]
    """urllib3's, over hardsock."""

    ConnectionCls = HTTPSConnection


class Learning:
    """A pool whose breaker learns from each try. What its answer still sends after the call has
    returned is not seen here."""

    outcomes: Outcomes

    def _make_request(self: Any, *args: Any, **kwargs: Any) -> Any:
        permit, before = self.outcomes.permit(self.host, self.port), handled()
        try:
            response = super()._make_request(*args, **kwargs)  # type: ignore[misc]
        except BaseException as exc:
            permit.record(cause_of(exc, before))
            raise
        self.outcomes.answered(permit, response.status)
        return response


class _LearningHTTPConnectionPool(Learning, HTTPConnectionPool):  # type: ignore[misc]
    pass


class _LearningHTTPSConnectionPool(Learning, HTTPSConnectionPool):  # type: ignore[misc]
    pass


_POOLS = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}
_LEARNING_POOLS = {"http": _LearningHTTPConnectionPool, "https": _LearningHTTPSConnectionPool}


class _Managed:
    """What both kinds of managers do differently from urllib3's."""

    total: float | None

    def __init__(
        self,
        *args: Any,
        total: float | None = None,
        breaker: Breaker | None = None,
        breaker_statuses: Iterable[int] = (),
        via: str | None = None,
        dial_limits: DialLimits | None = None,
        **kwargs: Any,
    ) -> None:
        self._outcomes = outcomes(breaker, breaker_statuses)
        if via is not None and not parse_via(via).scheme.startswith("socks5"):
            raise ValueError(
                "via must be a SOCKS proxy; for http:// and https:// take ProxyManager"
            )
        dial_queue(dial_limits)  # or a TypeError
        self._via, self._dial_limits = via, dial_limits
        super().__init__(*args, **kwargs)
        self.total = total
        pools: Any = _POOLS if self._outcomes is None else _LEARNING_POOLS
        self.pool_classes_by_scheme = dict(pools)

    def _new_pool(self, *args: Any, **kwargs: Any) -> Any:
        pool = super()._new_pool(*args, **kwargs)  # type: ignore[misc]
        if self._outcomes is not None:
            pool.outcomes = self._outcomes
        pool.via, pool.dial_limits = self._via, self._dial_limits
        return pool

    def urlopen(self, *args: Any, **kwargs: Any) -> Any:
        """As urllib3 has it; with its redirects it takes *total* seconds at most."""
        if self.total is None:
            return super().urlopen(*args, **kwargs)  # type: ignore[misc]
        with Scope(None, self.total, "total of the request"):
            return super().urlopen(*args, **kwargs)  # type: ignore[misc]


class PoolManager(_Managed, urllib3.PoolManager):
    """``urllib3.PoolManager`` over hardsock.

    Args:
        total: Seconds for each request as a whole: the wait for a connection, redirects, pauses
            between tries and the body included. ``None``: the ambient scope alone decides.
        breaker: Learns from requests: a node whose tries keep failing, by refusing, by silence until
            a limit of a second or more (see its ``patience``) or by a reset, is not tried for a
            while, which raises ``BreakerOpen``, wrapped as a failed connection. Share one.
        breaker_statuses: Statuses that are failures of the node as well, such as 502, 503 and 504.
        dial_limits: For connections in the making, those to a proxy too: as
            ``hardsock.connect(limits=)``.
        via: A proxy for all: ``"socks5://user:password@proxy:1080"``. It looks names up.
        Else as urllib3 has it.
    """


class ProxyManager(_Managed, urllib3.ProxyManager):
    """``urllib3.ProxyManager`` over hardsock; *total* as of ``PoolManager``."""

    def __init__(self, proxy_url: str, *args: Any, **kwargs: Any) -> None:
        if proxy_url.lower().startswith("socks"):
            raise ValueError("proxy_url must be http:// or https://: PoolManager(via=) takes SOCKS")
        super().__init__(proxy_url, *args, **kwargs)
