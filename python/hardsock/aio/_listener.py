"""The awaited Listener."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from hardsock import _core
from hardsock._core import CancelToken
from hardsock._errors import Closed
from hardsock._records import ListenerStats, Setting
from hardsock.aio._connection import Connection
from hardsock.aio._host import current_hub, forget

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Listener"]


class Listener:
    """A listening stream socket whose accepting is awaited; made by ``aio.listen``.

    Any number of tasks may accept at once, in any number of event loops; ``close`` works from any
    thread.
    """

    __slots__ = ("__weakref__", "_hub", "_left", "_listener")

    def __init__(self, listener: _core.Listener) -> None:
        self._listener = listener
        self._hub = current_hub()
        self._left: list[_core.Connection] = []  # Accepted, but there was no memory to wrap them.

    async def accept(
        self, *, timeout: float | None = None, token: CancelToken | None = None
    ) -> Connection:
        """As ``hardsock.Listener.accept``."""
        conn = Connection(cast("_core.Connection", None))  # What can fail does so before.
        left = self._take_left(1)
        conn._conn = (
            left[0]
            if left
            else await self._listener._op_accept(self._hub, timeout=timeout, token=token)
        )
        return conn

    async def accept_many(
        self, max_count: int, /, *, timeout: float | None = None, token: CancelToken | None = None
    ) -> list[Connection]:
        """As ``hardsock.Listener.accept_many``."""
        conns: list[Any] = self._take_left(max_count) or await self._listener._op_accept_many(
            self._hub, max_count, timeout=timeout, token=token
        )
        done = 0
        try:
            for conn in conns:
                conns[done] = Connection(conn)
                done += 1
        except MemoryError:
            self._left += conns[done:]
            if done == 0:
                raise
            del conns[done:]
        return conns

    def _take_left(self, max_count: int) -> list[_core.Connection]:
        taken: list[_core.Connection] = []
        while self._left and len(taken) < max_count:
            taken.append(self._left.pop())
        return taken

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Connection:
        try:
            return await self.accept()
        except Closed:
            if self._listener.closed:
                raise StopAsyncIteration from None
            raise

    def close(self) -> None:
        """Close; tasks that accept raise Closed. Idempotent."""
        self._listener.close()
        while self._left:
            self._left.pop().close()

    async def aclose(self) -> None:
        """``close()``, for ``contextlib.aclosing`` and the like; never waits."""
        self.close()

    def detach(self) -> int:
        """Give the descriptor to the caller, who must close it."""
        fd = self._listener.detach()
        forget(fd, self._hub)
        return fd

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor's number, -1 when closed."""
        return self._listener.fileno()

    def getsockname(self) -> Any:
        """The address it listens on, as socket has it."""
        return self._listener.getsockname()

    def stats(self) -> ListenerStats:
        """As ``hardsock.Listener.stats``."""
        return self._listener.stats()

    def audit(self) -> list[Setting]:
        """As ``hardsock.Listener.audit``."""
        return self._listener.audit()

    @property
    def address(self) -> Any:
        """The address it listens on, as socket has it."""
        return self._listener.address

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._listener.closed

    def __repr__(self) -> str:
        return f"<hardsock.aio.Listener of {self._listener!r}>"
