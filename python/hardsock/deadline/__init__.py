"""Deadlines that travel: what is left of one is sent along, and obeyed where it arrives.

    headers["x-request-timeout-ms"] = hs.deadline.to_header()          # asking
    with hs.timeout(hs.deadline.from_header(value, cap=30)): ...       # answering

Sent is the time that is left, never a point in time: clocks differ. What is sent is rounded down.
What arrives can only shorten what the receiver allows anyway.

Middleware and hooks are in modules of their own, imported on demand: `wsgi` and `asgi` here;
``hardsock.deadline.httpx``, ``aiohttp``, ``requests``, ``grpc`` and ``postgres``.
"""

from __future__ import annotations

from hardsock.deadline._asgi import ASGI as asgi
from hardsock.deadline._headers import (
    DEFAULT_NAMES,
    from_header,
    from_headers,
    headers,
    remaining,
    to_header,
)
from hardsock.deadline._wsgi import WSGI as wsgi

__all__ = [
    "DEFAULT_NAMES",
    "asgi",
    "from_header",
    "from_headers",
    "headers",
    "remaining",
    "to_header",
    "wsgi",
]
