"""What stands in hardsock and in hardsock.aio has the same parameters, with the same defaults.

They are written out in both, so that help(), editors and checkers of types know them; this holds
them together (docs/adr/0037).
"""

from __future__ import annotations

import inspect

import pytest

import hardsock
from hardsock import aio

# name: what only the blocking form has, and why.
_ONLY_BLOCKING = {
    "serve": {"workers"},  # Tasks are not counted out beforehand.
    "connect": set[str](),
    "listen": set[str](),
    "resolve": set[str](),
}


@pytest.mark.parametrize("name", _ONLY_BLOCKING)
def test_both_forms_take_the_same_parameters_with_the_same_defaults(name: str) -> None:
    blocking = inspect.signature(getattr(hardsock, name)).parameters
    awaited = inspect.signature(getattr(aio, name)).parameters
    assert blocking.keys() - awaited.keys() == _ONLY_BLOCKING[name]
    assert [one for one in blocking if one in awaited] == list(awaited)
    for one, parameter in awaited.items():
        assert parameter.kind == blocking[one].kind, one
        assert repr(parameter.default) == repr(blocking[one].default), one


@pytest.mark.parametrize("name", ["serve", "serve_processes"])
def test_a_server_takes_what_its_listener_takes(name: str) -> None:
    listener = inspect.signature(hardsock.listen).parameters
    server = inspect.signature(getattr(hardsock, name)).parameters
    missing = listener.keys() - server.keys()
    assert missing <= {"token"}, missing
    shared = {"max_handshakes"} if name == "serve_processes" else set()  # None: as listen has it
    for one in listener.keys() & server.keys() - {"address", "reuse_port", "options"} - shared:
        assert repr(server[one].default) == repr(listener[one].default), one
