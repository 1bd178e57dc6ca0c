"""From whom a listener believes who is behind a connection."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from hardsock._options import _check_seconds

__all__ = ["ProxyProtocol"]

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True)
class ProxyProtocol:
    """The PROXY protocol (HAProxy's proxy-protocol.txt), versions 1 and 2, on a listener.

    Every connection from a *trusted* network must begin with its header, in front of TLS too; it is
    taken off, and the client that it names is the connection's peer. All others speak for
    themselves: a header from them is nothing but what they sent. So nobody but a trusted proxy can
    pretend to be somebody else. ``Connection.proxy`` is the proxy's own address.
    """

    trusted: Iterable[str]
    """Networks of the proxies, such as ``"10.0.0.0/8"`` or ``"2001:db8::7"``; ``"unix"``: every
    peer of a unix socket."""
    timeout: float = 5.0
    """Seconds for the whole header; then the connection is cut."""

    def __post_init__(self) -> None:
        if isinstance(self.trusted, str):
            raise TypeError(
                f"trusted must be several networks, not one str: give ({self.trusted!r},)"
            )
        object.__setattr__(self, "trusted", tuple(self.trusted))
        if not self.trusted:
            raise ValueError("trusted must name at least one network, or nobody is believed")
        if self.timeout is None:
            raise ValueError("timeout must be a number of seconds: a silent proxy would stay")
        _check_seconds("timeout", self.timeout, 0.001)
        self._networks()

    def _networks(self) -> tuple[tuple[int, int, bytes], ...]:
        """As the core takes them."""
        return tuple(_network(text) for text in self.trusted)


def _network(text: object) -> tuple[int, int, bytes]:
    if not isinstance(text, str):
        raise TypeError(f"trusted must hold networks as str, not {type(text).__name__}")
    if text == "unix":
        return int(socket.AF_UNIX), 0, b""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"trusted: {error}; give a network such as '10.0.0.0/8', an address, or 'unix'"
        ) from None
    return int(_FAMILIES[network.version]), network.prefixlen, network.network_address.packed
