"""``dial_limits=`` of the adapters whose library makes one connection with one object."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from hardsock._core import Connection
from hardsock._dial_limits import DialLimits, dial_queue
from hardsock.connecting.create_connection import create_connection

__all__ = ["Dials", "abandon", "checked_limits"]

_DEFAULT: Any = socket._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]


def checked_limits(limits: DialLimits | None) -> DialLimits | None:
    """*limits*, or a TypeError."""
    dial_queue(limits)
    return limits


def abandon(client: Any) -> None:
    """Close the connection of a client of the standard library whose greeting was given up.

    Those libraries close it after an OSError at best, which ``Cancelled`` is not, or leave it to
    the garbage collector.
    """
    for name in ("file", "_file", "sock"):
        one = vars(client).get(name)
        if one is not None:
            with contextlib.suppress(OSError):
                one.close()
            setattr(client, name, None)


class Dials:
    """To stand before the library's class: it keeps ``dial_limits`` and connects with them."""

    dial_limits: DialLimits | None = None

    def __init__(self, *args: Any, dial_limits: DialLimits | None = None, **kwargs: Any) -> None:
        self.dial_limits = checked_limits(dial_limits)  # Some connect when they are made.
        try:
            super().__init__(*args, **kwargs)
        except BaseException:
            abandon(self)
            raise

    def _dial(self, address: Any, timeout: Any = _DEFAULT, source: Any = None) -> Connection:
        """``create_connection`` with a place of ``dial_limits``."""
        return create_connection(address, timeout, source, limits=self.dial_limits)
