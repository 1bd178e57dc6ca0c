"""The threaded server: one thread accepts and later drains, a bounded number run handlers.

The thread that accepts is also the one that drains, so that no connection can slip in between: what
it has accepted is in the ledger before it looks. Others only ask it: they cancel the token
``draining``, which is the closing flag as well.

What does not wait is in ``hardsock.serving.core``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from hardsock._core import CancelToken, Connection, Listener, Slots
from hardsock._errors import Cancelled, Closed, DeadlineExceeded, HardsockError
from hardsock._scope import current
from hardsock.serving.ambient import context_for_handlers, enter
from hardsock.serving.closing import LeftOutside, close_listener
from hardsock.serving.core import FAILED_ACCEPT_PAUSE
from hardsock.serving.departing import tend_departures
from hardsock.serving.disposition import Disposition, End, decide_lingering
from hardsock.serving.drain import NO_MEMORY_PAUSE, Drain
from hardsock.serving.ledger import Outcome, Served
from hardsock.serving.lingering import LingeringConnections, News
from hardsock.serving.options import MAX_BATCH, ServeOptions
from hardsock.serving.overdue import bound_handler, note_overrun
from hardsock.serving.records import DrainReport
from hardsock.serving.threads import new_thread, start_thread, tell_before_joining
from hardsock.serving.workers import Crew, Workers, look_at

__all__ = ["Handler", "Server"]

Handler = Callable[[Connection], object]
"""Called with each connection, in a thread; the server ends the connection when it returns."""

logger = logging.getLogger("hardsock.serve")

_FAILED_WAIT_PAUSE = 0.1


class Server(LingeringConnections):
    """A running server; ``hardsock.serve`` makes it. All methods may be called from any thread.

    As a context manager it drains at the end of the block, with the ``drain_timeout`` it was given.
    """

    def __init__(
        self,
        handler: Handler,
        listener: Listener,
        options: ServeOptions,
        token: CancelToken | None = None,
    ) -> None:
        super().__init__(options, token)
        self._handler = handler
        self._listener = listener
        listener._serves()
        self._address = listener.address
        self._context = context_for_handlers(self._draining)
        self._pid = os.getpid()
        self._begin_parking()
        self._no_work_left = CancelToken(name=f"{options.name} workers")
        self._lingerer: Crew | None = None  # guarded by lock
        self._begin_workers()
        self._thread = new_thread(self._main, options.name)
        self._watcher = new_thread(
            tend_departures, f"{options.name}-departures", self._departures, self._nobody_left
        )
        tell_before_joining(self._interpreter_ends)
        try:
            start_thread(self._watcher)
            start_thread(self._thread)
        except RuntimeError:
            self._nobody_left.cancel()
            self._end_workers(time.monotonic())
            raise

    def _begin_workers(self) -> None:
        options = self._options
        # A thread for each connection, of which as many run as there are workers.
        self._slots = Slots(options.workers) if options.workers < options.limit else None
        self._workers: Workers | Crew = Workers(
            self._serve, options.limit, options.name, self._seldom
        )

    def _count_workers(self) -> int:
        return self._workers.count

    # ---- ending ------------------------------------------------------------------------------

    def drain(self, timeout: float | None = None, *, grace: float | None = None) -> DrainReport:
        """Stop accepting, let the connections end, and cut what has not ended in time.

        Connections that wait for a message of which nothing has arrived are closed after
        ``drain_idle``, busy ones after their answer; handlers are told by ``draining``. When only *grace*
        is left, tokens are cancelled; near its end connections are reset. It never takes longer:
        a handler that will not leave is named in the report, with its stack.

        Calling it again, from wherever, waits for the same drain and can only shorten it.

        Args:
            timeout: Seconds for everything together; the default is ``drain_timeout``.
            grace: The part of it for handlers whose calls were cancelled; by default a quarter, at
                most a second.

        Raises:
            RuntimeError: If a handler of this server calls it: it would wait for itself. See
                ``stop``.
        """
        self._ask_to_drain(timeout, grace)
        self._ended.wait()
        self._thread.join(1.0)
        assert self._report is not None
        return self._report

    def _interpreter_ends(self) -> None:
        self._draining.cancel("the interpreter ends")

    def wait(self, timeout: float | None = None, *, token: CancelToken | None = None) -> bool:
        """Block until the server has ended: True; False after *timeout* seconds.

        In the main thread SIGTERM drains meanwhile, as ``stop`` does, and a second one cuts all
        that is left, unless a handler for it was installed.

        Raises:
            Cancelled, DeadlineExceeded: *token* or the ambient scope ended first.
            RuntimeError: If a handler of this server calls it: it would wait for itself.
        """
        self._refuse_to_wait("wait()")
        with self._obeying_sigterm():
            watched = [t for t in (token, current()) if t is not None]
            if not watched:
                return self._ended.wait(timeout)
            if CancelToken.linked([self._ended, *watched]).wait(timeout) and not self.closed:
                for each in watched:
                    each.check()
            return self.closed

    def _refuse_to_wait(self, what: str) -> None:
        if self._workers.includes(threading.current_thread()):
            raise RuntimeError(
                f"{what} was called by a handler of this server, and would wait for that handler; "
                "call stop(), or drain from another thread"
            )
        if os.getpid() != self._pid:
            raise RuntimeError(f"{what}: the server runs in the parent of this forked process")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_details: object) -> None:
        if os.getpid() == self._pid:
            self.drain()

    # ---- accepting ---------------------------------------------------------------------------

    def _main(self) -> None:
        # 1. Serve, until somebody asks for the drain. Whatever else ends that drains, too.
        try:
            self._accept_until_told()
        except BaseException:
            logger.critical("accepting failed for good", exc_info=True)
        self._draining.cancel("the server has ended")  # unless that is why
        try:
            # 2. Step by step, in this thread: nobody can be accepted unseen in between.
            drain = self._begin_drain()
            outside = self._run_drain(drain)
            # 3. Threads that leave in time are waited for; the report names the others.
            self._end_workers(drain.end)
            self._nobody_left.cancel()
            self._watcher.join(max(0.0, drain.end - time.monotonic()))
            self._report = self._sum_up(drain, outside, look_at)
        finally:
            # 4. Those who wait for the end are told last, when all of it is true.
            self._listener.close()
            self._nobody_left.cancel()
            self._service.ended()
            self._ended.cancel("the server has ended")

    def _accept_until_told(self) -> None:
        while True:
            try:
                if not (room := self._wait_for_room()):
                    return
                self._take(
                    self._listener.accept_many(
                        min(room, MAX_BATCH), timeout=self._look_again(), token=self._draining
                    )
                )
                self._accepting = True
            except Closed:
                return
            except (Cancelled, DeadlineExceeded):
                self._accepting = True  # The drain begins, or a look is due.
            except (HardsockError, MemoryError) as exc:
                self._accepting = False
                self._service.accepts(False)
                self._pause_accepting(exc)
                self._accepting = True  # as far as is known
                self._service.accepts(True)

    def _pause_accepting(self, exc: Exception) -> None:
        try:
            self._tell_failed_accept(exc)
            self._draining.wait(FAILED_ACCEPT_PAUSE)
        except MemoryError:  # There is none even for that.
            time.sleep(NO_MEMORY_PAUSE)

    def _wait_for_room(self) -> int:
        """How many may be accepted now; 0 when the server drains.

        While it waits nothing is accepted: the kernel's queue holds who comes.
        """
        while not self._draining.cancelled:
            self._look()
            now = time.monotonic()
            with self._lock:
                if room := self._ledger.room:
                    self._ledger.not_full(now)
                    self._wakeup = None
                else:
                    self._ledger.full(now)
                    wakeup = self._wakeup = self._draining.child(name="room")
            if room:
                return room
            wait = self._look_again(full=True)
            try:
                self._listener._tend(timeout=wait, token=wakeup)
            except (Cancelled, DeadlineExceeded):
                pass
            except HardsockError:
                wakeup.wait(wait)  # It was closed, which the next accept tells.
        return 0

    def _where(self, runner: object) -> tuple[str | None, str | None]:
        return look_at(runner)

    def _look(self) -> None:
        """Now and then, in the thread that accepts."""

    def _look_again(self, *, full: bool = False) -> float | None:
        """Seconds until the next look; *full*: nothing can be accepted."""
        return None

    def _begin(self, served: Served) -> None:
        """Have it served; in the thread that accepts."""
        assert isinstance(self._workers, Workers)
        self._watch(served)
        if self._slots is not None:
            served.conn._join_slots(self._slots)
        self._workers.give(served)

    def _end_workers(self, until: float) -> None:
        """Let them end, and wait for those that do by then."""
        assert isinstance(self._workers, Workers)
        self._workers.close(until)
        self._end_news()
        with self._lock:
            lingerer = self._lingerer
        if lingerer is not None:
            lingerer.join(until)

    # ---- serving, in the workers -------------------------------------------------------------

    def _serve(self, served: Served) -> bool:
        """Serve one connection; False in a forked child, where the server is not."""
        if self._slots is not None:
            assert served.token is not None
            self._slots.take(served.token)
        try:
            disposition = self._handle(served)
        finally:
            self._leave(served)
            if self._slots is not None:
                served.conn._leave_slots()  # While it lingers it has none to give.
                self._slots.give()
        if disposition is None:
            return False
        self._end(served, disposition)
        return True

    def _handle(self, served: Served) -> Disposition | None:
        """Run the handler; None in a forked child."""
        with self._lock:
            go = self._ledger.start(served, threading.current_thread(), time.monotonic())
        if not go:
            return Disposition(served.ended_by or Outcome.CANCELLED, End.ABORT)
        failed = self._call(served)
        if os.getpid() != self._pid:
            return None
        return failed or self._judge(served, None)

    def _call(self, served: Served) -> Disposition | None:
        """Call the handler; None: it returned. In a forked child what it raises goes on.

        It is judged where it is caught: its traceback leads to the frames that wait for this one,
        and with it in a local variable of these they and the connection would stay until the
        garbage is collected.
        """
        scope = None
        try:
            scope = bound_handler(served, self._options)
            enter(self._context, scope).run(self._handler, served.conn)
        except BaseException as exc:
            if os.getpid() != self._pid:
                raise
            note_overrun(served, scope, self._options)
            return self._judge(served, exc)
        note_overrun(served, scope, self._options)
        return None

    def _end(self, served: Served, disposition: Disposition) -> None:
        if disposition.end is not End.FINISH or self._begin_lingering():
            self._finish(served, disposition)
            return
        disposition, ending = self._linger(served, disposition)
        self._end_now(served, disposition, ending)

    def _begin_lingering(self) -> bool:
        """Whether there is a thread for all that linger; it is started when the first one does."""
        try:
            with self._lock:
                if self._lingerer is None:
                    name = f"{self._options.name}-lingering"
                    self._lingerer = Crew(1, name, self._seldom, self._work)
        except (RuntimeError, MemoryError):
            return False
        return True

    def _linger(self, served: Served, disposition: Disposition) -> tuple[Disposition, str]:
        """In this thread: there is no other."""
        try:
            report = served.conn.finish(timeout=self._options.linger, token=self._token)
        except HardsockError as exc:
            return decide_lingering(served, disposition, exc)
        return disposition, report.ending

    # ---- news of what is parked, in threads of their own -------------------------------------

    def _work(self) -> None:
        me = threading.current_thread()
        news: News | None = None
        while True:
            waits = news is None
            try:
                news = self._parking.next() if news is None else self._turn(me, *news)
                if news is None:
                    return
            except BaseException as exc:  # Ours, or no memory: handlers' are judged.
                news = None
                self._go_on(exc)
                if waits:  # It may fail again at once.
                    self._pause()

    def _pause(self) -> None:
        """Until it is worth another try, or the server ends."""
        try:
            self._no_work_left.wait(_FAILED_WAIT_PAUSE)
        except (HardsockError, MemoryError):  # There is no memory for that wait either.
            time.sleep(_FAILED_WAIT_PAUSE)

    def _go_on(self, exc: BaseException) -> None:
        """Tell of it, if there is memory for that; in a forked child it is raised."""
        try:
            if os.getpid() == self._pid:
                self._seldom.log(
                    "worker", logging.CRITICAL, "a worker failed, and goes on", exc_info=exc
                )
                return
        except MemoryError:
            return
        raise exc

    def _turn(
        self, me: threading.Thread, served: Served, news: int, ending: str | None, alone: bool
    ) -> News | None:
        """Do what there is to do, and wait for the next."""
        self._over(served, news, ending)
        del served  # Nothing is kept alive while the thread waits.
        return self._parking.next()

    def _end_news(self) -> None:
        self._no_work_left.cancel()
        self._parking.close()

    # ---- draining ----------------------------------------------------------------------------

    def _run_drain(self, drain: Drain) -> LeftOutside:
        """Closing the listener resets who is queued: those for whom room comes free are served."""
        self._listener._last_call()
        while True:
            try:
                if self._step_of_drain(drain):
                    break
            except MemoryError:  # Time goes on, and perhaps there is some soon.
                drain.forget_what_was_said()
                time.sleep(NO_MEMORY_PAUSE)
        return self._outside or LeftOutside()

    def _step_of_drain(self, drain: Drain) -> bool:
        """Do what is due, and wait for the next; whether the drain is over."""
        # 1. Places for those who still wait in the kernel's queue.
        self._make_room_in_drain(drain)
        self._look_in_drain(drain)
        # 2. What is due, by the rules. The wakeup is new before the look: no end is missed.
        with self._lock:
            wakeup = self._wakeup = CancelToken(name="drain")
            if self._limit is not None:
                drain.tighten(self._limit)
            actions = drain.step(time.monotonic())
            room = self._ledger.room
        # 3. Outside of the lock; it may call handlers' callbacks, and none of it waits.
        actions.perform()
        # 4. The queue is emptied first; then the listener closes, and who is left outside is known.
        if self._outside is None:
            if not self._accept_rest(drain, room, actions.wait, wakeup):
                self._outside = close_listener(self._listener)
            return False  # What was accepted is due for a look.
        # 5. Over, or until a connection ends or the next thing is due.
        if actions.wait is None:
            return True
        wakeup.wait(actions.wait)
        return False

    def _look_in_drain(self, drain: Drain) -> None:
        """Before each step of it."""

    def _accept_rest(
        self, drain: Drain, room: int, wait: float | None, wakeup: CancelToken
    ) -> bool:
        """Wait for who was there when the drain began; False: they are all here, or time is up."""
        left = drain.cut_at - time.monotonic()
        if left <= 0 or self._token.cancelled:
            return False
        wait = left if wait is None else min(wait, left)
        try:
            if room:
                self._take(
                    self._listener.accept_many(min(room, MAX_BATCH), timeout=wait, token=wakeup)
                )
            else:
                self._listener._tend(timeout=wait, token=wakeup)
        except (Cancelled, DeadlineExceeded):
            pass
        except (HardsockError, MemoryError):
            return False  # Closed: nobody is left.
        return True
