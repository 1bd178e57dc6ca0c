"""``socket.create_connection`` over hardsock, for code that has a place to put such a function."""

from __future__ import annotations

import builtins
import os
import socket
from typing import Any

from hardsock._core import Connection
from hardsock._dial_limits import DialLimits
from hardsock._errors import ConnectError
from hardsock._names import suggests
from hardsock.connecting.connect import connect

__all__ = ["create_connection"]

_DEFAULT: Any = socket._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]
"""The standard library's own mark, which its callers pass on."""


def _port_of(port: object) -> int:
    """As getaddrinfo() reads it: a number, its text, or the name of a service."""
    if isinstance(port, int):
        return port
    text = port.decode() if isinstance(port, bytes) else port
    if not isinstance(text, str):
        raise TypeError(f"port must be an int or a str, not {type(port).__name__}")
    return int(text) if text.isascii() and text.isdigit() else socket.getservbyname(text, "tcp")


def _all_of(exc: ConnectError) -> BaseException:
    """What *all_errors* asks for: one error for each address, in an ExceptionGroup."""
    group: Any = getattr(builtins, "ExceptionGroup", None)
    if group is None:
        raise ValueError("all_errors needs Python 3.11, which has ExceptionGroup") from exc
    tried = [
        OSError(one.errno, f"{os.strerror(one.errno)}: {one.address}")
        for one in exc.attempts
        if one.errno
    ]
    return group("create_connection failed", tried or [exc])  # type: ignore[no-any-return]


@suggests
def create_connection(
    address: tuple[Any, Any],
    timeout: float | None = _DEFAULT,
    source_address: tuple[str, int] | None = None,
    *,
    all_errors: bool = False,
    limits: DialLimits | None = None,
) -> Connection:
    """Connect as ``socket.create_connection`` does; returns a ``Connection``.

    The rule for time, which is stricter than the standard library's: *timeout* is one deadline for
    the lookup and all addresses together. Then it is the connection's ``settimeout()``: each later
    call gets as many seconds, as a total for that call and however many pieces it takes. The
    ambient scope (``with hardsock.timeout(10):``) bounds all of them together.

    Args:
        address: ``(host, port)``; host ``None`` is this machine, port may be a name or digits.
        timeout: Seconds; ``None``: no limit; left out: ``socket.getdefaulttimeout()``.
        source_address: ``(address, port)`` to connect from.
        all_errors: Raise an ``ExceptionGroup`` with the error of each address instead of one
            ``ConnectError``, whose ``attempts`` has them all (Python 3.11 and later).
        limits: As of ``connect``; not the standard library's.

    Raises:
        As ``connect``. All but ``Cancelled`` are what ``except OSError`` has caught before.
    """
    host, port = address
    if timeout is _DEFAULT:
        timeout = socket.getdefaulttimeout()
    target = ("localhost" if host is None else host, _port_of(port))
    try:
        conn = connect(target, timeout=timeout, source=source_address, limits=limits)
    except ConnectError as exc:
        if all_errors and exc.attempts:
            raise _all_of(exc) from exc
        raise
    conn.settimeout(timeout)
    return conn
