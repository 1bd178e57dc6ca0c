"""Records: made by the core past ``__new__`` of their types, each with a value for each field; and to a
program what ``typing.NamedTuple`` would have made of them (hardsock._typing)."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import sys
import typing
from pathlib import Path

import pytest

from hardsock import _records
from hardsock._typing import NamedTuple

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


# ---- What a record is


class _Ours(NamedTuple):
    """A place."""

    host: str
    port: int = 80
    """Of TCP."""

    @property
    def text(self) -> str:
        """Both."""
        return f"{self.host}:{self.port}"


class _Theirs(typing.NamedTuple):
    """A place."""

    host: str
    port: int = 80
    """Of TCP."""

    @property
    def text(self) -> str:
        """Both."""
        return f"{self.host}:{self.port}"


_BOTH = pytest.mark.parametrize("kind", [_Ours, _Theirs])


@_BOTH
def test_a_record_is_a_tuple_with_names(kind: type) -> None:
    one = kind("a", port=2)
    assert (one, one.host, one.port, one.text) == (("a", 2), "a", 2, "a:2")
    assert (kind("a"), kind(host="b"), kind("a", 3)) == (("a", 80), ("b", 80), ("a", 3))
    assert repr(one) == f"{kind.__name__}(host='a', port=2)"
    assert (one._asdict(), one._replace(port=5)) == ({"host": "a", "port": 2}, ("a", 5))
    assert (kind._make(["a", 1]), hash(one)) == (("a", 1), hash(("a", 2)))
    assert not hasattr(one, "__dict__")
    with pytest.raises(AttributeError):
        one.port = 1
    match one:
        case kind(host, port):  # type: ignore[misc]
            assert (host, port) == one


@_BOTH
def test_a_record_keeps_its_kind_when_it_is_copied(kind: type) -> None:
    one = kind("a", 2)
    for same in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert (type(same), same) == (kind, one)
    if sys.version_info >= (3, 13):
        assert copy.replace(one, port=4) == ("a", 4)


@_BOTH
def test_a_record_tells_of_itself(kind: type) -> None:
    assert (kind._fields, kind._field_defaults) == (("host", "port"), {"port": 80})
    assert [(p.name, p.default) for p in inspect.signature(kind).parameters.values()] == [
        ("host", inspect.Parameter.empty),
        ("port", 80),
    ]
    assert typing.get_type_hints(kind) == {"host": str, "port": int}
    assert (kind.__doc__, kind.port.__doc__) == ("A place.", "Alias for field number 1")
    assert issubclass(kind, tuple)


@_BOTH
@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "host"),
        (("a", 1, 2), {}, "argument"),
        (("a",), {"host": "b"}, "host"),
        (("a",), {"prot": 1}, "prot"),
    ],
)
def test_a_record_refuses_what_are_not_its_fields(
    kind: type, args: tuple[object, ...], kwargs: dict[str, object], said: str
) -> None:
    with pytest.raises(TypeError, match=said) as caught:
        kind(*args, **kwargs)
    assert kind.__name__ in str(caught.value)
