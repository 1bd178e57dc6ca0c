"""The standard library's blocking sockets with a timeout."""

from __future__ import annotations

import contextlib
import platform
import socket
from typing import IO, Any

from ..model import Target
from . import _cancel, _common, _importing, _stdlib_tls
from ._common import DEADLINE, FRAMES_PER_CLOCK_READ, LINES_PER_CLOCK_READ, MESSAGE

importing = _importing.of("import socket, ssl")


def version() -> str:
    return f"socket of Python {platform.python_version()}"


def connect(target: Target) -> socket.socket:
    return socket.create_connection((target.host, target.port), timeout=DEADLINE)


def exchange(sock: socket.socket) -> None:
    sock.sendall(MESSAGE)
    reply = sock.recv(64)
    while len(reply) < 64:  # the loop that every correct user of recv writes
        more = sock.recv(64 - len(reply))
        if not more:
            raise EOFError("the peer closed")
        reply += more


def connect_close(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _common.rate(lambda: connect(target).close(), seconds)


def request_reply(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target) as sock:
        return _common.rate(lambda: exchange(sock), seconds)


def cancel_latency(target: Target, seconds: float, count: int) -> dict[str, Any]:
    """There is no cancelling: shutdown from the other thread, a new connection for each sample."""

    def body(blocked: _cancel.Blocked) -> None:
        while True:
            with connect(target) as sock:
                if not blocked.more():
                    return
                blocked.announce(lambda: sock.shutdown(socket.SHUT_RDWR))
                with contextlib.suppress(ConnectionResetError):  # the peer may be that quick
                    sock.recv(64)
                blocked.caught()

    return _cancel.measure(body, seconds)


def lines(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target) as sock, sock.makefile("rb") as file:
        return _common.rate_of(lambda: _common.all_of(file, LINES_PER_CLOCK_READ), seconds)


def read_frame(file: IO[bytes]) -> bytes:
    header = file.read(4)
    payload = file.read(int.from_bytes(header, "big"))
    if not payload:
        raise EOFError("the peer closed")
    return payload


def _frames(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target) as sock, sock.makefile("rb") as file:

        def take() -> int:
            for _ in range(count):
                read_frame(file)
            return count

        return _common.rate_of(take, seconds)


def frames_1k(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _frames(target, seconds, FRAMES_PER_CLOCK_READ["frames_1k"])


def frames_1m(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _frames(target, seconds, FRAMES_PER_CLOCK_READ["frames_1m"])


def idle_memory(target: Target, seconds: float, count: int) -> dict[str, Any]:
    def open_one() -> socket.socket:
        sock = connect(target)
        exchange(sock)
        return sock

    return _common.hold(open_one, count)


tls_handshake = _stdlib_tls.tls_handshake
tls_resume = _stdlib_tls.tls_resume
tls_request_reply = _stdlib_tls.tls_request_reply
tls_receive = _stdlib_tls.tls_receive
tls_send = _stdlib_tls.tls_send
tls_accept = _stdlib_tls.tls_accept
tls_idle_memory = _stdlib_tls.tls_idle_memory
tls_idle_memory_server = _stdlib_tls.tls_idle_memory_server
