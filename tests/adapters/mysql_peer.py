"""As much of a MySQL server as its clients need, with answers that do not come or come slowly."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from typing import Any

_CAPABILITIES = 1 | 8 | 512 | 2048 | 32768 | 1 << 19
_OK = b"\x00\x00\x00\x02\x00\x00\x00"
_GREETING = (
    b"\x0a8.0.0-peer\0"
    + struct.pack("<I", 7)
    + b"12345678\0"
    + struct.pack("<H", _CAPABILITIES & 0xFFFF)
    + b"\x2d\x02\x00"
    + struct.pack("<H", _CAPABILITIES >> 16)
    + b"\x15"
    + bytes(10)
    + b"123456789012\0mysql_native_password\0"
)

GREETING_PACKET = struct.pack("<I", len(_GREETING)) + _GREETING


class MySQLPeer:
    """As much of a MySQL server as a client needs to log in; says OK to all but ``stall``, ``drip``.

    To ``truncated`` and ``reset`` it says the beginning of an OK, and goes, in order or with a reset.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._stop = threading.Event()
        self.secured = False

    def __enter__(self) -> MySQLPeer:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sock: Any = None
        self._thread = threading.Thread(target=self._main, name="mysql-peer", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._stop.set()
        for one in (self._listener, self._sock):
            with contextlib.suppress(OSError, AttributeError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)
        self._thread.join(30)
        self._listener.close()

    def _main(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            self._sock, _ = self._listener.accept()
            with contextlib.closing(self._sock):
                self._sock.settimeout(30)
                self._send(0, _GREETING)
                number, packet = self._packet()
                if len(packet) == 32 and self._tls is not None:
                    self._sock = self._tls.wrap_socket(self._sock, server_side=True)
                    self.secured = True
                    number, packet = self._packet()
                self._send(number + 1, _OK)
                while self._answer(*self._packet()):
                    pass
        if self._sock is not None:
            self._sock.close()

    def _answer(self, number: int, packet: bytes) -> bool:
        if packet[1:] == b"stall":
            self._stop.wait(60)
        elif packet[1:] == b"drip":
            for value in struct.pack("<I", 5000 | 1 << 24) + bytes(5000):
                self._sock.sendall(bytes([value]))
                if self._stop.wait(0.01):
                    break
        elif packet[1:] in (b"truncated", b"reset"):
            self._sock.sendall((struct.pack("<I", len(_OK) | 1 << 24) + _OK)[:-3])
            if packet[1:] == b"reset":
                linger = struct.pack("ii", 1, 0)
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return False
        elif packet[:1] == b"\x01":
            return False
        else:
            self._send(number + 1, _OK)
        return True

    def _send(self, number: int, payload: bytes) -> None:
        self._sock.sendall(struct.pack("<I", len(payload) | number << 24) + payload)

    def _packet(self) -> tuple[int, bytes]:
        head = self._exactly(4)
        return head[3], self._exactly(int.from_bytes(head[:3], "little"))

    def _exactly(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            data = self._sock.recv(size - len(got))
            if not data:
                raise EOFError
            got += data
        return got
