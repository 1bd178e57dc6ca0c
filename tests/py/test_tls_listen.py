"""TLS on listeners and servers: handshakes beside the acceptor, bounded, cut in time, counted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from conformance.drivers import DRIVERS, Driver
from hardsock import aio
from hardsock.lab.endpoint import connect_to
from hardsock.lab.threads import Call, run_threaded
from hardsock.lab.waits import poll_until
from support.loops import task_parked
from support.recorder import Noted
from support.tls import Identities

pytestmark = pytest.mark.usefixtures("event_loops")

SILENT = 19


@contextlib.contextmanager
def clients(address: Any, count: int) -> Iterator[list[socket.socket]]:
    """Plain connections that say nothing."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connect_to(address)) for _ in range(count)]


@contextlib.contextmanager
def accepting(config: hs.TLSConfig, **settings: Any) -> Iterator[hs.Listener]:
    """A listener, and a thread that accepts and closes until it is closed."""

    def accept_all() -> None:
        with contextlib.suppress(hs.Closed):
            while True:
                listener.accept(timeout=30).close()

    with hs.listen(("127.0.0.1", 0), tls=config, **settings) as listener:
        with Call(accept_all):
            try:
                yield listener
            finally:
                listener.close()


def counters(listener: hs.Listener | aio.Listener) -> hs.HandshakeStats:
    found = listener.stats().handshakes
    assert found is not None
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    assert poll_until(condition, 60), "it did not come about"


