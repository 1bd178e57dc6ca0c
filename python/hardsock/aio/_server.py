"""The awaited server: one task accepts and later drains, one task per connection runs its handler.

The twin of ``hardsock.serving.server``: what does not wait is in ``hardsock.serving.core``, for both.
Everything but ``stats`` runs in one thread; what other threads may do besides, ``stop`` and
cancelling the token, is a token's business.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

from hardsock import _core
from hardsock._core import CancelToken, Listener
from hardsock._errors import Cancelled, Closed, DeadlineExceeded, HardsockError
from hardsock._scope import current
from hardsock.aio._connection import Connection
from hardsock.aio._host import current_hub
from hardsock.aio._tasks import tasks_for
from hardsock.aio._wait import pause, wait
from hardsock.serving.ambient import context_for_handlers, draining, enter
from hardsock.serving.closing import LeftOutside, close_listener
from hardsock.serving.core import FAILED_ACCEPT_PAUSE, ServerCore
from hardsock.serving.disposition import Disposition, End, decide_lingering
from hardsock.serving.drain import NO_MEMORY_PAUSE, Drain
from hardsock.serving.ledger import Outcome, Served
from hardsock.serving.options import MAX_BATCH, ServeOptions
from hardsock.serving.overdue import (
    Overdue,
    bound_handler,
    note_overrun,
)
from hardsock.serving.records import DrainReport

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Handler", "Server"]

Handler = Callable[[Connection], Awaitable[object]]
"""Awaited with each connection; the server ends the connection when it returns."""

Background = dict[str, Callable[[], Awaitable[None]]]

logger = logging.getLogger("hardsock.serve")

_BETWEEN_LAGS = 0.1


class Server(ServerCore):
    """A server in an event loop; ``hardsock.aio.serve`` makes it.

    It runs inside ``async with``, whose end drains with the ``drain_timeout`` it was given. ``stop``
    and ``stats`` may be called from any thread, everything else from the loop's.
    """

    _kind = "tasks"

    def __init__(
        self,
        handler: Handler,
        open_listener: Callable[[], Awaitable[Listener]],
        options: ServeOptions,
        token: CancelToken | None,
    ) -> None:
        super().__init__(options, token)
        self._handler = handler
        self._open_listener = open_listener
        self._overdue = Overdue(options.handler_timeout)
        self._context: Context
        self._not_begun: set[Served] = set()
        """Those whose task has not had its first step."""

    async def __aenter__(self) -> Self:
        self._hub = current_hub()
        self._context = context_for_handlers(self._draining)
        self._listener = await self._open_listener()
        self._listener._serves()
        self._address = self._listener.address
        self._tasks = tasks_for(self._hub)
        await self._tasks.open()
        own = {self._options.name: self._main} | self._begin_tending()
        self._own = [  # An event loop holds its tasks only weakly.
            self._tasks.start(self._context, each, name=name) for name, each in own.items()
        ]
        return self

    def _begin_tending(self) -> Background:
        """What runs beside the task that accepts, by its name."""
        own: Background = {"departures": self._tend_departures}
        return own if self._delays is None else {**own, "lag": self._measure_lag}

    async def _measure_lag(self) -> None:
        assert self._delays is not None
        ended = False
        while not ended:
            due = time.monotonic() + _BETWEEN_LAGS
            ended = await pause(self._ended, _BETWEEN_LAGS)
            if not ended:
                self._delays.lagged(max(0.0, time.monotonic() - due))

    def _end_tending(self) -> None:
        """Let it end."""

    async def __aexit__(self, *exc_info: Any) -> None:
        try:
            await self.drain()
        finally:
            self._token.cancel("the server was left")
            self._listener.close()
            await self._tasks.close(*exc_info)

    def _count_workers(self) -> int:
        return len(self._ledger.active)  # the tasks of handlers

    # ---- ending

    async def drain(
        self, timeout: float | None = None, *, grace: float | None = None
    ) -> DrainReport:
        """Stop accepting, let the connections end, and cut what has not ended in time.

        As ``hardsock.Server.drain``; near the end of *grace*, when connections are reset, the tasks
        of their handlers are cancelled, too. A handler that ignores even that is named in the
        report; asyncio lets it be left behind, trio waits for it.

        Raises:
            RuntimeError: If a handler of this server awaits it: it would wait for itself.
        """
        self._ask_to_drain(timeout, grace)
        await wait(self._ended)
        assert self._report is not None
        return self._report

    async def wait(self, timeout: float | None = None, *, token: CancelToken | None = None) -> bool:
        """Wait until the server has ended: True; False after *timeout* seconds.

        In the main thread SIGTERM drains meanwhile, as ``stop`` does, and a second one cuts all
        that is left, unless a handler for it was installed.

        Raises:
            Cancelled, DeadlineExceeded: *token* or the ambient scope ended first.
            RuntimeError: If a handler of this server awaits it: it would wait for itself.
        """
        self._refuse_to_wait("wait()")
        with self._obeying_sigterm():
            watched = [t for t in (token, current()) if t is not None]
            if await wait(CancelToken.linked([self._ended, *watched]), timeout) and not self.closed:
                for each in watched:
                    each.check()
            return self.closed

    def _refuse_to_wait(self, what: str) -> None:
        if draining() is self._draining:
            raise RuntimeError(
                f"{what} was awaited by a handler of this server, and would wait for that handler; "
                "call stop(), or drain from another task"
            )

    # ---- accepting

    async def _main(self) -> None:
        outside = LeftOutside()
        try:
            await self._accept_until_told()
            self._draining.cancel("the server has ended")  # unless that is why
            drain = self._begin_drain()
            outside = await self._run_drain(drain)
            self._report = self._sum_up(drain, outside, self._tasks.look)
        finally:
            self._listener.close()
            self._draining.cancel("the server has ended")
            if self._report is None:  # The event loop cancelled us: so it does the handlers.
                self._token.cancel("the server was cancelled")
                self._abandon()
                self._report = self._sum_up(self._begin_drain(), outside, self._tasks.look)
            self._end_tending()
            self._nobody_left.cancel()
            self._service.ended()
            self._ended.cancel("the server has ended")

    def _abandon(self) -> None:
        """End what no task would."""

    async def _tend_departures(self) -> None:
        try:
            while not self._nobody_left.cancelled:
                try:
                    await self._departures._op_tend(self._hub, token=self._nobody_left)
                except Cancelled:
                    pass
                except (HardsockError, MemoryError) as exc:
                    logger.error("watching for clients that leave failed, trying again: %s", exc)
                    await pause(self._nobody_left, 1.0)
        finally:
            self._departures.close()

    async def _accept_until_told(self) -> None:
        while True:
            try:
                if not (room := await self._wait_for_room()):
                    return
                self._take(await self._accept(room, self._look_again(), self._draining))
                self._accepting = True
            except Closed:
                return
            except (Cancelled, DeadlineExceeded):
                self._accepting = True  # The drain begins, or a look at connections is due.
            except (HardsockError, MemoryError) as exc:
                self._accepting = False
                self._service.accepts(False)
                await self._pause_accepting(exc)
                self._accepting = True  # as far as is known
                self._service.accepts(True)

    async def _pause_accepting(self, exc: Exception) -> None:
        try:
            self._tell_failed_accept(exc)
            await pause(self._draining, FAILED_ACCEPT_PAUSE)
        except MemoryError:  # There is none even for that.
            time.sleep(NO_MEMORY_PAUSE)

    async def _accept(
        self, room: int, timeout: float | None, token: CancelToken | None = None
    ) -> list[_core.Connection]:
        conns: list[_core.Connection] = await self._listener._op_accept_many(
            self._hub, min(room, MAX_BATCH), timeout=timeout, token=token
        )
        return conns

    async def _wait_for_room(self) -> int:
        """How many may be accepted now; 0 when the server drains.

        While it waits nothing is accepted: the kernel's queue holds who comes.
        """
        while not self._draining.cancelled:
            self._look()
            now = time.monotonic()
            if room := self._ledger.room:
                self._ledger.not_full(now)
                return room
            self._ledger.full(now)
            self._wakeup = self._draining.child(name="room")
            again = self._look_again(full=True)
            try:
                await self._tend(again, self._wakeup)
            except (Cancelled, DeadlineExceeded):
                pass
            except HardsockError:
                await pause(self._wakeup, again)  # Closed: the next accept tells.
        return 0

    def _where(self, runner: object) -> tuple[str | None, str | None]:
        return self._tasks.look(runner)

    def _look(self) -> None:
        """Now and then, in the task that accepts."""
        for late in self._overdue.step(time.monotonic()):
            self._tasks.cancel(late.runner)

    def _look_again(self, *, full: bool = False) -> float | None:
        """Seconds until the next look; *full*: nothing can be accepted."""
        return self._overdue.interval

    async def _tend(self, timeout: float | None, token: CancelToken) -> None:
        await self._listener._op__tend(self._hub, timeout=timeout, token=token)

    def _begin(self, served: Served) -> None:
        self._watch(served)
        self._start_task(served, self._serve, bound_handler(served, self._options))
        self._overdue.begin(served, served.accepted)

    def _start_task(
        self, served: Served, function: Callable[[Served], Awaitable[None]], scope: CancelToken
    ) -> None:
        """Its task; *function* takes *served* out of ``_not_begun`` first of all."""
        tell = partial(self._task_ended, served)
        context = enter(self._context, scope)
        self._not_begun.add(served)
        try:
            served.runner = self._tasks.start(context, function, served, name=served.peer)
            self._tasks.tell_end(served.runner, tell)
        except MemoryError:
            self._not_begun.discard(served)
            raise

    def _task_ended(self, served: Served, runner: object) -> None:
        # A task that is cancelled before its first step runs nothing of its function, no finally.
        if served.runner is runner and served in self._not_begun:
            self._not_begun.discard(served)
            self._end_not_begun(served)

    def _end_not_begun(self, served: Served) -> None:
        self._overdue.end(served)
        if served.outcome is None:
            self._leave(served)
            self._end_now(served, self._judge_cancelled(served))
        self._left(served)

    def _left(self, served: Served) -> None:
        """Its task has ended. A cancelled one has its exception, whose frames lead to *served*: who
        kept the task would keep the connection."""
        served.left = True
        served.runner = None
        self._ring()

    # ---- serving, in the tasks

    async def _serve(self, served: Served) -> None:
        # One coroutine for all of it: each would stand in memory for as long as its client is quiet.
        self._not_begun.discard(served)
        scope = current()
        try:
            with self._lock:
                go = self._ledger.start(served, served.runner, time.monotonic())
            if not go:
                disposition = Disposition(served.ended_by or Outcome.CANCELLED, End.ABORT)
            else:
                failure: BaseException | None = None
                try:
                    await self._handler(Connection(served.conn))
                except BaseException as exc:
                    if self._is_for_the_task(exc):
                        raise
                    failure = exc
                note_overrun(served, scope, self._options)
                disposition = self._judge(served, failure)
                del failure  # Its traceback leads back to this frame.
            await self._end(served, disposition)
        finally:
            if served.outcome is None:  # The event loop, or somebody's cancel(), ended this task.
                self._end_now(served, self._judge_cancelled(served))
            self._overdue.end(served)
            self._left(served)

    def _is_for_the_task(self, exc: BaseException) -> bool:
        """Whether its task has to end, too: Ctrl-C comes to whichever task runs; what is closed may
        not go on."""
        return isinstance(exc, (KeyboardInterrupt, GeneratorExit)) or self._tasks.is_cancel(exc)

    def _judge_cancelled(self, served: Served) -> Disposition:
        if served.ended_by is not None or self._draining.cancelled or self._token.cancelled:
            return Disposition(served.ended_by or Outcome.CANCELLED, End.ABORT)
        return Disposition(Outcome.FAILED, End.ABORT, "Cancelled")

    async def _end(self, served: Served, disposition: Disposition) -> None:
        self._leave(served)
        ending = "closed"
        if disposition.end is End.FINISH:
            disposition, ending = await self._linger(served, disposition)
        self._end_now(served, disposition, ending)

    async def _linger(self, served: Served, disposition: Disposition) -> tuple[Disposition, str]:
        try:
            report = await served.conn._op_finish(
                self._hub, timeout=self._options.linger, token=self._token
            )
        except HardsockError as exc:
            return decide_lingering(served, disposition, exc)
        return disposition, report.ending

    # ---- draining

    async def _run_drain(self, drain: Drain) -> LeftOutside:
        """Closing the listener resets who is queued: those for whom room comes free are served."""
        self._listener._last_call()
        while True:
            try:
                if await self._step_of_drain(drain):
                    break
            except MemoryError:  # Time goes on, and perhaps there is some soon.
                drain.forget_what_was_said()
                time.sleep(NO_MEMORY_PAUSE)
        return self._outside or LeftOutside()

    async def _step_of_drain(self, drain: Drain) -> bool:
        """Do what is due, and wait for the next; whether the drain is over."""
        wakeup = self._wakeup = CancelToken(name="drain")
        if self._limit is not None:
            drain.tighten(self._limit)
        self._make_room_in_drain(drain)
        self._look_in_drain(drain)
        with self._lock:
            actions = drain.step(time.monotonic())
        actions.perform()
        for each in actions.abort:
            if each.runner is None:
                continue
            self._tasks.keep(each.runner)  # The ledger has let go of it.
            self._tasks.cancel(each.runner)
        if self._outside is None:
            if not await self._accept_rest(drain, actions.wait, wakeup):
                self._outside = close_listener(self._listener)
            return False  # What was accepted is due for a look.
        if actions.wait is None:
            return True
        await pause(wakeup, actions.wait)
        return False

    def _look_in_drain(self, drain: Drain) -> None:
        """Before each step of it."""

    async def _accept_rest(self, drain: Drain, timeout: float | None, wakeup: CancelToken) -> bool:
        """Wait for who was there when the drain began; False: they are all here, or time is up."""
        left = drain.cut_at - time.monotonic()
        if left <= 0 or self._token.cancelled:
            return False
        timeout = left if timeout is None else min(timeout, left)
        try:
            if room := self._ledger.room:
                self._take(await self._accept(room, timeout, wakeup))
            else:
                await self._tend(timeout, wakeup)
        except (Cancelled, DeadlineExceeded):
            pass
        except (HardsockError, MemoryError):
            return False  # Closed: nobody is left.
        return True
