"""The core makes records past ``__new__`` of their types: each must have a value for each field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hardsock import _records

_BINDING = Path(__file__).parents[2] / "csrc/binding"
# X(name, "module", "Type"): see state.h.
_TYPES = dict(
    re.findall(
        r'X\((\w+), "hardsock\._records", "(\w+)"\)', (_BINDING / "base/state.h").read_text()
    )
)
_CALL = re.compile(
    r"\b(?P<how>record_new|PyObject_CallFunction)\("
    r'[^;]*?->(?P<name>\w+),\s*"(?P<letters>\w+)",(?P<values>[^;]*)\)'
)
_SOURCES = [path.read_text() for path in sorted(_BINDING.glob("*/*.c"))]
_CALLS = [call for source in _SOURCES for call in _CALL.finditer(source) if call["name"] in _TYPES]


def _count(arguments: str) -> int:
    """How many there are, up to the bracket that ends them; commas within brackets divide none."""
    depth, n = 0, 1
    for char in arguments:
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            break
        n += char == "," and depth == 0
    return n


@pytest.mark.parametrize("call", _CALLS, ids=lambda call: call["name"])
def test_a_record_is_made_of_as_many_values_as_it_has_fields(call: re.Match[str]) -> None:
    fields = getattr(_records, _TYPES[call["name"]])._fields
    assert len(call["letters"]) == _count(call["values"]) == len(fields)


def test_all_calls_that_make_records_are_looked_at() -> None:
    made = sum(len(re.findall(r"\brecord_new\(", source)) for source in _SOURCES)
    assert sum(call["how"] == "record_new" for call in _CALLS) == made - 1  # its definition
    assert {call["name"] for call in _CALLS} == set(_TYPES)
