"""Taking over a socket that somebody else has connected.

Not in connect.py: a program that connects for itself needs neither ``socket`` nor ``ssl``.
"""

from __future__ import annotations

import socket
import ssl

from hardsock import _core
from hardsock._core import Connection
from hardsock._greenlets import warn_of_greenlets
from hardsock._names import caller, suggests
from hardsock._options import SocketOptions, kernel_settings
from hardsock.connecting.connect import warn_of_changes

__all__ = ["adopt"]


@suggests
def adopt(sock: socket.socket | int, *, options: SocketOptions | None = None) -> Connection:
    """Own a connected stream socket (TCP or unix), given as ``socket.socket`` or descriptor.

    A ``socket.socket`` is detached: only the Connection may be used from then on. On failure it
    keeps what it had. A descriptor that has an owner here is refused; one that other code owns must
    be its no more. Settings are left alone unless *options* are given.

    Raises:
        ValueError: It is no stream socket, or it has no peer.
        TypeError: It is something else, for example a Connection or an SSLSocket.
    """
    if isinstance(sock, bool) or not isinstance(sock, (int, socket.socket)):
        raise TypeError(f"sock must be a socket.socket or a descriptor, not {type(sock).__name__}")
    if isinstance(sock, ssl.SSLSocket):
        raise TypeError("sock must be a plain socket: the bytes below an SSLSocket are ciphertext")
    warn_of_greenlets()
    kernel = None if options is None else kernel_settings(options)
    if isinstance(sock, int):
        conn = _core.adopt(sock, sockopts=kernel)
    else:
        conn = _core.adopt(sock.fileno(), sockopts=kernel)
        sock.detach()
    if conn.changed_settings:
        warn_of_changes(conn.audit(), stacklevel=caller())
    return conn
