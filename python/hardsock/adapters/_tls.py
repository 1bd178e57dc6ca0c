"""The SSLContext of an adapter: the one that was given, or one for all that trusts the system."""

from __future__ import annotations

from typing import Any

from hardsock.tls.ssl_context import SSLContext, ssl_context

__all__ = ["checked", "context_or_default"]

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
