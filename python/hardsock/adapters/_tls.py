"""The SSLContext of an adapter: one that was given, or that is kept for all with its settings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any

from hardsock._fork_locks import renew_in_child
from hardsock.tls.ssl_context import SSLContext, ssl_context

__all__ = ["Contexts", "checked", "context_or_default"]

_MAX_CONTEXTS = 64

_default: list[SSLContext] = []


def checked(context: Any, parameter: str) -> SSLContext:
    """Refuse a context that would take the descriptor away."""
    if isinstance(context, SSLContext):
        return context
    raise TypeError(
        f"{parameter} must be made by hardsock.ssl_context(), since any other takes the descriptor "
        f"away: write {parameter}=hardsock.ssl_context(context)"
    )


def context_or_default(context: Any, parameter: str = "context") -> SSLContext:
    """*context*, or without one that which verifies by whom the system trusts."""
    if context is not None:
        return checked(context, parameter)
    if not _default:
        _default.append(ssl_context())  # Two threads at once: one of them is used from then on.
    return _default[0]


class Contexts:
    """A context for each of what connections were told: made once, so that sessions are resumed."""

    def __init__(self) -> None:
        self._found: dict[Hashable, SSLContext] = {}
        self._lock = threading.Lock()  # Threads that begin together make one context.
        renew_in_child(self)

    def get(self, key: Hashable, make: Callable[[], SSLContext]) -> SSLContext:
        """The one for *key*, or what *make* makes."""
        with self._lock:
            found = self._found.get(key)
            if found is None:
                if len(self._found) >= _MAX_CONTEXTS:
                    self._found.clear()
                found = self._found[key] = make()
            return found
