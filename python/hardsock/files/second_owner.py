"""What to do when ``detach()`` is refused after somebody has taken the number already; and a
warning when it is ``ssl`` that takes it.

``ssl.SSLContext.wrap_socket`` makes an ``SSLSocket`` of ``sock.fileno()`` first and calls
``sock.detach()`` after: when that raises, two objects own one descriptor, and the SSLSocket closes
it when it dies. Nothing says who calls, so the objects themselves are looked through, which takes
a few milliseconds in a program with very many; it happens only when ``detach()`` has failed.
"""

from __future__ import annotations

import _socket
import gc
import ssl
import warnings
from types import CodeType
from typing import Any

from hardsock import _core
from hardsock._errors import EscapeWarning
from hardsock.pool.records import site_at

# gevent puts a class of its own in its place, which has no such method.
_CREATE = getattr(getattr(ssl.SSLSocket, "_create", None), "__code__", None)
_told: dict[Any, Any] = {}
"""What the warnings module keeps of what it has told: once for each line."""


def leaving(caller: CodeType) -> None:
    """Warn if it is ``ssl`` that is about to take the descriptor of a connection."""
    if caller is not _CREATE:
        return
    site = site_at(*_core._here())
    text = (
        "ssl takes the descriptor away: deadlines, cancelling and the ledger end here. Write "
        "hardsock.ssl_context(context).wrap_socket(conn, ...) instead of context.wrap_socket(conn, "
        "...), or conn.upgrade_to_tls(config, server_name=...)"
    )
    warnings.warn_explicit(text, EscapeWarning, site.file, site.line, registry=_told)


def disown(number: int) -> int:
    """Take the descriptor *number* from every socket that has it; returns how many.

    The class is that of C: gevent's sockets hold one of it, and are no ``socket.socket``.
    """
    found = 0
    for one in gc.get_objects():
        # type(), since an object may claim any __class__.
        if issubclass(type(one), _socket.socket) and _socket.socket.fileno(one) == number:
            _socket.socket.detach(one)
            found += 1
    return found
