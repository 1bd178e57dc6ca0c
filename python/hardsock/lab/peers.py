"""A TCP or Unix peer that plays a script in a thread: all that a good or bad peer can do.

    with PeerScript([("recv", 5), ("send", b"abc"), ("rst",)]) as peer:
        conn = hardsock.connect(peer.address)
        ...
    assert peer.received == b"hello"

Steps:
    ("recv", n)              read exactly n bytes, and not one more
    ("recv_until", b"..")    read up to and including a delimiter
    ("recv_until_eof",)      read until the other side ends
    ("expect", b"..")        read exactly these bytes
    ("send", b"..")          send them all
    ("drip", b"..", s)       send one byte each s seconds, until the other side is gone
    ("stall",)               do nothing until `release`, or the end of the block
    ("half_close",)          end the sending direction; under TLS without a close_notify
    ("rst",)                 break off with a reset (TCP only)
    ("close",)               close, under TLS without a close_notify; so does the end of the script
    ("call", function)       call function(sock), for example ssl.SSLSocket.unwrap

A reset as the first step may already hit the connect; let something be received before it.
Closing with unread data in the kernel makes it send a reset; read first what has to be gone.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

from hardsock.lab.endpoint import Address, address_of, listen, listen_unix, shut

Step = tuple[Any, ...]

_CHUNK = 65536
_LINGER_RESET = struct.pack("ii", 1, 0)


class PeerFailure(AssertionError):
    """The script could not be played as written; says at which step."""


class PeerScript:
    """Plays *steps* on each of *connections* connections, one after the other, in a thread of its own.

    Args:
        steps: What to do, see the module.
        host: Where to listen: an IPv4 or IPv6 loopback address.
        port: The port, zero for a free one.
        path: Listen on this Unix socket instead.
        pair: Use a Unix socketpair instead; the caller's end is `client`.
        tls: Make each connection the server's side of TLS first.
        connections: How many to serve.
        check: Whether leaving the block waits for the end of the script and raises its failure.
        timeout: Seconds the script has left when the block ends, before it is stopped as hung.

    Attributes:
        address: Where to connect: (host, port) or the path.
        client: With *pair*, the other end (closed with the block).
        failures: What went wrong, with the step's number in the message.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str | None = None,
        pair: bool = False,
        tls: ssl.SSLContext | None = None,
        connections: int = 1,
        check: bool = True,
        timeout: float = 30.0,
    ) -> None:
        self.steps = list(steps)
        for step in self.steps:
            if step[0] not in _PLAYERS:
                raise ValueError(f"unknown step {step!r}")
            if step[0] == "rst" and (pair or path is not None):
                raise ValueError("Unix sockets have no reset")
        self.failures: list[BaseException] = []
        self._host, self._port, self._path, self._pair = host, port, path, pair
        self._tls, self._connections = tls, connections
        self._check, self._timeout = check, timeout
        self._changed = threading.Condition()
        self._releases = 0
        self._leaving = False
        self._stopping = False
        self._received = bytearray()
        self._done = 0
        # What the thread waits for before the first step of a connection.
        self._before = "" if pair else " (connection 1 has not come)"
        self._listener: socket.socket | None = None
        self._sock: socket.socket | None = None
        self._client: socket.socket | None = None

    def __enter__(self) -> PeerScript:
        if self._pair:
            self._sock, self._client = socket.socketpair()
        else:
            self._listener = (
                listen(self._host, self._port) if self._path is None else listen_unix(self._path)
            )
            self._address = address_of(self._listener)
        self._thread = threading.Thread(target=self._main, name="peer-script", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_details: object) -> None:
        with self._changed:
            self._leaving = True
            self._changed.notify_all()
        if exc_type is None and self._check:
            self._thread.join(self._timeout)
        hung = self._thread.is_alive()
        self._stop()
        if self._client is not None:
            self._client.close()
        if exc_type is not None or not self._check:
            return
        if hung:
            raise PeerFailure(f"still at step {self._where()} after {self._timeout} s")
        if self.failures:
            raise self.failures[0]

    @property
    def address(self) -> Address:
        """Where to connect."""
        return self._address

    @property
    def client(self) -> socket.socket:
        """With ``pair=True``: the caller's end."""
        assert self._client is not None, "not a pair"
        return self._client

    @property
    def received(self) -> bytes:
        """All that the script has read, over all connections."""
        with self._changed:
            return bytes(self._received)

    def release(self) -> None:
        """Let one ("stall",) go on, now or when the script gets there."""
        with self._changed:
            self._releases += 1
            self._changed.notify_all()

    def wait_steps(self, count: int, timeout: float = 30.0) -> None:
        """Wait until *count* steps were played, over all connections; AssertionError if they are not."""
        self._wait(lambda: self._done >= count, timeout, f"{count} steps")

    def wait_received(self, size: int, timeout: float = 30.0) -> bytes:
        """Wait until *size* bytes were read; return what was. AssertionError: they are not."""
        self._wait(lambda: len(self._received) >= size, timeout, f"{size} bytes")
        return self.received

    def _wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: condition() or bool(self.failures), timeout):
                raise PeerFailure(f"not {what} in {timeout} s: at step {self._where()}")
            if not condition():
                raise self.failures[0]

    def _where(self) -> str:
        at = self._done % len(self.steps) if self.steps else 0
        step = self.steps[at] if self.steps else ()
        return f"{at} {step!r}{self._before}, {len(self._received)} bytes received"

    def _stop(self) -> None:
        with self._changed:
            self._stopping = True
            shut(self._listener)
            shut(self._sock)
            self._changed.notify_all()
        self._thread.join()
        if self._listener is not None:
            self._listener.close()

    def _main(self) -> None:
        try:
            for number in range(1, self._connections + 1):
                self._before = f" (connection {number} has not come)"
                self._serve_one(number)
        except BaseException as exc:
            with self._changed:
                if not self._stopping:
                    failure = PeerFailure(f"step {self._where()}: {type(exc).__name__}: {exc}")
                    failure.__cause__ = exc
                    self.failures.append(failure)
                self._changed.notify_all()

    def _serve_one(self, number: int) -> None:
        sock: Any = self._take_connection()  # A socket.socket, or the ssl.SSLSocket around it.
        try:
            if self._tls is not None:
                self._before = f" (connection {number} is in its TLS handshake)"
                sock = self._adopt(_wrap(self._tls, sock))
                sock.do_handshake()
            self._before = ""
            for step in self.steps:
                _PLAYERS[step[0]](self, sock, *step[1:])
                with self._changed:
                    self._done += 1
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._sock = None
                sock.close()

    def _take_connection(self) -> socket.socket:
        if self._listener is None:
            assert self._sock is not None, "a pair is one connection"
            return self._sock
        return self._adopt(self._listener.accept()[0])

    def _adopt(self, sock: socket.socket) -> socket.socket:
        with self._changed:
            self._sock = sock
            if self._stopping:
                shut(sock)
        return sock

    def _read(self, sock: socket.socket, size: int) -> bytes:
        data = sock.recv(size)
        with self._changed:
            self._received += data
            self._changed.notify_all()
        return data

    def _recv(self, sock: socket.socket, size: int) -> bytes:
        got = b""
        while len(got) < size:
            data = self._read(sock, size - len(got))
            if not data:
                raise EOFError(f"the stream ended after {len(got)} of {size} bytes")
            got += data
        return got

    def _recv_until(self, sock: socket.socket, delimiter: bytes) -> None:
        got = b""
        while not got.endswith(delimiter):
            got += self._recv(sock, 1)

    def _recv_until_eof(self, sock: socket.socket) -> None:
        while self._read(sock, _CHUNK):
            pass

    def _expect(self, sock: socket.socket, wanted: bytes) -> None:
        got = self._recv(sock, len(wanted))
        if got != wanted:
            raise ValueError(f"expected {wanted!r}, got {got!r}")

    def _send(self, sock: socket.socket, data: bytes) -> None:
        sock.sendall(data)

    def _drip(self, sock: socket.socket, data: bytes, interval: float) -> None:
        for value in data:
            try:
                sock.sendall(bytes([value]))
            except (BrokenPipeError, ConnectionResetError):
                return  # Tired of waiting: what dripping is for.
            with self._changed:
                if self._changed.wait_for(lambda: self._leaving, interval):
                    return

    def _stall(self, sock: socket.socket) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._leaving or self._releases > 0)
            self._releases = max(0, self._releases - 1)

    def _rst(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        self._close(sock)

    def _half_close(self, sock: socket.socket) -> None:
        socket.socket.shutdown(sock, socket.SHUT_WR)  # Not ssl.SSLSocket's: see endpoint.shut.

    def _close(self, sock: socket.socket) -> None:
        with self._changed:  # Not while _stop looks at it.
            sock.close()

    def _call(self, sock: socket.socket, function: Callable[[socket.socket], object]) -> None:
        function(sock)


def _wrap(context: ssl.SSLContext, sock: socket.socket) -> ssl.SSLSocket:
    return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


_PLAYERS: dict[str, Callable[..., object]] = {
    "recv": PeerScript._recv,
    "recv_until": PeerScript._recv_until,
    "recv_until_eof": PeerScript._recv_until_eof,
    "expect": PeerScript._expect,
    "send": PeerScript._send,
    "drip": PeerScript._drip,
    "stall": PeerScript._stall,
    "rst": PeerScript._rst,
    "half_close": PeerScript._half_close,
    "close": PeerScript._close,
    "call": PeerScript._call,
}
