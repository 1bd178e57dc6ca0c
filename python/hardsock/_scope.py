"""The ambient scope: a token that every hardsock call below obeys, in this thread or task.

It lives in a ``contextvars.ContextVar``: asyncio tasks inherit it, and so do threads started with
``contextvars.copy_context().run``. In a task of an event loop a scope ends the loop's own waits,
too: see ``hardsock.aio._host_scope``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ContextDecorator, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hardsock._core import CancelToken
from hardsock._core import scope as _scope

if TYPE_CHECKING:
    from hardsock.aio._host_scope import HostScope

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


class Ambient(ContextDecorator):
    """A token that is ambient in a block; in a task of an event loop the block ends with it.

    Entered for each request of each adapter; a test counts the calls (tests/adapters/test_calls.py).
    """

    __slots__ = ("_given", "_host", "_name", "_previous", "_seconds", "_shields")

    def __init__(
        self,
        given: CancelToken | None,
        seconds: float | None = None,
        name: str | None = None,
        shields: bool = False,
    ) -> None:
        self._given = given  # None: a new one of *seconds* and *name*
        self._seconds, self._name, self._shields = seconds, name, shields
        self._host: HostScope | None = None
        self._previous: Any = None

    def _recreate_cm(self) -> Ambient:  # For each call of a function that it decorates.
        return Ambient(self._given, self._seconds, self._name, self._shields)

    def __enter__(self) -> CancelToken:
        if self._previous is not None:
            raise RuntimeError("this scope is entered already: make another one")
        outer, given = _scope.get(), self._given
        if given is None:
            if outer is None or self._shields:
                token = CancelToken(self._seconds, name=self._name)
            else:
                token = outer.child(self._seconds, name=self._name)
        elif outer is None or outer is given:
            token = given
        else:
            token = CancelToken.linked((given, outer))
        self._previous = _scope.set(token)
        # What in_event_loop() asks, but for a call.
        asyncio = sys.modules.get("_asyncio")
        if (asyncio is not None and asyncio._get_running_loop() is not None) or (
            "trio.lowlevel" in sys.modules and in_event_loop()
        ):
            try:
                self._host = (_host_scope or _host_scopes())(token)
            except BaseException:
                self._reset()
                raise
        return token

    def _reset(self) -> None:
        _scope.reset(self._previous)
        self._previous = None

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _scope.reset(self._previous)
        self._previous = None
        if self._host is not None:
            host, self._host = self._host, None
            host.leave(exc_type, exc, traceback)


_host_scope: Callable[[CancelToken], HostScope | None] | None = None
"""``hardsock.aio._host_scope.host_scope``, once there was a scope in a task: an import statement in
each of them is a tenth of what it costs."""


def _host_scopes() -> Callable[[CancelToken], HostScope | None]:
    global _host_scope
    from hardsock.aio._host_scope import host_scope

    _host_scope = host_scope
    return host_scope


def timeout(seconds: float | None, *, name: str | None = None) -> Ambient:
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
    return Ambient(None, seconds, name)


def scope(token: CancelToken) -> Ambient:
    """Make *token* ambient for the block, beside the scopes around it.

    In a task of asyncio or trio the block ends with it, whatever it awaits.
    """
    if not isinstance(token, CancelToken):
        raise TypeError(f"token must be a CancelToken, not {type(token).__name__}")
    return Ambient(token)


@contextmanager
def shield(seconds: float, *, name: str | None = None) -> Iterator[CancelToken]:
    """Keep outer cancellation and deadlines out of the block, for cleanup that has to wait.

    *seconds* is required: a shield without a deadline of its own could hang for ever. The event
    loop's own cancelling (``task.cancel()``, a trio cancel scope) is not kept out.
    """
    if seconds is None:
        raise TypeError("seconds must be a number: a shield needs a deadline of its own")
    held = []
    if in_event_loop():
        from hardsock.aio._host_scope import shielded_from

        held = shielded_from()
    try:
        with Ambient(None, seconds, name, shields=True) as token:
            yield token
    finally:
        for host in held:
            host.release()
