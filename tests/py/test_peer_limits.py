"""Limits of each peer on listeners: who is over them is reset, and others are served."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.endpoint import connect_to
from hardsock.lab.threads import Call
from hardsock.lab.waits import poll_until
from support.recorder import Noted

TIMEOUT = 60
HEADER = "PROXY TCP4 {} 192.0.2.2 1234 443\r\n"


def client(address: Any, source: str = "127.0.0.1") -> socket.socket:
    """Linux has all of 127.0.0.0/8."""
    return socket.create_connection(address, TIMEOUT, (source, 0))


def peer_stats(listener: hs.Listener) -> hs.PeerStats:
    stats = listener.stats().peers
    assert stats is not None
    return stats


def turned_away(address: Any, source: str = "127.0.0.1", says: bytes = b"") -> None:
    """The reset may come as early as the end of connect."""
    with pytest.raises(ConnectionResetError), client(address, source) as sock:
        sock.sendall(says)
        sock.recv(1)


@contextlib.contextmanager
def keeping_all(listener: hs.Listener) -> Iterator[list[hs.Connection]]:
    """Accept until the listener is closed."""
    kept: list[hs.Connection] = []

    def accept() -> None:
        with contextlib.suppress(hs.Closed):
            while True:
                kept.append(listener.accept(timeout=60))

    try:
        with Call(accept):
            try:
                yield kept
            finally:
                listener.close()
    finally:
        for conn in kept:
            conn.close()


def test_one_peer_takes_no_more_than_its_share() -> None:
    """The one who is beyond it is reset at once; its neighbour comes in; a place that is left is free."""
    limits = hs.PeerLimits(connections=2)
    with hs.listen(("127.0.0.1", 0), peer_limits=limits) as listener, keeping_all(listener) as kept:
        address = listener.getsockname()
        with contextlib.ExitStack() as stack:
            mine = [stack.enter_context(client(address)) for _ in range(2)]
            poll_until(lambda: len(kept) == 2, timeout=TIMEOUT)
            turned_away(address)
            assert peer_stats(listener).refused_connections == 1
            stack.enter_context(client(address, "127.0.0.2"))
            poll_until(lambda: len(kept) == 3, timeout=TIMEOUT)
            first = next(c for c in kept if c.getpeername() == mine[0].getsockname())
            first.close()
            stack.enter_context(client(address))
            poll_until(lambda: len(kept) == 4, timeout=TIMEOUT)
        assert peer_stats(listener) == (1, 0, 0, 0, 2)


def test_neighbours_share_a_limit_and_the_exempt_have_none() -> None:
    noted = Noted()
    limits = hs.PeerLimits(network_connections=3, exempt=["127.0.1.0/24"])
    with hs.listen(("127.0.0.1", 0), peer_limits=limits) as listener, keeping_all(listener) as kept:
        address = listener.getsockname()
        with contextlib.ExitStack() as stack:
            for last in range(1, 4):
                stack.enter_context(client(address, f"127.0.0.{last}"))
            poll_until(lambda: len(kept) == 3, timeout=TIMEOUT)
            turned_away(address, "127.0.0.4")
            for last in range(1, 6):
                stack.enter_context(client(address, f"127.0.1.{last}"))
            poll_until(lambda: len(kept) == 8, timeout=TIMEOUT)
        assert peer_stats(listener).refused_network == 1
        assert noted.sheds() == {"peer network": 1}


def test_a_peer_that_comes_too_fast_is_reset() -> None:
    noted = Noted()
    limits = hs.PeerLimits(rate=1, burst=3)
    with hs.listen(("127.0.0.1", 0), peer_limits=limits) as listener, keeping_all(listener) as kept:
        for _ in range(20):  # All but three are too many, unless accepting takes a second each.
            with contextlib.suppress(ConnectionResetError):
                client(listener.getsockname()).close()
        poll_until(lambda: peer_stats(listener).refused_rate > 0, timeout=TIMEOUT)
        assert len(kept) >= 3
        assert noted.sheds()["peer rate"] > 0


def test_behind_a_proxy_the_client_counts() -> None:
    """Clients of one proxy have limits of their own, and the proxy has none."""
    limits = hs.PeerLimits(connections=1)
    trusted = hs.ProxyProtocol(["127.0.0.0/8"])
    with (
        hs.listen(("127.0.0.1", 0), peer_limits=limits, proxy_protocol=trusted) as listener,
        keeping_all(listener) as kept,
    ):
        with contextlib.ExitStack() as stack:
            for last in range(1, 4):
                sock = stack.enter_context(connect_to(listener.address))
                sock.sendall(HEADER.format(f"192.0.2.{last}").encode())
            poll_until(lambda: len(kept) == 3, timeout=TIMEOUT)
            turned_away(listener.getsockname(), says=HEADER.format("192.0.2.1").encode())
        assert peer_stats(listener).refused_connections == 1


def test_behind_a_proxy_it_is_the_client_that_comes_too_fast() -> None:
    """It is reset after its header; another client of the same proxy comes in, at any pace."""
    limits = hs.PeerLimits(rate=1, burst=1)
    trusted = hs.ProxyProtocol(["127.0.0.0/8"])
    with (
        hs.listen(("127.0.0.1", 0), peer_limits=limits, proxy_protocol=trusted) as listener,
        keeping_all(listener) as kept,
    ):

        def come_and_wait(address: str) -> None:
            before = len(kept) + peer_stats(listener).refused_rate
            with connect_to(listener.address) as sock:
                sock.sendall(HEADER.format(address).encode())
                poll_until(
                    lambda: len(kept) + peer_stats(listener).refused_rate > before, timeout=TIMEOUT
                )

        def is_refused() -> bool:  # Unless a second has passed since the last one.
            come_and_wait("192.0.2.1")
            return peer_stats(listener).refused_rate > 0

        poll_until(is_refused, timeout=TIMEOUT)
        assert kept
        known = len(kept)
        come_and_wait("192.0.2.2")
        assert len(kept) == known + 1
        assert kept[-1].getpeername()[0] == "192.0.2.2"
        assert peer_stats(listener).refused_connections == 0


def test_a_server_goes_on_for_others() -> None:
    """One peer holds all that it may; a request from another is answered."""
    with hs.serve(
        lambda conn: conn.sendall(conn.recv_line()),
        ("127.0.0.1", 0),
        drain_timeout=30,
        workers=4,
        peer_limits=hs.PeerLimits(connections=3),
    ) as server:
        address = server.listener.getsockname()
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                with contextlib.suppress(ConnectionResetError):
                    stack.enter_context(client(address))
            poll_until(
                lambda: peer_stats(server.listener).refused_connections == 5, timeout=TIMEOUT
            )
            with client(address, "127.0.0.2") as sock:
                sock.sendall(b"hello\n")
                assert sock.recv(100) == b"hello"


Make = Callable[[], object]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (hs.PeerLimits, ValueError, "needs one limit at least"),
        (lambda: hs.PeerLimits(connections=0), ValueError, "connections must be in 1"),
        (lambda: hs.PeerLimits(rate=1.5), TypeError, "rate must be an int or None, not float"),
        (lambda: hs.PeerLimits(connections=1, burst=2), ValueError, "burst=2 has no use without"),
        (lambda: hs.PeerLimits(rate=1, exempt="10.0.0.0/8"), TypeError, "exempt must be several"),
        (lambda: hs.PeerLimits(rate=1, exempt=["x"]), ValueError, "exempt: 'x' does not appear"),
        (lambda: hs.PeerLimits(rate=1, table_size=0), ValueError, "table_size must be in 1"),
        (lambda: hs.listen(("127.0.0.1", 0), peer_limits=3), TypeError, "PeerLimits or None"),
    ],
)
def test_what_is_wrong_is_named(make: Make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
