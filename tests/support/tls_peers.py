"""TLS peers made of Python's ssl, whose bytes arrive as a test wants: split, cut short, late.

`Shape` says what happens to the records of one direction. `ShapedPeer` is one end of TLS that sends
through it, on any connected socket; `RecordProxy` stands between two ends that know nothing of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hardsock.lab.endpoint import Address, connect_to, shut
from support.pki import Authority, Identity
from support.tls_raw import HEADER

VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}

_CHUNK = 65536
_LINGER_RESET = struct.pack("ii", 1, 0)
_LOOK_AGAIN_S = 0.00002


def server_context(identity: Identity, version: str) -> ssl.SSLContext:
    """Python's server with this certificate, that speaks *version* only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = VERSIONS[version]
    context.load_cert_chain(*identity)
    return context


def client_context(
    authority: Authority | Path, version: str, identity: Identity | None = None
) -> ssl.SSLContext:
    """Python's client that trusts *authority* and speaks *version* only."""
    ca = authority if isinstance(authority, Path) else authority.certificate
    context = ssl.create_default_context(cafile=str(ca))
    context.minimum_version = context.maximum_version = VERSIONS[version]
    if identity is not None:
        context.load_cert_chain(*identity)
    return context


# ---- what happens to the bytes

Split = Callable[[int, bytes], Sequence[int]]


def split_at(offset: int) -> Split:
    """Each record that is long enough is cut in two at *offset*."""
    return lambda _number, record: [offset] if 0 < offset < len(record) else []


def split_by_number(number: int, record: bytes) -> Sequence[int]:
    """Each record is cut at the offset that is its number: many records meet every offset."""
    return [1 + number % (len(record) - 1)]


def split_everywhere(_number: int, record: bytes) -> Sequence[int]:
    """Each byte comes alone."""
    return range(1, len(record))


@dataclass(frozen=True)
class Shape:
    """What becomes of one direction's records.

    Attributes:
        split: Where to cut a record, by its number and its bytes. The receiver has taken one piece
            before it gets the next; only Unix sockets can tell, on TCP it is likely.
        limit: How many bytes pass, in all.
        then: What follows on them: the end of the stream (without a close_notify that did not pass),
            a reset (TCP only), or nothing.
    """

    split: Split | None = None
    limit: int | None = None
    then: Literal["fin", "rst", "stall"] = "fin"


class Cut(Exception):
    """The limit was reached, and what follows on it is done."""


class Shaper:
    """Sends a stream of records into *sock* in its *shape*; raises `Cut` where that says so.

    Attributes:
        records: The length of each whole record so far.
        sent: How many bytes have passed.
        stopping: Set by another thread, to wait for the receiver no more.
    """

    def __init__(self, sock: socket.socket, shape: Shape) -> None:
        self._sock, self._shape = sock, shape
        self._waiting = b""
        self._cutting = threading.Lock()
        self.records: list[int] = []
        self.sent = 0
        self.stopping = False

    def send(self, data: bytes) -> None:
        """Pass *data* on; what is no whole record yet waits for the rest of it."""
        if not data:
            return
        whole = []
        self._waiting += data
        while len(self._waiting) >= HEADER:
            size = HEADER + int.from_bytes(self._waiting[3:HEADER], "big")
            if len(self._waiting) < size:
                break
            whole.append(self._waiting[:size])
            self._waiting = self._waiting[size:]
        first = len(self.records)
        self.records += map(len, whole)
        if self._shape.split is None:
            self._pass(b"".join(whole))
            return
        for number, record in enumerate(whole, first):
            at = 0
            for offset in [*self._shape.split(number, record), len(record)]:
                self._wait_until_taken()
                self._pass(record[at:offset])
                at = offset

    def end(self) -> None:
        """Pass on what waits, and the end of the stream."""
        self._pass(self._waiting)
        self.cut("fin")

    def cut(self, how: str) -> None:
        """End the stream as `Shape.then` says, now."""
        with self._cutting:
            if how == "fin":
                with contextlib.suppress(OSError):  # The other end may be gone already.
                    socket.socket.shutdown(self._sock, socket.SHUT_WR)
            elif how == "rst":
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
                self._sock.close()

    def stop(self) -> None:
        """From another thread: wake the one who sends or reads."""
        self.stopping = True
        with self._cutting:  # Not while the number is given back.
            shut(self._sock)

    def _pass(self, data: bytes) -> None:
        limit = self._shape.limit
        left = len(data) if limit is None else min(len(data), limit - self.sent)
        if left > 0:  # Sending nothing fails, too, when the other end is closed.
            self._sock.sendall(data[:left])
        self.sent += left
        if limit is not None and self.sent >= limit:
            self.cut(self._shape.then)
            raise Cut

    def _wait_until_taken(self) -> None:
        while not self.stopping and unread(self._sock) > 0:
            time.sleep(_LOOK_AGAIN_S)


