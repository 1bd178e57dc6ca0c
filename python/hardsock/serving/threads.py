"""Threads of a server, in whatever interpreter.

They are daemons: a handler that will not leave cannot keep the process from ending. Subinterpreters
with a lock of their own forbid daemons: there they are ordinary threads, which the interpreter's end
waits for, so the server is told to stop first. Some subinterpreters forbid threads altogether.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from hardsock._greenlets import threads_are_greenlets

__all__ = ["daemons_are_allowed", "new_thread", "start_thread", "tell_before_joining"]


def daemons_are_allowed() -> bool:
    """Whether this interpreter lets daemon threads be made."""
    allowed: Callable[[], bool] | None = getattr(threading, "_daemon_threads_allowed", None)
    return allowed is None or allowed()


def new_thread(target: Callable[..., object], name: str, *args: Any) -> threading.Thread:
    """Make a thread, a daemon where that may be."""
    return threading.Thread(target=target, args=args, name=name, daemon=daemons_are_allowed())


def start_thread(thread: threading.Thread) -> None:
    """Start it.

    Raises:
        RuntimeError: There can be no more threads, this interpreter forbids them, or what would
            start is none.
    """
    if threads_are_greenlets():  # The first one that waits would not let this one go on.
        raise RuntimeError(
            "serve() runs handlers in threads, which gevent has made greenlets here: "
            "patch_all(thread=False), or use hardsock.aio.serve() in a process without the patch"
        )
    try:
        thread.start()
    except RuntimeError as exc:
        if "isolated" not in str(exc):
            raise
        raise RuntimeError(
            "serve() runs handlers in threads, which this isolated subinterpreter forbids: "
            "allow them when it is created, or use hardsock.aio.serve()"
        ) from exc


def tell_before_joining(stop: Callable[[], object]) -> None:
    """Call a bound method, if its object still lives, before an interpreter joins its threads."""
    register: Callable[..., object] | None = getattr(threading, "_register_atexit", None)
    if daemons_are_allowed() or register is None:
        return
    reference = weakref.WeakMethod(stop)

    def tell() -> None:
        if (living := reference()) is not None:
            living()

    register(tell)