def hello(ids: Identities) -> bytes:
    """What a client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=str(ids.ca))
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


# ---- Silent clients


def test_a_plain_listener_counts_no_handshakes() -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        assert listener.stats().handshakes is None


@pytest.mark.parametrize("driver_name", ["threads", "asyncio"])
def test_silent_clients_do_not_keep_others_waiting(ids: Identities, driver_name: str) -> None:
    driver: Driver = DRIVERS[driver_name]()

    async def main() -> None:
        server, client = ids.server(handshake_timeout=60), ids.client()
        async with await driver.listen(("127.0.0.1", 0), tls=server) as listener:
            with clients(listener.address, SILENT):
                for _ in range(3):
                    async with driver.start(listener.accept, timeout=30) as waiting:
                        async with await driver.connect(
                            listener.address, tls=client, timeout=30
                        ) as conn:
                            async with await waiting.result() as theirs:
                                await theirs.sendall(b"x", timeout=30)
                                assert await conn.recv(1, timeout=30) == b"x"
                found = listener.stats().handshakes
                assert found is not None
                assert (found.completed, found.in_progress) == (3, SILENT)
                assert set(found.failed.values()) == {0}

    driver.run(main)


def test_silent_clients_are_cut_at_the_handshake_timeout(ids: Identities) -> None:
    with accepting(ids.server(handshake_timeout=0.2)) as listener:
        with clients(listener.address, SILENT) as silent:
            began = time.monotonic()
            for client in silent:
                client.settimeout(60)
                assert client.recv(1) == b"", "cut, and told so"
            assert time.monotonic() - began < 5
            assert (counters(listener).failed["timeout"], counters(listener).in_progress) == (
                SILENT,
                0,
            )


def test_dripping_a_hello_buys_no_time(ids: Identities) -> None:
    with accepting(ids.server(handshake_timeout=0.3)) as listener:
        began, sent = time.monotonic(), 0
        with connect_to(listener.address) as client:
            with contextlib.suppress(ConnectionError):
                for value in hello(ids):
                    client.sendall(bytes([value]))
                    sent += 1
                    client.settimeout(0.1)
                    with contextlib.suppress(TimeoutError):
                        if client.recv(1) == b"":
                            break
            assert time.monotonic() - began >= 0.3
            assert sent < len(hello(ids)), "it would have gone on for ever"
        wait_for(lambda: counters(listener).failed["timeout"] == 1)


def test_nothing_moves_while_nobody_accepts(ids: Identities) -> None:
    with hs.listen(("127.0.0.1", 0), tls=ids.server()) as listener:
        with Call(hs.connect, listener.address, tls=ids.client(), timeout=60) as connecting:
            with clients(listener.address, 1):
                assert counters(listener).started == 0
            with listener.accept(timeout=30), connecting.result() as conn:
                assert conn.tls is not None


# ---- Limits


def test_handshakes_at_the_same_time_are_bounded(ids: Identities) -> None:
    with accepting(ids.server(handshake_timeout=2), max_handshakes=2) as listener:
        with clients(listener.address, 2):
            wait_for(lambda: counters(listener).in_progress == 2)
            with clients(listener.address, 3):
                # The third waits in the kernel's queue until the first two are cut or evicted.
                with hs.connect(listener.address, tls=ids.client(), timeout=60) as conn:
                    assert conn.tls is not None
                stats = listener.stats()
                assert stats.handshakes is not None
                failed = stats.handshakes.failed
                assert failed["timeout"] + failed["evicted"] >= 2
                assert stats.handshakes.in_progress <= 2


def test_the_rate_of_handshakes_is_bounded(ids: Identities) -> None:
    rate, count = 40, 16
    with accepting(ids.server(), handshake_rate=rate) as listener:
        began = time.monotonic()

        def go(_index: int) -> None:
            with hs.connect(listener.address, tls=ids.client(), timeout=20) as conn:
                conn.confirm(timeout=20)

        run_threaded(go, count)
        took = time.monotonic() - began
    burst = rate * 0.1 + 1
    assert took >= (count - burst) / rate
    assert took < 15


@pytest.mark.parametrize("limit", [{"max_handshakes": 1}, {"handshake_rate": 1000}], ids=str)
def test_limits_do_not_lose_anybody(ids: Identities, limit: dict[str, int]) -> None:
    client = ids.client()

    def echo(conn: hs.Connection) -> None:
        with conn:
            conn.sendall(conn.recv_exactly(1, timeout=60), timeout=60)

    def go(_index: int) -> None:
        for _ in range(5):
            with hs.connect(server.address, tls=client, timeout=20) as conn:
                conn.sendall(b"x", timeout=60)
                assert conn.recv_exactly(1, timeout=60) == b"x"

    with hs.serve(
        echo,
        ("127.0.0.1", 0),
        tls=ids.server(),
        drain_timeout=10,
        **limit,  # type: ignore[arg-type]
    ) as server:
        run_threaded(go, 8)


# ---- Counting by kind


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


RAW: dict[str, Callable[[socket.socket, bytes], object]] = {
    "empty": lambda sock, hello: sock.close(),
    "aborted": lambda sock, hello: (sock.sendall(hello[:50]), sock.close()),
    "http": lambda sock, hello: sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "not_tls": lambda sock, hello: sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "protocol": lambda sock, hello: sock.sendall(b"\x16\x03\x01\x00\x04\x0b\x00\x00\x00"),
    "version": lambda sock, hello: sock.sendall(b"\x16\x03\x01" + _old_hello()),
}


def _old_hello() -> bytes:
    """Of a client that speaks TLS 1.0 at best, without extensions; behind the record's version."""
    body = b"\x03\x01" + b"r" * 32 + b"\x00" + b"\x00\x02\xc0\x0a" + b"\x01\x00"
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return len(message).to_bytes(2, "big") + message


@pytest.mark.parametrize("failure", RAW)
def test_what_a_client_fails_of_is_counted(ids: Identities, failure: str) -> None:
    with accepting(ids.server()) as listener:
        with connect_to(listener.address) as client:
            RAW[failure](client, hello(ids))
            wait_for(lambda: counters(listener).failed[failure] == 1)
        found = counters(listener)
        assert sum(found.failed.values()) == found.started == 1
        assert (found.completed, found.in_progress) == (0, 0)
        with hs.connect(listener.address, tls=ids.client(), timeout=30):
            pass


