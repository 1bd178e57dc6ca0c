"""The ambient scope: a token that every hardsock call below obeys, in this thread or task.

It lives in a ``contextvars.ContextVar``: asyncio tasks inherit it, and so do threads started with
``contextvars.copy_context().run``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hardsock._core import CancelToken
from hardsock._core import scope as _scope

__all__ = ["current", "scope", "shield", "timeout"]


def current() -> CancelToken | None:
    """Return the ambient token, or None outside any scope."""
    return _scope.get()


@contextmanager
def _ambient(token: CancelToken) -> Iterator[CancelToken]:
    previous = _scope.set(token)
    try:
        yield token
    finally:
        _scope.reset(previous)


@contextmanager
def timeout(seconds: float | None, *, name: str | None = None) -> Iterator[CancelToken]:
    """Give every call in the block one deadline, *seconds* from now.

    Nested scopes can only tighten it. The token that is yielded can be cancelled from other
    threads, and its deadline moved with ``set_timeout``.

    Raises (from the calls in the block):
        DeadlineExceeded: When the time is up.
        Cancelled: When the token was cancelled.
    """
    outer = current()
    token = CancelToken(seconds, name=name) if outer is None else outer.child(seconds, name=name)
    with _ambient(token):
        yield token


@contextmanager
def scope(token: CancelToken) -> Iterator[CancelToken]:
    """Make *token* ambient for the block, beside the scopes around it."""
    if not isinstance(token, CancelToken):
        raise TypeError(f"token must be a CancelToken, not {type(token).__name__}")
    outer = current()
    if outer is not None and outer is not token:
        with _ambient(CancelToken.linked((token, outer))) as linked:
            yield linked
        return
    with _ambient(token):
        yield token


@contextmanager
def shield(seconds: float, *, name: str | None = None) -> Iterator[CancelToken]:
    """Keep outer cancellation and deadlines out of the block, for cleanup that has to wait.

    *seconds* is required: a shield without a deadline of its own could hang for ever.
    """
    if seconds is None:
        raise TypeError("seconds must be a number: a shield needs a deadline of its own")
    with _ambient(CancelToken(seconds, name=name)) as token:
        yield token
