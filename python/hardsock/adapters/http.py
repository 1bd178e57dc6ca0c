"""http.client, urllib.request and xmlrpc.client over hardsock.

    from hardsock.adapters.http import HTTPSConnection, opener, server_proxy

    conn = HTTPSConnection("example.org", total=10)     # as http.client has it
    opener(total=10).open("https://example.org/")       # as urllib.request has it
    server_proxy("https://example.org/rpc", total=10)   # as xmlrpc.client has it

*total* (or a scope) covers a request from its beginning to the last byte of its answer: lookup,
connecting, a proxy's tunnel, TLS, redirects, and the body wherever it is read. At the deadline
``hardsock.DeadlineExceeded``, a ``TimeoutError``, is raised (urllib.request: as the reason of a
``URLError``, up to the answer's head), after a cancel ``hardsock.Cancelled``.

*breaker* learns from each request up to its answer's head: a node whose requests keep failing is not
asked for a while, which raises ``hardsock.BreakerOpen``. *breaker_statuses* are failures of the node as
well. A kept connection that its server has closed meanwhile is none.

TLS is hardsock's; ``context=`` must be made by ``hardsock.ssl_context()``.

What is not public and used here, the same in CPython 3.10 to 3.14: ``HTTPConnection._create_connection``,
``HTTPConnection._tunnel_host``, ``HTTPConnection._tunnel_port``, ``Transport._connection``, ``Transport._extra_headers``; without them the import is an ``ImportError``.
"""

from __future__ import annotations

import functools
import http.client
import urllib.request
import xmlrpc.client
from collections.abc import Iterable
from typing import Any

from hardsock._core import Breaker, CancelToken, Permit
from hardsock._core import scope as _ambient
from hardsock._dial_limits import DialLimits
from hardsock._scope import timeout
from hardsock.adapters._causes import cause_of, handled
from hardsock.adapters._dial import Dials, checked_limits
from hardsock.adapters._hooks import called, checked_version, overridable, present
from hardsock.adapters._outcomes import Outcomes, outcomes
from hardsock.adapters._tls import context_or_default
from hardsock.connecting.create_connection import create_connection

__all__ = [
    "HTTPConnection",
    "HTTPSConnection",
    "SafeTransport",
    "Transport",
    "opener",
    "server_proxy",
]

checked_version("http.client")
present(http.client.HTTPConnection("localhost"), "_create_connection", "connect")
for _name in ("_tunnel_host", "_tunnel_port"):
    present(http.client.HTTPConnection("localhost"), _name)
overridable(urllib.request.HTTPHandler, "http_open", 1)
overridable(urllib.request.HTTPSHandler, "https_open", 1)
overridable(xmlrpc.client.Transport, "make_connection", 1, "send_request")
present(xmlrpc.client.Transport(), "_connection", "close")
called(xmlrpc.client.Transport, "make_connection", "_extra_headers")


class _Attempt:
    """What a breaker is told of one request."""

    def __init__(self, whose: Outcomes, host: str, port: int, *, kept: bool) -> None:
        self._outcomes, self._kept = whose, kept
        self._before = handled()
        self._permit: Permit = whose.permit(host, port)
        self._failure: BaseException | str = "not_counted"

    def failed(self, exc: BaseException) -> None:
        """What has ended it, unless something else has before."""
        if self._failure == "not_counted":
            cause = cause_of(exc, self._before)
            # A server may close a connection that it has kept whenever it likes.
            stale = self._kept and isinstance(cause, (ConnectionError, EOFError))
            self._failure = "not_counted" if stale else cause

    def end(self) -> None:
        """There will be no answer."""
        self._permit.record(self._failure)

    def answered(self, status: int) -> None:
        """The head of the answer has come."""
        self._outcomes.answered(self._permit, status)


