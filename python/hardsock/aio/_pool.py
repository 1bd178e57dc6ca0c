"""The awaited Pool."""

from __future__ import annotations

import inspect
import time
import weakref
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from hardsock import _core
from hardsock._core import CancelToken
from hardsock._errors import DeadlineExceeded, HardsockError
from hardsock._pool import Pool as _Pool
from hardsock._pool import _bounded, _is_over, _log
from hardsock._pool_options import PoolOptions
from hardsock._pool_records import Lent, PoolAudit, PoolCloseReport, PoolStats, Site
from hardsock._scope import timeout as _timeout
from hardsock.aio._connection import Connection
from hardsock.aio._host import current_hub, current_task

if TYPE_CHECKING:
    from typing_extensions import Self

    from hardsock._connect import Address

__all__ = ["Pool"]

_Hook = Callable[[Connection], Awaitable[object] | object]


class Pool:
    """As ``hardsock.Pool``, the same core; borrowing is awaited, and hooks may be coroutines.

    ``async with pool.connection(timeout=1.0) as conn:`` borrows and returns. Any number of tasks,
    in any number of event loops; a cancelled one loses neither its connection nor anybody's place
    in the queue. ``blocking`` is the same pool for threads: they share its connections and its
    queue, but not the hooks, which are run for tasks only.
    """

    def __init__(
        self,
        address: Address | list[Address],
        options: PoolOptions | None = None,
        *,
        on_connect: _Hook | None = None,
        check: _Hook | None = None,
        check_after: float = 1.0,
        reset: _Hook | None = None,
        reset_timeout: float = 5.0,
        **settings: Any,
    ) -> None:
        self._pool = _Pool(address, options, **settings)
        self._on_connect = on_connect
        self._check = check
        self._check_after = check_after
        self._reset = reset
        self._reset_timeout = reset_timeout

    @property
    def blocking(self) -> _Pool:
        """The same pool, for use in threads."""
        return self._pool

    async def acquire(
        self, *, timeout: float | None = None, token: CancelToken | None = None
    ) -> Connection:
        """As ``hardsock.Pool.acquire``, awaited."""
        deadline = None if timeout is None else time.monotonic() + timeout
        task = current_task()
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            core = cast(
                "_core.Connection",
                await self._pool._op_acquire(current_hub(), timeout=left, token=token, task=task),
            )
            conn = Connection(core)
            if task is not None:
                self._know_task(core, task)
            if await self._prepared(conn, deadline, token):
                return conn

    def _know_task(self, core: _core.Connection, task: Any) -> None:
        tasks = self._pool._tasks
        if len(tasks) > 2 * self._pool.options.max_size + 16:
            living = {lent[0] for lent in self._pool._lent()}
            for ident in [ident for ident in list(tasks) if ident not in living]:
                tasks.pop(ident, None)
        tasks[core._lease_id] = weakref.ref(task)

    def connection(
        self, *, timeout: float | None = None, token: CancelToken | None = None
    ) -> _Borrowing:
        """As ``hardsock.Pool.connection``, for ``async with``."""
        return _Borrowing(self, timeout, token)

    async def release(
        self, conn: Connection, /, *, failed: bool = False, discard: bool = False
    ) -> None:
        """As ``hardsock.Pool.release``; only a *reset* hook makes it wait."""
        core = conn.blocking
        self._pool._tasks.pop(core._lease_id, None)
        if (
            self._reset is not None
            and not (failed or discard)
            and core.pool is self._pool
            and not core.closed
            and (core._clean or self._pool.options.reuse == "answered")
            and not await self._reset_well(self._reset, conn)
        ):
            return
        self._pool.release(core, failed=failed, discard=discard)

    async def _reset_well(self, reset: _Hook, conn: Connection) -> bool:
        try:
            with _timeout(self._reset_timeout):
                await _result(reset(conn))
        except Exception as exc:
            self._pool._check_failed(conn.blocking)
            _log.info("reset of a connection of pool %s failed: %s", self._pool.name, exc)
            return False
        except BaseException:
            self._pool._check_failed(conn.blocking)
            raise
        conn.blocking.mark_clean()
        return True

    async def _prepared(
        self, conn: Connection, deadline: float | None, token: CancelToken | None
    ) -> bool:
        core = conn.blocking
        if not core.reused:
            hook, may_fail = self._on_connect, False
        else:
            hook, may_fail = self._check, True
            if core._idle_for < self._check_after:
                hook = None
        if hook is None:
            return True
        try:
            with _bounded(deadline, token):
                accepted = await _result(hook(conn)) is not False
        except BaseException as exc:
            self._pool._check_failed(core)
            if not may_fail or not isinstance(exc, Exception) or _is_over(deadline, exc):
                raise
            return False
        if accepted:
            core.mark_clean()
            return True
        self._pool._check_failed(core)
        if not may_fail:
            raise HardsockError(None, "on_connect returned False")
        return False

    async def drain(
        self, *, timeout: float | None = None, token: CancelToken | None = None
    ) -> None:
        """As ``hardsock.Pool.drain``, awaited."""
        await self._pool._op_drain(current_hub(), timeout=timeout, token=token)

    async def close(self, timeout: float | None = 0.0, *, abort: bool = False) -> PoolCloseReport:
        """As ``hardsock.Pool.close``, awaited."""
        self._pool._close()
        try:
            await self._pool._op_await_closed(current_hub(), timeout=timeout)
        except DeadlineExceeded:
            return self._pool.close(0.0, abort=abort)
        return PoolCloseReport(clean=True, lent=())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._pool.close()

    # ---- what never waits

    def evict(self) -> None:
        """As ``hardsock.Pool.evict``."""
        self._pool.evict()

    def resize(self, max_size: int, /) -> None:
        """As ``hardsock.Pool.resize``."""
        self._pool.resize(max_size)

    def stats(self) -> PoolStats:
        """As ``hardsock.Pool.stats``."""
        return self._pool.stats()

    def lent(self) -> list[Lent]:
        """As ``hardsock.Pool.lent``."""
        return self._pool.lent()

    def leaks(self, older_than: float) -> list[Lent]:
        """As ``hardsock.Pool.leaks``."""
        return self._pool.leaks(older_than)

    def sites(self) -> list[Site]:
        """As ``hardsock.Pool.sites``."""
        return self._pool.sites()

    def verify(self) -> PoolAudit:
        """As ``hardsock.Pool.verify``."""
        return self._pool.verify()

    @property
    def name(self) -> str:
        """Its name in messages."""
        return self._pool.name

    @property
    def options(self) -> PoolOptions:
        """What it was made with."""
        return self._pool.options

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._pool.closed

    def __repr__(self) -> str:
        return f"<hardsock.aio.Pool of {self._pool!r}>"


async def _result(value: Awaitable[object] | object) -> object:
    return await value if inspect.isawaitable(value) else value


class _Borrowing:
    """A connection for the length of an ``async with`` block."""

    __slots__ = ("_conn", "_pool", "_timeout", "_token")

    def __init__(self, pool: Pool, timeout: float | None, token: CancelToken | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self._token = token
        self._conn: Connection | None = None

    async def __aenter__(self) -> Connection:
        if self._conn is not None:
            raise RuntimeError("this context manager is in use already")
        self._conn = await self._pool.acquire(timeout=self._timeout, token=self._token)
        return self._conn

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        conn, self._conn = self._conn, None
        if conn is not None and conn.blocking._lease_id:
            await self._pool.release(conn, failed=exc_type is not None)
