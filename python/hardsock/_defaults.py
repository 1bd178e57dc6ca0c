"""What the process says for calls that say nothing themselves."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

from hardsock import _core
from hardsock._core import CancelToken
from hardsock._errors import DeadlineExceeded
from hardsock._scope import current
from hardsock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

__all__ = ["Defaults", "defaults"]


@dataclass(frozen=True)
class Defaults:
    """What holds for calls that say nothing themselves."""

    timeout: float | None
    """Seconds for a call to which nothing else gives an end; None: it may wait for ever."""


class _Unchanged:
    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = _Unchanged()


def defaults(*, timeout: float | _Unchanged | None = UNCHANGED) -> Defaults:
    """Set what holds, in the whole process, for calls that say nothing themselves.

    Say it once, where the program begins: ``hs.defaults(timeout=30)``. From then on a call that no
    ``timeout=``, no ``settimeout``, no token and no scope with a deadline gives an end raises
    `DeadlineExceeded` after *timeout* seconds, with ``limit`` ``hs.defaults(timeout=30)``. Calls
    that have begun keep their limit. Whatever a call, a connection or a scope says counts instead,
    be it shorter or longer; ``timeout=math.inf`` asks for no end at all. A server that waits for
    connections (``accept``), and the pauses of ``sleep`` and ``token.wait``, have no such limit.

    Args:
        timeout: Seconds, more than 0. ``None``: no limit, which is how a process begins, as with
            ``socket.setdefaulttimeout``. Not given: it stays as it is.

    Returns:
        What held before; ``hs.defaults()`` only asks.

    Raises:
        ValueError: *timeout* is not more than 0. TypeError: it is no number.
    """
    before = Defaults(_core._default_timeout())
    if not isinstance(timeout, _Unchanged):
        _core._set_default_timeout(timeout)
    return before


def last_resort(token: CancelToken | None = None) -> float | None:
    """Seconds for a call that has no timeout; ``None``: *token* or the scope has a deadline, or the
    process says nothing. What waits in C does this itself."""
    if any(one is not None and one.deadline is not None for one in (token, current())):
        return None
    return _core._default_timeout()


def limit_of(seconds: float) -> str:
    """``DeadlineExceeded.limit`` where ``hs.defaults`` was the end."""
    return f"hs.defaults(timeout={seconds:g})"


@contextmanager
def whole_call(timeout: float | None, token: CancelToken | None) -> Iterator[float | None]:
    """The seconds of a call that has several parts: the last resort is one for all of them."""
    seconds = last_resort(token) if timeout is None else timeout
    try:
        yield seconds
    except DeadlineExceeded as exc:
        if timeout is None and seconds is not None and (exc.limit or "").startswith("timeout="):
            exc.limit = limit_of(seconds)
        raise