class _Over(Dials):
    """What both kinds of connections do differently from http.client's."""

    sock: Any
    host: str
    port: int
    total: float | None
    _tunnel_host: str | None
    _tunnel_port: int | None
    _attempt: _Attempt | None = None

    def __init__(
        self,
        *args: Any,
        total: float | None = None,
        breaker: Breaker | None = None,
        breaker_statuses: Iterable[int] = (),
        **kwargs: Any,
    ) -> None:
        self._outcomes = outcomes(breaker, breaker_statuses)
        super().__init__(*args, **kwargs)
        self.total = total
        # No method of its own: that would be a cycle, and a connection that is dropped would wait for
        # the garbage collector.
        self._create_connection = functools.partial(create_connection, limits=self.dial_limits)

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        """As http.client has it: *total* begins here, and holds for the answer.

        BreakerOpen: the node has kept failing.
        """
        if self._outcomes is None or self._attempt is not None:  # Of two at a time it knows one.
            self._begin(*args, **kwargs)
            return
        host, port = self._tunnel_host or self.host, self._tunnel_port or self.port
        attempt = _Attempt(self._outcomes, host, port, kept=self.sock is not None)
        try:
            self._begin(*args, **kwargs)
        except BaseException as exc:
            attempt.failed(exc)
            attempt.end()
            raise
        self._attempt = attempt

    def send(self, data: Any) -> None:
        """As http.client has it. An answer may have come all the same when it fails."""
        try:
            super().send(data)  # type: ignore[misc]
        except BaseException as exc:
            if self._attempt is not None:
                self._attempt.failed(exc)
            raise

    def getresponse(self) -> Any:
        """As http.client has it."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return super().getresponse()  # type: ignore[misc]
        try:
            response = super().getresponse()  # type: ignore[misc]
        except BaseException as exc:
            attempt.failed(exc)
            attempt.end()
            raise
        attempt.answered(response.status)
        return response

    def close(self) -> None:
        """As http.client has it."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.end()
        super().close()  # type: ignore[misc]

    def _begin(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            with timeout(self.total, name="total of the request") as token:
                self.connect()  # type: ignore[attr-defined]
        elif (outer := _ambient.get()) is None:
            token = CancelToken(self.total, name="total of the request")
        else:
            token = outer.child(self.total, name="total of the request")
        self.sock.bind(token)
        super().putrequest(*args, **kwargs)  # type: ignore[misc]


class HTTPConnection(_Over, http.client.HTTPConnection):
    """``http.client.HTTPConnection``; *total*: seconds for each request, its answer included.

    *dial_limits*: as of ``hardsock.connect(limits=)``. *breaker*, *breaker_statuses*: see the module.
    """


class HTTPSConnection(_Over, http.client.HTTPSConnection):
    """``http.client.HTTPSConnection``; what is hardsock's as of ``HTTPConnection``."""

    def __init__(self, *args: Any, context: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, context=context_or_default(context), **kwargs)


# ---- urllib.request


def _settings(
    limits: DialLimits | None, breaker: Breaker | None, statuses: Iterable[int]
) -> dict[str, Any]:
    """What each connection is given; or a TypeError or ValueError."""
    statuses = frozenset(statuses)
    outcomes(breaker, statuses)
    return {
        "dial_limits": checked_limits(limits),
        "breaker": breaker,
        "breaker_statuses": statuses,
    }


class _HTTPHandler(urllib.request.HTTPHandler):
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self._settings = settings

    def http_open(self, req: Any) -> Any:
        return self.do_open(HTTPConnection, req, **self._settings)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def __init__(self, context: Any, **settings: Any) -> None:
        super().__init__(context=context)
        self._settings = {"context": context, **settings}

    def https_open(self, req: Any) -> Any:
        return self.do_open(HTTPSConnection, req, **self._settings)


class Opener(urllib.request.OpenerDirector):
    """``urllib.request.OpenerDirector`` over hardsock; see ``opener``."""

    total: float | None = None

    def open(self, *args: Any, **kwargs: Any) -> Any:
        """As urllib.request has it; with its redirects and its body it takes *total* seconds."""
        with timeout(self.total, name="total of the request"):
            return super().open(*args, **kwargs)


def opener(
    *handlers: Any,
    total: float | None = None,
    context: Any = None,
    dial_limits: DialLimits | None = None,
    breaker: Breaker | None = None,
    breaker_statuses: Iterable[int] = (),
) -> Opener:
    """Make what ``urllib.request.build_opener`` makes, over hardsock.

    Args:
        handlers: Further ones, as ``build_opener`` takes them, made already.
        total: Seconds for each ``open`` as a whole; ``None``: the ambient scope alone decides.
        context: Made by ``hardsock.ssl_context()``; ``None``: trusts whom the system trusts.
        dial_limits: For connections in the making: as ``hardsock.connect(limits=)``.
        breaker: Learns from each request, those to which a redirect leads too.
        breaker_statuses: Statuses that are failures of the node as well, such as 502, 503 and 504.
    """
    settings = _settings(dial_limits, breaker, breaker_statuses)
    made = Opener()
    made.total = total
    usual = (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    )
    for kind in usual:
        if not any(isinstance(one, kind) for one in handlers):
            made.add_handler(kind())
    made.add_handler(_HTTPHandler(**settings))
    made.add_handler(_HTTPSHandler(context_or_default(context), **settings))
    for one in handlers:
        made.add_handler(one)
    return made


# ---- xmlrpc.client


class _Calling:
    """What both kinds of transports do differently from xmlrpc.client's."""

    total: float | None
    _connection: Any
    _extra_headers: Any

    def __init__(
        self,
        *args: Any,
        total: float | None = None,
        dial_limits: DialLimits | None = None,
        breaker: Breaker | None = None,
        breaker_statuses: Iterable[int] = (),
        **kwargs: Any,
    ) -> None:
        self._settings = _settings(dial_limits, breaker, breaker_statuses)
        super().__init__(*args, **kwargs)
        self.total = total

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """As xmlrpc.client has it; with its second try it takes *total* seconds at most."""
        with timeout(self.total, name="total of the call"):
            return super().request(*args, **kwargs)  # type: ignore[misc]

    def _make(self, host: Any, kind: Any, **kwargs: Any) -> Any:
        if not self._connection or host != self._connection[0]:
            name, self._extra_headers, given = self.get_host_info(host)  # type: ignore[attr-defined]
            made = kind(name, **self._settings, **kwargs, **(given or {}))
            self._connection = host, made
        return self._connection[1]


class Transport(_Calling, xmlrpc.client.Transport):
    """``xmlrpc.client.Transport`` over hardsock; *total*: seconds for each call.

    *dial_limits*: as of ``hardsock.connect(limits=)``. *breaker*, *breaker_statuses*: see the module.
    """

    def make_connection(self, host: Any) -> Any:
        """As xmlrpc.client has it."""
        return self._make(host, HTTPConnection)


class SafeTransport(_Calling, xmlrpc.client.SafeTransport):
    """``xmlrpc.client.SafeTransport`` over hardsock; what is hardsock's as of ``Transport``."""

    def __init__(self, *args: Any, context: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, context=context_or_default(context), **kwargs)

    def make_connection(self, host: Any) -> Any:
        """As xmlrpc.client has it."""
        return self._make(host, HTTPSConnection, context=self.context)  # type: ignore[attr-defined]


def server_proxy(
    uri: str,
    *,
    total: float | None = None,
    context: Any = None,
    dial_limits: DialLimits | None = None,
    breaker: Breaker | None = None,
    breaker_statuses: Iterable[int] = (),
    **kwargs: Any,
) -> xmlrpc.client.ServerProxy:
    """Make an ``xmlrpc.client.ServerProxy`` each of whose calls takes *total* seconds at most.

    Args:
        uri: ``http://`` or ``https://``.
        total: Seconds; ``None``: the ambient scope alone decides.
        context: Made by ``hardsock.ssl_context()``; ``None``: trusts whom the system trusts.
        dial_limits: For connections in the making: as ``hardsock.connect(limits=)``.
        breaker: Learns from each try of a call.
        breaker_statuses: Statuses that are failures of the node as well, such as 502, 503 and 504.
        kwargs: As ``ServerProxy`` takes them, but for ``transport``.
    """
    common = {
        "total": total,
        "dial_limits": dial_limits,
        "breaker": breaker,
        "breaker_statuses": breaker_statuses,
        "headers": kwargs.pop("headers", ()),
    }
    transport: Any
    if uri.lower().startswith("https:"):
        transport = SafeTransport(context=context, **common)
    else:
        transport = Transport(**common)
    return xmlrpc.client.ServerProxy(uri, transport, **kwargs)
