"""What a test may lack on this machine, and what follows from that.

A missing program or privilege skips a test on a developer's machine. In continuous integration
(``CI=true``) it fails the test, because there a skip would quietly stop proving anything.
"""

from __future__ import annotations

import importlib.util
import os
import sysconfig
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from hardsock.lab.unavailable import Unavailable

__all__ = ["Unavailable", "available", "free_threaded", "need_module", "need_testcapi", "require"]

T = TypeVar("T")


@contextmanager
def available() -> Iterator[None]:
    """Turn an `Unavailable` raised in the block into a skip, or into a failure under CI."""
    try:
        yield
    except Unavailable as exc:
        import pytest  # Late: a child in a namespace imports this module too.

        reason = f"{type(exc).__name__}: {exc}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must provide this: {reason}", pytrace=False)
        pytest.skip(reason, allow_module_level=True)


@contextmanager
def require(needed: AbstractContextManager[T]) -> Iterator[T]:
    """Enter *needed* (a server, a namespace), or skip or fail the test: see `available`."""
    with available(), needed as value:
        yield value


def need_module(name: str, why: str = "") -> None:
    """Skip the test, or the module that is being imported, where a package is not to be had.

    Some have nothing to install for a newer or a free-threaded interpreter. *why* is for a module
    that is no package: who lacks it.
    """
    try:
        found = importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # Nor is the package that it is in.
        found = False
    if not found:
        with available():
            raise Unavailable(f"{name} is not installed" + (f": {why}" if why else ""))


def free_threaded() -> bool:
    """Whether the interpreter was built without its global lock."""
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def need_testcapi() -> None:
    """Skip the test where CPython's own test module is missing; see `need_module`.

    It makes allocations fail (``set_nomemory``), and runs code in an interpreter that ends before
    the process does (``run_in_subinterp``).
    """
    need_module("_testcapi", "this Python was built, or packaged, without its own tests")
