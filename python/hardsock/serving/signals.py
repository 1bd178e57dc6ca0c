"""Signals while a server is waited for: SIGTERM, by which systemd, Docker and Kubernetes ask it to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

__all__ = ["handling", "sigterm_drains"]


def sigterm_drains(
    stop: Callable[[str], object], cut: Callable[[str], object]
) -> AbstractContextManager[None]:
    """In the block the first SIGTERM calls *stop*, any further one *cut*, with the reason."""
    return handling(
        {
            signal.SIGTERM: [
                lambda: stop("SIGTERM"),
                lambda: cut("SIGTERM came a second time"),
            ]
        }
    )


@contextmanager
def handling(actions: Mapping[signal.Signals, Sequence[Callable[[], object]]]) -> Iterator[None]:
    """In the block each signal calls the first of its actions, then the next; the last stays.

    Only in the main thread, where handlers can be set, and only for signals that would have ended
    the process: a handler that somebody has installed stays.
    """
    installed: list[tuple[signal.Signals, Callable[..., object]]] = []
    if threading.current_thread() is threading.main_thread():
        for number, steps in actions.items():
            if signal.getsignal(number) is signal.SIG_DFL:
                handler = _step_by_step(list(steps))
                signal.signal(number, handler)
                installed.append((number, handler))
    try:
        yield
    finally:
        for number, handler in installed:
            if signal.getsignal(number) is handler:
                signal.signal(number, signal.SIG_DFL)


def _step_by_step(steps: list[Callable[[], object]]) -> Callable[..., object]:
    def handle(_number: int, _frame: object) -> None:
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        step()

    return handle
