"""SIGTERM, by which systemd, Docker and Kubernetes ask a server to end: the first one drains."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["sigterm_drains"]


@contextmanager
def sigterm_drains(stop: Callable[[str], object], cut: Callable[[str], object]) -> Iterator[None]:
    """In the block the first SIGTERM calls *stop*, any further one *cut*, with the reason.

    Only in the main thread, where handlers can be set, and only if SIGTERM would have ended the
    process: a handler that somebody has installed stays.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    came = False

    def handle(_number: int, _frame: object) -> None:
        nonlocal came
        if came:
            cut("SIGTERM came a second time")
        came = True
        stop("SIGTERM")

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
