"""Clients that drip, do not read, reset, vanish, and handlers that raise: others are served."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

import hardsock as hs
from hardsock.lab.endpoint import connect_to
from hardsock.lab.waits import poll_until
from support import http1, tls_raw
from support.serving import Server, abused, few_workers, serving

if TYPE_CHECKING:
    from support.tls import Identities

PATIENCE = 30.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
HELLO = tls_raw.client_hello([tls_raw.ECDHE_ECDSA, tls_raw.ECDHE_RSA])


def connect(server: Server, tls: Identities | None) -> socket.socket:
    sock = connect_to(server.address, PATIENCE)
    if tls is None:
        return sock
    context = ssl.create_default_context(cafile=str(tls.ca))
    return context.wrap_socket(sock, server_hostname="localhost")


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()


@contextlib.contextmanager
def many(count: int, make: Callable[[], socket.socket]) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(make()) for _ in range(count)]


# ---- clients ------------------------------------------------------------------------------------


def test_who_does_not_read_loses_only_its_own_place(driver: str, tls: Identities | None) -> None:
    settings = few_workers(driver, 12, max_connections=40)
    with abused(driver, tls, http1.Times(answer=1.0), **settings) as (server, honest):
        with many(12, lambda: connect(server, tls)) as deaf:
            for sock in deaf:
                sock.sendall(http1.request("/bytes/30000000"))
            assert poll_until(lambda: server.stats().peak_active >= 12, PATIENCE)
            honest.wait_for_more()
            assert poll_until(lambda: server.stats().failed == 12, PATIENCE), server.stats()
        assert server.stats().errors == {"DeadlineExceeded": 12}


def drip(socks: list[socket.socket], pieces: bytes, until: Callable[[], bool]) -> None:
    """Send all of them byte after byte, until the server has had enough of each."""
    left = dict.fromkeys(socks, pieces)
    while not until():
        assert left, "the server has cut all, and does not say so"
        for sock, rest in list(left.items()):
            assert rest, "it has waited for all of it"
            try:
                sock.sendall(rest[:1])
            except OSError:
                del left[sock]
            else:
                left[sock] = rest[1:]


@pytest.mark.parametrize("begun", [b"GET / HTTP/1.1\r\nX: ", http1.LONG_BODY], ids=["head", "body"])
def test_bytes_that_drip_buy_no_time(begun: bytes, driver: str, tls: Identities | None) -> None:
    """Each byte is one more sign of life, but the time for a head, or for a body, is one total."""
    settings = few_workers(driver, 12, max_connections=40)
    with abused(driver, tls, http1.Times(head=1.0, body=1.0), **settings) as (server, honest):

        def all_cut() -> bool:
            honest.wait_for_more(1)
            return server.stats().failed == 12

        with many(12, lambda: connect(server, tls)) as dripping:
            for sock in dripping:
                sock.sendall(begun)
            drip(dripping, b"x" * 1000, all_cut)
        assert server.stats().errors == {"DeadlineExceeded": 12}


def test_a_hello_that_drips_is_cut_at_its_own_time(driver: str, ids: Identities) -> None:
    with abused(driver, ids, tls=ids.server(handshake_timeout=1.0)) as (server, honest):

        def failed() -> int:
            handshakes = server.listener.stats().handshakes
            assert handshakes is not None
            assert sum(handshakes.failed.values()) == handshakes.failed["timeout"]
            return int(handshakes.failed["timeout"])

        def all_cut() -> bool:
            honest.wait_for_more(1)
            return failed() == 12

        with many(12, lambda: connect_to(server.address, PATIENCE)) as dripping:
            drip(dripping, HELLO[:5] + b"\x01" * 1000, all_cut)


def begun_handshake(server: Server) -> socket.socket:
    sock = connect_to(server.address, PATIENCE)
    sock.sendall(HELLO[:60])
    return sock


def answered_hello(server: Server) -> socket.socket:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    sock = connect_to(server.address, PATIENCE)
    sock.sendall(outgoing.read())
    assert sock.recv(1) == bytes([tls_raw.HANDSHAKE])
    return sock


def asked(said: bytes, wait: bool = False) -> Callable[[Server, Identities | None], socket.socket]:
    def make(server: Server, tls: Identities | None) -> socket.socket:
        sock = connect(server, tls)
        sock.sendall(said)
        if wait:
            assert sock.recv(1)
        return sock

    return make


# What has been said when the reset comes, and how the server counts such a connection.
STATES: dict[str, Callable[[Server, Identities | None], socket.socket]] = {
    "nothing": lambda server, _tls: connect_to(server.address, PATIENCE),
    "nothing after the handshake": connect,
    "half a head": asked(http1.request()[:20]),
    "half a body": asked(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf"),
    "a request": asked(http1.request()),
    "half an answer read": asked(http1.request("/bytes/30000000"), wait=True),
    "two requests": asked(http1.request() * 2),
}
HANDSHAKES = {
    "half a hello": lambda server, _tls: begun_handshake(server),
    "a hello that was answered": lambda server, _tls: answered_hello(server),
}


def test_resets_in_every_state_are_counted_once(driver: str, tls: Identities | None) -> None:
    states = STATES if tls is None else {**STATES, **HANDSHAKES}
    # Ten that do not read their answers hold ten workers.
    with abused(driver, tls, **few_workers(driver, 10, max_connections=100)) as (server, honest):
        for make in states.values():
            with many(10, lambda make=make: make(server, tls)) as socks:  # type: ignore[misc]
                for sock in socks:
                    reset(sock)
            honest.wait_for_more(1)


# ---- handlers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SystemExit", "CancelledError", "MemoryError", "ValueError"])
def test_a_handler_that_raises_ends_only_its_own_connection(
    name: str, driver: str, tls: Identities | None, caplog: pytest.LogCaptureFixture
) -> None:
    config = False if tls is None else tls.client()
    with abused(driver, tls) as (server, honest):
        for _ in range(10):
            with hs.connect(server.address, tls=config, timeout=PATIENCE) as conn:
                conn.sendall(http1.request(f"/raise/{name}"))
                with pytest.raises(hs.Reset):  # Never an end that looks like that of an answer.
                    conn.recv(1, timeout=PATIENCE)
        honest.wait_for_more()
        assert poll_until(lambda: server.stats().failed == 10, PATIENCE)
        assert server.stats().errors == {name: 10}
    logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
    raised = [record.exc_info[0] for record in logged if record.exc_info]
    caplog.clear()  # Their tracebacks keep connections.
    # With its traceback at least once: a crowd of them may be told by a count.
    assert {kind.__name__ for kind in raised if kind} == {name}
    assert len(logged) <= 10


# ---- the sums -----------------------------------------------------------------------------------


def test_a_drain_amid_all_of_them_puts_each_in_one_line(
    driver: str, tls: Identities | None
) -> None:
    """Idle, dripping, deaf, asking, and lingering ones: the report has each of them once."""
    settings = few_workers(driver, 20, max_connections=100, drain_timeout=60.0, linger=60.0)
    with contextlib.ExitStack() as stack:
        if tls is not None:
            settings["tls"] = tls.server()
        with serving(driver, **settings) as server:
            kinds = [b"", http1.request()[:-1], http1.request("/bytes/30000000")]
            for said in [*kinds * 5, *[http1.request(keep=False)] * 5]:
                sock = stack.enter_context(connect(server, tls))
                sock.sendall(said)
            assert poll_until(lambda: server.stats().accepted == 20, PATIENCE)
            report = server.drain(2.0)
    lines = report.completed + report.told + report.failed + report.idle_closed
    lines += report.cancelled + report.aborted
    assert lines == 20, "nobody ends by itself: the time to linger is longer than the test"
    assert len(report.cut) == report.cancelled + report.aborted
    if driver != "messages":  # There slow messages hold workers, for which others may wait in vain.
        assert len(report.cut) == 10, str(report)
    assert report.handshakes == 0
    assert report.unaccepted in (0, None)