def unread(sock: socket.socket) -> int:
    """Bytes that the other end has not taken (Unix sockets), or not acknowledged (TCP)."""
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0])


# ---- one end


class ShapedPeer:
    """One end of TLS on *sock*, in a thread: sends what it receives back, and ends as it should.

    A server waits for data; a client says *greeting* first. When the other end has ended its
    stream, it ends its own, with a close_notify. After a cut it only reads.

    Args:
        sock: Closed with the block.
        context: Of a client if *server_name* is given, else of a server.
        shape: What becomes of its records.
        greeting: What it says as soon as it may, in one piece with the end of its handshake.

    Attributes:
        shaper: Counts what was sent.
        received: What has come, decrypted.
        error: What ended it, if not the end of the stream.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_name: str | None = None,
        shape: Shape = Shape(),
        greeting: bytes = b"",
    ) -> None:
        self._sock, self._greeting = sock, greeting
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_name is None,
            server_hostname=server_name,
        )
        self.shaper = Shaper(sock, shape)
        self.received = b""
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._main, name="shaped-peer", daemon=True)

    def __enter__(self) -> ShapedPeer:
        self._thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self.shaper.stop()
        self._thread.join()
        self._sock.close()

    def wait(self, timeout: float = 30.0) -> None:
        """Wait until it has ended."""
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "the peer has not ended"

    def _main(self) -> None:
        try:
            self._talk()
        except Cut:
            self._swallow()
        except (OSError, EOFError) as exc:
            self.error = exc
            with contextlib.suppress(OSError, Cut):
                self.shaper.send(self._outgoing.read())
                self.shaper.end()
        finally:
            self.shaper.stopping = True

    def _talk(self) -> None:
        self._step(self._tls.do_handshake)
        if self._greeting:
            self._tls.write(self._greeting)
        self.shaper.send(self._outgoing.read())
        while data := self._read():
            self.received += data
            if not self._greeting:
                self._tls.write(data)
                self.shaper.send(self._outgoing.read())
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self.shaper.send(self._outgoing.read())
        self.shaper.end()
        self._swallow()

    def _read(self) -> bytes:
        try:
            return bytes(self._step(lambda: self._tls.read(_CHUNK)))
        except ssl.SSLZeroReturnError:
            return b""

    def _step(self, function: Callable[[], Any]) -> Any:
        while True:
            try:
                return function()
            except ssl.SSLWantReadError:
                self.shaper.send(self._outgoing.read())
            data = self._sock.recv(_CHUNK)
            if not data:
                raise EOFError("the other end has left")
            self._incoming.write(data)

    def _swallow(self) -> None:
        """Closing with something unread would reset the connection."""
        with contextlib.suppress(OSError):
            while self._sock.recv(_CHUNK):
                pass


# ---- in between


class RecordProxy:
    """Stands between a client's socket and a server, and shapes what each of them hears (no resets).

    Args:
        server: An address to connect to, or a connected socket, which is closed with the block.
        to_client: What becomes of the server's records.
        to_server: What becomes of the client's.

    Attributes:
        client: The client's end, for the one who takes it.
        down: Counts what was sent to the client.
        up: Counts what was sent to the server.
    """

    def __init__(
        self,
        server: Address | socket.socket,
        *,
        to_client: Shape = Shape(),
        to_server: Shape = Shape(),
    ) -> None:
        self._back = server if isinstance(server, socket.socket) else connect_to(server)
        self._back.settimeout(None)
        self.client, self._front = socket.socketpair()
        self.down, self.up = Shaper(self._front, to_client), Shaper(self._back, to_server)
        ways = ((self._back, self.down), (self._front, self.up))
        self._threads = [
            threading.Thread(target=self._pump, args=way, name="record-proxy", daemon=True)
            for way in ways
        ]

    def __enter__(self) -> RecordProxy:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        for shaper in (self.down, self.up):
            shaper.stop()
        for thread in self._threads:
            thread.join()
        for sock in (self._front, self._back):
            sock.close()

    def end(self, side: Literal["client", "server"]) -> None:
        """End the stream to one *side* now, as if the other had left without a close_notify."""
        (self.down if side == "client" else self.up).cut("fin")

    @staticmethod
    def _pump(source: socket.socket, shaper: Shaper) -> None:
        with contextlib.suppress(OSError):
            with contextlib.suppress(Cut):
                while data := source.recv(_CHUNK):
                    shaper.send(data)
                shaper.end()
            while source.recv(_CHUNK):  # Nobody has to wait for room.
                pass
