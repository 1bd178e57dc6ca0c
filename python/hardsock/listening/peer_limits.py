"""How much one stranger may take of a listener."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hardsock._names import names_checked
from hardsock._options import _check_int
from hardsock.listening.networks import Network, networks

__all__ = ["PeerLimits"]

_MOST = 1_000_000


@names_checked
@dataclass(frozen=True, kw_only=True)
class PeerLimits:
    """Limits of each peer: an IPv4 address or an IPv6 /64, which is what one subscriber has.

    A connection over a limit is reset as soon as it is accepted, and counted; nothing else is done
    for it. Behind a proxy of *proxy_protocol* it is the client that counts. Peers of unix sockets
    have no limits.

    Attributes:
        connections: At the same time, of one peer.
        network_connections: At the same time, of all peers of one IPv4 /24 or IPv6 /48.
        rate: New connections of one peer per second.
        burst: How many of them may come at once after a quiet time; by default *rate*.
        exempt: Networks without limits, such as ``"10.0.0.0/8"``.
        table_size: Peers and networks that are remembered, 64 bytes each. When all of them have
            connections, a new one is let in uncounted.
    """

    connections: int | None = None
    network_connections: int | None = None
    rate: int | None = None
    burst: int | None = None
    exempt: Iterable[str] = ()
    table_size: int = 16384
    _exempt: tuple[Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("connections", "network_connections", "rate", "burst"):
            _check_int(name, getattr(self, name), 1, _MOST)
        if self.table_size is None:
            raise ValueError("table_size must be a number: the table has to have an end")
        _check_int("table_size", self.table_size, 1, 1 << 20)
        if self.connections is self.network_connections is self.rate is None:
            raise ValueError(
                "PeerLimits needs one limit at least: connections, network_connections or rate"
            )
        if self.burst is not None and self.rate is None:
            raise ValueError(f"burst={self.burst} has no use without rate")
        object.__setattr__(self, "_exempt", networks("exempt", self.exempt))

    def _kernel(self) -> tuple[int, int, int, int, int]:
        """As the core takes them."""
        limits = (self.connections, self.network_connections, self.rate, self.burst)
        first, second, third, fourth = (limit or 0 for limit in limits)
        return first, second, third, fourth, self.table_size
