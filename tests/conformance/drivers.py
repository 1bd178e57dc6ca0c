"""What runs the contract: a blocking thread, or an event loop.

The clauses are written once, as coroutines. In an event loop they are tasks; for threads every
await has ended before it returns, so that one step runs a clause from beginning to end, and what a
clause starts beside itself runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import hardsock as hs
from hardsock import aio
from hardsock.lab.threads import Call, Hung
from support.loops import RUNS, task_parked

AsyncFunction = Callable[..., Coroutine[Any, Any, Any]]
LIMIT = 60.0  # for a clause; nothing waits for it unless something hangs


class Started(ABC):
    """A call under way beside the clause; the end of its block waits for its end."""

    @abstractmethod
    async def wait_until_blocked(self) -> None:
        """Return when it waits for the kernel, or for another thread."""

    @abstractmethod
    async def result(self, timeout: float = 10.0) -> Any:
        """Wait for its end; return its value or raise its exception."""

    def cancel(self) -> None:
        """Cancel it as the event loop does it."""
        raise NotImplementedError

    async def was_cancelled(self) -> bool:
        """Wait for its end; whether that was the event loop's cancel, which nobody swallowed."""
        raise NotImplementedError


class Driver(ABC):
    """How to run a clause, and how to do in it what differs."""

    awaited = True

    @abstractmethod
    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run main() to its end."""

    @abstractmethod
    def start(
        self, function: AsyncFunction, /, *args: Any, **kwargs: Any
    ) -> AbstractAsyncContextManager[Started]:
        """Call it beside the clause."""

    @abstractmethod
    async def timed_out(self, seconds: float, call: Coroutine[Any, Any, Any]) -> bool:
        """Whether the event loop's own timeout cut the call short."""

    @abstractmethod
    async def turn(self) -> None:
        """Let the others run."""

    async def listen(self, address: Any, **kwargs: Any) -> Any:
        return await aio.listen(address, **kwargs)

    async def connect(self, address: Any, **kwargs: Any) -> Any:
        return await aio.connect(address, **kwargs)

    def adopt(self, sock: socket.socket) -> Any:
        return aio.adopt(sock)


# ---- threads


