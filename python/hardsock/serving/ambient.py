"""What a handler finds around it: its connection's token, and the news that the server drains."""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context

from hardsock._core import CancelToken
from hardsock._core import scope as _scope

__all__ = ["context_for_handlers", "draining", "enter"]

_draining: ContextVar[CancelToken | None] = ContextVar("hardsock.draining", default=None)


def draining() -> CancelToken | None:
    """Return the token that tells a handler that its server drains; None outside handlers.

    Wait for the next request under it, and for the rest of a request without it::

        first = conn.recv(4096, token=hs.draining())

    Given as ``token=`` to a call that receives, it lets the call have a request that has arrived,
    the rest of one that has begun, or the very first one, and ends it when the next would have to
    be waited for. All
    other calls it ends at once, as do its children. A handler that lets the ``Cancelled`` through
    ends its connection in an orderly way.
    """
    return _draining.get()


def context_for_handlers(told: CancelToken) -> Context:
    """Copy the context for handlers: no scope of the caller's ends what it does not see."""
    context = copy_context()
    context.run(_scope.set, None)
    context.run(_draining.set, told)
    return context


def enter(context: Context, token: CancelToken) -> Context:
    """Copy it for one connection, whose calls all end with *token*."""
    own = context.copy()
    own.run(_scope.set, token)
    return own
