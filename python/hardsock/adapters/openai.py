"""openai over hardsock: ``adapters.openai.client(total=30)``, tested with openai 3.57 to 3.57.

A Stop button for what a model streams: ``with hardsock.scope(token): ...`` around the request, and
``token.cancel()`` from any thread ends it in milliseconds, wherever it is: connecting, waiting for the
first word, in the middle of the stream, in the pause before the library tries again.

What is raised: ``hardsock.Cancelled`` or ``hardsock.DeadlineExceeded`` for what the caller's scope or
token ended, which the library neither retries nor wraps (they are ``OpenAIError``, too); its own errors,
with its own retries, for the rest. ``total`` counts for each try; a scope around the call for all.
"""

from __future__ import annotations

from importlib.metadata import version

import openai as _library

import hardsock as hs
from hardsock.adapters._sdk import clients
from hardsock.adapters._versions import check

__all__ = ["async_client", "client"]

check("openai", version("openai"), "3.57", "3.57")
_made = clients(_library, _library.OpenAI, _library.AsyncOpenAI, _library.OpenAIError)


def client(
    *,
    total: float | None = None,
    tls: hs.TLSConfig | None = None,
    socket: hs.SocketOptions | None = None,
    dial_limits: hs.DialLimits | None = None,
    **settings: object,
) -> _library.OpenAI:
    """Return a client over hardsock.

    Args:
        total: Seconds for each try, from the queue of the pool to the last byte of the stream.
            Also the default of the library's ``timeout``.
        tls: ``None``: hardsock's defaults.
        socket: Options for the sockets.
        dial_limits: For connections in the making: as ``hardsock.connect(limits=)``.
        settings: Those of ``openai.OpenAI``, but for ``http_client``.
    """
    made: _library.OpenAI = _made.client(
        total=total, tls=tls, socket=socket, dial_limits=dial_limits, **settings
    )
    return made


def async_client(
    *,
    total: float | None = None,
    tls: hs.TLSConfig | None = None,
    socket: hs.SocketOptions | None = None,
    dial_limits: hs.DialLimits | None = None,
    **settings: object,
) -> _library.AsyncOpenAI:
    """Return a client whose calls are awaited; as `client`."""
    made: _library.AsyncOpenAI = _made.async_client(
        total=total, tls=tls, socket=socket, dial_limits=dial_limits, **settings
    )
    return made
