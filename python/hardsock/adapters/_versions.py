"""Which versions of a library an adapter was tested with, since it may use what is not public."""

from __future__ import annotations

import re
import warnings

__all__ = ["UntestedVersionWarning", "check", "tested"]


class UntestedVersionWarning(UserWarning):
    """A library is newer or older than those that its adapter was tested with."""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(one) for one in re.findall(r"\d+", version.partition("+")[0])[:3])


def tested(version: str, oldest: str, newest: str) -> bool:
    """Whether *version* is within the range; *newest* stands for all its patch releases."""
    found = _numbers(version)
    return _numbers(oldest) <= found and found[:2] <= _numbers(newest)[:2]


def check(library: str, version: str, oldest: str, newest: str) -> None:
    """Warn unless *version* is within the tested range."""
    if tested(version, oldest, newest):
        return
    warnings.warn(
        f"{library} {version}: its adapter was tested with {oldest} to {newest}, and uses what is not "
        "public there. Run your own tests of deadlines and cancelling, or take a version between",
        UntestedVersionWarning,
        stacklevel=4,
    )