def test_a_reset_in_the_middle_is_counted_as_one(ids: Identities) -> None:
    with accepting(ids.server()) as listener:
        with connect_to(listener.address) as client:
            client.sendall(hello(ids)[:50])
            wait_for(lambda: counters(listener).started == 1)
            reset(client)
            wait_for(lambda: counters(listener).failed["reset"] == 1)


def test_what_does_not_agree_is_counted(ids: Identities, tmp_path: Path) -> None:
    stranger = Identities(tmp_path)
    old, new = {"max_version": "TLSv1.2"}, {"min_version": "TLSv1.3"}
    aes, chacha = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"
    mutual = {"client_certificates": "required", "ca": ids.ca}
    cases: dict[str, tuple[dict[str, Any], hs.TLSConfig]] = {
        "version": (new, ids.client(**old)),
        "cipher": ({"ciphers": aes, **old}, ids.client(ciphers=chacha, **old)),
        "alpn": ({"alpn": ["h2"]}, ids.client(alpn=["h3"])),
        "alert": ({}, stranger.client()),
        "verify": (mutual, ids.client(**old)),
    }
    for failure, (settings, client) in cases.items():
        with accepting(ids.server(**settings)) as listener:
            with pytest.raises(hs.TLSError):
                hs.connect(listener.address, tls=client, timeout=30)
            wait_for(
                lambda: counters(listener).completed + sum(counters(listener).failed.values()) > 0
            )
            found = {kind: n for kind, n in counters(listener).failed.items() if n}
            assert found == {failure: 1}


def test_a_client_that_is_told_why_reads_the_alert(ids: Identities) -> None:
    """Closing with unread bytes would reset the connection, and the alert would be lost with it."""
    junk = b"\x16\x03\x01\x00\x04\x0b\x00\x00\x00" + b"." * 3000
    with accepting(ids.server()) as listener:
        for _ in range(20):
            with connect_to(listener.address) as client:
                client.sendall(junk)
                answer = client.recv(100)
                assert answer[:1] == b"\x15", "an alert record"


# ---- Closing and draining


def test_close_cuts_handshakes_in_progress(ids: Identities) -> None:
    with accepting(ids.server(handshake_timeout=60)) as listener:
        with clients(listener.address, 5) as silent:
            wait_for(lambda: counters(listener).in_progress == 5)
            listener.close()
            for client in silent:
                assert client.recv(1) == b""
            assert (counters(listener).failed["local"], counters(listener).in_progress) == (5, 0)


def test_close_wakes_who_accepts_while_handshakes_are_in_progress(ids: Identities) -> None:
    with hs.listen(("127.0.0.1", 0), tls=ids.server(handshake_timeout=60)) as listener:
        with clients(listener.address, 2), Call(listener.accept, timeout=30) as waiting:
            wait_for(lambda: counters(listener).in_progress == 2)
            waiting.wait_until_blocked()
            listener.close()
            with pytest.raises(hs.Closed):
                waiting.result(30)


def test_close_while_many_threads_accept_and_shake_hands(ids: Identities) -> None:
    """The one who is in the middle of a step cuts what it holds."""
    client = ids.client()

    def accept(_index: int) -> None:
        with contextlib.suppress(hs.Closed):
            while True:
                listener.accept(timeout=30).close()

    def connect(stop: threading.Event) -> None:
        while not stop.is_set():
            with contextlib.suppress(hs.HardsockError):
                hs.connect(listener.address, tls=client, timeout=30).close()

    for _ in range(5):
        stop = threading.Event()
        with hs.listen(("127.0.0.1", 0), tls=ids.server()) as listener:
            with contextlib.ExitStack() as stack:
                for index in range(3):
                    stack.enter_context(Call(accept, index))
                    stack.enter_context(Call(connect, stop))
                wait_for(lambda: counters(listener).completed >= 10)
                listener.close()
                stop.set()
            found = counters(listener)
            assert found.in_progress == 0
            assert found.started == found.completed + sum(found.failed.values())


