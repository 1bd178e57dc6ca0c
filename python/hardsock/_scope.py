"""The ambient scope: a token that every hardsock call below obeys, in this thread or task.

It lives in a ``contextvars.ContextVar``: asyncio tasks inherit it, and so do threads started with
``contextvars.copy_context().run``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hardsock._core import CancelToken
from hardsock._core import scope as _scope

__all__ = ["current", "remaining", "scope", "shield", "sleep", "timeout"]


def current() -> CancelToken | None:
    """Return the ambient token, or None outside any scope."""
    return _scope.get()


def remaining(limit: float | None = None) -> float | None:
    """Return the seconds that the ambient scope leaves, or *limit* if that is less.

    For code that hands a time limit to something which knows no scopes. ``None``: neither the scope
    nor *limit* sets one. 0.0 when the scope has ended, by its deadline or by a cancel.
    """
    token = current()
    if token is None:
        return limit
    left = 0.0 if token.cancelled else token.remaining
    if left is None or limit is None:
        return limit if left is None else left
    return min(left, limit)


def sleep(seconds: float, *, token: CancelToken | None = None) -> None:
    """Sleep for *seconds*, unless *token* or the ambient scope ends first.

    As ``time.sleep``, but a pause between two tries ends with what it belongs to. Blocks the thread;
    in an event loop use the loop's own. ``sleep(0)`` only asks whether they have ended.

    Raises:
        DeadlineExceeded: The deadline came first.
        Cancelled: The token or the scope was cancelled, before the call or during it.
        ValueError: *seconds* is negative or no number.
    """
    if seconds is None:
        raise TypeError("seconds must be a number, not None: a sleep needs an end")
    ambient = current()
    if token is None:
        token = CancelToken() if ambient is None else ambient
    elif ambient is not None and ambient is not token:
        token = CancelToken.linked((token, ambient))
    if token.wait(seconds):
        token.check()


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
