"""A bounded number of threads, started late, used again; and those that serve from a queue.

The queue is bounded by the server, which accepts nothing while it is full.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from _queue import SimpleQueue  # gevent puts one for greenlets into queue
from collections.abc import Callable

from hardsock.serving.ledger import Served
from hardsock.serving.seldom import Seldom
from hardsock.serving.threads import new_thread, start_thread

__all__ = ["Crew", "Workers"]

_Run = Callable[[Served], bool]


class Crew:
    """Threads up to a limit, which are not ended before all are; one is there from the start.

    Args:
        seldom: The server's log.
        main: What each runs, until it is told to return.
    """

    def __init__(
        self, limit: int, name: str, seldom: Seldom, main: Callable[..., object], *args: object
    ) -> None:
        self.limit = limit
        self._name = name
        self._seldom = seldom
        self._main: Callable[..., object] | None = main
        self._args = args
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        self._start(self._new())

    @property
    def count(self) -> int:
        """How many threads there are."""
        return len(self._threads)

    def grow(self) -> bool:
        """Start another one, if that may and can be."""
        try:
            with self._lock:
                if len(self._threads) >= self.limit or self._main is None:
                    return False
                thread = self._new()
            self._start(thread)
        except (RuntimeError, MemoryError) as exc:  # No more threads: the others go on.
            self._warn(exc)
            return False
        return True

    def _warn(self, exc: Exception) -> None:
        self._seldom.log(
            "workers",
            logging.WARNING,
            "%d of %d workers: %s",
            self.count,
            self.limit,
            str(exc) or type(exc).__name__,
        )

    def _new(self) -> threading.Thread:
        assert self._main is not None
        thread = new_thread(self._run, f"{self._name}-{len(self._threads)}", self._main, self._args)
        self._threads.append(thread)
        return thread

    def _run(self, main: Callable[..., object], args: tuple[object, ...]) -> None:
        try:
            main(*args)
        except BaseException:  # It is none any more: another one may take its place.
            self._threads.remove(threading.current_thread())
            raise

    def _start(self, thread: threading.Thread) -> None:
        try:
            start_thread(thread)
        except (RuntimeError, MemoryError):
            with self._lock:
                self._threads.remove(thread)
            raise

    def includes(self, thread: threading.Thread) -> bool:
        """Whether it is one of these."""
        return thread in self._threads

    def join(self, until: float) -> None:
        """Wait for those that end by then."""
        for thread in tuple(self._threads):
            if thread.ident is not None:  # Else it is about to be started, or could not be.
                thread.join(max(0.0, until - time.monotonic()))
        self._main = None  # The way back to the server, which would be a cycle.
        self._args = ()


class Workers:
    """Threads that call *run*; one is there from the start, so that nothing given can be stuck.

    Args:
        run: Serves one connection, never raises, and returns whether the thread may go on.
        seldom: The server's log.
    """

    def __init__(self, run: _Run, limit: int, name: str, seldom: Seldom) -> None:
        self._queue: SimpleQueue[Served | None] = SimpleQueue()
        self._lock = threading.RLock()
        self._free = 1  # threads that wait, or are about to
        self._given = 0  # connections that no thread has taken yet
        self._crew = Crew(limit, name, seldom, self._main, run)

    @property
    def count(self) -> int:
        """How many threads there are."""
        return self._crew.count

    def give(self, served: Served) -> None:
        """Have a connection served, as soon as a thread is free."""
        with self._lock:
            self._queue.put(served)  # First: without memory for it nothing has changed.
            self._given += 1
            more = self._given > self._free and self._crew.count < self._crew.limit
            self._free += more
        if more and not self._crew.grow():
            with self._lock:
                self._free -= 1

    def _main(self, run: _Run) -> None:
        while True:
            served = self._queue.get()
            if served is None:
                return
            with self._lock:
                self._free -= 1
                self._given -= 1
            if not run(served):
                return
            del served  # Nothing is kept alive while the thread waits.
            with self._lock:
                self._free += 1

    def includes(self, thread: threading.Thread) -> bool:
        """Whether it is one of these."""
        return self._crew.includes(thread)

    def close(self, until: float) -> None:
        """Let the threads end once they are free, and join those that do by then."""
        for _ in range(self._crew.count):
            self._queue.put(None)
        self._crew.join(until)


def look_at(runner: object) -> tuple[str | None, str | None]:
    """Return the name of a thread, and where it is now."""
    assert isinstance(runner, threading.Thread)
    frame = None if runner.ident is None else sys._current_frames().get(runner.ident)
    return runner.name, None if frame is None else "".join(traceback.format_stack(frame))
