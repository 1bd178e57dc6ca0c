"""How many connections may be in the making at a time, and how many may begin in a second."""

from __future__ import annotations

from types import TracebackType

from hardsock import _core
from hardsock._core import CancelToken
from hardsock._names import names_checked
from hardsock._typing import NamedTuple

__all__ = ["DialLimits", "DialPlace", "DialStats"]


class DialStats(NamedTuple):
    """Counters of a ``DialLimits``.

    Attributes:
        in_flight: Places that are taken now.
        waiting: Callers that wait for one.
        begun: Places given so far.
        given_up: Callers whose time was up, or that were cancelled, before they had a place.
        waited: Seconds that those who got a place have waited, added up.
    """

    in_flight: int
    waiting: int
    begun: int
    given_up: int
    waited: float


class DialPlace:
    """A place of a ``DialLimits`` for a ``with`` or ``async with`` block; see ``DialLimits.place``."""

    def __init__(
        self, limits: DialLimits, timeout: float | None, token: CancelToken | None
    ) -> None:
        self._queue, self._timeout, self._token = limits._queue, timeout, token
        self._hold: _core.DialHold | None = None

    def __enter__(self) -> None:
        self._hold = self._queue.take(timeout=self._timeout, token=self._token)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.leave()

    async def __aenter__(self) -> None:
        from hardsock.aio._host import current_hub

        self._hold = await self._queue._op_take(
            current_hub(), timeout=self._timeout, token=self._token
        )

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)


@names_checked
class DialLimits:
    """Limits for connections in the making, shared by all calls of ``connect`` that are given it.

    ``connect(..., limits=)`` waits for a place first: within its deadline, until its token or scope
    is cancelled, in the order of arrival, threads and tasks in one queue. It holds the place until
    it is connected, TLS included, or has failed. ``aio.connect``, ``Pool`` and the adapters take
    the same object. For any other way to connect: ``with limits.place(): ...``.

    A server that comes back after an outage is not run over by all who were waiting for it, and a
    host does not use up its ports, descriptors and resolver threads in one moment. A pool has
    limits of its own besides, ``PoolOptions.max_dials`` and ``dials_per_second``. In a forked
    child it begins anew: what was in flight is the parent's.

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
            if not 1 <= in_flight < 1 << 31:
                raise ValueError(f"in_flight must be at least 1, got {in_flight}")
        if per_second is not None:
            if isinstance(per_second, bool) or not isinstance(per_second, (int, float)):
                raise TypeError(f"per_second must be a number, not {type(per_second).__name__}")
            if not 1e-6 <= per_second <= 1e6:
                raise ValueError(f"per_second must be 1e-6 to 1e6, got {per_second}")
        self._in_flight, self._per_second = in_flight, per_second
        self._queue = _core.DialQueue(in_flight or 0, 1.0 / per_second if per_second else 0)

    def place(self, *, timeout: float | None = None, token: CancelToken | None = None) -> DialPlace:
        """Make a context manager, awaited or not, whose block has a place.

        It waits *timeout* seconds at most, until *token* or the ambient scope ends. Raises
        DeadlineExceeded or Cancelled, with ``phase == "limits"``.
        """
        return DialPlace(self, timeout, token)

    def stats(self) -> DialStats:
        """Counters of this moment."""
        return DialStats(*self._queue.stats())

    def __repr__(self) -> str:
        return f"DialLimits(in_flight={self._in_flight}, per_second={self._per_second})"


def dial_queue(limits: DialLimits | None) -> _core.DialQueue | None:
    """What the core takes for ``limits=``."""
    if limits is None:
        return None
    if not isinstance(limits, DialLimits):
        raise TypeError(f"limits must be a DialLimits or None, not {type(limits).__name__}")
    return limits._queue
