"""httpx2 over hardsock: ``adapters.httpx2.client(total=10)``, tested with httpx2 2.16 to 2.16.

One deadline for the queue of the pool, name lookup, connect, TLS, every byte of the body, redirects
and authentication; the same bounds by any scope around, and a cancel from any thread or task, also
in the middle of a streamed body.

What is raised: the library's own errors (``TimeoutException`` for its limits and for ``total``), with
hardsock's error in ``hardsock_error`` of the library's or of its ``__cause__``. What the caller's scope
or token ended is ``hardsock.DeadlineExceeded`` or ``hardsock.Cancelled`` itself: it is no outage, so
nothing should try again.

Lost: ``verify=`` and ``cert=`` (refused by name: ``tls=hardsock.TLSConfig(...)`` takes their place); a
response whose body is neither read nor closed holds its connection, as ever.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import httpcore2
import httpx2

from hardsock.adapters._httpx import clients
from hardsock.adapters._versions import check

__all__ = ["AsyncClient", "AsyncTransport", "Client", "Transport", "async_client", "client"]

check("httpx2", version("httpx2"), "2.16", "2.16")
Client, AsyncClient, Transport, AsyncTransport = clients(httpx2, httpcore2)


def client(*, total: float | None = None, **settings: Any) -> Any:
    """Return a ``httpx2.Client`` over hardsock.

    Args:
        total: Seconds for each ``send``, redirects and the whole body included, also if the body
            is streamed after the call returned. Also the default of ``timeout=``.
        settings: ``tls=`` (a ``hardsock.TLSConfig``), ``socket=`` (``hardsock.SocketOptions``), and
            those of ``httpx2.Client``.
    """
    return Client(total=total, **settings)


def async_client(*, total: float | None = None, **settings: Any) -> Any:
    """Return an ``httpx2.AsyncClient`` over hardsock; as `client`."""
    return AsyncClient(total=total, **settings)
