"""A queue whose waits end with the ambient scope: for the pools of libraries."""

from __future__ import annotations

import queue
import time
from typing import Any, TypeVar

from hardsock._core import CancelToken
from hardsock._errors import Cancelled, HardsockError
from hardsock._scope import current

__all__ = ["ScopedQueue", "caused_by", "raise_if_cancelled"]

_Error = TypeVar("_Error", bound=BaseException)


class ScopedQueue(queue.LifoQueue):  # type: ignore[type-arg]
    """``queue.LifoQueue`` whose ``get`` raises ``queue.Empty`` when the ambient scope ends.

    Its cause is ``DeadlineExceeded`` or ``Cancelled``. Not ``Cancelled`` itself: a library keeps
    its count of connections by knowing that it got none, and knows that by this class alone.
    """

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the newest item, or wait for one, at most until the scope ends."""
        token = current()
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


def caused_by(exc: BaseException | None, kind: type[_Error]) -> _Error | None:
    """*exc*, or the first of what has led to it, that is a *kind*."""
    while exc is not None:
        if isinstance(exc, kind):
            return exc
        exc = exc.__cause__ or exc.__context__
    return None


def raise_if_cancelled(exc: BaseException | None) -> None:
    """Raise the ``Cancelled`` that has led to *exc*, if one has."""
    cancelled = caused_by(exc, Cancelled)
    if cancelled is not None:
        raise cancelled
