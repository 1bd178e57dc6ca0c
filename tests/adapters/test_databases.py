"""PyMySQL over hardsock, and libraries that take a connected socket."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pg8000.native
import pymysql
import pytest
import websocket

import hardsock as hs
import hardsock.adapters.pymysql
from adapters.http_contract import SHORT, causes, nothing_open, server_context
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import IO_WAITS, Call
from support.require import require
from support.servers import postgres
from support.tls import Identities

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


class MySQLPeer:
    """As much of a MySQL server as a client needs to log in; says OK to all but ``stall``, ``drip``."""

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


@contextlib.contextmanager
def _mysql(
    port: int, ids: Identities | None, host: str = "127.0.0.1", **settings: Any
) -> Iterator[Any]:
    if ids is not None:
        settings["ssl"] = {"ca": str(ids.ca)}
    else:
        settings["ssl_disabled"] = True
    conn = hardsock.adapters.pymysql.connect(
        host=host, port=port, user="u", password="p", **settings
    )
    try:
        yield conn
    finally:
        if conn.open:
            conn.close()


def _ends(end: str, call: Any, timed_out: type[Exception]) -> None:
    if end == "cancel":
        token = hs.CancelToken()

        def within() -> None:
            with hs.scope(token):
                call()

        with Call(within) as running:
            running.wait_until_blocked(IO_WAITS, timeout=20.0)
            token.cancel("stop button")
            with pytest.raises(hs.Cancelled):
                running.result(20.0)
        return
    with hs.timeout(SHORT), pytest.raises(timed_out) as late:
        call()
    assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("fault", ["stall", "drip"])
@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_a_statement_ends(tls: bool, fault: str, end: str, ids: Identities) -> None:
    with MySQLPeer(server_context(ids)) as peer, hs.timeout(60):
        with _mysql(peer.port, ids if tls else None) as conn:
            assert peer.secured == tls
            (found,) = (one for one in hs.open_connections() if one.how == "connect")
            assert found.site.function == "_mysql"
            _ends(end, lambda: conn.query(fault), pymysql.err.OperationalError)
            assert not conn.open
            nothing_open()


@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_connecting_ends(end: str) -> None:
    def connect(port: int) -> None:
        with _mysql(port, None):
            pass

    with BlackHole() as hole:
        _ends(end, lambda: connect(hole.address[1]), pymysql.err.OperationalError)
    with PeerScript([("stall",)]) as peer:
        _ends(end, lambda: connect(int(peer.address[1])), pymysql.err.OperationalError)
    nothing_open()


@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_a_stalled_handshake_ends(end: str, ids: Identities) -> None:
    greeting = struct.pack("<I", len(_GREETING)) + _GREETING
    script = [("send", greeting), ("recv", 36), ("stall",)]  # all but its answer to the hello

    def connect(port: int) -> None:
        with _mysql(port, ids):
            pass

    with PeerScript(script) as peer:
        _ends(end, lambda: connect(int(peer.address[1])), pymysql.err.OperationalError)
    nothing_open()


def _dead_dns(end: str) -> bool:
    from hardsock.lab.dns import DeadDNS, use_dns

    def connect() -> None:
        with _mysql(3306, None, host="nobody.test"):
            pass

    with DeadDNS():
        use_dns("127.0.0.1", timeout=30, attempts=5)
        _ends(end, connect, pymysql.err.OperationalError)
    return True


@pytest.mark.net
@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_a_dead_name_server_ends(end: str) -> None:
    with require(Namespace()) as namespace:
        assert namespace.run("adapters.test_databases:_dead_dns", end, timeout=120)


def test_a_read_timeout_is_a_total_for_the_packet() -> None:
    with MySQLPeer() as peer, hs.timeout(60), _mysql(peer.port, None, read_timeout=0.2) as conn:
        with pytest.raises(pymysql.err.OperationalError, match="Lost connection"):
            conn.query("drip")


def test_certificates_are_verified_as_it_says(ids: Identities, tmp_path: Any) -> None:
    with MySQLPeer(server_context(ids)) as peer, hs.timeout(60):
        with pytest.raises(pymysql.err.OperationalError, match="issuer that is not known"):
            with _mysql(peer.port, Identities(tmp_path)):
                pass
    for settings, verified in (
        ({}, False),
        ({"verify_mode": True}, True),
        ({"ca": str(ids.ca)}, True),
        ({"ca": str(ids.ca), "verify_mode": "none"}, False),
    ):
        made = hardsock.adapters.pymysql.Connection(defer_connect=True)._create_ssl_ctx(settings)
        assert (made.verify_mode == ssl.CERT_REQUIRED) == verified
    with pytest.raises(TypeError, match=r"ssl=hardsock\.ssl_context"):
        hardsock.adapters.pymysql.connect(ssl=ssl.create_default_context(), defer_connect=True)


# ---- sock=


def test_pg8000_takes_a_connection() -> None:
    with require(postgres()) as server, hs.timeout(60), hs.connect(server.address) as conn:
        with contextlib.closing(pg8000.native.Connection("postgres", sock=conn)) as database:
            assert database.run("select 41 + 1") == [[42]]
            with hs.timeout(SHORT), pytest.raises(Exception) as late:
                database.run("select pg_sleep(60)")
            assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))


def test_websocket_client_takes_a_connection() -> None:
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    with PeerScript([("recv_until", b"\r\n\r\n"), ("send", answer), ("stall",)]) as peer:
        conn = hs.connect(peer.address, timeout=30)
        with hs.timeout(SHORT), pytest.raises(websocket.WebSocketTimeoutException):
            websocket.create_connection("ws://127.0.0.1/", socket=conn)
        conn.close()
