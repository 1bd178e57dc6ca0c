"""Locks that a forked child gets anew: another thread may have held them, and is not in the child.

Without that the child waits for ever, under no deadline. What such a lock guards has to be whole
whenever another thread can run, or be made whole by who takes the lock.

The lock of a module that another thread imports at the fork cannot be had anew: the module is half
there. So a fork waits, for a moment, until nobody imports (docs/adr/0062).
"""

from __future__ import annotations

import _frozen_importlib as _importlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["renew_in_child"]

_kept: weakref.WeakKeyDictionary[Any, tuple[str, Callable[[], Any]]] = weakref.WeakKeyDictionary()


def renew_in_child(
    owner: object, name: str = "_lock", make: Callable[[], Any] = threading.Lock
) -> None:
    """Replace the lock *name* of *owner*, an object or a module, in each child that is forked.

    A ``with`` that the fork happened in releases the old one, as it should.
    """
    _kept[owner] = (name, make)


def _after_fork() -> None:
    for owner, (name, make) in list(_kept.items()):
        setattr(owner, name, make())


# ---- imports

_LONGEST_IMPORT = 1.0  # seconds; a longer one may be a program that runs inside of an import
_LOOK = 0.0005  # seconds between two looks: nothing tells of the end of an import
_long: weakref.WeakSet[Any] = weakref.WeakSet()  # locks that were waited for in vain


def _imported_by_others() -> list[Any]:
    """The locks of modules that other threads are importing."""
    here = threading.get_ident()
    refs: list[Any] = list(getattr(_importlib, "_module_locks", {}).values())
    locks = [lock for ref in refs if (lock := ref()) is not None]
    return [lock for lock in locks if getattr(lock, "owner", None) not in (None, here)]


def _before_fork() -> None:
    """Wait for imports of other threads. With one thread there are none, and this looks once."""
    until = time.monotonic() + _LONGEST_IMPORT
    while late := [lock for lock in _imported_by_others() if lock not in _long]:
        if time.monotonic() >= until:
            _long.update(late)
            return
        time.sleep(_LOOK)


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
