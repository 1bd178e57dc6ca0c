"""Which event loop runs here, and its Hub: the one descriptor that it watches for all of us.

asyncio (on any loop with ``add_reader``, so uvloop too) and trio. sniffio tells which, where trio is
loaded at all; it also knows of trio running as a guest inside an asyncio loop.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import AsyncGenerator

from hardsock._core import Hub

__all__ = ["current_hub"]

_hubs: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[Hub]] = (
    weakref.WeakKeyDictionary()
)


def current_hub() -> Hub:
    """Return the Hub of the running event loop, made on first use.

    Raises:
        RuntimeError: No event loop runs in this thread.
    """
    if "trio" in sys.modules and _trio_runs():
        from hardsock.aio import _trio

        return _trio.current_hub()
    loop = asyncio.get_running_loop()
    known = _hubs.get(loop)
    hub = known() if known is not None else None
    return _open(loop) if hub is None or hub.closed else hub


def _trio_runs() -> bool:
    import sniffio

    try:
        return sniffio.current_async_library() == "trio"
    except sniffio.AsyncLibraryNotFoundError:  # For instance in a callback of asyncio.
        return False


def _open(loop: asyncio.AbstractEventLoop) -> Hub:
    hub = Hub(get_loop=weakref.ref(loop), cancelled=asyncio.CancelledError)
    hub.lifetime = lifetime = _until_shutdown(weakref.ref(loop), weakref.ref(hub))
    try:  # The loop notes an async generator when it is first iterated.
        lifetime.asend(None).send(None)
    except StopIteration:
        pass
    loop.add_reader(hub.fileno(), hub.run)  # This is what keeps the hub.
    _hubs[loop] = weakref.ref(hub)
    return hub


async def _until_shutdown(
    get_loop: weakref.ref[asyncio.AbstractEventLoop], get_hub: weakref.ref[Hub]
) -> AsyncGenerator[None, None]:
    """Close the hub in ``loop.shutdown_asyncgens()``, which ``asyncio.run`` calls at its end."""
    try:
        yield
    finally:
        loop, hub = get_loop(), get_hub()
        if loop is not None and hub is not None and not hub.closed:
            loop.remove_reader(hub.fileno())
            hub.close()
