"""One process gives its listening sockets to the one that replaces it, over a unix socket.

The new process asks, is given the descriptors (SCM_RIGHTS), starts to serve, and says that it is
ready. Only then the old one stops: it accepts nothing more, and what is queued in the sockets, which
are the same, is the new one's. A new process that fails before that changes nothing.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from hardsock._core import CancelToken, Connection, Listener
from hardsock._errors import ConnectError, HardsockError, SocketError
from hardsock.connecting.connect import connect
from hardsock.listening.listen import listen
from hardsock.serving.inherited import InheritedSockets, check_name
from hardsock.serving.serve import serve

__all__ = ["TakenOver", "hand_over", "take_over"]

_MOST = 253
"""SCM_MAX_FD of the kernel: descriptors in one message."""
_ASK, _READY, _BYE = b"hardsock: take over", b"ready", b"bye"
_LINE = 65536
_NOBODY = (errno.ENOENT, errno.ECONNREFUSED)


class TakenOver(InheritedSockets):
    """What ``take_over`` returns, with its timeout in seconds. Say ``ready()`` when it is served.

    For the thread that starts the program; it stands for one process that hands over to another."""

    def __init__(
        self, conn: Connection | None, sockets: list[tuple[str, int]], timeout: float
    ) -> None:
        super().__init__(sockets)
        self._conn = conn
        self._timeout = timeout

    @property
    def replaces(self) -> bool:
        """Whether there was a process to take over from."""
        return self._conn is not None

    def ready(self) -> None:
        """Tell the other process to stop: whatever comes from now on is served here.

        When it returns the other one accepts nothing more, drains, and has left the path of
        ``hand_over``. Does nothing when there was none, or when it was said already.

        Raises:
            HardsockError: The other one did not answer in time, or is gone. It may have stopped or
                not; both serve the same sockets, so nobody is lost.
        """
        conn, self._conn = self._conn, None
        if conn is not None:
            with conn:
                conn.sendall(_READY + b"\n", timeout=self._timeout)
                if conn.recv_line(timeout=self._timeout) != _BYE:
                    raise _refused("the process that is replaced did not understand")

    def close(self) -> None:
        """Close what was not taken; without ``ready()`` the other process goes on. Idempotent."""
        super().close()
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()


def take_over(
    path: str | os.PathLike[str], *, timeout: float = 5.0, token: CancelToken | None = None
) -> TakenOver:
    """Ask the process that runs ``hand_over(path, ...)`` for its listening sockets.

    ::

        with hs.take_over("/run/app/handover", timeout=5) as taken:
            listener = taken.listen("web", ("", 8080))  # the other's, or a new one
            server = hs.serve(handler, listener, drain_timeout=30)
            taken.ready()  # from here on the other one drains

    Nobody there is no error: that is the first start.

    Args:
        path: Of the unix socket.
        timeout: Seconds to ask and be answered; the same again for ``ready()``.
        token: Ends the asking.

    Raises:
        HardsockError: Somebody is there, and does not answer in time or not as it should.
        PermissionError: The path may not be connected to; or a process of another user, who is not
            root, listens there. Nothing is taken from it: it could give any sockets.
    """
    deadline = CancelToken(timeout) if token is None else token.child(timeout)
    try:
        conn = connect(f"unix:{os.fspath(path)}", token=deadline, timeout=timeout)
    except ConnectError as exc:
        if exc.errno in _NOBODY:
            return TakenOver(None, [], timeout)
        raise
    try:
        if not _is_trusted(uid := _uid_of_peer(conn)):
            raise PermissionError(
                errno.EPERM,
                f"user {uid} listens there, and sockets are taken from root and user "
                f"{os.geteuid()} only",
                os.fspath(path),
            )
        conn.sendall(_ASK + b"\n", token=deadline)
        return TakenOver(conn, _receive(conn, deadline), timeout)
    except BaseException:
        conn.close()
        raise


def _refused(text: str) -> SocketError:
    exc = SocketError(None, text)
    exc.op = "take_over"
    exc.hint = "is it hardsock.hand_over that listens there?"
    return exc


def _receive(conn: Connection, token: CancelToken) -> list[tuple[str, int]]:
    """The line of names comes with the descriptors, which go with its first byte."""
    size = socket.CMSG_SPACE(_MOST * array.array("i").itemsize)
    data, ancillary, _flags, _ = conn.recvmsg(_LINE, size, token=token)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    try:
        while not data.endswith(b"\n"):
            if not (more := conn.recv(_LINE, token=token)) or len(data) > _LINE:
                raise _refused("the process that is to be replaced gave no sockets")
            data += more
        names = data.decode(errors="replace").rstrip("\n").split(":")
        if len(names) != len(fds):
            raise _refused(f"{len(fds)} sockets came, for the names {names!r}")
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return list(zip(names, fds, strict=True))


@contextmanager
def hand_over(
    path: str | os.PathLike[str],
    listeners: Mapping[str, Listener],
    *,
    then: Callable[[], object],
    timeout: float = 60.0,
) -> Iterator[CancelToken]:
    """In the block, give *listeners* to whichever process calls ``take_over(path)``.

    When that one is ready, they accept nothing more here, and ``then()`` is called: give it the
    server's ``stop``. The block yields a token that ends then::

        with hs.hand_over("/run/app/handover", {"web": server.listener}, then=server.stop):
            server.wait()

    Only processes of the same user, and root's, are given anything; the path is made with mode
    0600. The thread that does it is a server of its own, also beside ``aio.serve``.

    Args:
        path: Of the unix socket, whose directory must exist. A process that takes over can use the
            same one itself as soon as its ``ready()`` has returned.
        listeners: By the names that the other one asks for; at most 253. Names are as for
            ``systemd_notify``.
        then: Called once, in another thread; it must not wait.
        timeout: Seconds that the other process has from asking until it is ready.

    Raises:
        HardsockError: The path cannot be listened on, for instance since another process does.
        ValueError: There are no listeners or too many, or a name cannot be sent.
    """
    if not 1 <= len(listeners) <= _MOST:
        raise ValueError(f"listeners must be 1 to {_MOST}, got {len(listeners)}")
    for name in listeners:
        check_name(name)
    with listen(f"unix:{os.fspath(path)}", unix_mode=0o600) as listener:
        giving = _Giving(listeners, then, listener.close, timeout)
        with serve(giving, listener, workers=1, drain_timeout=1.0, name="hardsock-hand-over"):
            yield giving.given


class _Giving:
    """The handler of the server that gives: whole before that is served."""

    def __init__(
        self,
        listeners: Mapping[str, Listener],
        then: Callable[[], object],
        leave: Callable[[], object],
        timeout: float,
    ) -> None:
        self._listeners = dict(listeners)
        self._then = then
        self._leave = leave
        self._timeout = timeout
        self._lock = threading.Lock()
        self.given = CancelToken(name="hand-over")

    def __call__(self, conn: Connection) -> None:
        if not _is_trusted(_uid_of_peer(conn)):
            return
        conn.settimeout(self._timeout)
        if conn.recv_until(b"\n", max_size=256).rstrip() != _ASK or self.given.cancelled:
            return
        fds = array.array("i", [listener.fileno() for listener in self._listeners.values()])
        names = ":".join(self._listeners).encode() + b"\n"
        sent = conn.sendmsg([names], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds.tobytes())])
        conn.sendall(names[sent:])
        with suppress(HardsockError):  # It has failed, or it has changed its mind: we go on.
            if conn.recv_until(b"\n", max_size=256).rstrip() == _READY:
                self._stop()
                conn.sendall(_BYE + b"\n")

    def _stop(self) -> None:
        with self._lock:
            if not self.given.cancel("another process has taken over"):
                return
        for listener in self._listeners.values():
            listener._hand_over()  # Before anybody closes them: paths are the other's.
        self._then()
        self._leave()


def _uid_of_peer(conn: Connection) -> int:
    """SO_PEERCRED of unix(7): who the peer was when it connected, or when it began to listen."""
    packed: Any = conn.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    _pid, uid, _gid = struct.unpack("iII", packed)
    return int(uid)


def _is_trusted(uid: int) -> bool:
    """The same for both sides: nobody gives to, or takes from, anybody else."""
    return uid in (0, os.geteuid())
