"""The standard library's ``socket`` module, with hardsock behind its connected streams.

    from hardsock.compat import socket      # in place of: import socket

    sock = socket.create_connection(("db", 5432), timeout=5)    # all addresses race; one deadline
    with hardsock.timeout(2.0):
        sock.sendall(b"...")                                    # each call obeys the scope
        sock.recv(4096)

Everything that ``socket`` has is here under its name. ``socket`` itself is a subclass of
``socket.socket``: once it is connected, a stream (TCP or unix) is a ``hardsock.Connection``, with
deadlines, scopes, tokens and a place in the ledger, and ``settimeout()`` is a total for each call.
``accept()`` obeys the scope, and what it accepts is such a stream.

Untouched, and just the plain socket: datagrams and other kinds of sockets, and what has
``settimeout(0)`` when it connects, as the sockets of event loops have.

``ssl.SSLContext.wrap_socket`` takes the descriptor from it, as from any socket, and hardsock says
so (``EscapeWarning``). ``hardsock.ssl_context().wrap_socket`` keeps what hardsock promises.
"""

from __future__ import annotations

import _socket
import errno
import operator
import os
import select
import socket as _std
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FunctionType
from typing import IO, TYPE_CHECKING, Any

from hardsock import _core
from hardsock._core import Connection
from hardsock._defaults import last_resort, limit_of
from hardsock._errors import DeadlineExceeded, WrongProcess
from hardsock._scope import current
from hardsock._scope import sleep as _sleep
from hardsock.connecting.connect import name_in
from hardsock.connecting.create_connection import create_connection as _create_connection
from hardsock.files.second_owner import leaving as _leaving
from hardsock.leaks.sites import skip_sites as _skip_sites

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

    def __getattr__(name: str) -> Any: ...


for _name in dir(_std):
    if not _name.startswith("__"):
        globals().setdefault(_name, getattr(_std, _name))

__all__ = list(_std.__all__)

_base = _std.socket
_STREAMS = (_std.AF_INET, _std.AF_INET6, _std.AF_UNIX)
_RETRY_UNIX = 0.01
"""Seconds between two tries while the backlog of a unix listener is full: the kernel tells nobody
when there is room again (connect(2), EAGAIN)."""
_ANYWHERE = ("", "<broadcast>")
"""Hosts that the socket module reads in its own way."""
_MAX_POLL = 86_400.0  # seconds; poll(2) takes an int of milliseconds
_forks = 0  # that led to this process, since the import


def _after_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_after_fork)


# ---- waiting for what is no Connection yet


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


def _wait_for(fd: int, events: int, until: float | None) -> bool:
    """Wait until *fd* is ready; False: *until* passed first. The scope's end is raised."""
    token, left = current(), _left(until)
    poll = select.poll()
    poll.register(fd, events)
    if token is not None:
        token.check()
        poll.register(token.fileno(), select.POLLIN)
        if (remaining := token.remaining) is not None:
            left = remaining if left is None else min(left, remaining)
    ready = poll.poll(None if left is None else min(left, _MAX_POLL) * 1000)
    if any(one == fd for one, _ in ready):
        return True
    if token is not None:
        token.check()
    return until is None or time.monotonic() < until


# ---- the class


