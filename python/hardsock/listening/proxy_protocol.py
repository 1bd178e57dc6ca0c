"""From whom a listener believes who is behind a connection."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hardsock._names import names_checked
from hardsock._options import _check_seconds
from hardsock.listening.networks import Network, networks

__all__ = ["ProxyProtocol"]


@names_checked
@dataclass(frozen=True)
class ProxyProtocol:
    """The PROXY protocol (HAProxy's proxy-protocol.txt), versions 1 and 2, on a listener.

    Every connection from a *trusted* network must begin with its header, in front of TLS too; it is
    taken off, and the client that it names is the connection's peer. All others speak for
    themselves: a header from them is nothing but what they sent. So nobody but a trusted proxy can
    pretend to be somebody else. ``Connection.proxy`` is the proxy's own address.

    Attributes:
        trusted: Networks of the proxies, such as ``"10.0.0.0/8"`` or ``"2001:db8::7"``; ``"unix"``:
            every peer of a unix socket.
        timeout: Seconds for the whole header; then the connection is cut.
    """

    trusted: Iterable[str]
    timeout: float = 5.0
    _networks: tuple[Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_networks", networks("trusted", self.trusted))
        if not self._networks:
            raise ValueError("trusted must name at least one network, or nobody is believed")
        if self.timeout is None:
            raise ValueError("timeout must be a number of seconds: a silent proxy would stay")
        _check_seconds("timeout", self.timeout, 0.001)
