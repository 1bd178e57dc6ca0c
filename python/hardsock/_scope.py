"""The ambient scope: a token that every hardsock call below obeys, in this thread or task.

It lives in a ``contextvars.ContextVar``: asyncio tasks inherit it, and so do threads started with
``contextvars.copy_context().run``. In a task of an event loop a scope ends the loop's own waits,
too: see ``hardsock.aio._host_scope``.
"""

from __future__ import annotations

import sys
from functools import wraps

from hardsock import _core
from hardsock._core import CancelToken, Scope
from hardsock._core import scope as _scope
from hardsock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from hardsock.aio._host_scope import HostScope

    _F = TypeVar("_F", bound=Callable[..., Any])

__all__ = ["current", "in_event_loop", "remaining", "scope", "shield", "sleep", "timeout"]


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


def in_event_loop() -> bool:
    """Whether an event loop runs in this thread; loads nothing."""
    asyncio = sys.modules.get("_asyncio")  # In C: never half imported, as asyncio may be.
    if asyncio is not None and asyncio._get_running_loop() is not None:
        return True
    trio = sys.modules.get("trio.lowlevel")
    in_trio_run = getattr(trio, "in_trio_run", None)
    return in_trio_run is not None and bool(in_trio_run())


def _load_host_scope() -> Callable[[CancelToken, bool, bool], HostScope | None]:
    from hardsock.aio._host_scope import host_scope

    return host_scope


def _decorated(ambient: Scope, function: _F) -> _F:
    """*function* in a block of its own for each call."""

    @wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        with ambient._again():
            return function(*args, **kwargs)

    return inner  # type: ignore[return-value]


_core._set_scope_functions(_load_host_scope, _decorated)


def timeout(seconds: float | None, *, name: str | None = None) -> Scope:
    """Give every call in the block one deadline, *seconds* from where it begins.

    Nested scopes can only tighten it. The token that is yielded can be cancelled from other
    threads, and its deadline moved with ``set_timeout``. In a task of asyncio or trio the block
    ends then whatever it awaits, as ``asyncio.timeout`` does: see ``hardsock.aio.timeout``.

    In a thread it reaches the calls of hardsock, and of libraries by their adapters, and nothing
    else: a plain ``socket.socket`` waits as long as it likes, and so does a library that makes one
    (a C client, or one without its adapter). ``warn_of_foreign_sockets()`` tells of those.

    Raises (from the calls in the block, or where it ends):
        DeadlineExceeded: When the time is up.
        Cancelled: When the token was cancelled.
    """
    return Scope(None, seconds, name)


def scope(token: CancelToken) -> Scope:
    """Make *token* ambient for the block, beside the scopes around it.

    In a task of asyncio or trio the block ends with it, whatever it awaits.

    Raises (from the calls in the block, as ``hardsock.timeout`` says):
        DeadlineExceeded: The token's deadline passed.
        Cancelled: It was cancelled, by any thread. It stays ended, so that later calls fail at once.
    """
    if not isinstance(token, CancelToken):
        raise TypeError(f"token must be a CancelToken, not {type(token).__name__}")
    return Scope(token)


def shield(seconds: float, *, name: str | None = None) -> Scope:
    """Keep outer cancellation and deadlines out of the block, for cleanup that has to wait.

    *seconds* is required: a shield without a deadline of its own could hang for ever. The event
    loop's own cancelling (``task.cancel()``, a trio cancel scope) is not kept out.
    """
    if seconds is None:
        raise TypeError("seconds must be a number: a shield needs a deadline of its own")
    return Scope(None, seconds, name, shields=True)
