"""The awaited server: one task accepts and later drains, one task per connection runs its handler.

The twin of ``hardsock.serving.server``, and made of the same parts: options, ledger, the phases of a
drain, verdicts. Everything runs in one thread, so nothing needs a lock; what other threads may do,
``stop`` and cancelling the token, is a token's business.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from hardsock import _core
from hardsock._core import CancelToken, Listener
from hardsock._errors import Cancelled, Closed, DeadlineExceeded, HardsockError
from hardsock._scope import current
from hardsock.aio._connection import Connection
from hardsock.aio._host import current_hub
from hardsock.aio._tasks import tasks_for
from hardsock.aio._wait import wait
from hardsock.serving.ambient import context_for_handlers, draining, enter
from hardsock.serving.closing import LeftOutside, close_listener
from hardsock.serving.departing import watch_departure
from hardsock.serving.drain import Drain, Limit
from hardsock.serving.face import ServerFace
from hardsock.serving.ledger import Ledger, Outcome, Served, served, tell_given_up
from hardsock.serving.options import MAX_BATCH, ServeOptions, check_drain
from hardsock.serving.overdue import (
    Overdue,
    bound_handler,
    bound_turns,
    note_overrun,
    unbound_turns,
)
from hardsock.serving.records import DrainReport, ServerStats
from hardsock.serving.shedding import count_shed
from hardsock.serving.verdict import End, Verdict, judge, judge_lingering

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Handler", "Server"]

Handler = Callable[[Connection], Awaitable[object]]
"""Awaited with each connection; the server ends the connection when it returns."""

logger = logging.getLogger("hardsock.serve")

_FAILED_ACCEPT_PAUSE = 1.0


class Server(ServerFace):
    """A server in an event loop; ``hardsock.aio.serve`` makes it.

    It runs inside ``async with``, whose end drains with the ``drain_timeout`` it was given. ``stop``
    may be called from any thread, everything else from the loop's.
    """

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
        self._ledger = Ledger(options.limit, self._draining)
        self._overdue = Overdue(self._ledger, options.handler_timeout)
        self._bell: CancelToken | None = None
        self._limit: Limit | None = None
        self._context: Context

    async def __aenter__(self) -> Self:
        self._hub = current_hub()
        self._context = context_for_handlers(self._draining)
        self._listener = await self._open_listener()
        self._listener._serves()
        self._address = self._listener.address
        self._tasks = tasks_for(self._hub)
        await self._tasks.open()
        self._own = [  # An event loop holds its tasks only weakly.
            self._tasks.start(self._context, self._main, name=self._options.name),
            self._tasks.start(self._context, self._tend_departures, name="departures"),
        ]
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        try:
            await self.drain()
        finally:
            self._token.cancel("the server was left")
            self._listener.close()
            await self._tasks.close(*exc_info)

    # ---- asking

    def stats(self) -> ServerStats:
        """Return its counters; ``workers`` are the tasks of handlers."""
        return self._ledger.stats(
            time.monotonic(),
            workers=len(self._ledger.active),
            shed=count_shed(self._listener),
        )

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
        seconds, grace = check_drain(
            self._options.drain_timeout if timeout is None else timeout, grace
        )
        self._refuse_to_wait("drain()")
        limit = Limit(time.monotonic() + seconds, grace)
        if self._limit is None or limit.end < self._limit.end:
            self._limit = limit
        self._draining.cancel("the server is draining")
        self._ring()
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

    def _ring(self) -> None:
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.cancel()

    # ---- accepting

    async def _main(self) -> None:
        outside = LeftOutside()
        try:
            await self._accept_until_told()
            self._draining.cancel("the server has ended")  # unless that is why
            drain = self._begin_drain()
            outside = await self._run_drain(drain)
            self._report = self._sum_up(drain, outside)
        finally:
            self._listener.close()
            self._draining.cancel("the server has ended")
            if self._report is None:  # The event loop cancelled us: so it does the handlers.
                self._token.cancel("the server was cancelled")
                self._report = self._sum_up(self._begin_drain(), outside)
            self._nobody_left.cancel()
            self._ended.cancel("the server has ended")

    async def _tend_departures(self) -> None:
        try:
            while not self._nobody_left.cancelled:
                try:
                    await self._departures._op_tend(self._hub, token=self._nobody_left)
                except Cancelled:
                    pass
                except (HardsockError, MemoryError) as exc:
                    logger.error("watching for clients that leave failed, trying again: %s", exc)
                    await wait(self._nobody_left, 1.0)
        finally:
            self._departures.close()

    async def _accept_until_told(self) -> None:
        while room := await self._wait_for_room():
            try:
                self._take(await self._accept(room, self._overdue.interval, self._draining))
                self._accepting = True
            except Closed:
                return
            except (Cancelled, DeadlineExceeded):
                self._accepting = True  # The drain begins, or a look at connections is due.
            except (HardsockError, MemoryError) as exc:
                self._accepting = False
                self._seldom.log(
                    "accept", logging.ERROR, "accepting failed, trying again in a second: %s", exc
                )
                await wait(self._draining, _FAILED_ACCEPT_PAUSE)
                self._accepting = True  # as far as is known

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
            now = time.monotonic()
            for late in self._overdue.step(now):
                self._tasks.cancel(late.runner)
            if room := self._ledger.room:
                self._ledger.not_full(now)
                return room
            self._ledger.full(now)
            self._bell = self._draining.child(name="room")
            try:
                await self._tend(self._overdue.interval, self._bell)
            except (Cancelled, DeadlineExceeded):
                pass
            except HardsockError:
                await wait(self._bell, self._overdue.interval)  # Closed: the next accept tells.
        return 0

    async def _tend(self, timeout: float | None, token: CancelToken) -> None:
        await self._listener._op__tend(self._hub, timeout=timeout, token=token)

    def _take(self, conns: list[_core.Connection]) -> None:
        """Without memory for one of them the others are served all the same."""
        while conns:
            try:
                self._take_one(conns.pop(0))
            except MemoryError:
                tell_given_up()

    def _take_one(self, conn: _core.Connection) -> None:
        each = None
        try:
            each = served(conn, self._token)
            if (lingering := self._ledger.admit(each)) is not None:
                lingering.conn.close()
            watch_departure(self._departures, each, self._seldom)
            bound_turns(each, self._options)
            scope = bound_handler(each, self._options)
            each.runner = self._tasks.start(
                enter(self._context, scope), self._serve, each, name=each.peer
            )
        except MemoryError:
            conn.abort()
            self._ledger.give_up(each)
            raise

    # ---- serving, in the tasks

    async def _serve(self, served: Served) -> None:
        # One coroutine for all of it: each would stand in memory for as long as its client is quiet.
        scope = current()
        try:
            if not self._ledger.start(served, served.runner, time.monotonic()):
                verdict = Verdict(served.ended_by or Outcome.CANCELLED, End.ABORT)
            else:
                try:
                    await self._handler(Connection(served.conn))
                except (KeyboardInterrupt, GeneratorExit):
                    raise  # Ctrl-C comes to whichever task runs; what is closed may not go on.
                except BaseException as exc:
                    if self._tasks.is_cancel(exc):
                        raise
                    verdict = self._judge(served, exc, scope)
                else:
                    verdict = self._judge(served, None, scope)
            await self._end(served, verdict)
        finally:
            if served.outcome is None:  # The event loop, or somebody's cancel(), ended this task.
                self._settle(served, self._judge_cancelled(served))
            served.left = True
            self._ring()

    def _judge(
        self, served: Served, exc: BaseException | None, scope: CancelToken | None
    ) -> Verdict:
        note_overrun(served, scope, self._options)
        return judge(served, exc, server=self._token, draining=self._draining, seldom=self._seldom)

    def _judge_cancelled(self, served: Served) -> Verdict:
        if served.ended_by is not None or self._draining.cancelled or self._token.cancelled:
            return Verdict(served.ended_by or Outcome.CANCELLED, End.ABORT)
        return Verdict(Outcome.FAILED, End.ABORT, "Cancelled")

    async def _end(self, served: Served, verdict: Verdict) -> None:
        served.conn._leave_departures()
        unbound_turns(served, self._options)
        ending = "closed"
        if verdict.end is End.FINISH:
            self._ledger.linger(served, verdict.outcome)
            self._ring()
            verdict, ending = await self._linger(served, verdict)
        self._settle(served, verdict, ending)

    def _settle(self, served: Served, verdict: Verdict, ending: str = "closed") -> None:
        if verdict.end is End.ABORT:
            served.conn.abort()
            ending = "aborted"
        served.conn.close()
        self._ledger.settle(served, verdict.outcome, error=verdict.error, ending=ending)

    async def _linger(self, served: Served, verdict: Verdict) -> tuple[Verdict, str]:
        try:
            report = await served.conn._op_finish(
                self._hub, timeout=self._options.linger, token=self._token
            )
        except HardsockError as exc:
            return judge_lingering(served, verdict, exc)
        return verdict, report.ending

    # ---- draining

    def _begin_drain(self) -> Drain:
        seconds, grace = check_drain(self._options.drain_timeout, None)
        now = time.monotonic()
        self._ledger.not_full(now)
        if self._token.cancelled:  # Everything is cancelled: only the grace is left.
            seconds = grace
        return Drain(self._ledger, now, self._limit or Limit(now + seconds, grace))

    async def _run_drain(self, drain: Drain) -> LeftOutside:
        """Closing the listener resets who is queued: those for whom room comes free are served."""
        outside = None
        self._listener._last_call()
        while True:
            if self._limit is not None:
                drain.tighten(self._limit)
            turn = drain.step(time.monotonic())
            bell = self._bell = CancelToken(name="drain")
            turn.perform()
            for each in turn.abort:
                self._tasks.keep(each.runner)  # The ledger has let go of it.
                self._tasks.cancel(each.runner)
            if outside is None and not await self._accept_rest(drain, turn.wait, bell):
                outside = close_listener(self._listener)
            elif outside is None:
                continue  # What was accepted is due for a look.
            elif turn.wait is None:
                return outside
            else:
                await wait(bell, turn.wait)

    async def _accept_rest(self, drain: Drain, timeout: float | None, bell: CancelToken) -> bool:
        """Wait for who was there when the drain began; False: they are all here, or time is up."""
        left = drain.cut_at - time.monotonic()
        if left <= 0 or self._token.cancelled:
            return False
        timeout = left if timeout is None else min(timeout, left)
        try:
            if room := self._ledger.room:
                self._take(await self._accept(room, timeout, bell))
            else:
                await self._tend(timeout, bell)
        except (Cancelled, DeadlineExceeded):
            pass
        except (HardsockError, MemoryError):
            return False  # Closed: nobody is left.
        return True

    def _sum_up(self, drain: Drain, outside: LeftOutside) -> DrainReport:
        report = drain.report(
            time.monotonic(),
            reason=self._draining.reason,
            unaccepted=outside.unaccepted,
            handshakes=outside.handshakes,
            look=self._tasks.look,
        )
        self._seldom.flush()
        logger.log(logging.INFO if report.clean else logging.WARNING, "%s", report)
        return report
