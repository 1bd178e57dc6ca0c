"""What a newcomer's wrong call says: what was wrong, by its name, and what would be right."""

from __future__ import annotations

import copy
import pickle
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hardsock as hs
from hardsock import aio

LOCAL = ("127.0.0.1", 0)
Wrong = tuple[Callable[..., Any], type[Exception], str]

# Of what is given as it should be, the calls never get to the network.
MODULE: dict[str, Wrong] = {
    "a port alone, as a number": (
        lambda: hs.listen(65000),
        ValueError,
        'descriptor 65000 is not open in this process (a port goes with a host: ("", port)',
    ),
    "a descriptor of something else": (
        lambda: hs.adopt(0),
        ValueError,
        "descriptor 0 is open, but not a socket",
    ),
    "a descriptor that is closed": (
        lambda: hs.adopt(65000),
        ValueError,
        "descriptor 65000 is not open in this process",
    ),
    "a port alone, as text": (
        lambda: hs.listen("8080"),
        ValueError,
        "address: '8080' is a port without a host: give 'host:port', as in '127.0.0.1:8080'",
    ),
    "a host alone": (
        lambda: hs.connect("example.org"),
        ValueError,
        "address: 'example.org' has no port: give 'host:port', as in 'example.org:443'",
    ),
    "nothing behind the colon": (
        lambda: hs.connect("example.org:"),
        ValueError,
        "address: 'example.org:' has no port behind its ':'",
    ),
    "a URL": (
        lambda: hs.connect("http://example.org/index.html"),
        ValueError,
        "address: 'http://example.org/index.html' is a URL: give its host and port, 'example.org:80'",
    ),
    "a URL of TLS": (
        lambda: hs.connect("https://example.org"),
        ValueError,
        "give its host and port, 'example.org:443'",
    ),
    "a URL with a port": (
        lambda: hs.connect("redis://localhost:6379/0"),
        ValueError,
        "give its host and port, 'localhost:6379'",
    ),
    "a URL of another scheme": (
        lambda: hs.Pool("redis://localhost"),
        ValueError,
        "give its host and port, 'localhost:PORT'",
    ),
    "an IPv6 address without brackets": (
        lambda: hs.connect("::1:80"),
        ValueError,
        "'[v6]:port' (an IPv6 address goes in brackets)",
    ),
    "nothing": (lambda: hs.connect(""), ValueError, "address: '' must have the form"),
    "host and port as two arguments": (
        lambda: hs.connect("example.org", 80),  # type: ignore[arg-type,call-arg,misc]
        TypeError,
        "an address is one argument: ('example.org', 80)",
    ),
    "a source that is none": (
        lambda: hs.connect(("127.0.0.1", 1), source=5),  # type: ignore[arg-type]
        TypeError,
        "source must be 'host:port'",
    ),
    "no address": (lambda: hs.Pool([]), ValueError, "address must be an address or a list of"),
    "a line ending by its name": (
        lambda: hs.Line(ending="crlf"),  # type: ignore[arg-type]
        ValueError,
        r"ending must be one of '\n', '\r\n', 'any', got 'crlf'",
    ),
    "a byte order by its initial": (
        lambda: hs.LengthPrefix(byteorder="b"),  # type: ignore[arg-type]
        ValueError,
        "byteorder must be one of 'big', 'little', got 'b'",
    ),
    "a policy that there is not": (
        lambda: hs.Line(on_too_long="cut"),  # type: ignore[arg-type]
        ValueError,
        "on_too_long must be one of 'close', 'keep', 'skip', got 'cut'",
    ),
}
# A misspelt parameter of every call and class of settings -> what may have been meant.
NAMES: dict[str, tuple[Callable[[], Any], str]] = {
    "connect": (lambda: hs.connect(LOCAL, time_out=1), "timeout"),  # type: ignore[call-arg]
    "connect, as ssl says it": (lambda: hs.connect(LOCAL, server_hostname="x"), "server_name"),  # type: ignore[call-arg]
    "resolve": (lambda: hs.resolve(LOCAL, famili=0), "family"),  # type: ignore[call-arg]
    "listen": (lambda: hs.listen(LOCAL, reuseport=True), "reuse_port"),  # type: ignore[call-arg]
    "serve": (lambda: hs.serve(print, LOCAL, max_workers=1), "workers"),  # type: ignore[arg-type,call-arg]
    "aio.serve": (lambda: aio.serve(print, LOCAL, draintimeout=1), "drain_timeout"),  # type: ignore[arg-type,call-arg]
    "Pool": (lambda: hs.Pool(LOCAL, maxsize=1), "max_size"),
    "PoolManager": (lambda: hs.PoolManager(maxsize=1), "max_size"),
    "PoolManager, of its connections": (lambda: hs.PoolManager(servername="x"), "server_name"),
    "PoolOptions": (lambda: hs.PoolOptions(min_size=1), "min_idle"),  # type: ignore[call-arg]
    "SocketOptions": (lambda: hs.SocketOptions(no_delay=True), "nodelay"),  # type: ignore[call-arg]
    "TLSConfig": (lambda: hs.TLSConfig(cafile="x"), "ca"),  # type: ignore[call-arg]
    "TLSConfig, weakened": (lambda: hs.TLSConfig(verify=False), "insecure_skip_verify"),  # type: ignore[call-arg]
    "Certificate": (lambda: hs.Certificate(chian="x", key="y"), "chain"),  # type: ignore[call-arg]
    "LengthPrefix": (lambda: hs.LengthPrefix(size=4), "width"),  # type: ignore[call-arg]
    "Delimiter": (lambda: hs.Delimiter(separators=b"x"), "separator"),  # type: ignore[call-arg]
    "Line": (lambda: hs.Line(maxsize=4), "max_size"),  # type: ignore[call-arg]
    "Breaker": (lambda: hs.Breaker(failure=1), "failures"),  # type: ignore[call-arg]
    "adopt": (lambda: hs.adopt(0, option=None), "options"),  # type: ignore[call-arg]
    "aio.adopt": (lambda: aio.adopt(0, option=None), "options"),  # type: ignore[call-arg]
    "create_connection": (lambda: hs.create_connection(LOCAL, time_out=1), "timeout"),  # type: ignore[call-arg]
    "DialLimits": (lambda: hs.DialLimits(per_sec=1), "per_second"),  # type: ignore[call-arg]
    "PeerLimits": (lambda: hs.PeerLimits(connection=1), "connections"),  # type: ignore[call-arg]
    "ProxyProtocol": (lambda: hs.ProxyProtocol(trust=["::1"]), "trusted"),  # type: ignore[call-arg]
    "CancelToken": (lambda: hs.CancelToken(named="x"), "name"),  # type: ignore[call-arg]
}
CONNECTION: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "text to send": (
        lambda c: c.sendall("text"),
        TypeError,
        "data must be a bytes-like object, not str: encode() it",
    ),
    "a list to sendall": (
        lambda c: c.sendall([b"x"]),
        TypeError,
        "data must be a bytes-like object, not list",
    ),
    "bytes to sendmsg": (
        lambda c: c.sendmsg(b"x"),
        TypeError,
        "buffers must be a sequence of bytes-like objects, not bytes",
    ),
    "text in sendmsg": (
        lambda c: c.sendmsg(["x"]),
        TypeError,
        "data must be a bytes-like object, not str: encode() it",
    ),
    "bytes to receive into": (
        lambda c: c.recv_into(b"x"),
        TypeError,
        "buffer must be a writable bytes-like object, not bytes",
    ),
    "a number to receive into": (
        lambda c: c.recvmsg_into([5]),
        TypeError,
        "buffer must be a writable bytes-like object, not int",
    ),
    "a path to sendfile": (
        lambda c: c.sendfile("/etc/hostname"),
        TypeError,
        "file must be an open binary file, not a path: open('/etc/hostname', 'rb')",
    ),
    "flags to send": (lambda c: c.send(b"x", socket.MSG_OOB), ValueError, "got 0x1"),
    "flags to recv": (lambda c: c.recv(1, socket.MSG_OOB), ValueError, "got 0x1"),
    "a misspelt parameter": (
        lambda c: c.recv(1, time_out=1),
        TypeError,
        "recv() got an unexpected keyword argument 'time_out'; did you mean 'timeout'?",
    ),
    "a parameter like no other": (
        lambda c: c.finish(zzz=1),
        TypeError,
        "'zzz'; it takes timeout, token",
    ),
}


