"""Networks as the core takes them."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

__all__ = ["Network", "networks"]

Network = tuple[int, int, bytes]
"""Family, bits of prefix, address."""

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def networks(name: str, texts: Iterable[str]) -> tuple[Network, ...]:
    """What the parameter *name* lists."""
    if isinstance(texts, str):
        raise TypeError(f"{name} must be several networks, not one str: give ({texts!r},)")
    return tuple(_network(name, text) for text in texts)


def _network(name: str, text: object) -> Network:
    if not isinstance(text, str):
        raise TypeError(f"{name} must hold networks as str, not {type(text).__name__}")
    if text == "unix":
        return int(socket.AF_UNIX), 0, b""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"{name}: {error}; give a network such as '10.0.0.0/8', an address, or 'unix'"
        ) from None
    return int(_FAMILIES[network.version]), network.prefixlen, network.network_address.packed