def test_accept_many_returns_what_is_secured(ids: Identities) -> None:
    with hs.listen(("127.0.0.1", 0), tls=ids.server()) as listener:
        with contextlib.ExitStack() as stack:
            calls = [
                stack.enter_context(
                    Call(hs.connect, listener.address, tls=ids.client(), timeout=60)
                )
                for _ in range(5)
            ]
            secured: list[hs.Connection] = []
            while len(secured) < 5:
                secured += listener.accept_many(5, timeout=60)
            for conn in [*secured, *(call.result() for call in calls)]:
                assert conn.tls is not None
                conn.close()


def test_the_deadline_of_accept_is_not_for_handshakes(ids: Identities) -> None:
    with hs.listen(("127.0.0.1", 0), tls=ids.server(handshake_timeout=60)) as listener:
        with clients(listener.address, 1):
            with pytest.raises(hs.DeadlineExceeded):
                listener.accept(timeout=0.1)
            wait_for(lambda: counters(listener).in_progress <= 1)
            assert counters(listener).failed["timeout"] == 0


def test_a_cancelled_accept_leaves_the_handshake_to_the_next(ids: Identities) -> None:
    async def main() -> None:
        async with await aio.listen(("127.0.0.1", 0), tls=ids.server()) as listener:
            with connect_to(listener.address) as raw:
                first = asyncio.ensure_future(listener.accept())
                while counters(listener).in_progress == 0:
                    await asyncio.sleep(0)
                await task_parked(first)
                first.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await first
                assert counters(listener).in_progress == 1
                second = asyncio.ensure_future(listener.accept(timeout=30))
                conn = aio.adopt(raw)
                await conn.upgrade_to_tls(ids.client(), server_name="localhost", timeout=30)
                async with conn, await second as theirs:
                    await conn.sendall(b"x", timeout=30)
                    assert await theirs.recv(1, timeout=30) == b"x"
        assert sum(counters(listener).failed.values()) == 0

    asyncio.run(main())


def test_each_accept_drives_the_handshakes_of_all(ids: Identities) -> None:
    """Threads and an event loop at one listener; each client is accepted by one of them."""
    accepted: list[str] = []

    async def accept_async() -> None:
        waiter = aio.Listener(listener)
        while True:
            with contextlib.suppress(hs.DeadlineExceeded):
                (await waiter.accept(timeout=0.5)).close()
                accepted.append("task")
            if listener.closed:
                return

    def run_loop() -> None:
        with contextlib.suppress(hs.Closed):
            asyncio.run(accept_async())

    def accept_blocking() -> None:
        with contextlib.suppress(hs.Closed):
            while True:
                listener.accept(timeout=30).close()
                accepted.append("thread")

    def go(_index: int) -> None:
        for _ in range(5):
            with hs.connect(listener.address, tls=client, timeout=20) as conn:
                conn.confirm(timeout=20)

    client = ids.client()
    with hs.listen(("127.0.0.1", 0), tls=ids.server()) as listener:
        with Call(run_loop), Call(accept_blocking), Call(accept_blocking):
            try:
                run_threaded(go, 4)
                wait_for(lambda: len(accepted) == 20)
            finally:
                listener.close()
    assert counters(listener).completed == 20


# ---- Serving


def test_a_server_serves_over_tls_and_drains(ids: Identities) -> None:
    started = threading.Event()

    def handler(conn: hs.Connection) -> None:
        draining = hs.draining()
        assert draining is not None
        with conn:
            started.set()
            draining.wait(60)
            data = conn.recv_exactly(1, timeout=60)
            conn.sendall(data * 2, timeout=60)

    with hs.serve(handler, ("127.0.0.1", 0), tls=ids.server(), drain_timeout=10) as server:
        conn = hs.connect(server.address, tls=ids.client(), timeout=30)
        assert started.wait(60)
        conn.sendall(b"x")  # What comes later may find the connection idle, and so closed.
        with conn, clients(server.address, 3), Call(server.drain, 10) as draining:
            assert conn.recv_exactly(2, timeout=30) == b"xx"
            report = draining.result()
    assert report.clean
    assert report.failed == report.idle_closed == 0


