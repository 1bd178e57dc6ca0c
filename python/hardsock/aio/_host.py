"""Which event loop runs here, and its Hub: the one descriptor that it watches for all of us.

asyncio (on any loop with ``add_reader``, so uvloop too) and trio. sniffio tells which, where trio is
loaded at all; it also knows of trio running as a guest inside an asyncio loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import weakref
from collections.abc import Callable
from typing import Any

from hardsock import _core
from hardsock._core import Hub

__all__ = [
    "current_hub",
    "current_task",
    "forget",
    "hub_for",
    "hub_of",
    "loop_ended",
    "running_loop",
    "scope_told",
    "tell_scopes",
    "trio_runs",
]

_hubs: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[Hub]] = (
    weakref.WeakKeyDictionary()
)


_sniffed: Any = None  # sniffio's two marks, once trio is loaded

# Until 3.11 asyncio's own asks the kernel for the process each time.
running_loop = _core._running_loop if sys.version_info < (3, 12) else asyncio._get_running_loop


def current_hub() -> Hub:
    """Return the Hub of the running event loop, made on first use.

    Raises:
        RuntimeError: No event loop runs in this thread.
    """
    if "trio" in sys.modules and trio_runs():
        from hardsock.aio import _trio

        return _trio.current_hub()
    return hub_for(asyncio.get_running_loop())


def hub_for(loop: asyncio.AbstractEventLoop) -> Hub:
    """The Hub of a loop of asyncio that runs here, made on first use."""
    known = _hubs.get(loop)
    hub = known() if known is not None else None
    return _open(loop) if hub is None else hub


def hub_of(loop: asyncio.AbstractEventLoop) -> Hub | None:
    """The Hub of a loop of asyncio, if one was ever needed."""
    known = _hubs.get(loop)
    return known() if known is not None else None


def current_task() -> Any:
    """The running task, of asyncio or trio, or None."""
    if "trio" in sys.modules and trio_runs():
        import trio

        return trio.lowlevel.current_task()
    return asyncio.current_task()


# Set by hardsock.aio._host_scope, once there is a scope in a task.
scope_told: list[Callable[[], None]] = []


def tell_scopes() -> None:
    """A call of the running task was ended by a deadline or a cancel: its scopes may care."""
    for tell in scope_told:
        tell()


def trio_runs() -> bool:
    """Whether trio runs the code that asks, where it is loaded."""
    # What sniffio.current_async_library() looks at first. Where neither says "trio" its answer is
    # another library or, for instance in a callback of asyncio, an error: each costs more than all
    # the rest of a call, in every program that has trio loaded, as httpx does.
    global _sniffed
    if _sniffed is None:
        import sniffio

        _sniffed = (sniffio.thread_local, sniffio.current_async_library_cvar)
    here, told = _sniffed
    return bool((here.name or told.get()) == "trio")


def forget(fd: int, hub: Hub) -> None:
    """Stop watching a descriptor that was given away, in *hub* and in the loop that runs here."""
    hub.forget(fd)
    try:
        here = current_hub()
    except RuntimeError:
        return
    if here is not hub:
        here.forget(fd)


# Set by hardsock.aio._transport: told of the Hub of an asyncio loop that is closed.
loop_ended: list[Callable[[Hub], None]] = []

# What the loops watch with, weakly: its end is the end of its loop.
_hubs_of_loops: dict[weakref.ref[Any], weakref.ref[Hub]] = {}


def _loop_has_ended(ended: weakref.ref[Any]) -> None:
    hub = _hubs_of_loops.pop(ended)()
    if hub is not None:
        with contextlib.ExitStack() as each:  # One that fails keeps none of the others from it.
            each.callback(hub.close)
            for told in reversed(loop_ended):
                each.callback(told, hub)


# The kernel does not say what is ready, for now. Its descriptor stays readable meanwhile, so that a
# loop that goes on watching it does nothing else.
UNHEARD_PAUSE = 0.05


def _watch(loop: asyncio.AbstractEventLoop, hub: Hub, run: Callable[[], object]) -> None:
    if not hub.closed:
        loop.add_reader(hub.fileno(), run)
        selector = getattr(loop, "unsent", None)
        if selector is not None:  # Our own loop waits in the hub's set itself.
            selector.wait_in(hub)


def _open(loop: asyncio.AbstractEventLoop) -> Hub:
    itself = weakref.ref(loop)
    own: weakref.ref[Hub] | None = None
    watching: weakref.ref[Any] | None = None

    def find() -> Hub:
        """`current_hub`, of which each call asks in a program that has loaded trio: its own first."""
        if (
            own is not None
            and running_loop() is itself()
            and not ("trio" in sys.modules and trio_runs())
        ):
            hub = own()
            if hub is not None and not hub.closed:
                return hub
        return current_hub()

    def unheard() -> None:
        here = itself()
        hub = own() if own is not None else None
        run = watching() if watching is not None else None
        if here is not None and hub is not None and run is not None and not hub.closed:
            here.call_later(UNHEARD_PAUSE, _watch, here, hub, run)
            here.remove_reader(hub.fileno())

    hub = Hub(
        get_loop=itself,
        get_running=running_loop,
        cancelled=asyncio.CancelledError,
        find=find,
        told=tell_scopes,
        unheard=unheard,
    )
    own = weakref.ref(hub)
    run = hub.run
    watching = weakref.ref(run)
    # The loop keeps the hub by this, and a copy of the current context: give it an empty one, or
    # whatever scope the first call was made in would live as long as the loop.
    contextvars.Context().run(_watch, loop, hub, run)
    _hubs_of_loops[weakref.ref(run, _loop_has_ended)] = weakref.ref(hub)
    _hubs[loop] = weakref.ref(hub)
    return hub
