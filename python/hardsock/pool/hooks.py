"""The hooks of a pool: what runs around a lease, and what its outcome means.

All decisions stand here; ``hardsock.Pool`` and ``hardsock.aio.Pool`` only call the hook, the one
plainly, the other with await. Both use the blocks as context managers, so that whatever ends a hook
(a return, an exception, a cancel) is judged in one place.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hardsock._core import Scope
from hardsock._errors import Cancelled, SocketError

if TYPE_CHECKING:
    from hardsock import _core
    from hardsock._core import CancelToken, Connection
    from hardsock.pool.pool import Pool

__all__ = ["Hooks", "Lease", "Reset", "time_left"]

_log = logging.getLogger("hardsock.pool")
_Hook = TypeVar("_Hook", bound=Callable[..., Any])


def time_left(deadline: float | None) -> float | None:
    """Seconds until *deadline*, of ``time.monotonic()``; zero if it has passed."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


@dataclass(frozen=True)
class Hooks(Generic[_Hook]):
    """What the caller gave: see ``hardsock.Pool``."""

    on_connect: _Hook | None
    check: _Hook | None
    check_after: float
    reset: _Hook | None
    reset_timeout: float

    def any(self) -> bool:
        """Whether there is one at all."""
        return any(hook is not None for hook in (self.on_connect, self.check, self.reset))

    def prepare(
        self, pool: _core.Pool, conn: Connection, deadline: float | None, token: CancelToken | None
    ) -> Lease[_Hook]:
        """For what was just lent: the hook that is due, if any, in a block that judges it."""
        if not conn.reused:
            return Lease(pool, conn, self.on_connect, False, deadline, token)
        due = self.check if conn._idle_for >= self.check_after else None
        return Lease(pool, conn, due, True, deadline, token)

    def resetting(
        self, pool: Pool, conn: Connection, failed: bool, discard: bool
    ) -> Reset[_Hook] | None:
        """For what is to be returned: the reset in a block; ``None`` if it is not due."""
        if (
            self.reset is None
            or failed
            or discard
            or getattr(conn, "pool", None) is not pool
            or conn.closed
            or not (conn._clean or pool.options.reuse == "answered")
        ):
            return None
        return Reset(pool, conn, self.reset, self.reset_timeout)


class Lease(Generic[_Hook]):
    """A connection that was lent and is not the caller's yet.

    In the block the hook is called, within `limits`, and *result* is set. After it *lendable* tells whether the caller gets the connection; if not, it
    was closed, and another one is to be borrowed. What must reach the caller is raised.
    """

    def __init__(
        self,
        pool: _core.Pool,
        conn: Connection,
        hook: _Hook | None,
        may_fail: bool,
        deadline: float | None,
        token: CancelToken | None,
    ) -> None:
        self._pool = pool
        self._conn = conn
        self._may_fail = may_fail
        self._deadline = deadline
        self._token = token
        self.hook = hook
        self.result: object = None
        self.lendable = hook is None

    def limits(self) -> Scope:
        """What the hook is called in: the call's token and what is left of its time."""
        return Scope(self._token, time_left(self._deadline))

    def __enter__(self) -> Lease[_Hook]:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool:
        if self.hook is None:
            return False
        if exc is not None:
            self._pool._check_failed(self._conn)
            return self._may_fail and isinstance(exc, Exception) and not self._is_over(exc)
        if self.result is not False:
            self._conn.mark_clean()
            self.lendable = True
            return False
        self._pool._check_failed(self._conn)
        if not self._may_fail:
            raise SocketError(None, "on_connect returned False")
        return False

    def _is_over(self, exc: Exception) -> bool:
        """The call's own time or token has ended, rather than the connection."""
        if isinstance(exc, Cancelled):
            return True
        return self._deadline is not None and time.monotonic() >= self._deadline


class Reset(Generic[_Hook]):
    """A connection that is to be returned; the hook is called within `limits`. *returnable* tells whether it still is."""

    def __init__(self, pool: Pool, conn: Connection, hook: _Hook, limit: float) -> None:
        self._pool = pool
        self._conn = conn
        self._limit = limit
        self.hook = hook
        self.returnable = False

    def limits(self) -> Scope:
        """What the hook is called in."""
        return Scope(None, self._limit)

    def __enter__(self) -> Reset[_Hook]:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool:
        if exc is None:
            self._conn.mark_clean()
            self.returnable = True
            return False
        self._pool._check_failed(self._conn)
        if not isinstance(exc, Exception):
            return False
        _log.info("reset of a connection of pool %s failed: %s", self._pool.name, exc)
        return True
