"""Locks that a forked child gets anew: another thread may have held them, and is not in the child.

Without that the child waits for ever, under no deadline. What such a lock guards has to be whole
whenever another thread can run, or be made whole by who takes the lock.

The lock of a module that another thread imports at the fork cannot be had anew: the module is half
there. Nothing is done about that: see docs/adr/0062.
"""

from __future__ import annotations

import os
import threading
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


os.register_at_fork(after_in_child=_after_fork)
