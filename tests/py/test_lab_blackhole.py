"""Self tests of hardsock.lab.blackhole."""

from __future__ import annotations

import errno
import select
import socket

import pytest

from hardsock.lab.blackhole import BlackHole


def events_of_connect(address: tuple[str, int]) -> int:
    """Start to connect; how many events come within 100 ms."""
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as sock:
        sock.setblocking(False)
        assert errno.EINPROGRESS == sock.connect_ex(address)
        poller = select.poll()
        poller.register(sock, select.POLLOUT)
        return len(poller.poll(100))


@pytest.mark.parametrize(
    "hosts", [("127.0.0.1",), ("127.0.0.2", "127.0.0.3", "127.0.0.4"), ("127.0.0.2", "::1")]
)
def test_connect_hangs_on_every_address(hosts: tuple[str, ...]) -> None:
    with BlackHole(hosts) as hole:
        assert [(host, hole.port) for host in hosts] == hole.addresses
        assert [0] * len(hosts) == [events_of_connect(address) for address in hole.addresses]


def test_many_connects_hang_at_once() -> None:
    with BlackHole() as hole:
        socks = []
        poller = select.poll()
        for _ in range(50):
            socks.append(socket.socket())
            socks[-1].setblocking(False)
            assert errno.EINPROGRESS == socks[-1].connect_ex(hole.address)
            poller.register(socks[-1], select.POLLOUT)

        assert [] == poller.poll(100)
        for sock in socks:
            sock.close()


def test_address_is_refused_afterwards() -> None:
    with BlackHole() as hole:
        address = hole.address

    with socket.socket() as sock:
        assert errno.ECONNREFUSED == sock.connect_ex(address)
