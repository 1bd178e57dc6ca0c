"""Telling greenlets of gevent that calls of hardsock stop their thread.

A call that waits does so in C, where ``gevent.monkey.patch_all()`` does not reach. So all greenlets
of the thread stand still meanwhile, those that the call waits for as well. Nothing fails by it; that
is why it has to be said.
"""

from __future__ import annotations

import sys
import warnings

from hardsock._names import caller
from hardsock._scope import in_event_loop
from hardsock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

__all__ = ["threads_are_greenlets", "unpatched", "warn_of_greenlets"]

_TEXT = (
    "gevent runs in this thread, and a call of hardsock that waits stops all of its greenlets, "
    "whatever was patched; call hardsock in a thread of its own "
    "(gevent.get_hub().threadpool.apply), or run an event loop there with hardsock.aio; "
    "see docs/threads.md"
)
_warned = False


def warn_of_greenlets() -> None:
    """Warn, once in a process, if gevent's hub runs in this thread: a RuntimeWarning."""
    global _warned
    if _warned or "gevent" not in sys.modules or in_event_loop():
        return
    try:
        from gevent._hub_local import get_hub_if_exists
    except ImportError:
        return
    if get_hub_if_exists() is None:
        return
    _warned = True
    warnings.warn(_TEXT, RuntimeWarning, stacklevel=caller())


def threads_are_greenlets() -> bool:
    """Whether ``gevent.monkey`` makes greenlets of what ``threading`` starts."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def unpatched(module: ModuleType, name: str) -> Any:
    """What *module* had under *name* before ``gevent.monkey``, which takes some classes away."""
    monkey = sys.modules.get("gevent.monkey")
    return getattr(module, name) if monkey is None else monkey.get_original(module.__name__, name)
