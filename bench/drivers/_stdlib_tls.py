"""The works over TLS with the standard library's ssl, in its blocking form with a timeout."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from ..model import Target
from . import _common, _crowd, _tls
from ._common import BACKLOG, DEADLINE, MESSAGE
from ._crowd import Announce


def connect(
    target: Target, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    sock = socket.create_connection((target.host, target.port), timeout=DEADLINE)
    return context.wrap_socket(sock, server_hostname=_tls.SERVER_NAME, session=session)


def exchange(sock: ssl.SSLSocket) -> None:
    sock.sendall(MESSAGE)
    _common.checked(sock.recv(64))  # one record


def tls_handshake(target: Target, seconds: float, count: int) -> dict[str, Any]:
    context = _tls.client_context()

    def operation() -> None:
        with connect(target, context) as sock:
            _tls.check(sock.recv(1), _tls.FULL)

    return _common.rate(operation, seconds)


def tls_resume(target: Target, seconds: float, count: int) -> dict[str, Any]:
    """The tickets come behind the handshake: a session can be had once something was received."""
    context = _tls.client_context()
    session: ssl.SSLSession | None = None

    def operation(wanted: bytes | None = _tls.RESUMED) -> None:
        nonlocal session
        with connect(target, context, session) as sock:
            _tls.check(sock.recv(1), wanted)
            session = sock.session

    operation(None)
    return _common.rate(operation, seconds)


def tls_request_reply(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target, _tls.client_context()) as sock:
        return _common.rate(lambda: exchange(sock), seconds)


def tls_receive(target: Target, seconds: float, count: int) -> dict[str, Any]:
    buffer = bytearray(_tls.CALL)
    with connect(target, _tls.client_context()) as sock:
        take = _tls.receive_mebibyte(lambda: sock.recv_into(buffer))
        return _common.rate_of(take, seconds)


def tls_send(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target, _tls.client_context()) as sock:
        return _common.rate_of(_tls.send_mebibyte(sock.sendall), seconds)


def tls_idle_memory(target: Target, seconds: float, count: int) -> dict[str, Any]:
    context = _tls.client_context()

    def open_one() -> ssl.SSLSocket:
        sock = connect(target, context)
        exchange(sock)
        return sock

    return _common.hold(open_one, count)


def _listen() -> ssl.SSLSocket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    # Else what follows the tickets waits until they are acknowledged, which takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _tls.server_context().wrap_socket(listener, server_side=True)


def _greet(announce: Announce) -> None:
    """accept of a listener that was wrapped does the handshake, too."""
    with _listen() as listener:
        announce(listener.getsockname()[1])
        while True:
            conn, _ = listener.accept()
            conn.sendall(_tls.GREETING)
            conn.close()


def _keep(announce: Announce) -> None:
    kept = []
    with _listen() as listener:
        announce(listener.getsockname()[1])
        while True:
            conn, _ = listener.accept()
            conn.sendall(conn.recv(64))
            kept.append(conn)


def tls_accept(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _tls.accept(target, seconds, _greet)


def tls_idle_memory_server(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _crowd.hold(target, count, _keep)
