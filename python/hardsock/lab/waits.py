"""Bounded waits of the lab: a deadline, and polling for what gives no event."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

_POLL_INTERVAL = 0.002


class Deadline:
    """A point in time; *seconds* from now."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self._end - time.monotonic())

    def passed(self) -> bool:
        """Whether nothing is left."""
        return self.left() == 0.0


def poll_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Ask *condition* again and again until it holds; return whether it did within *timeout* seconds.

    For facts that the kernel announces to nobody, such as the state of another thread.

    Raises:
        BaseException: What *condition* raises, and nothing else.
    """
    deadline = Deadline(timeout)
    while not condition():
        if deadline.passed():
            return False
        time.sleep(_POLL_INTERVAL)
    return True


def readable(fd: int, timeout: float) -> bool:
    """Whether *fd* becomes readable (or ends) within *timeout* seconds."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(timeout * 1000))
