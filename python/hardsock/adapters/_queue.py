"""A queue whose waits end with the ambient scope: for the pools of libraries."""

from __future__ import annotations

import queue
import time
from typing import Any

from hardsock._core import CancelToken
from hardsock._core import scope as _ambient
from hardsock._errors import HardsockError

__all__ = ["ScopedQueue"]


class ScopedQueue(queue.LifoQueue):  # type: ignore[type-arg]
    """``queue.LifoQueue`` whose ``get`` raises ``queue.Empty`` when the ambient scope ends.

    Its cause is ``DeadlineExceeded`` or ``Cancelled``. Not ``Cancelled`` itself: a library keeps
    its count of connections by knowing that it got none, and knows that by this class alone.
    """

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the newest item, or wait for one, at most until the scope ends."""
        token = _ambient.get()
        if token is None or not block:
            return super().get(block, timeout)
        try:
            return super().get(block=False)
        except queue.Empty:
            return self._wait(token, timeout)

    def _wake(self) -> None:
        with self.mutex:
            self.not_empty.notify_all()

    def _wait(self, token: CancelToken, timeout: float | None) -> Any:
        until = None if timeout is None else time.monotonic() + timeout
        # Before the lock is taken: a token that has ended calls it at once.
        callback = token.on_cancel(self._wake)
        try:
            with self.not_empty:
                while not self._qsize():
                    if getattr(self, "is_shutdown", False) or token.wait(0):
                        break
                    left = None if until is None else until - time.monotonic()
                    if left is not None and left <= 0:
                        raise queue.Empty
                    self.not_empty.wait(left)
                else:
                    item = self._get()
                    self.not_full.notify()
                    return item
        finally:
            callback.remove()
        try:
            token.check()
        except HardsockError as exc:
            raise queue.Empty from exc
        return super().get(block=False)  # It was shut down.
