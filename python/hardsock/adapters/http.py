"""http.client, urllib.request and xmlrpc.client over hardsock.

    from hardsock.adapters.http import HTTPSConnection, opener, server_proxy

    conn = HTTPSConnection("example.org", total=10)     # as http.client has it
    opener(total=10).open("https://example.org/")       # as urllib.request has it
    server_proxy("https://example.org/rpc", total=10)   # as xmlrpc.client has it

*total* (or a scope) covers a request from its beginning to the last byte of its answer: lookup,
connecting, a proxy's tunnel, TLS, redirects, and the body wherever it is read. At the deadline
``hardsock.DeadlineExceeded``, a ``TimeoutError``, is raised (urllib.request: as the reason of a
``URLError``, up to the answer's head), after a cancel ``hardsock.Cancelled``.

TLS is hardsock's; ``context=`` must be made by ``hardsock.ssl_context()``.

What is not public and used here, the same in CPython 3.10 to 3.14: ``HTTPConnection._create_connection``,
``Transport._connection``, ``Transport._extra_headers``; without them the import is an ``ImportError``.
"""

from __future__ import annotations

import functools
import http.client
import urllib.request
import xmlrpc.client
from typing import Any

from hardsock._core import CancelToken
from hardsock._core import scope as _ambient
from hardsock._dial_limits import DialLimits
from hardsock._scope import timeout
from hardsock.adapters._dial import Dials, checked_limits
from hardsock.adapters._hooks import called, checked_version, overridable, present
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
overridable(urllib.request.HTTPHandler, "http_open", 1)
overridable(urllib.request.HTTPSHandler, "https_open", 1)
overridable(xmlrpc.client.Transport, "make_connection", 1, "send_request")
present(xmlrpc.client.Transport(), "_connection", "close")
called(xmlrpc.client.Transport, "make_connection", "_extra_headers")


class _Over(Dials):
    """What both kinds of connections do differently from http.client's."""

    sock: Any
    total: float | None

    def __init__(self, *args: Any, total: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.total = total
        # No method of its own: that would be a cycle, and a connection that is dropped would wait for
        # the garbage collector.
        self._create_connection = functools.partial(create_connection, limits=self.dial_limits)

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        """As http.client has it: *total* begins here, and holds for the answer."""
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

    *dial_limits*: as of ``hardsock.connect(limits=)``.
    """


class HTTPSConnection(_Over, http.client.HTTPSConnection):
    """``http.client.HTTPSConnection``; *total* and *dial_limits* as of ``HTTPConnection``."""

    def __init__(self, *args: Any, context: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, context=context_or_default(context), **kwargs)


# ---- urllib.request


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
) -> Opener:
    """Make what ``urllib.request.build_opener`` makes, over hardsock.

    Args:
        handlers: Further ones, as ``build_opener`` takes them, made already.
        total: Seconds for each ``open`` as a whole; ``None``: the ambient scope alone decides.
        context: Made by ``hardsock.ssl_context()``; ``None``: trusts whom the system trusts.
        dial_limits: For connections in the making: as ``hardsock.connect(limits=)``.
    """
    limits = checked_limits(dial_limits)
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
    made.add_handler(_HTTPHandler(dial_limits=limits))
    made.add_handler(_HTTPSHandler(context_or_default(context), dial_limits=limits))
    for one in handlers:
        made.add_handler(one)
    return made


# ---- xmlrpc.client


class _Calling:
    """What both kinds of transports do differently from xmlrpc.client's."""

    total: float | None
    dial_limits: DialLimits | None
    _connection: Any
    _extra_headers: Any

    def __init__(
        self,
        *args: Any,
        total: float | None = None,
        dial_limits: DialLimits | None = None,
        **kwargs: Any,
    ) -> None:
        self.dial_limits = checked_limits(dial_limits)
        super().__init__(*args, **kwargs)
        self.total = total

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """As xmlrpc.client has it; with its second try it takes *total* seconds at most."""
        with timeout(self.total, name="total of the call"):
            return super().request(*args, **kwargs)  # type: ignore[misc]

    def _make(self, host: Any, kind: Any, **kwargs: Any) -> Any:
        if not self._connection or host != self._connection[0]:
            name, self._extra_headers, given = self.get_host_info(host)  # type: ignore[attr-defined]
            made = kind(name, dial_limits=self.dial_limits, **kwargs, **(given or {}))
            self._connection = host, made
        return self._connection[1]


class Transport(_Calling, xmlrpc.client.Transport):
    """``xmlrpc.client.Transport`` over hardsock; *total*: seconds for each call.

    *dial_limits*: as of ``hardsock.connect(limits=)``.
    """

    def make_connection(self, host: Any) -> Any:
        """As xmlrpc.client has it."""
        return self._make(host, HTTPConnection)


class SafeTransport(_Calling, xmlrpc.client.SafeTransport):
    """``xmlrpc.client.SafeTransport`` over hardsock; *total* and *dial_limits* as of ``Transport``."""

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
    **kwargs: Any,
) -> xmlrpc.client.ServerProxy:
    """Make an ``xmlrpc.client.ServerProxy`` each of whose calls takes *total* seconds at most.

    Args:
        uri: ``http://`` or ``https://``.
        total: Seconds; ``None``: the ambient scope alone decides.
        context: Made by ``hardsock.ssl_context()``; ``None``: trusts whom the system trusts.
        dial_limits: For connections in the making: as ``hardsock.connect(limits=)``.
        kwargs: As ``ServerProxy`` takes them, but for ``transport``.
    """
    common = {
        "total": total,
        "dial_limits": dial_limits,
        "headers": kwargs.pop("headers", ()),
    }
    transport: Any
    if uri.lower().startswith("https:"):
        transport = SafeTransport(context=context, **common)
    else:
        transport = Transport(**common)
    return xmlrpc.client.ServerProxy(uri, transport, **kwargs)
