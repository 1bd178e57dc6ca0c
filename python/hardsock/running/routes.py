"""The ``socket`` module of a program that runs under hardsock.

What the program connects, while it blocks or has a timeout, is a ``Connection``. All else is the
plain socket that it asked for: what it accepts or is given, datagrams, sockets of event loops.
"""

from __future__ import annotations

import functools
import socket as _std
import ssl
import sys
import time
from abc import ABCMeta
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hardsock import _core
from hardsock._core import CancelToken, Connection
from hardsock.compat import socket as _compat
from hardsock.connecting.connect import name_in
from hardsock.connecting.create_connection import create_connection as _create_connection
from hardsock.leaks.sites import skip_sites
from hardsock.running import report
from hardsock.running.settings import Settings

__all__ = ["Limits", "install", "socket"]

_plain = _std.socket
_settings = Settings()
_OURS = {__name__, _compat.__name__}
_LOOKUP_FLAGS = _std.AI_ADDRCONFIG | _std.AI_NUMERICSERV | getattr(_std, "AI_V4MAPPED", 0)


class Limits:
    """The limits of one connection, which both its faces have: plain, and with TLS."""

    __slots__ = ("asked", "token")

    def __init__(self, conn: Connection) -> None:
        self.asked = conn.gettimeout()
        """What the program set by ``settimeout()``."""
        self.token: CancelToken | None = None
        self.settimeout(conn, self.asked)
        self._begin(conn)

    def settimeout(self, conn: Connection, value: float | None) -> None:
        """As the program asks, but at most what it is given."""
        conn.settimeout(value)
        self.asked = conn.gettimeout()
        if self.asked != 0:
            conn.settimeout(_settings.seconds(self.asked, _settings.read))
        if self.token is not None:
            self._bind(conn)

    def _bind(self, conn: Connection) -> None:
        # What does not block has nothing to end, and pools ask so whether an idle connection is
        # alive: its exchange is over, and the deadline of that has passed.
        conn.bind(None if self.asked == 0 else self.token)

    @contextmanager
    def without_wait(self, conn: Connection) -> Iterator[None]:
        """Around a call with MSG_DONTWAIT, which says what is there, and waits for nothing.

        As with ``settimeout(0)``: the deadline of an exchange that is over ends no such look.
        """
        if self.token is None or not self.token.cancelled:
            yield
            return
        conn.bind(None)
        try:
            yield
        finally:
            self._bind(conn)

    def before_send(self, conn: Connection) -> None:
        """An exchange begins with the first send, and with each that follows what was received.

        So it does after a pause of the whole deadline: the one before cannot go on any more.
        """
        if self.token is None or _settings.deadline is None:
            return
        read, written = conn.last_read, conn.last_write
        if written is None or (read is not None and read >= written):
            self._begin(conn)
        elif self.token.cancelled and time.monotonic() - written >= _settings.deadline:
            self._begin(conn)

    def _begin(self, conn: Connection) -> None:
        if _settings.deadline is None:
            return
        if self.token is None or self.token.cancelled:
            self.token = CancelToken(_settings.deadline, name="hardsock run --deadline")
            self._bind(conn)
        else:
            self.token.set_timeout(_settings.deadline)


