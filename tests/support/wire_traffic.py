"""Traffic over a wire: what runs at its two ends, and what came through."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

from hardsock.lab import inside
from hardsock.lab.wire import Wire

_HEAD = struct.Struct("!Qq")
_PORT = 7777


def receive(host: str, silence: float) -> list[tuple[int, int, bool]]:
    """(number, ns on the way, whether its bytes are whole) of datagrams, until none comes."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    came: list[tuple[int, int, bool]] = []
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((host, _PORT))
        sock.settimeout(30.0)
        inside.ready()
        while True:
            try:
                data = sock.recv(2048)
            except TimeoutError:
                return came
            now = time.monotonic_ns()
            number, sent = _HEAD.unpack_from(data)
            if number == 2**63:
                sock.settimeout(silence)
                continue
            came.append((number, now - sent, set(data[_HEAD.size :]) <= {120}))


def send(host: str, count: int, per_second: float, size: int = 100) -> None:
    """Send *count* datagrams, evenly, and then what says that these were all."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    padding = b"x" * (size - _HEAD.size)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        begin = time.monotonic_ns()
        for number in range(count):
            due = begin + int(number * 1e9 / per_second)
            while time.monotonic_ns() < due:
                pass
            sock.sendto(_HEAD.pack(number, time.monotonic_ns()) + padding, (host, _PORT))
        for _ in range(50):  # Some of them come through whatever the wire does.
            sock.sendto(_HEAD.pack(2**63, 0), (host, _PORT))


def across(
    wire: Wire, count: int, per_second: float, *, host: str = Wire.B, silence: float = 0.5
) -> list[tuple[int, int, bool]]:
    """Datagrams from a to b: what came, in its order."""
    with wire.b.start(receive, host, silence, timeout=90.0) as receiver:
        receiver.wait_ready()
        wire.a.run(send, host, count, per_second, timeout=60.0)
        came: list[Any] = receiver.result()
    return [tuple(one) for one in came]


def serve_bytes(host: str, size: int) -> None:
    """Send *size* bytes to the first client."""
    with socket.create_server((host, _PORT)) as server:
        inside.ready()
        with server.accept()[0] as conn:
            conn.sendall(bytes(size))
            conn.recv(1)


def fetch_bytes(host: str) -> float:
    """Bits a second at which they come."""
    size = 0
    with socket.create_connection((host, _PORT), timeout=30) as sock:
        begin = time.monotonic()
        conn_size = 1 << 20
        while data := sock.recv(conn_size):
            size += len(data)
            if size >= _EXPECTED:
                break
        return size * 8 / (time.monotonic() - begin)


_EXPECTED = 50 << 20


def bulk(wire: Wire) -> float:
    """Bits a second of one TCP connection from b to a."""
    with wire.b.start(serve_bytes, Wire.B, _EXPECTED, timeout=90.0) as server:
        server.wait_ready()
        rate: float = wire.a.run(fetch_bytes, Wire.B, timeout=90.0)
    return rate
