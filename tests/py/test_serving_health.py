"""What a server says of itself: ready or not, whom it sent away, and one log message of each kind."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock import aio
from hardsock.lab.endpoint import connect_to
from hardsock.lab.waits import poll_until
from hardsock.serving.seldom import Seldom
from support.loops import MAINS
from support.recorder import Noted
from support.tls import Identities

LOCAL = ("127.0.0.1", 0)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def echo(conn: hs.Connection) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


# ---- readiness --------------------------------------------------------------------------------------


def test_it_is_ready_while_it_has_room_and_is_not_told_to_end() -> None:
    with hs.serve(echo, LOCAL, workers=1, drain_timeout=30) as server:
        assert server.ready
        with connect_to(server.address) as client:
            assert poll_until(lambda: not server.ready, 60)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
        assert poll_until(lambda: server.ready, 60)
        server.stop()
        assert not server.ready
    assert not server.ready
    assert server.closed


def test_it_is_not_ready_while_accepting_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with hs.serve(echo, LOCAL, drain_timeout=30) as server:
        with monkeypatch.context() as patch:
            patch.setattr(server, "_take", _fail)
            # The first one is taken by the method that was there when it was waited for.
            with connect_to(server.address):
                assert poll_until(lambda: server.stats().accepted == 1, 60)
                with connect_to(server.address):
                    assert poll_until(lambda: not server.ready, 60)
        assert poll_until(lambda: server.ready, 60)
        with connect_to(server.address) as client:
            client.settimeout(60)
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        assert server.ready
    caplog.clear()  # Tracebacks hold what their frames had.


def _fail(conns: list[hs.Connection]) -> None:
    for conn in conns:
        conn.close()
    raise MemoryError


@pytest.mark.parametrize("loop", MAINS)
def test_an_awaited_one_is_ready_when_it_has_been_entered(loop: str, event_loops: None) -> None:
    async def handler(conn: aio.Connection) -> None:
        await conn.recv(1)

    async def main() -> None:
        server = aio.serve(handler, LOCAL, drain_timeout=30)
        assert not server.ready
        async with server:
            assert server.ready
            server.stop()
            assert not server.ready

    MAINS[loop](main)


# ---- who was sent away ------------------------------------------------------------------------------


def test_who_is_over_a_limit_is_counted_by_the_reason() -> None:
    limits = hs.PeerLimits(connections=1)
    noted = Noted()
    with hs.serve(echo, LOCAL, drain_timeout=30, peer_limits=limits) as server:
        assert (server.stats().shed, server.stats().shed_reasons) == (0, {})
        with connect_to(server.address) as first:
            first.sendall(b"x")
            assert first.recv(1) == b"x"
            for _ in range(3):
                with pytest.raises(ConnectionResetError), connect_to(server.address) as other:
                    other.settimeout(60)
                    other.recv(1)
        assert server.stats().shed_reasons == {"peer connections": 3}
        assert server.stats().shed == 3
        assert server.stats().accepted == 1
        assert noted.sheds() == {"peer connections": 3}
        assert noted.of("shed")[0].what.startswith("127.0.0.1:")
    assert server.stats().shed == 3


def test_malformed_headers_are_counted_as_shed() -> None:
    proxies = hs.ProxyProtocol(["127.0.0.1"])
    noted = Noted()
    with hs.serve(echo, LOCAL, drain_timeout=30, proxy_protocol=proxies) as server:
        with connect_to(server.address) as client:
            client.settimeout(60)
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert poll_until(lambda: server.stats().shed_reasons == {"bad header": 1}, 60)
        assert poll_until(lambda: noted.sheds() == {"bad header": 1}, 60)


def test_a_header_that_does_not_come_is_counted_as_shed() -> None:
    proxies = hs.ProxyProtocol(["127.0.0.1"], timeout=0.2)
    noted = Noted()
    with hs.serve(echo, LOCAL, drain_timeout=30, proxy_protocol=proxies) as server:
        with connect_to(server.address) as client:
            client.settimeout(60)
            client.sendall(b"PROXY ")
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
        assert poll_until(lambda: server.stats().shed_reasons == {"slow header": 1}, 60)
        assert poll_until(lambda: noted.sheds() == {"slow header": 1}, 60)


# ---- the log ----------------------------------------------------------------------------------------


def test_a_fault_that_every_client_meets_is_one_traceback_and_a_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handler(conn: hs.Connection) -> None:
        if conn.recv(1) == b"a":
            raise KeyError("one")
        raise KeyError("another")

    with hs.serve(handler, LOCAL, drain_timeout=30) as server:
        for word in b"aaaba":
            with connect_to(server.address) as client:
                client.settimeout(60)
                client.sendall(bytes([word]))
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
        assert poll_until(lambda: server.stats().failed == 5, 60)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    texts = [record.getMessage() for record in errors]
    assert [bool(record.exc_info) for record in errors] == [True, True, False]
    assert texts[2].startswith("3 times more in the last minute, at last: the handler of 127.0.0.1")
    errors.clear()
    caplog.clear()  # Tracebacks hold what their frames had.


def test_messages_of_a_kind_come_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("hardsock.serving.seldom.time.monotonic", lambda: now)
    seldom = Seldom(logging.getLogger("hardsock.test"))
    for n in range(3):
        seldom.log("a", logging.WARNING, "first %d", n)
    seldom.log("b", logging.WARNING, "second")
    now += 61
    seldom.log("a", logging.WARNING, "first %d", 3)
    seldom.log("a", logging.WARNING, "first %d", 4)
    seldom.flush()
    seldom.flush()
    assert [record.getMessage() for record in caplog.records] == [
        "first 0",
        "second",
        "first 3 (and 2 times more in the last minutes)",
        "1 times more in the last minute, at last: first 4",
    ]


def test_kinds_without_end_take_no_memory_without_end(caplog: pytest.LogCaptureFixture) -> None:
    seldom = Seldom(logging.getLogger("hardsock.test"))
    for n in range(1000):
        seldom.log(n, logging.WARNING, "kind %d", n)
    assert len(caplog.records) == 257
    seldom.flush()
    assert caplog.records[-1].getMessage().startswith("743 times more")


# ---- one stranger and the fallback ------------------------------------------------------------------


def refuse(address: Any, source: str, config: hs.TLSConfig) -> str:
    """A handshake from *source* that the client refuses."""
    sock = socket.socket()
    sock.bind((source, 0))
    sock.connect(address)
    with hs.adopt(sock) as conn:
        try:
            conn.upgrade_to_tls(config, server_name="localhost", timeout=60)
        except hs.TLSError as exc:
            return exc.failure
        assert conn.tls is not None
        return conn.tls.version


def test_one_stranger_cannot_bring_about_a_fallback(tmp_path: Path) -> None:
    """Five refusals in a row open the breaker: of five clients, not of one."""
    identities = Identities(tmp_path)
    old = identities.client(max_version="TLSv1.2", sessions=False)
    breaker = hs.Breaker(failures=5, failure_rate=None)
    accepted = threading.Semaphore(0)
    with hs.serve(
        lambda conn: accepted.release(),
        LOCAL,
        drain_timeout=30,
        tls=identities.server(min_version="TLSv1.3"),
        tls_fallback=identities.server(),
        tls_breaker=breaker,
        insecure_allow_weaker_fallback=True,
    ) as server:

        def failed() -> int:
            handshakes = server.listener.stats().handshakes
            assert handshakes is not None
            return handshakes.failed["version"]

        for n in range(8):
            assert refuse(server.address, "127.0.0.1", old) == "alert"
            assert poll_until(lambda n=n: failed() == n + 1, 60)  # type: ignore[misc]
        assert [(one.state, one.in_a_row) for one in breaker.states()] == [("closed", 1)]
        for n in range(2, 6):
            assert refuse(server.address, f"127.0.0.{n}", old) == "alert"
        assert poll_until(lambda: [one.state for one in breaker.states()] == ["open"], 60)
        assert refuse(server.address, "127.0.0.1", old) == "TLSv1.2"