def run_blocking(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("something waited that should have blocked")


class _Blocking:
    """A blocking object with the awaited one's methods; what is not listed is the same in both."""

    _WAITS = frozenset(
        (
            *(
                "recv",
                "recv_into",
                "recv_exactly",
                "send",
                "sendall",
                "sendmsg",
                "finish",
                "accept",
            ),
            *("recv_until", "recv_line", "recv_lines", "recv_frame", "recv_frames", "peek"),
            *("send_frame", "sendfile", "close_write", "upgrade_to_tls", "confirm"),
        )
    )

    def __init__(self, blocking: Any) -> None:
        self.blocking = blocking

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.blocking, name)
        return partial(self._wait_for, value) if name in self._WAITS else value

    @staticmethod
    async def _wait_for(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        value = method(*args, **kwargs)
        return _Blocking(value) if isinstance(value, hs.Connection) else value

    async def __aenter__(self) -> _Blocking:
        return self

    async def __aexit__(self, *_details: object) -> None:
        self.blocking.close()


class _StartedThread(Started):
    def __init__(self, call: Call[Any]) -> None:
        self._call = call

    async def wait_until_blocked(self) -> None:
        self._call.wait_until_blocked()

    async def result(self, timeout: float = 10.0) -> Any:
        return self._call.result(timeout)


class Threads(Driver):
    awaited = False

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        run_blocking(main())

    @asynccontextmanager
    async def start(
        self, function: AsyncFunction, /, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Started]:
        with Call(lambda: run_blocking(function(*args, **kwargs))) as call:
            yield _StartedThread(call)

    async def timed_out(self, seconds: float, call: Coroutine[Any, Any, Any]) -> bool:
        raise NotImplementedError

    async def turn(self) -> None:
        time.sleep(0)

    async def listen(self, address: Any, **kwargs: Any) -> Any:
        return _Blocking(hs.listen(address, **kwargs))

    async def connect(self, address: Any, **kwargs: Any) -> Any:
        return _Blocking(hs.connect(address, **kwargs))

    def adopt(self, sock: socket.socket) -> Any:
        return _Blocking(hs.adopt(sock))


# ---- asyncio


class _StartedTask(Started):
    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.told = False

    async def _end(self, timeout: float) -> None:
        _done, pending = await asyncio.wait({self._task}, timeout=timeout)
        if pending:
            raise Hung(f"it did not end in {timeout} s: {self._task!r}")

    async def wait_until_blocked(self) -> None:
        await task_parked(self._task)

    async def result(self, timeout: float = 10.0) -> Any:
        await self._end(timeout)
        told, self.told = self.told, True
        return None if told and self._task.cancelled() else self._task.result()

    def cancel(self) -> None:
        self._task.cancel()

    async def was_cancelled(self) -> bool:
        await self._end(10)
        self.told = True
        return self._task.cancelled()


class Asyncio(Driver):
    loop = "asyncio"

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def limited() -> None:
            await asyncio.wait_for(main(), LIMIT)

        RUNS[self.loop](limited())

    @asynccontextmanager
    async def start(
        self, function: AsyncFunction, /, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Started]:
        task = asyncio.ensure_future(function(*args, **kwargs))
        started = _StartedTask(task)
        try:
            yield started
        except BaseException:
            task.cancel()
            await asyncio.wait({task}, timeout=1)
            raise
        await started._end(10)
        if not started.told:
            await started.result()

    async def timed_out(self, seconds: float, call: Coroutine[Any, Any, Any]) -> bool:
        try:
            await asyncio.wait_for(call, seconds)
        except asyncio.TimeoutError as exc:
            return not isinstance(exc, hs.DeadlineExceeded)
        return False

    async def turn(self) -> None:
        await asyncio.sleep(0)


class Uvloop(Asyncio):
    loop = "uvloop"


# ---- trio


class _StartedInNursery(Started):
    def __init__(self, function: AsyncFunction, args: Any, kwargs: Any) -> None:
        import trio

        self._trio = trio
        self._call = partial(function, *args, **kwargs)
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._value: Any = None
        self._error: BaseException | None = None
        self.told = False

    async def main(self) -> None:
        try:
            with self._scope:
                self._value = await self._call()
        except Exception as exc:
            self._error = exc
        finally:
            self._ended.set()

    async def wait_until_blocked(self) -> None:
        import trio.testing

        await trio.testing.wait_all_tasks_blocked()
        if self._ended.is_set():
            raise Hung("it has ended")

    async def result(self, timeout: float = 10.0) -> Any:
        with self._trio.fail_after(timeout):
            await self._ended.wait()
        self.told = True
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None
        return self._value

    def cancel(self) -> None:
        self._scope.cancel()

    async def was_cancelled(self) -> bool:
        await self.result()
        return self._scope.cancelled_caught


class Trio(Driver):
    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        import trio

        async def limited() -> None:
            with trio.fail_after(LIMIT):
                await main()

        trio.run(limited)

    @asynccontextmanager
    async def start(
        self, function: AsyncFunction, /, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Started]:
        import trio

        started = _StartedInNursery(function, args, kwargs)
        failed = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(started.main)
            try:
                yield started
                if not started.told:
                    await started.result()
            except Exception as exc:  # A nursery would wrap it in a group.
                failed = exc
                started.cancel()
        if failed is not None:
            raise failed

    async def timed_out(self, seconds: float, call: Coroutine[Any, Any, Any]) -> bool:
        import trio

        with trio.move_on_after(seconds) as scope:
            await call
        return scope.cancelled_caught

    async def turn(self) -> None:
        import trio

        await trio.lowlevel.checkpoint()


DRIVERS: dict[str, type[Driver]] = {
    "threads": Threads,
    "asyncio": Asyncio,
    "uvloop": Uvloop,
    "trio": Trio,
}
