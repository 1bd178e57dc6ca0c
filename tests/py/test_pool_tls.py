"""Pools over TLS: tickets are no sign of death, and a handshake that fails holds no place."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import hardsock as hs
from support.pki import Authority, make_authority


class Server:
    """The standard library's TLS, answering with what it got; to its first *stuck* clients silent."""

    def __init__(self, certificate: Any, version: ssl.TLSVersion, stuck: int = 0) -> None:
        self.stuck = stuck
        self.kept: list[socket.socket] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate)
        self.context.minimum_version = self.context.maximum_version = version
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.conns: list[ssl.SSLSocket] = []
        self.stopping = False
        self.threads = [threading.Thread(target=self.serve)]
        self.threads[0].start()

    def serve(self) -> None:
        while True:
            sock, _ = self.listener.accept()
            if self.stopping:
                sock.close()
                return
            if len(self.kept) < self.stuck:
                self.kept.append(sock)
                continue
            try:
                conn = self.context.wrap_socket(sock, server_side=True)
            except OSError:
                sock.close()
                continue
            self.conns.append(conn)
            thread = threading.Thread(target=self.answer, args=(conn,))
            thread.start()
            self.threads.append(thread)

    def answer(self, conn: ssl.SSLSocket) -> None:
        try:
            while data := conn.recv(4096):
                conn.sendall(data)
        except OSError:
            pass
        conn.close()

    def close(self) -> None:
        self.stopping = True
        socket.create_connection(self.address).close()
        self.threads[0].join()
        self.listener.close()
        for sock in self.kept:
            sock.close()
        for thread in self.threads[1:]:
            thread.join()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def server(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Server]:
    made = Server(authority.issue(), request.param)
    yield made
    made.close()


def config(authority: Authority) -> hs.TLSConfig:
    return hs.TLSConfig(ca=authority.certificate)


def eventually(condition: Any) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until, "it never became true"
        time.sleep(0.001)


def watched(pool: hs.Pool) -> None:
    """Long enough for the pool worker to watch what is idle, and to hear what has come on it."""
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        assert pool.stats().idle == 1
        time.sleep(0.001)


def test_session_tickets_do_not_end_a_connection(server: Server, authority: Authority) -> None:
    """M9: after a TLS 1.3 handshake the socket is readable, and nothing is wrong."""
    with hs.Pool(server.address, tls=config(authority), min_idle=1, max_size=1) as pool:
        eventually(lambda: pool.stats().idle == 1)
        watched(pool)
        with pool.connection(timeout=30) as conn:
            conn.sendall(b"hello")
            assert conn.recv_exactly(5) == b"hello"
            conn.mark_clean()
        assert pool.stats().opened == 1


def test_tickets_do_not_hide_a_peer_that_leaves(server: Server, authority: Authority) -> None:
    with hs.Pool(server.address, tls=config(authority), probe_after=0) as pool:
        pool.release(pool.acquire(timeout=30))
        pool.release(pool.acquire(timeout=30))  # Probed with tickets waiting.
        assert pool.stats().opened == 1
        eventually(lambda: len(server.conns) == 1)
        server.conns[0].shutdown(socket.SHUT_RDWR)
        eventually(lambda: pool.stats().closed_by_reason["peer_closed"] == 1)


def test_handshake_that_hangs_holds_no_caller_and_gives_its_place_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = hs.PoolOptions(max_size=1, dial_timeout=0.05)
        with hs.Pool(silent.getsockname(), options, tls=True) as pool:
            with pytest.raises(hs.PoolTimeout):
                pool.acquire(timeout=0.01)
            with pytest.raises(hs.DeadlineExceeded):
                pool.acquire(timeout=30)
            eventually(lambda: pool.stats().dialing == 0)
            assert pool.stats().closed_by_reason["dial_failed"] >= 1


def test_stuck_handshakes_do_not_occupy_what_healthy_dials_need(authority: Authority) -> None:
    """On the defaults: ten connections, four dials at a time, eight handshakes that never end."""
    server = Server(authority.issue(), ssl.TLSVersion.TLSv1_3, stuck=8)
    served: list[int] = []

    def borrow(i: int) -> None:
        with pool.connection(timeout=8) as conn:
            conn.sendall(b"x")
            assert conn.recv_exactly(1, timeout=30) == b"x"
            conn.mark_clean()
            served.append(i)

    with hs.Pool(server.address, tls=config(authority)) as pool:
        threads = [threading.Thread(target=borrow, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(served) == list(range(12))
        stats = pool.stats()
        assert stats.handshaking == stats.dialing == 8
        assert stats.handshaking_for > 0.25
        assert pool.verify().ok
    server.close()


def test_timeout_names_the_handshakes_that_it_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with hs.Pool(silent.getsockname(), tls=True, max_size=1) as pool:
            with pytest.raises(
                hs.PoolTimeout, match="1 of the dials are in the TLS handsh"
            ) as caught:
                pool.acquire(timeout=0.5)
            assert caught.value.phase == "tls"
            assert caught.value.stats is not None
            assert caught.value.stats.handshaking == 1


def test_certificate_that_is_not_accepted_is_told_to_the_caller(server: Server) -> None:
    with hs.Pool(server.address, tls=True) as pool, pytest.raises(hs.CertificateError):
        pool.acquire(timeout=30)
