"""What of hardsock's is behind an exception of a library.

A call that is made in an ``except`` block begins its chain of contexts with what is being handled
there, which is about something else: an old ``Cancelled`` is no cancel of this call, and an open
breaker of another node no refusal by this one. Each function is given *before*, what
``handled()`` returned when the call began, and looks no further than that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, TypeVar

from hardsock._errors import BreakerOpen, Cancelled, HardsockError

__all__ = ["breaker_open_in", "cause_of", "caused_by", "handled", "raise_if_cancelled"]

_Error = TypeVar("_Error", bound=BaseException)


def handled() -> BaseException | None:
    """What the caller's callers are handling: to be asked where a call begins."""
    return sys.exc_info()[1]


def _behind(exc: BaseException | None, before: BaseException | None) -> Iterator[BaseException]:
    """The exception and what has caused it; urllib3 has that among the arguments, too."""
    seen = {id(before)}
    todo: list[Any] = [exc]
    while todo:
        one = todo.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            found = getattr(one, "hardsock_error", None)
            todo += [found, *one.args, one.__cause__, one.__context__]


def caused_by(
    exc: BaseException | None, kind: type[_Error], before: BaseException | None
) -> _Error | None:
    """*exc*, or the first of what has led to it, that is a *kind*."""
    return next((one for one in _behind(exc, before) if isinstance(one, kind)), None)


def cause_of(exc: BaseException, before: BaseException | None) -> BaseException:
    """What a breaker is to judge: hardsock's own word if there is one, else the system's."""
    return caused_by(exc, HardsockError, before) or caused_by(exc, OSError, before) or exc


def breaker_open_in(exc: BaseException, before: BaseException | None) -> BreakerOpen | None:
    """The refusal that an exception of a library stands for, if it is one."""
    return caused_by(exc, BreakerOpen, before)


def raise_if_cancelled(exc: BaseException | None, before: BaseException | None) -> None:
    """Raise the ``Cancelled`` that has led to *exc*, if one has."""
    cancelled = caused_by(exc, Cancelled, before)
    if cancelled is not None:
        raise cancelled