def test_an_event_loop_serves_over_tls_and_drains(ids: Identities) -> None:
    async def handler(conn: aio.Connection) -> None:
        while data := await conn.recv(100, timeout=60):
            await conn.sendall(data, timeout=60)

    async def main() -> None:
        async with aio.serve(
            handler, ("127.0.0.1", 0), tls=ids.server(), drain_timeout=10
        ) as server:
            with clients(server.address, 3):
                async with await aio.connect(server.address, tls=ids.client(), timeout=30) as conn:
                    await conn.sendall(b"x", timeout=30)
                    assert await conn.recv_exactly(1, timeout=30) == b"x"
                    await conn.close_write(timeout=30)
                    assert await conn.recv(1, timeout=30) == b""
                report = await server.drain(10)
        assert report.clean

    asyncio.run(main())


def test_a_drain_does_not_wait_for_silent_clients(ids: Identities) -> None:
    with hs.serve(
        lambda conn: None,
        ("127.0.0.1", 0),
        tls=ids.server(handshake_timeout=60),
        drain_timeout=30,
    ) as server:
        with clients(server.address, 3) as silent:
            with hs.connect(server.address, tls=ids.client(), timeout=30):
                pass  # the silent ones are in progress by now, or wait to be
            began = time.monotonic()
            server.drain(30)
            assert time.monotonic() - began < 10
            for client in silent:
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(1) == b""


def test_an_idle_connection_of_a_server_ends_with_close_notify(ids: Identities) -> None:
    """A drain ends what is idle; the peer must be able to tell that from an attack."""

    def handler(conn: hs.Connection) -> None:
        with conn:
            while conn.recv(100, timeout=30):
                pass

    with hs.serve(handler, ("127.0.0.1", 0), tls=ids.server(), drain_timeout=30) as server:
        with hs.connect(server.address, tls=ids.client(), timeout=30) as conn:
            conn.confirm(timeout=30)
            conn.close_write(timeout=30)
            assert conn.recv(1, timeout=30) == b""


def test_a_client_s_broken_record_is_no_error_of_the_server(
    ids: Identities, caplog: pytest.LogCaptureFixture
) -> None:
    """The one who can finish a handshake could fill the log with tracebacks, one for each record."""
    caplog.set_level(logging.DEBUG, "hardsock.serve")
    trusting = ssl.create_default_context(cafile=str(ids.ca))

    def handler(conn: hs.Connection) -> None:
        conn.recv(100, timeout=60)

    with hs.serve(handler, ("127.0.0.1", 0), tls=ids.server(), drain_timeout=30) as server:
        secured = trusting.wrap_socket(connect_to(server.address), server_hostname="localhost")
        with socket.socket(fileno=secured.detach()) as raw:
            raw.sendall(b"\x17\x03\x03\x00\x20" + b"a" * 32)  # application data that nobody sealed
            assert poll_until(lambda: server.stats().failed == 1, 60)
        assert server.stats().errors == {"TLSError": 1}
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []
    assert any(r.levelno == logging.DEBUG for r in caplog.records)
    caplog.clear()  # Its exceptions keep the handler's frame.


def test_silent_clients_lock_nobody_out(ids: Identities) -> None:
    """A stranger who holds every place, and more in the queue, waits behind the one who speaks."""
    noted = Noted()
    with accepting(ids.server(handshake_timeout=60), max_handshakes=4) as listener:
        with clients(listener.address, 12):
            wait_for(lambda: counters(listener).silent == 4)
            with hs.connect(listener.address, tls=ids.client(), timeout=20) as conn:
                assert conn.tls is not None
        failed = counters(listener).failed
        assert failed["evicted"] >= 8
        assert failed["timeout"] == 0
        assert noted.sheds()["silent"] >= 8


