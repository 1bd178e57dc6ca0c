"""Addresses on loopback where connect() hangs, as behind a firewall that drops packets.

A listener whose accept queue is full makes the kernel drop further SYNs (unless
net.ipv4.tcp_abort_on_overflow is set), so that connect() stays in SYN_SENT and retransmits.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct

from hardsock.lab.waits import Deadline

_TCP_SYN_SENT = 2
_TCP_INFO_STATE = 0
# On a listener: two numbers, how many connections wait to be accepted, and how many may.
# It is full once there are more.
_TCP_INFO_UNACKED = 24
_PORT_TRIES = 100


class BlackHole:
    """Hosts of one port where connections are never answered, for as long as the block runs.

    Any thread or process of this machine may connect there.

    Args:
        hosts: Loopback addresses, IPv4 or IPv6; all get the same port.

    Attributes:
        port: The common port.
        addresses: One ``(host, port)`` for each of *hosts*.
    """

    def __init__(self, hosts: tuple[str, ...] = ("127.0.0.1",)) -> None:
        self.hosts = hosts
        self.port = 0
        self._open = contextlib.ExitStack()

    @property
    def address(self) -> tuple[str, int]:
        """The first of `addresses`."""
        return self.addresses[0]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where connect() hangs."""
        return [(host, self.port) for host in self.hosts]

    def __enter__(self) -> BlackHole:
        with contextlib.ExitStack() as opened:
            for listener in self._listen(opened):
                self._fill(listener, opened)
                _check_hangs(listener)
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_details: object) -> None:
        self._open.close()

    def _listen(self, opened: contextlib.ExitStack) -> list[socket.socket]:
        """Find a port that is free on all hosts."""
        for _ in range(_PORT_TRIES):
            port = 0
            with contextlib.ExitStack() as attempt:
                listeners = []
                try:
                    for host in self.hosts:
                        listener = attempt.enter_context(socket.socket(_family(host)))
                        listener.bind((host, port))
                        listener.listen(0)
                        port = listener.getsockname()[1]
                        listeners.append(listener)
                except OSError as exc:
                    if exc.errno != errno.EADDRINUSE:
                        raise
                    continue
                self.port = port
                opened.push(attempt.pop_all())
                return listeners
        raise RuntimeError(f"no port is free on all of {self.hosts}")

    @staticmethod
    def _fill(listener: socket.socket, opened: contextlib.ExitStack) -> None:
        deadline = Deadline(5.0)
        while not _is_full(listener):
            client = opened.enter_context(_start_connect(listener))
            while not _is_full(listener) and not _writable(client, 0.01):
                if deadline.passed():
                    raise RuntimeError("the accept queue does not fill")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _start_connect(listener: socket.socket) -> socket.socket:
    client = socket.socket(listener.family)
    client.setblocking(False)
    client.connect_ex(listener.getsockname())
    return client


def _writable(sock: socket.socket, timeout: float) -> bool:
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    return bool(poller.poll(timeout * 1000))


def _tcp_info(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)


def _is_full(listener: socket.socket) -> bool:
    waiting, limit = struct.unpack_from("=II", _tcp_info(listener), _TCP_INFO_UNACKED)
    return bool(waiting > limit)


def _check_hangs(listener: socket.socket) -> None:
    with _start_connect(listener) as probe:
        if _writable(probe, 0.02) or _tcp_info(probe)[_TCP_INFO_STATE] != _TCP_SYN_SENT:
            raise RuntimeError(f"a connect to {listener.getsockname()} does not hang")
