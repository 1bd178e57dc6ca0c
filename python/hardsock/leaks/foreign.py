"""Sockets of this process that are not hardsock's: what they are, and who made them."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardsock import _core
from hardsock.pool.records import Site, site_at, thread_name

if TYPE_CHECKING:
    from hardsock.leaks.tracer import Trace

__all__ = ["ForeignSocket", "describe"]


@dataclass(frozen=True)
class ForeignSocket:
    """A socket that is not hardsock's, as the kernel describes it.

    Attributes:
        family: ``"AF_INET"``, ``"AF_UNIX"``, ...; a number if Python has no name for it.
        kind: ``"SOCK_STREAM"``, ``"SOCK_DGRAM"``, ...
        state: Of TCP: ``"established"``, ``"close_wait"``, ``"listen"``, ...; ``"listen"`` of
            others that do; otherwise ``None``.
        local: This end as text; ``None``: not known.
        peer: The other end as text; ``None``: there is none, or it is not known.
        age: Seconds since it was made; ``None``: its maker is not known.
        site: The innermost frame, outside of libraries that are known, that made it. ``None``: it
            was made before anybody traced that, or by a library in C, or its descriptor was passed
            on.
        thread: The thread in which that was.
    """

    family: str
    kind: str
    state: str | None
    local: str | None
    peer: str | None
    age: float | None
    site: Site | None
    thread: str | None

    def __str__(self) -> str:
        ends = " -> ".join(end for end in (self.local, self.peer) if end is not None)
        parts = [self.family, ends, self.state or self.kind]
        text = " ".join(part for part in parts if part)
        if self.site is None:
            return f"{text}, made outside of Python, or before it was traced"
        return f"{text} at {self.site}, {self.age or 0.0:.3f} s ago"


def describe(fd: int, trace: Trace | None) -> ForeignSocket | None:
    """What the socket *fd* is; ``None``: it has been closed since."""
    found = _core._fd_socket(fd)
    if found is None:
        return None
    family, kind, listens, state, local, peer = found
    age = site = by = None
    if trace is not None:
        age = max(0.0, time.monotonic() - trace.since / 1e9)
        site, by = site_at(trace.code, trace.offset), thread_name(trace.thread)
    return ForeignSocket(
        _name_of(family, socket.AddressFamily),
        _name_of(kind, socket.SocketKind),
        state or ("listen" if listens else None),
        local,
        peer,
        age,
        site,
        by,
    )


def _name_of(number: int, kind: type[socket.AddressFamily] | type[socket.SocketKind]) -> str:
    try:
        return kind(number).name
    except ValueError:
        return str(number)
