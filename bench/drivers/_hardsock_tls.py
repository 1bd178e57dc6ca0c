"""The works over TLS with hardsock's blocking connections."""

from __future__ import annotations

from typing import Any

import hardsock as hs

from ..model import Target
from . import _common, _crowd, _tls
from ._common import BACKLOG, DEADLINE, MESSAGE
from ._crowd import Announce


def client_config(*, sessions: bool = True) -> hs.TLSConfig:
    return hs.TLSConfig(ca=_tls.CA, sessions=sessions)


def server_config() -> hs.TLSConfig:
    certificate = hs.Certificate(chain=_tls.CERTIFICATE, key=_tls.KEY)
    return hs.TLSConfig(role="server", certificates=certificate)


def connect(target: Target, config: hs.TLSConfig) -> hs.Connection:
    return hs.connect(
        (target.host, target.port), tls=config, server_name=_tls.SERVER_NAME, timeout=DEADLINE
    )


def exchange(conn: hs.Connection) -> None:
    conn.sendall(MESSAGE, timeout=DEADLINE)
    conn.recv_exactly(64, timeout=DEADLINE)


def run_handshake(target: Target, config: hs.TLSConfig, wanted: bytes | None) -> None:
    with connect(target, config) as conn:
        _tls.check(conn.recv(1, timeout=DEADLINE), wanted)


def tls_handshake(target: Target, seconds: float, count: int) -> dict[str, Any]:
    config = client_config(sessions=False)
    return _common.rate(lambda: run_handshake(target, config, _tls.FULL), seconds)


def tls_resume(target: Target, seconds: float, count: int) -> dict[str, Any]:
    config = client_config()
    run_handshake(target, config, None)
    return _common.rate(lambda: run_handshake(target, config, _tls.RESUMED), seconds)


def tls_request_reply(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target, client_config()) as conn:
        return _common.rate(lambda: exchange(conn), seconds)


def tls_receive(target: Target, seconds: float, count: int) -> dict[str, Any]:
    buffer = bytearray(_tls.CALL)
    with connect(target, client_config()) as conn:
        take = _tls.receive_mebibyte(lambda: conn.recv_into(buffer, timeout=DEADLINE))
        return _common.rate_of(take, seconds)


def tls_send(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target, client_config()) as conn:
        take = _tls.send_mebibyte(lambda data: conn.sendall(data, timeout=DEADLINE))
        return _common.rate_of(take, seconds)


def idle_memory(target: Target, count: int, config: hs.TLSConfig) -> dict[str, Any]:
    def open_one() -> hs.Connection:
        conn = connect(target, config)
        exchange(conn)
        return conn

    return _common.hold(open_one, count)


def tls_idle_memory(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return idle_memory(target, count, client_config(sessions=False))


def _listen() -> hs.Listener:
    return hs.listen(("127.0.0.1", 0), tls=server_config(), backlog=BACKLOG)


def _greet(announce: Announce) -> None:
    with _listen() as listener:
        announce(listener.address[1])
        while True:
            with listener.accept() as conn:
                conn.sendall(_tls.GREETING, timeout=DEADLINE)


def _keep(announce: Announce) -> None:
    kept = []
    with _listen() as listener:
        announce(listener.address[1])
        while True:
            conn = listener.accept()
            conn.sendall(conn.recv_exactly(64))
            kept.append(conn)


def tls_accept(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _tls.accept(target, seconds, _greet)


def tls_idle_memory_server(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _crowd.hold(target, count, _keep)