class socket(_base):
    """``socket.socket``; a connected stream is a ``hardsock.Connection`` behind it.

    Connected means: by ``connect()``, ``create_connection()``, ``accept()``, ``socketpair()``, or
    given as a descriptor that is connected already. Calls take what those of ``socket.socket`` take,
    and raise the same: ``DeadlineExceeded`` is a ``TimeoutError``, ``Closed`` an ``OSError`` with
    EBADF. ``Cancelled`` is raised after a cancel. docs/internals/socket-contract.md lists what
    differs.
    """

    __slots__ = ("_conn", "_forks", "_number", "_tried")
    _adopts_given = True  # a descriptor that is given, and what is accepted

    def __init__(
        self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
    ) -> None:
        self._conn: Connection | None = None
        self._number = -1  # of the descriptor that is hardsock's: a forked child finds it by this
        self._tried = False  # to connect, without waiting for it
        super().__init__(family, type, proto, fileno)
        if fileno is not None and self._adopts_given:
            self._adopt()

    # ---- who does the waiting

    @property
    def connection(self) -> Connection | None:
        """The ``Connection`` behind it; ``None``: it is a plain socket at present."""
        return self._conn

    def _is_stream(self) -> bool:
        return self.type == _std.SOCK_STREAM and self.family in _STREAMS

    def _waits(self) -> bool:
        """Whether hardsock is to wait for a peer here."""
        return self._conn is None and self._is_stream() and _base.gettimeout(self) != 0

    def _adopt(self) -> bool:
        """Let hardsock have the descriptor if it is that of a connected stream."""
        if self._conn is not None or not self._is_stream():
            return False
        timeout = _base.gettimeout(self)
        try:
            conn = _core.adopt(_base.fileno(self))
        except (OSError, ValueError):  # It has no peer, or another Connection owns it.
            return False
        _socket.socket.detach(self)
        self._take(conn, timeout)
        return True

    def _take(self, conn: Connection, timeout: float | None) -> None:
        conn.settimeout(timeout)
        self._conn, self._number, self._forks = conn, conn.fileno(), _forks
        self._connected(conn)

    def _connected(self, conn: Connection) -> None:
        """For subclasses: it has just become this connection."""

    @classmethod
    def _of(cls, conn: Connection) -> Self:
        """Make one for a connection that is made already."""
        made = cls.__new__(cls)
        made._conn, made._number, made._tried = None, -1, False
        _base.__init__(made, conn.family, conn.type, conn.proto, conn.fileno())
        _socket.socket.detach(made)
        made._take(conn, conn.gettimeout())
        return made

    def _give(self) -> Connection | None:
        """Give the connection away: the socket is closed then, as after ``detach()``."""
        conn, self._conn = self._conn, None
        if conn is not None:
            self._closed = True
        return conn

    def _inherit(self) -> bool:
        """In a forked child: go on with a duplicate, as the child of any process may.

        Parent and child share one stream then, as the socket module lets them. What a file has read
        ahead in the parent is the parent's.
        """
        old = self._conn
        if old is None or self._closed or self._forks == _forks:
            return False
        number = os.dup(self._number)
        try:
            conn = _core.adopt(number)
        except BaseException:
            os.close(number)
            raise
        self._take(conn, old.gettimeout())
        old.close()
        return True

    # ---- connecting

    def connect(self, address: Any, /) -> None:
        """As ``socket.connect``; the timeout, and the scope, are for the lookup of a name, too."""
        if not self._waits():
            self._connect_plain(_base.connect, address)
            return
        code = self._dial(address)
        if code:
            raise OSError(code, os.strerror(code))

    def connect_ex(self, address: Any, /) -> int:
        """As ``socket.connect_ex``; a cancel is raised."""
        if not self._waits():
            return int(self._connect_plain(_base.connect_ex, address))
        try:
            return self._dial(address)
        except TimeoutError:
            return errno.EAGAIN

    def _connect_plain(self, method: Callable[..., Any], address: Any) -> Any:
        if self._conn is not None:
            with self._plain() as plain:
                return method(plain, address)
        self._tried = True
        return method(self, address)

    def _seconds(self) -> float | None:
        """How long a connect may take."""
        return _base.gettimeout(self)

    def _dial(self, address: Any) -> int:
        """Connect while hardsock waits; 0 or an errno."""
        began, seconds = time.monotonic(), self._seconds()
        if seconds is not None:
            return self._dial_until(address, began + seconds)
        if (seconds := last_resort()) is None:
            return self._dial_until(address, None)
        try:
            return self._dial_until(address, began + seconds)
        except TimeoutError as exc:  # Nothing else has an end.
            late = DeadlineExceeded(None, f"connect: not connected in {seconds:g} s")
            late.op, late.phase = "connect", getattr(exc, "phase", "connect")
            late.limit, late.elapsed = limit_of(seconds), time.monotonic() - began
            raise late from exc

    def _dial_until(self, address: Any, until: float | None) -> int:
        timeout = _base.gettimeout(self)
        address = self._resolved(address, until)
        _base.settimeout(self, 0)
        try:
            code = self._dial_address(address, until)
        finally:
            _base.settimeout(self, timeout)
        if code == 0 and not self._adopt():
            return errno.ECONNRESET  # The peer has gone since.
        return code

    def _resolved(self, address: Any, until: float | None) -> Any:
        """The address with a number for a name, as hardsock looks it up."""
        if self.family == _std.AF_UNIX or not isinstance(address, tuple) or len(address) < 2:
            return address
        host, port = address[0], address[1]
        if isinstance(host, (bytes, bytearray)):
            host = host.decode("ascii", "surrogateescape")
        if not isinstance(host, str) or host in _ANYWHERE or not isinstance(port, int):
            return address
        if not 0 < port < 65536 or name_in((host, port)) is None:
            return address
        found = _core.resolve((host, port), timeout=_left(until), family=int(self.family))
        return (found.plan[0].rpartition(":")[0].strip("[]"), *address[1:])

    def _dial_address(self, address: Any, until: float | None) -> int:
        started = False
        while True:
            code = _base.connect_ex(self, address)
            if code == errno.EAGAIN and self.family == _std.AF_UNIX:
                if until is not None and time.monotonic() >= until:
                    raise TimeoutError("timed out")
                _sleep(_RETRY_UNIX)
            elif code in (errno.EINPROGRESS, errno.EALREADY):
                started = True
                if not _wait_for(_base.fileno(self), select.POLLOUT, until):
                    raise TimeoutError("timed out")
            else:
                # The second call asks how the first has ended, and makes the socket fit for
                # another try, which SO_ERROR does not (connect(2)).
                return 0 if started and code == errno.EISCONN else int(code)

    # ---- accepting

    def accept(self) -> tuple[socket, Any]:
        """As ``socket.accept``; it obeys the scope, too, unless there is ``settimeout(0)``."""
        timeout = _base.gettimeout(self)
        if timeout == 0 or self._conn is not None or (timeout is not None and current() is None):
            fd, address = self._accept()  # type: ignore[attr-defined]
        elif current() is None:
            try:
                fd, address = self._accept()  # type: ignore[attr-defined]
            except BlockingIOError:  # Another accept has a scope: see _accept_now.
                fd, address = self._accept_in_scope(timeout)
        else:
            fd, address = self._accept_in_scope(timeout)
        made = self._accepted(fd)
        if _std.getdefaulttimeout() is None and timeout:
            made.setblocking(True)
        return made, address

    def _accepted(self, fd: int) -> socket:
        return type(self)(self.family, self.type, self.proto, fileno=fd)

    def _accept_in_scope(self, timeout: float | None) -> Any:
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            if not _wait_for(_base.fileno(self), select.POLLIN, until):
                raise TimeoutError("timed out")
            try:
                return self._accept_now(timeout)
            except BlockingIOError:  # Another thread or process was faster.
                continue

    def _accept_now(self, timeout: float | None) -> Any:
        """Take a connection that is there; BlockingIOError: it is not any more.

        With a timeout the descriptor does not block already: at worst its own timeout decides. Else
        it does not from the first accept in a scope on. It cannot be restored: O_NONBLOCK is that of
        all threads and processes which accept here, and one of them would block in spite of its
        scope. What waits is ``accept()``, so that nobody sees it but who looks at the descriptor.
        """
        if timeout is None:
            os.set_blocking(_base.fileno(self), False)
        return self._accept()  # type: ignore[attr-defined]

    # ---- what the connection does instead

    @contextmanager
    def _plain(self) -> Iterator[_std.socket]:
        """A plain socket on the descriptor of the connection, for a moment."""
        with _base(fileno=os.dup(self.fileno())) as plain:
            yield plain

    def _again(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that found the connection to be its parent's."""
        if not self._inherit():
            raise
        return getattr(self._conn, name)(*args, **kwargs)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """As ``socket.recv``."""
        conn = self._conn
        if conn is None:
            return _base.recv(self, bufsize, flags)
        if flags & _std.MSG_OOB:
            with self._plain() as plain:
                return plain.recv(bufsize, flags)
        try:
            return conn.recv(bufsize, flags)
        except WrongProcess:
            return bytes(self._again("recv", (bufsize, flags), {}))

    def send(self, data: Buffer, flags: int = 0, /) -> int:
        """As ``socket.send``."""
        conn = self._conn
        if conn is None:
            return _base.send(self, data, flags)
        if flags & _std.MSG_OOB:
            with self._plain() as plain:
                return plain.send(data, flags)
        try:
            return conn.send(data, flags)
        except WrongProcess:
            return int(self._again("send", (data, flags), {}))

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """As ``socket.sendall``."""
        conn = self._conn
        if conn is None:
            _base.sendall(self, data, flags)
            return
        if flags & _std.MSG_OOB:
            with self._plain() as plain:
                plain.sendall(data, flags)
            return
        try:
            conn.sendall(data, flags)
        except WrongProcess:
            self._again("sendall", (data, flags), {})

    def sendto(self, data: Buffer, *rest: Any) -> int:
        """As ``socket.sendto``; a connected stream has no use for the address."""
        if self._conn is None:
            return _base.sendto(self, data, *rest)
        return self.send(data, *rest[:-1])

    def makefile(  # type: ignore[override]
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """As ``socket.makefile``; of a connected stream it loses nothing: see docs/files.md."""
        how = {"encoding": encoding, "errors": errors, "newline": newline}
        if self._conn is None:
            return _base.makefile(self, mode, buffering, **how)  # type: ignore[call-overload,no-any-return]
        if self._forks != _forks:  # Else the file would find out when it reads.
            self._inherit()
        return self._conn.makefile(mode, buffering, **how)

    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None) -> int:
        """As ``socket.sendmsg``."""
        conn = self._conn
        if conn is None:
            rest = () if address is None else (address,)
            return _base.sendmsg(self, buffers, ancdata, flags, *rest)
        if address is not None or flags & _std.MSG_OOB:
            with self._plain() as plain:
                return plain.sendmsg(buffers, ancdata, flags, address)
        try:
            return conn.sendmsg(buffers, ancdata, flags)
        except WrongProcess:
            return int(self._again("sendmsg", (buffers, ancdata, flags), {}))

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """As ``socket.sendfile``: not with ``settimeout(0)``, which is a ValueError."""
        conn = self._conn
        if conn is None or conn.gettimeout() == 0:
            return _base.sendfile(self, file, offset, count)
        try:
            return conn.sendfile(file, offset, count)
        except WrongProcess:
            return int(self._again("sendfile", (file, offset, count), {}))

    def bind(self, address: Any, /) -> None:
        """As ``socket.bind``."""
        if self._conn is None:
            _base.bind(self, address)
            return
        with self._plain() as plain:
            plain.bind(address)

    def listen(self, *backlog: int) -> None:
        """As ``socket.listen``."""
        if self._conn is None:
            _base.listen(self, *backlog)
            return
        with self._plain() as plain:
            plain.listen(*backlog)

    # ---- time

    def settimeout(self, value: float | None, /) -> None:
        """As ``socket.settimeout``: seconds, as a total for each call; ``None``; 0: nobody waits."""
        if self._conn is not None:
            self._conn.settimeout(value)
            return
        _base.settimeout(self, value)
        if self._tried and value != 0 and self._adopt():
            self._tried = False

    def gettimeout(self) -> float | None:
        """What ``settimeout`` set."""
        return _base.gettimeout(self) if self._conn is None else self._conn.gettimeout()

    timeout = property(gettimeout)

    def setblocking(self, flag: bool, /) -> None:
        """True is ``settimeout(None)``, False is ``settimeout(0)``."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        """False after ``settimeout(0)``."""
        return self.gettimeout() != 0

    # ---- the end

    def fileno(self) -> int:
        """The descriptor; -1 when closed. It is the connection's, and does not block."""
        if self._conn is None:
            return _base.fileno(self)
        number = self._conn.fileno()
        if number < 0 and self._inherit():
            return self._number
        return number

    def detach(self) -> int:
        """As ``socket.detach``: the descriptor blocks again if it did when it was connected."""
        if self._conn is None:
            return _base.detach(self)
        _leaving(sys._getframe(1).f_code)
        try:
            number = self._conn.detach()
        except WrongProcess:
            number = int(self._again("detach", (), {}))
        self._conn, self._closed = None, True
        return number

    def _real_close(self, *args: Any) -> None:
        if self._conn is not None:
            self._conn.close()
        _base._real_close(self, *args)  # type: ignore[attr-defined]


def _forwarded(name: str) -> Any:
    plain = getattr(_base, name)

    def call(self: socket, *args: Any, **kwargs: Any) -> Any:
        conn = self._conn
        if conn is None:
            return plain(self, *args, **kwargs)
        try:
            return getattr(conn, name)(*args, **kwargs)
        except WrongProcess:
            return self._again(name, args, kwargs)

    call.__name__, call.__qualname__ = name, f"socket.{name}"
    call.__doc__ = f"As ``socket.{name}``."
    return call


for _name in (
    *("getpeername", "getsockname", "getsockopt", "setsockopt", "shutdown"),
    *("recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into"),
):
    setattr(socket, _name, _forwarded(_name))


def _with_c_int(forwarded: Any) -> Any:
    """A number that fits no C int is what ``socket`` says it is, not a connection's ValueError."""

    @wraps(forwarded)
    def shutdown(self: socket, how: int, /) -> None:
        if not -(1 << 31) <= operator.index(how) < 1 << 31:
            raise OverflowError("Python int too large to convert to C int")
        forwarded(self, how)

    return shutdown


socket.shutdown = _with_c_int(socket.shutdown)  # type: ignore[method-assign]


# ---- the module's functions that make sockets

_skip_sites(__name__)  # The standard library's functions run under this name, from its own file.


def create_connection(
    address: tuple[Any, Any],
    timeout: float | None = _std._GLOBAL_DEFAULT_TIMEOUT,  # type: ignore[attr-defined]
    source_address: tuple[str, int] | None = None,
    *,
    all_errors: bool = False,
) -> socket:
    """As ``hardsock.create_connection``: addresses race, and *timeout* is for all of them."""
    conn = _create_connection(address, timeout, source_address, all_errors=all_errors)
    return socket._of(conn)


def _with_our_class(function: Any) -> Any:
    """The standard library's function, which finds the name ``socket`` here."""
    made = FunctionType(function.__code__, globals(), function.__name__, function.__defaults__)
    made.__kwdefaults__, made.__doc__ = function.__kwdefaults__, function.__doc__
    return made


for _name in ("create_server", "fromfd", "fromshare", "socketpair"):
    if hasattr(_std, _name):
        globals()[_name] = _with_our_class(getattr(_std, _name))