@pytest.fixture
def conn() -> Iterator[hs.Connection]:
    ours, theirs = socket.socketpair()
    with theirs, hs.adopt(ours) as conn:
        yield conn


@pytest.mark.parametrize("title", MODULE)
def test_a_wrong_call_says_what_would_be_right(title: str) -> None:
    call, error, said = MODULE[title]
    with pytest.raises(error) as caught:
        call()
    assert said in str(caught.value)


@pytest.mark.parametrize("title", NAMES)
def test_a_misspelt_parameter_gets_a_suggestion(title: str) -> None:
    call, meant = NAMES[title]
    with pytest.raises(TypeError) as caught:
        call()
    assert "unexpected keyword argument" in str(caught.value)
    assert str(caught.value).endswith(f"; did you mean '{meant}'?")


@pytest.mark.parametrize("title", CONNECTION)
def test_a_wrong_call_of_a_connection_says_what_would_be_right(
    title: str, conn: hs.Connection
) -> None:
    call, error, said = CONNECTION[title]
    with pytest.raises(error) as caught:
        call(conn)
    assert said in str(caught.value)
    assert not conn.closed


def test_a_type_error_from_within_stays_as_it_is() -> None:
    with pytest.raises(TypeError) as caught:
        hs.SocketOptions(dead_after="x")  # type: ignore[arg-type]
    assert str(caught.value) == "dead_after must be a number of seconds or None, not str"


def test_a_view_with_gaps_is_still_refused_for_its_gaps(conn: hs.Connection) -> None:
    with pytest.raises(TypeError, match="contiguous"):
        conn.sendall(memoryview(b"abcd")[::2])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_protocol_of_pickle_takes_what_owns_a_descriptor(
    protocol: int, conn: hs.Connection
) -> None:
    owners = [conn, hs.CancelToken(), hs.Breaker()]
    with hs.listen(LOCAL) as listener, hs.Pool(listener.address) as pool:
        for one in [*owners, listener, pool]:
            with pytest.raises(TypeError, match="cannot pickle"):
                pickle.dumps(one, protocol)


def test_a_connection_is_not_copied(conn: hs.Connection) -> None:
    for call in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"cannot pickle or copy .* dup\(\)"):
            call(conn)
    with pytest.raises(TypeError, match="it owns a descriptor"):
        conn.__getstate__()


def test_a_timeout_beyond_all_clocks_is_none(conn: hs.Connection) -> None:
    conn.settimeout(1e300)
    assert conn.gettimeout() is None
