"""PostgreSQL: the server stops a statement when the scope ends.

    with hs.timeout(2), psycopg.connect(...) as conn:
        conn.execute(hardsock.deadline.postgres.statement_timeout())     # SET statement_timeout = 1987
        conn.execute("SELECT ...")                                       # at most that long

It is text, for any driver: psycopg, asyncpg, PyMySQL's cousins, a pool's ``configure``. The time counts
for each statement from where it begins, so ask again before each one, or let `limited` do it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hardsock._core import CancelToken
from hardsock.deadline._headers import _too_late, remaining

__all__ = ["limited", "statement_timeout"]

_MOST_MS = 2**31 - 1  # of PostgreSQL's parameter


def statement_timeout(
    token: CancelToken | None = None,
    *,
    local: bool = False,
    spend: float = 0.0,
    floor: float = 0.001,
) -> str:
    """``SET statement_timeout`` to what is left of *token* and of the ambient scope, rounded down.

    Without a deadline it is the text that takes the session's limit back to its default.

    Args:
        token: Beside the ambient scope.
        local: For the current transaction alone (``SET LOCAL``), as behind a transaction pooler.
        spend: Seconds that the way there and back takes.
        floor: Seconds below which asking is in vain.

    Raises:
        DeadlineExceeded: Less is left than *spend* and *floor* together.
        Cancelled: The token or the scope was cancelled.
    """
    left = remaining(token)
    verb = "SET LOCAL" if local else "SET"
    if left is None:
        return f"{verb} statement_timeout TO DEFAULT"
    if left < spend + floor or left <= spend:
        raise _too_late(left, spend + floor)
    # Zero would switch it off.
    milliseconds = min(_MOST_MS, max(1, math.floor((left - spend) * 1e3)))
    return f"{verb} statement_timeout = {milliseconds}"


@contextmanager
def limited(cursor: Any, token: CancelToken | None = None, **settings: Any) -> Iterator[Any]:
    """A cursor or connection whose every ``execute`` in the block is bounded by what is left then.

    *cursor* is one of psycopg, or anything else with ``execute``. The session's limit is taken back
    to its default at the end, if the connection still answers.

    Raises (from ``execute``, before the statement is sent):
        DeadlineExceeded: Nothing is left.
        Cancelled: *token* or the scope was cancelled.
    """
    yield _Limited(cursor, token, settings)
    cursor.execute("SET statement_timeout TO DEFAULT")


class _Limited:
    def __init__(self, cursor: Any, token: CancelToken | None, settings: dict[str, Any]) -> None:
        self._cursor, self._token, self._settings = cursor, token, settings

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        self._cursor.execute(statement_timeout(self._token, **self._settings))
        return self._cursor.execute(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)
