"""The awaited Pool."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from hardsock import _core
from hardsock._core import CancelToken
from hardsock._errors import DeadlineExceeded
from hardsock.aio._connection import Connection
from hardsock.aio._host import current_hub, current_task
from hardsock.pool.hooks import Hooks, time_left
from hardsock.pool.options import PoolOptions
from hardsock.pool.pool import Pool as _Pool
from hardsock.pool.records import Lent, PoolAudit, PoolCloseReport, PoolStats, Site

if TYPE_CHECKING:
    from typing_extensions import Self

    from hardsock.connecting.connect import Address

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
        self._hooks = Hooks(on_connect, check, check_after, reset, reset_timeout)

    @property
    def blocking(self) -> _Pool:
        """The same pool, for use in threads."""
        return self._pool

    async def acquire(
        self, *, timeout: float | None = None, token: CancelToken | None = None
    ) -> Connection:
        """As ``hardsock.Pool.acquire``, awaited."""
        deadline = self._pool._deadline(timeout)
        task = current_task()
        while True:
            core = cast(
                "_core.Connection",
                await self._pool._op_acquire(
                    current_hub(), timeout=time_left(deadline), token=token, task=task
                ),
            )
            conn = Connection(core)
            if task is not None:
                self._know_task(core, task)
            with self._hooks.prepare(self._pool, core, deadline, token) as lease:
                if lease.hook is not None:
                    with lease.limits():
                        lease.result = await _result(lease.hook(conn))
            if lease.lendable:
                return conn

    def _know_task(self, core: _core.Connection, task: Any) -> None:
        tasks = self._pool._tasks
        if len(tasks) > 2 * self._pool.options.max_size + 16:
            living = {lent.id for lent in self._pool._lent()}
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
        due = self._hooks.resetting(self._pool, core, failed, discard)
        if due is not None:
            with due, due.limits():
                await _result(due.hook(conn))
            if not due.returnable:
                return
        self._pool.release(core, failed=failed, discard=discard)

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
