"""What pytest says of two values that are not equal, also if they are large.

Where ``CI`` is set it shows all of the difference, by ``difflib.ndiff()``, which looks for the most
similar of all pairs of lines: of two packages of a hundred kilobytes each that took a quarter of an
hour of one processor, and the run ended at its limit with no result at all.
"""

from __future__ import annotations

import difflib
from collections.abc import Generator, Iterator, Sequence
from typing import Any
from unittest.mock import patch

import pytest

MANY = 400
"""Lines of both values, from which on only those that differ are shown."""

_ndiff = difflib.ndiff


def difference(left: Sequence[str], right: Sequence[str], *args: Any, **more: Any) -> Iterator[str]:
    """As ``difflib.ndiff()``; of many lines, those that one side alone has."""
    if len(left) + len(right) <= MANY:
        return _ndiff(left, right, *args, **more)
    return difflib.unified_diff(left, right, lineterm="", n=0)


@pytest.hookimpl(wrapper=True)
def pytest_assertrepr_compare() -> Generator[None, object, object]:
    """Have pytest's own explanation made with it."""
    with patch.object(difflib, "ndiff", difference):
        return (yield)