def test_a_handshake_that_does_not_end_is_told_as_shed(ids: Identities) -> None:
    noted = Noted()
    with accepting(ids.server(handshake_timeout=0.2)) as listener:
        with clients(listener.address, 1):
            wait_for(lambda: counters(listener).failed["timeout"] == 1)
            wait_for(lambda: noted.sheds() == {"slow handshake": 1})


def test_a_client_that_has_spoken_is_not_evicted(ids: Identities) -> None:
    with accepting(ids.server(handshake_timeout=60), max_handshakes=2) as listener:
        with clients(listener.address, 2) as speaking:
            for client in speaking:
                client.sendall(b"\x16\x03\x01\x02\x00")  # the head of a record
            wait_for(lambda: counters(listener).in_progress == 2 and counters(listener).silent == 0)
            with pytest.raises(hs.DeadlineExceeded):
                hs.connect(listener.address, tls=ids.client(), timeout=0.6)
            assert counters(listener).in_progress == 2
            assert counters(listener).failed["evicted"] == 0


def test_silent_clients_do_not_trip_the_breaker(ids: Identities) -> None:
    breaker = hs.Breaker(window=60, min_calls=2, failure_rate=0.5)
    with accepting(
        ids.server(handshake_timeout=60),
        max_handshakes=1,
        tls_fallback=ids.server(),
        tls_breaker=breaker,
    ) as listener:
        with clients(listener.address, 6):
            wait_for(lambda: counters(listener).failed["evicted"] >= 4)
        assert counters(listener).fallback == 0


@pytest.mark.parametrize("driver", ["threads", "asyncio"])
def test_a_full_server_goes_on_with_the_handshakes_it_has_begun(
    ids: Identities, driver: str
) -> None:
    """They would be cut at their deadline, as if the clients had been slow."""
    gate, entered = threading.Event(), threading.Semaphore(0)

    def handler(conn: hs.Connection) -> None:
        entered.release()
        gate.wait(30)
        conn.sendall(b"ok")

    async def awaited(conn: aio.Connection) -> None:
        entered.release()
        await asyncio.to_thread(gate.wait, 30)
        await conn.sendall(b"ok")

    def crowd(address: Any, stats: Callable[[], hs.HandshakeStats]) -> None:
        with clients(address, 1) as (early,):
            wait_for(lambda: stats().in_progress == 1)  # Begun while there is room.
            with hs.connect(address, tls=ids.client(), timeout=60) as first:
                assert entered.acquire(timeout=60)
                secured = trusting.wrap_socket(early, server_hostname="localhost")
                wait_for(lambda: stats().completed == 2)
                gate.set()
                assert first.recv_exactly(2, timeout=60) == b"ok"
                first.close()
                assert secured.recv(2) == b"ok"
                secured.close()

    async def in_a_loop() -> None:
        async with aio.serve(awaited, ("127.0.0.1", 0), tls=tls, **limits) as server:
            await asyncio.to_thread(crowd, server.address, lambda: counters(server.listener))

    trusting = ssl.create_default_context(cafile=str(ids.ca))
    tls = ids.server()
    limits: dict[str, Any] = {"max_connections": 1, "drain_timeout": 5}
    if driver == "asyncio":
        asyncio.run(in_a_loop())
        return
    with hs.serve(handler, ("127.0.0.1", 0), tls=tls, **limits) as server:
        crowd(server.address, lambda: counters(server.listener))


def test_a_drain_counts_the_handshakes_it_cuts(ids: Identities) -> None:
    with hs.serve(
        lambda conn: None, ("127.0.0.1", 0), tls=ids.server(handshake_timeout=60), drain_timeout=60
    ) as server:
        with clients(server.address, 3) as (speaks, *_silent):
            speaks.sendall(b"\x16\x03\x01\x02\x00")
            wait_for(
                lambda: (
                    counters(server.listener).in_progress == 3
                    and counters(server.listener).silent == 2
                )
            )
            report = server.drain(0.4)
    assert (report.handshakes, report.unaccepted, report.clean) == (1, 2, False)
    assert "1 handshakes cut, 2 not accepted" in str(report)
