"""What a scope does not reach is told, when somebody asks for it."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Iterator

import pytest

import hardsock as hs
from hardsock import _escapes


@pytest.fixture(autouse=True)
def _watched() -> Iterator[None]:
    hs.warn_of_foreign_sockets()
    yield
    hs.warn_of_foreign_sockets(False)
    _escapes._told.clear()


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


def _plain(address: tuple[str, int]) -> None:
    with socket.socket() as sock:
        sock.connect(address)


def test_a_plain_socket_in_a_scope_is_told_by_the_line_that_connects(
    address: tuple[str, int],
) -> None:
    for enter in (lambda: hs.timeout(30), lambda: hs.scope(hs.CancelToken())):
        _escapes._told.clear()
        with enter(), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("default")
            _plain(address)
            _plain(address)  # once for each line
        assert [one.category for one in told] == [hs.EscapeWarning]
        assert "a plain socket connects" in str(told[0].message)
        assert told[0].filename == __file__
        assert told[0].lineno == _plain.__code__.co_firstlineno + 2


def test_a_lookup_is_told_too() -> None:
    with hs.timeout(30), pytest.warns(hs.EscapeWarning, match="looks a name up"):
        socket.getaddrinfo("127.0.0.1", 80)


def test_as_an_error_it_ends_the_call_before_it_waits(address: tuple[str, int]) -> None:
    with warnings.catch_warnings(), hs.timeout(30):
        warnings.simplefilter("error", hs.EscapeWarning)
        with socket.socket() as sock, pytest.raises(hs.EscapeWarning):
            sock.connect(address)


def test_what_scopes_reach_and_what_has_none_is_silent(address: tuple[str, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _plain(address)
        with hs.timeout(30):
            hs.connect(address).close()
            hs.create_connection(address).close()
            hs.connect(f"localhost:{address[1]}", family=socket.AF_INET).close()


def test_it_can_be_silenced(address: tuple[str, int]) -> None:
    hs.warn_of_foreign_sockets(False)
    with warnings.catch_warnings(), hs.timeout(30):
        warnings.simplefilter("error")
        _plain(address)
