"""Telling of plain sockets that connect in a scope, which does not reach them.

There is no hook in ``socket`` that could be asked to end, but an audit event (PEP 578) for what is
about to wait. It comes in the thread that calls, so that its scope is known.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

from hardsock import _core
from hardsock._errors import EscapeWarning
from hardsock._scope import current
from hardsock.pool.records import site_at

__all__ = ["warn_of_foreign_sockets"]

_EVENTS = frozenset(("socket.connect", "socket.getaddrinfo"))
_state = {"on": False, "hooked": False}
_told: dict[Any, Any] = {}
"""What the warnings module keeps of what it has told: once for each line."""


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event not in _EVENTS or not _state["on"] or current() is None:
        return
    site = site_at(*_core._here())
    what = "connects" if event == "socket.connect" else "looks a name up"
    warnings.warn_explicit(
        f"a plain socket {what} in a scope of hardsock, which does not reach it: it may wait for as "
        "long as it likes. Write hardsock.create_connection() or hardsock.connect(), or use the "
        "adapter of the library (`hardsock explain --adapters`)",
        EscapeWarning,
        site.file,
        site.line,
        registry=_told,
    )


def warn_of_foreign_sockets(on: bool = True, /) -> None:
    """Warn of plain sockets that are used within ``hardsock.timeout`` or ``hardsock.scope``.

    An ``EscapeWarning``, once for each line, when a ``socket.socket`` is about to connect, or the
    ``socket`` module to look a name up, in a thread or task that has an ambient scope. Turned into
    an error (``-W error``) it ends that call before it waits. For tests and for the move of a
    program: it sees what goes through Python's ``socket`` module, not the clients that are written
    in C, nor what a socket does that was connected outside of the scope.

    The audit hook that it uses (``sys.addaudithook``) stays for the life of the process and costs
    each audited call a fraction of a microsecond; *on* ``False`` silences it.
    """
    _state["on"] = bool(on)
    if on and not _state["hooked"]:
        _state["hooked"] = True
        sys.addaudithook(_hook)
