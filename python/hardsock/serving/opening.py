"""The listener of a server: opened for it, or taken over."""

from __future__ import annotations

import inspect
import socket

from hardsock._core import Listener
from hardsock.connecting.connect import Address
from hardsock.listening.listen import listen

__all__ = ["open_listener"]

_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(listen).parameters.items()
    if parameter.default is not parameter.empty
}


def open_listener(
    address: Address | socket.socket | int | Listener, asked: dict[str, object]
) -> Listener:
    """Listen on *address*; a Listener that exists has its options already."""
    if not isinstance(address, Listener):
        return listen(address, **asked)  # type: ignore[arg-type]
    for name, value in asked.items():
        if name not in ("timeout", "token") and value != _DEFAULTS[name]:
            raise ValueError(
                f"{name}={value!r} and an address that is a Listener contradict each other: give "
                f"{name} to hardsock.listen"
            )
    if address.closed:
        raise ValueError("address is a Listener that was closed; give one that is open")
    return address
