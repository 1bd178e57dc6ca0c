"""The hooks of the standard library that its adapters hang on and that are not public.

A CPython without one of them would connect by a plain socket, with no word. So each adapter asks for
its hooks when it is imported, and is an ImportError where one is missing.
"""

from __future__ import annotations

import inspect
import platform
from typing import Any

from hardsock.adapters._versions import check, tested

__all__ = ["NEWEST", "OLDEST", "called", "checked_version", "known", "overridable", "present"]

OLDEST, NEWEST = "3.10", "3.14"
"""CPythons that the adapters of the standard library were tested with."""


def known() -> bool:
    """Whether this CPython is one of them."""
    return tested(platform.python_version(), OLDEST, NEWEST)


def checked_version(module: str) -> None:
    """Warn unless the adapter of *module* was tested with this CPython."""
    check(f"{module} of CPython", platform.python_version(), OLDEST, NEWEST)


def _missing(owner: type, what: str) -> ImportError:
    where = f"{owner.__module__}.{owner.__qualname__}"
    return ImportError(
        f"{where} of CPython {platform.python_version()} {what}: its adapter would be given a plain "
        f"socket, without deadlines. It works with CPython {OLDEST} to {NEWEST}"
    )


def overridable(owner: type, hook: str, parameters: int, *callers: str) -> None:
    """ImportError unless *owner* has the method *hook*, of so many parameters, and uses it.

    Args:
        owner: A class of the standard library.
        hook: The name of the method that an adapter overrides.
        parameters: How many it is called with, besides ``self``.
        callers: Methods of *owner* that must call it.
    """
    method = getattr(owner, hook, None)
    if method is None:
        raise _missing(owner, f"has no {hook}()")
    try:
        inspect.signature(method).bind(None, *range(parameters))
    except TypeError as exc:
        takes = inspect.signature(method)
        raise _missing(owner, f"has {hook}{takes}, not one of {parameters} parameters") from exc
    for caller in callers:
        called(owner, caller, hook)


def present(made: Any, hook: str, *callers: str) -> None:
    """ImportError unless *made* has the attribute *hook* of its own, and its class's *callers* use it."""
    if hook not in vars(made):
        raise _missing(type(made), f"sets no {hook}")
    for caller in callers:
        called(type(made), caller, hook)


def called(owner: type, caller: str, hook: str) -> None:
    """ImportError unless the code of the method *caller* names *hook*.

    What somebody else has put in the method's place is not asked.
    """
    method = inspect.unwrap(getattr(owner, caller))
    code = getattr(method, "__code__", None)
    if code is None or method.__module__ != owner.__module__:
        return
    if hook not in code.co_names:
        raise _missing(owner, f"does not use {hook} in {caller}()")
