"""``hs.create_connection`` takes what ``socket.create_connection`` takes, and keeps its deadline."""

from __future__ import annotations

import http.client
import inspect
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.peers import PeerScript
from support.require import require
from support.servers import http_server


@pytest.fixture
def listener() -> Iterator[hs.Listener]:
    with hs.listen(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def default_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    yield
    socket.setdefaulttimeout(before)


def test_its_parameters_are_those_of_the_standard_library() -> None:
    theirs = inspect.signature(socket.create_connection).parameters
    ours = inspect.signature(hs.create_connection).parameters
    for name, parameter in theirs.items():
        assert ours[name].kind == parameter.kind
        assert ours[name].default == parameter.default
    own = {"all_errors", "limits"}  # The first is one of 3.11, the second ours.
    assert set(ours) - set(theirs) <= own


@pytest.mark.parametrize("host", ["127.0.0.1", b"127.0.0.1", None, "localhost"])
def test_hosts_as_getaddrinfo_takes_them(listener: hs.Listener, host: Any) -> None:
    with hs.create_connection((host, listener.getsockname()[1]), 5) as conn:
        assert conn.getpeername()[1] == listener.getsockname()[1]


def test_a_port_may_be_text_or_a_service(listener: hs.Listener) -> None:
    port = listener.getsockname()[1]
    for text in (str(port), str(port).encode()):
        with hs.create_connection(("127.0.0.1", text), 30) as conn:
            assert conn.getpeername()[1] == port
    with pytest.raises(OSError, match="service/proto not found"):
        hs.create_connection(("127.0.0.1", "no-such-service"), 30)
    with pytest.raises(TypeError, match="port must be an int or a str, not float"):
        hs.create_connection(("127.0.0.1", 1.5), 30)


def test_the_timeout_is_that_of_later_calls_too(
    listener: hs.Listener, default_timeout: None
) -> None:
    address = listener.getsockname()
    with hs.create_connection(address, 30) as conn:
        assert conn.gettimeout() == 30.0
    with hs.create_connection(address, None) as conn:
        assert conn.gettimeout() is None
    with hs.create_connection(address) as conn:
        assert conn.gettimeout() is None
    socket.setdefaulttimeout(7)
    with hs.create_connection(address) as conn:
        assert conn.gettimeout() == 7.0


def test_a_drip_buys_no_time_in_a_later_call() -> None:
    with PeerScript([("drip", b"x" * 1000, 0.01)], check=False) as peer:
        with hs.create_connection(peer.address, 0.2) as conn:  # type: ignore[arg-type]
            with pytest.raises(TimeoutError) as caught:
                conn.recv_exactly(1000)
            assert isinstance(caught.value, hs.DeadlineExceeded)
            assert caught.value.limit == "settimeout(0.2)"


def test_the_source_may_be_any_address(listener: hs.Listener) -> None:
    with hs.create_connection(listener.getsockname(), 5, ("", 0)) as conn:
        assert conn.getsockname()[0] == "127.0.0.1"
    with hs.create_connection(listener.getsockname(), 5, ("127.0.0.2", 0)) as conn:
        assert conn.getsockname()[0] == "127.0.0.2"


def test_a_black_hole_is_a_time_out() -> None:
    with BlackHole() as hole, pytest.raises(TimeoutError) as caught:
        hs.create_connection(hole.address, 0.05)
    assert isinstance(caught.value, hs.DeadlineExceeded)


def _refusing() -> tuple[str, int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address: tuple[str, int] = sock.getsockname()
        return address


def test_refused_is_what_it_was(listener: hs.Listener) -> None:
    with pytest.raises(ConnectionRefusedError):
        hs.create_connection(_refusing(), 30)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="as socket's own: it has no such parameter")
def test_all_errors_are_a_group() -> None:
    with pytest.raises(Exception, match="create_connection failed") as caught:
        hs.create_connection(_refusing(), 5, all_errors=True)
    (only,) = caught.value.exceptions  # type: ignore[attr-defined]
    assert isinstance(only, ConnectionRefusedError)


def test_http_client_takes_it_where_it_has_a_place_for_it() -> None:
    with require(http_server({"hello.txt": b"hello"})) as server:
        client = http.client.HTTPConnection(server.host, server.port, timeout=30)
        client._create_connection = hs.create_connection  # type: ignore[attr-defined]
        client.request("GET", "/hello.txt")
        assert isinstance(client.sock, hs.Connection)
        assert client.getresponse().read() == b"hello"
        client.close()
