"""How many connections may be in the making at a time, and how many may begin in a second."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Generator
from types import TracebackType
from typing import NamedTuple

from hardsock._core import CancelToken
from hardsock._defaults import last_resort, limit_of
from hardsock._errors import DeadlineExceeded, HardsockError
from hardsock._scope import current

__all__ = ["DialLimits", "DialPlace", "DialStats"]

_Steps = Generator[tuple[CancelToken, float | None], None, None]
"""Each step is a wait: for a token to end, so many seconds at most."""


class DialStats(NamedTuple):
    """Counters of a ``DialLimits``."""

    in_flight: int
    """Places that are taken now."""
    waiting: int
    """Callers that wait for one."""
    begun: int
    """Places given so far."""
    given_up: int
    """Callers whose time was up, or that were cancelled, before they had a place."""
    waited: float
    """Seconds that those who got a place have waited, added up."""


class _Waiter:
    __slots__ = ("is_next", "turn")

    def __init__(self) -> None:
        self.turn = CancelToken(name="a place to dial")
        """Cancelled when it is at the head and a place is free: only the rate may hold it then."""
        self.is_next = False


class DialPlace:
    """A place of a ``DialLimits`` for a ``with`` or ``async with`` block; see ``DialLimits.place``."""

    def __init__(
        self, limits: DialLimits, timeout: float | None, token: CancelToken | None
    ) -> None:
        self._limits, self._timeout, self._token = limits, timeout, token

    def _steps(self) -> _Steps:
        return self._limits._take(self._timeout, self._token)

    def __enter__(self) -> None:
        steps = self._steps()
        try:
            for token, seconds in steps:
                token.wait(seconds)
        finally:
            steps.close()  # What a signal's handler raised came into the wait: the queue must know.

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._limits._give()

    async def __aenter__(self) -> None:
        from hardsock.aio._wait import wait

        steps = self._steps()
        try:
            for token, seconds in steps:
                await wait(token, seconds)
        finally:
            steps.close()  # The same for the event loop's cancel.

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._limits._give()


class DialLimits:
    """Limits for connections in the making, shared by all calls of ``connect`` that are given it.

    ``connect(..., limits=)`` waits for a place first: within its deadline, until its token or scope
    is cancelled, in the order of arrival, threads and tasks in one queue. It holds the place until
    it is connected, TLS included, or has failed. For any other way to connect:
    ``with limits.place(): ...``.

    A server that comes back after an outage is not run over by all who were waiting for it, and a
    host does not use up its ports, descriptors and resolver threads in one moment. Pools have
    limits of their own, ``PoolOptions.max_dials`` and ``dials_per_second``.

    Args:
        in_flight: Connections in the making at the same time; ``None``: any number.
        per_second: How many may begin in a second: evenly, not at once; ``None``: any number.

    Raises:
        ValueError: Neither is given, or one is out of range.
    """

    def __init__(self, *, in_flight: int | None = None, per_second: float | None = None) -> None:
        if in_flight is None and per_second is None:
            raise ValueError("one of in_flight and per_second must be given")
        if in_flight is not None:
            if isinstance(in_flight, bool) or not isinstance(in_flight, int):
                raise TypeError(f"in_flight must be an int, not {type(in_flight).__name__}")
            if in_flight < 1:
                raise ValueError(f"in_flight must be at least 1, got {in_flight}")
        if per_second is not None:
            if isinstance(per_second, bool) or not isinstance(per_second, (int, float)):
                raise TypeError(f"per_second must be a number, not {type(per_second).__name__}")
            if not 0 < per_second <= 1e6:
                raise ValueError(f"per_second must be more than 0, 1e6 at most, got {per_second}")
        self._most = in_flight
        self._interval = 0.0 if per_second is None else 1.0 / per_second
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        """As new: in a forked child nobody waits, and a thread that is gone may hold the lock."""
        self._lock = threading.Lock()
        self._queue: deque[_Waiter] = deque()
        self._in_flight = self._begun = self._given_up = 0
        self._waited = 0.0
        self._next_at = 0.0
        """When the rate allows the next; a past time saves nothing up."""

    def place(self, *, timeout: float | None = None, token: CancelToken | None = None) -> DialPlace:
        """Make a context manager, awaited or not, whose block has a place.

        It waits *timeout* seconds at most, until *token* or the ambient scope ends. Raises
        DeadlineExceeded or Cancelled, with ``phase == "limits"``.
        """
        return DialPlace(self, timeout, token)

    def stats(self) -> DialStats:
        """Counters of this moment."""
        with self._lock:
            return DialStats(
                self._in_flight, len(self._queue), self._begun, self._given_up, self._waited
            )

    # ---- The queue. Invariants, under the lock: who has a place is counted in _in_flight; only the
    # head of the queue is ever next, and it is as soon as a place is free; nobody overtakes it.

    def _is_free(self) -> bool:
        return self._most is None or self._in_flight < self._most

    def _promote(self) -> None:
        if self._queue and not self._queue[0].is_next and self._is_free():
            self._queue[0].is_next = True
            self._queue[0].turn.cancel()

    def _begin(self, now: float, since: float) -> None:
        self._in_flight += 1
        self._begun += 1
        self._waited += now - since
        self._next_at = now + self._interval

    def _give(self) -> None:
        with self._lock:
            if self._in_flight > 0:  # of before a fork it may be
                self._in_flight -= 1
            self._promote()

    def _join(self, since: float) -> _Waiter | None:
        """Wait in the queue from now on; None: there was a place at once."""
        with self._lock:
            if not self._queue and self._is_free() and since >= self._next_at:
                self._begin(since, since)
                return None
            waiter = _Waiter()
            self._queue.append(waiter)
            self._promote()
            return waiter

    def _try(self, waiter: _Waiter, since: float) -> float | None:
        """Take the place if it is the waiter's: 0.0; else how long the rate, or nothing, holds it."""
        now = time.monotonic()
        with self._lock:
            if not waiter.is_next:
                return None
            if now < self._next_at:
                return self._next_at - now
            self._begin(now, since)
            self._queue.popleft()
            self._promote()
            return 0.0

    def _leave(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter in self._queue:  # A fork may have emptied it.
                self._queue.remove(waiter)
                self._given_up += 1
            self._promote()

    def _take(self, timeout: float | None, token: CancelToken | None) -> _Steps:
        since = time.monotonic()
        given = [one for one in (token, current()) if one is not None]
        limit = None if timeout is None else f"timeout={timeout:.3g}"
        if timeout is None and (timeout := last_resort(token)) is not None:
            limit = limit_of(timeout)
        self._check(given)
        if (waiter := self._join(since)) is None:
            return
        try:
            while (pause := self._try(waiter, since)) != 0.0:
                left = None if timeout is None else timeout - (time.monotonic() - since)
                if left is not None and left <= 0:
                    raise self._late(timeout, limit, since)
                yield self._until(given if pause else [waiter.turn, *given], pause, left)
                self._check(given)
        except BaseException:
            self._leave(waiter)
            raise

    @staticmethod
    def _until(
        tokens: list[CancelToken], pause: float | None, left: float | None
    ) -> tuple[CancelToken, float | None]:
        seconds = [one for one in (pause, left) if one is not None]
        token = tokens[0] if len(tokens) == 1 else CancelToken.linked(tokens or [CancelToken()])
        return token, min(seconds, default=None)

    @staticmethod
    def _check(given: list[CancelToken]) -> None:
        for one in given:
            try:
                one.check()
            except HardsockError as exc:
                exc.op, exc.phase = "connect", "limits"
                raise

    def _late(self, timeout: float | None, limit: str | None, since: float) -> DeadlineExceeded:
        stats = self.stats()
        exc = DeadlineExceeded(
            None,
            f"connect: no place came free in {timeout:.3g} s: {stats.in_flight} are in flight, "
            f"{stats.waiting - 1} others wait",
        )
        exc.op, exc.phase, exc.limit = "connect", "limits", limit
        exc.elapsed = time.monotonic() - since
        return exc

    def __repr__(self) -> str:
        rate = round(1 / self._interval, 6) if self._interval else None
        return f"DialLimits(in_flight={self._most}, per_second={rate})"


_all: weakref.WeakSet[DialLimits] = weakref.WeakSet()


def _after_fork() -> None:
    for limits in list(_all):
        limits._reset()


os.register_at_fork(after_in_child=_after_fork)
