"""What the drivers share in the works over TLS: the certificates, the bytes, the other side."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from typing import Any

from ..model import Target
from . import _crowd

FOLDER = os.environ.get("BENCH_TLS", "")  # certificates.py makes what is in it
CA = os.path.join(FOLDER, "ca.pem")
CERTIFICATE = os.path.join(FOLDER, "server.pem")
KEY = os.path.join(FOLDER, "server.key")
SERVER_NAME = "localhost"

# The peer's word on how the handshake was.
FULL, RESUMED = b"f", b"r"
GREETING = b"."  # what a server that is measured sends to each client
CALL = 256 * 1024
MEBIBYTE = 1024 * 1024


def client_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=CA)


def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE, KEY)
    return context


def check(got: bytes, wanted: bytes | None) -> None:
    """Fails the slice unless the peer says that the handshake was of the kind that is measured."""
    if wanted is not None and got != wanted:
        raise RuntimeError(f"the peer says that the handshake was {got!r}, not {wanted!r}")


class Mebibytes:
    """Cuts what is received into mebibytes, which are what is counted."""

    def __init__(self) -> None:
        self._have = 0

    def add(self, n: int) -> bool:
        """Whether another mebibyte is complete. n is at most CALL; 0: the peer has ended."""
        if n == 0:
            raise EOFError("the peer closed")
        self._have += n
        if self._have < MEBIBYTE:
            return False
        self._have -= MEBIBYTE
        return True


def receive_mebibyte(receive: Callable[[], int]) -> Callable[[], int]:
    """What rate_of takes, from a function that receives some bytes and says how many."""
    mebibytes = Mebibytes()

    def take() -> int:
        while not mebibytes.add(receive()):
            pass
        return 1

    return take


def bulk() -> bytes:
    """What one call sends; bytes(CALL) would be the kernel's one page of zeros, again and again."""
    return b"x" * CALL


def send_mebibyte(send: Callable[[bytes], object]) -> Callable[[], int]:
    data = bulk()

    def take() -> int:
        for _ in range(MEBIBYTE // CALL):
            send(data)
        return 1

    return take


def accept(target: Target, seconds: float, serve: _crowd.Serve) -> dict[str, Any]:
    """What the server needs for the clients of peers/tls_crowd.c."""
    crowd = _crowd.only(target, serve)
    start = time.process_time_ns()
    answer = crowd.command(f"accept {crowd.port} {seconds}")
    return {**answer, "cpu_ns": time.process_time_ns() - start}