class _Kind(ABCMeta):
    """What the program knows as ``socket.socket`` has more instances than its own.

    An ``ABCMeta``, so that the program's classes may have an abstract base beside it.
    """

    def __instancecheck__(cls, instance: object) -> bool:
        return type.__instancecheck__(_plain if cls is socket else cls, instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return type.__subclasscheck__(_plain if cls is socket else cls, subclass)


class socket(_compat.socket, metaclass=_Kind):
    """What the program finds as ``socket.socket``."""

    __slots__ = ("_limits",)
    _adopts_given = False
    _limits: Limits | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__new__(cls, *args, **kwargs)
        made._limits = None
        return made

    def _waits(self) -> bool:
        return _settings.limits and super()._waits() and not self._is_read_by_number()

    def _adopt(self) -> bool:
        return _settings.limits and not self._is_read_by_number() and super()._adopt()

    def _is_read_by_number(self) -> bool:
        """Whether who connects it reads its descriptor with ``os.read()``, which has to wait then.

        CPython 3.14 does: the forkserver, how processes start there, asks for a password.
        """
        if self.family != _std.AF_UNIX:
            return False
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_globals.get("__name__", "") in _OURS:
            frame = frame.f_back
        return frame.f_globals.get("__name__") == "multiprocessing.forkserver"

    def _seconds(self) -> float | None:
        return _settings.seconds(super()._seconds(), _settings.connect, _settings.deadline)

    def _connected(self, conn: Connection) -> None:
        asked = None if self._limits is None else self._limits.asked
        self._limits = Limits(conn)
        if asked is not None:  # In a forked child.
            self._limits.settimeout(conn, asked)

    def settimeout(self, value: float | None, /) -> None:
        """As ``socket.settimeout``; a call may take less."""
        if self._conn is None or self._limits is None:
            super().settimeout(value)
        else:
            self._limits.settimeout(self._conn, value)

    def gettimeout(self) -> float | None:
        """What the program set."""
        return super().gettimeout() if self._limits is None else self._limits.asked

    timeout = property(gettimeout)

    def makefile(self, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        """As ``socket.makefile``; what is written passes through ``send``, as with any socket."""
        if "w" in mode:
            return _plain.makefile(self, mode, *args, **kwargs)  # type: ignore[call-overload]
        return super().makefile(mode, *args, **kwargs)

    def __del__(self) -> None:
        report.dropped(self, getattr(self, "_conn", None))
        _plain.__del__(self)  # type: ignore[attr-defined]


def _receiving(name: str, position: int) -> Any:
    method = getattr(_compat.socket, name)

    @functools.wraps(method)
    def call(self: socket, *args: Any, **kwargs: Any) -> Any:
        flags = args[position] if len(args) > position else kwargs.get("flags", 0)
        if not flags & _std.MSG_DONTWAIT or self._conn is None or self._limits is None:
            return method(self, *args, **kwargs)
        with self._limits.without_wait(self._conn):
            return method(self, *args, **kwargs)

    return call


def _sending(name: str) -> Any:
    method = getattr(_compat.socket, name)
    by_message = name in ("sendmsg", "sendfile")

    @functools.wraps(method)
    def call(self: socket, *args: Any, **kwargs: Any) -> Any:
        # Nothing that is sent begins no exchange.
        something = by_message or (args and len(args[0]))
        if something and self._conn is not None and self._limits is not None:
            self._limits.before_send(self._conn)
        return method(self, *args, **kwargs)

    return call


for _name, _position in (("recv", 1), ("recv_into", 2), ("recvmsg", 2), ("recvmsg_into", 2)):
    setattr(socket, _name, _receiving(_name, _position))
for _name in ("send", "sendall", "sendmsg", "sendfile"):
    setattr(socket, _name, _sending(_name))
socket.__module__ = "socket"


def _connect(
    address: tuple[Any, Any],
    timeout: float | None = _std._GLOBAL_DEFAULT_TIMEOUT,  # type: ignore[attr-defined]
    source_address: tuple[str, int] | None = None,
    *,
    all_errors: bool = False,
) -> Any:
    """``socket.create_connection``: addresses race, under the limits."""
    if timeout is _std._GLOBAL_DEFAULT_TIMEOUT:  # type: ignore[attr-defined]
        timeout = _std.getdefaulttimeout()
    limit = _settings.seconds(timeout, _settings.connect, _settings.deadline)
    made = socket._of(_create_connection(address, limit, source_address, all_errors=all_errors))
    made.settimeout(timeout)
    return made


_getaddrinfo = _std.getaddrinfo


def _lookup(
    host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> Any:
    """``socket.getaddrinfo``: names are looked up under the limits of a connect."""
    name = host.decode("ascii", "surrogateescape") if isinstance(host, bytes) else host
    usual = family in (0, _std.AF_INET, _std.AF_INET6) and not flags & ~_LOOKUP_FLAGS
    if not usual or not isinstance(name, str) or not _is_name(name):
        return _getaddrinfo(host, port, family, type, proto, flags)
    seconds = _settings.seconds(_settings.connect, _settings.deadline)
    plan = _core.resolve((name, 1), timeout=seconds, family=int(family)).plan
    hosts = [one.rpartition(":")[0].strip("[]") for one in plan]
    numeric = flags | _std.AI_NUMERICHOST
    return [
        one
        for found in hosts
        for one in _getaddrinfo(
            found,
            port,
            _std.AF_INET6 if ":" in found else _std.AF_INET,
            type,
            proto,
            numeric & ~_std.AI_ADDRCONFIG,
        )
    ]


def _is_name(host: str) -> bool:
    try:
        return name_in((host, 1)) is not None
    except (TypeError, ValueError):
        return False


def install(settings: Settings) -> None:
    """Put them into the ``socket`` module, and where others have taken them from it already."""
    global _settings
    _settings = settings
    skip_sites(__name__, "hardsock.running.tls")
    _std.socket = socket  # type: ignore[misc]
    if not settings.limits:
        return
    for module in (_std, ssl):
        module.create_connection = _connect  # type: ignore[attr-defined]
    _connect.__name__, _connect.__module__ = "create_connection", "socket"
    if settings.connect is not None or settings.deadline is not None:
        _std.getaddrinfo = _lookup
        _lookup.__name__, _lookup.__module__ = "getaddrinfo", "socket"
