"""As much of a PostgreSQL server as its clients need, with answers that do not come or break off."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from typing import Any

_TLS_REQUEST, _CANCEL_REQUEST = 80877103, 80877102


def message(kind: bytes, payload: bytes) -> bytes:
    """One message of the protocol, version 3."""
    return kind + struct.pack("!I", len(payload) + 4) + payload


_STATUS = {"server_version": "17.0", "client_encoding": "UTF8", "standard_conforming_strings": "on"}
_READY = message(b"Z", b"I")
_WELCOME = (
    message(b"R", bytes(4))
    + b"".join(message(b"S", f"{k}\0{v}\0".encode()) for k, v in _STATUS.items())
    + message(b"K", struct.pack("!II", 7, 7))
    + _READY
)
_WAYS = message(b"R", struct.pack("!I", 10) + b"x" * 5000)
_DONE = message(b"C", b"SELECT 0\0") + _READY


class PostgresPeer:
    """Lets everybody in, and says that each simple query is done, but for some.

    To ``stall`` it says nothing, to ``drip`` a notice, octet by octet. To ``truncated`` and ``reset``
    it says the beginning of its answer, and goes, in order or with a reset. One that asks to cancel a
    query is not answered. Where the *welcome* is ``"stall"`` or ``"drip"`` nobody is let in: it says
    nothing, or the list of ways to log in, octet by octet.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, welcome: str = "") -> None:
        self._tls, self._welcome = tls, welcome
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._socks: list[Any] = []
        self.asked = threading.Event()
        """A query, or a client, that is not to be answered has come."""
        self.secured = False

    def __enter__(self) -> PostgresPeer:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._main, name="postgres-peer", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._stop.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._listener.close()
        for one in self._socks:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)

    def _main(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._socks.append(sock)
                thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: Any) -> None:
        with contextlib.suppress(OSError, EOFError), contextlib.ExitStack() as opened:
            opened.enter_context(sock)
            sock.settimeout(60)
            code = self._startup(sock)
            if code == _TLS_REQUEST and self._tls is not None:
                sock.sendall(b"S")
                sock = opened.enter_context(self._tls.wrap_socket(sock, server_side=True))
                self._socks.append(sock)
                self.secured = True
                code = self._startup(sock)
            if code == _CANCEL_REQUEST:
                return
            if self._welcome:
                self._keep_waiting(sock, self._welcome, _WAYS)
                return
            sock.sendall(_WELCOME)
            while self._answer(sock):
                pass

    def _startup(self, sock: Any) -> int:
        (size,) = struct.unpack("!I", _exactly(sock, 4))
        return int.from_bytes(_exactly(sock, size - 4)[:4], "big")

    def _answer(self, sock: Any) -> bool:
        kind, size = struct.unpack("!cI", _exactly(sock, 5))
        payload = _exactly(sock, size - 4)
        if kind == b"X":
            return False
        query = payload.rstrip(b"\0")
        if query in (b"stall", b"drip"):
            self._keep_waiting(sock, query.decode(), message(b"N", bytes(5000)))
        elif query in (b"truncated", b"reset"):
            sock.sendall(_DONE[:8])
            if query == b"reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        else:
            sock.sendall(_DONE)
        return True

    def _keep_waiting(self, sock: Any, how: str, data: bytes) -> None:
        self.asked.set()
        if how == "stall":
            self._stop.wait(60)
        else:
            for value in data:
                sock.sendall(bytes([value]))
                if self._stop.wait(0.01):
                    break


def _exactly(sock: Any, size: int) -> bytes:
    got = b""
    while len(got) < size:
        data = sock.recv(size - len(got))
        if not data:
            raise EOFError
        got += data
    return got
