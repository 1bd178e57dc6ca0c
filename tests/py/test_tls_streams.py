"""Streams over TLS: code written for sockets, the ends of each direction, both at once."""

from __future__ import annotations

import asyncio
import http.client
import io
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import redis
import urllib3

import hardsock as hs
from conformance.drivers import DRIVERS, Driver
from hardsock import aio
from hardsock.lab.peers import PeerScript
from hardsock.lab.servers.process import free_port
from hardsock.lab.threads import Call, run_threaded
from hardsock.lab.waits import poll_until
from support.require import require
from support.servers import redis_server
from support.tls import Identities, tls_pair
from support.tls_visits import echo, serve, visit

pytestmark = pytest.mark.usefixtures("event_loops")


# ---- Code written for sockets


def answer_http(conn: hs.Connection) -> None:
    """Two requests on one connection."""
    with conn, conn.makefile("rwb") as file:
        for _ in range(2):
            while file.readline() not in (b"\r\n", b""):
                pass
            file.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
            file.flush()
        conn.close_write(timeout=30)


def test_http_client_runs_unchanged_over_tls(ids: Identities, only: Any) -> None:
    with serve(answer_http, ids.server(**only)) as server:
        client = http.client.HTTPConnection(*server.address)
        client._create_connection = (  # type: ignore[attr-defined]
            lambda address, timeout, source: hs.connect(address, tls=ids.client(**only), timeout=30)
        )
        for _ in range(2):
            client.request("GET", "/")
            assert client.getresponse().read() == b"secret"
        client.close()


def test_urllib3_runs_unchanged_over_tls(ids: Identities) -> None:
    class Secured(urllib3.connection.HTTPConnection):
        def _new_conn(self) -> Any:
            return hs.connect((self.host, self.port), tls=ids.client(), timeout=30)

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Secured

    with serve(answer_http, ids.server()) as server, Pool(*server.address, maxsize=1) as pool:
        for _ in range(2):
            assert pool.request("GET", "/", retries=False).data == b"secret"


def test_redis_py_runs_unchanged_over_tls(ids: Identities) -> None:
    identity, port = ids.server_identity, free_port()
    options = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", ids.ca]
    options += ["--tls-cert-file", identity.chain, "--tls-key-file", identity.key]

    class Secured(redis.Connection):
        def _connect(self) -> Any:
            return hs.connect((self.host, self.port), tls=ids.client(), timeout=30)

    with require(redis_server(*map(str, options))) as server:
        pool = redis.ConnectionPool(
            connection_class=Secured, host=server.host, port=port, socket_timeout=30
        )
        client = redis.Redis(connection_pool=pool)
        client.set("big", b"x" * 3_000_000)
        assert client.get("big") == b"x" * 3_000_000
        with client.pipeline(transaction=False) as pipeline:
            for i in range(1000):
                pipeline.incr("counter", i)
            assert pipeline.execute()[-1] == sum(range(1000))
        pool.disconnect()


def test_files_read_and_write_over_tls(ids: Identities, only: Any) -> None:
    with tls_pair(ids.client(**only), ids.server(**only)) as (ours, theirs):
        with ours.makefile("rw", encoding="utf-8", newline="\n") as text:
            theirs.sendall("gr\u00fc\u00dfe\n".encode())
            assert text.readline() == "gr\u00fc\u00dfe\n"
            text.write("zur\u00fcck\n")
            text.flush()
        assert theirs.recv_line(timeout=30).decode() == "zur\u00fcck"


def test_a_file_is_sent_over_tls(ids: Identities, run: Any, only: Any, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "file").write_bytes(content)

    async def main(driver: Driver) -> None:
        async with await driver.connect(server.address, tls=ids.client(**only), timeout=30) as conn:
            with (tmp_path / "file").open("rb") as file:
                assert await conn.sendfile(file, 100, 1_000_000, timeout=60) == 1_000_000
            await conn.close_write(timeout=30)

    got = io.BytesIO()

    def take(conn: hs.Connection) -> None:
        with conn:
            while data := conn.recv(65536, timeout=60):
                got.write(data)

    with serve(take, ids.server(**only)) as server:
        run(main)
    assert got.getvalue() == content[100:1_000_100]


# ---- Ends


def test_each_direction_ends_by_itself(ids: Identities, run: Any, only: Any) -> None:
    async def main(driver: Driver) -> None:
        async with await driver.connect(server.address, tls=ids.client(**only), timeout=30) as conn:
            await conn.sendall(b"question", timeout=30)
            await conn.close_write(timeout=30)
            with pytest.raises(hs.Closed):
                await conn.sendall(b"more", timeout=30)
            assert await conn.recv_exactly(8, timeout=30) == b"question"
            assert await conn.recv(1, timeout=30) == b""

    with serve(echo, ids.server(**only)) as server:
        run(main)


def test_a_server_may_end_first_and_go_on_reading(ids: Identities, only: Any) -> None:
    with tls_pair(ids.client(**only), ids.server(**only)) as (ours, theirs):
        theirs.close_write(timeout=30)
        assert ours.recv(1, timeout=30) == b""
        ours.sendall(b"still listening?")
        assert theirs.recv_exactly(16, timeout=30) == b"still listening?"
        ours.close_write(timeout=30)
        assert theirs.recv(1, timeout=30) == b""


def python_server(ids: Identities, version: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity = ids.server_identity
    context.load_cert_chain(str(identity.chain), str(identity.key))
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
    return context


def test_an_end_without_close_notify_is_truncated(ids: Identities, run: Any, only: Any) -> None:
    async def main(driver: Driver) -> None:
        async with await driver.connect(peer.address, tls=ids.client(**only), timeout=30) as conn:
            with pytest.raises(hs.Truncated, match=r"\(no close_notify\)") as caught:
                await conn.recv_exactly(100, timeout=30)
            assert caught.value.bytes_done == 4
            assert not isinstance(caught.value, hs.EndOfStream)
            assert await conn.recv(100, timeout=30) == b"half", "what came is kept"
            for _ in range(2):
                with pytest.raises(hs.Truncated):
                    await conn.recv(100, timeout=30)

    tls = python_server(ids, only["min_version"])
    with PeerScript([("send", b"half"), ("half_close",), ("stall",)], tls=tls, check=False) as peer:
        run(main)


def test_truncation_can_be_taken_for_an_end(ids: Identities, run: Any, only: Any) -> None:
    async def main(driver: Driver) -> None:
        client = ids.client(insecure_accept_truncation=True, **only)
        async with await driver.connect(peer.address, tls=client, timeout=30) as conn:
            assert await conn.recv(100, timeout=30) == b"half"
            for _ in range(2):
                assert await conn.recv(100, timeout=30) == b""
            with pytest.raises(hs.EndOfStream):
                await conn.recv_exactly(1, timeout=30)

    tls = python_server(ids, only["min_version"])
    with PeerScript([("send", b"half"), ("half_close",), ("stall",)], tls=tls, check=False) as peer:
        run(main)


def test_finish_reports_truncation(ids: Identities) -> None:
    tls = python_server(ids, "TLSv1.3")
    with PeerScript([("send", b"half"), ("half_close",), ("stall",)], tls=tls, check=False) as peer:
        conn = hs.connect(peer.address, tls=ids.client(), timeout=30)
        report = conn.finish(timeout=30)
    assert (report.ending, report.discarded, report.delivered) == ("truncated", 4, False)


def test_finish_is_clean_when_both_said_goodbye(ids: Identities, run: Any, only: Any) -> None:
    async def main(driver: Driver) -> None:
        conn = await driver.connect(server.address, tls=ids.client(**only), timeout=30)
        await conn.sendall(b"data", timeout=30)
        report = await conn.finish(timeout=30)
        assert (report.ending, report.unsent, report.discarded) == ("clean", 0, 4)
        assert conn.closed

    with serve(echo, ids.server(**only)) as server:
        run(main)


def test_abort_says_no_goodbye(ids: Identities) -> None:
    with tls_pair(ids.client(), ids.server()) as (ours, theirs):
        ours.abort()
        with pytest.raises((hs.Reset, hs.Truncated)):
            theirs.recv(1, timeout=30)


SENT = 400_000

TIMES = 20


def _count_into(ids: Identities, outcomes: list[tuple[int, str]], listener: socket.socket) -> None:
    """A usual TLS 1.3 server with a small window: how much came, and how it ended."""
    context = python_server(ids, "TLSv1.3")
    for _ in range(TIMES):
        raw, _peer = listener.accept()
        count, ending = 0, "clean"
        with context.wrap_socket(raw, server_side=True, suppress_ragged_eofs=False) as sock:
            try:
                while data := sock.recv(4096):
                    count += len(data)
            except OSError as exc:
                ending = type(exc).__name__
        outcomes.append((count, ending))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_client_that_only_writes_and_closes_loses_nothing(
    ids: Identities, asynchronous: bool
) -> None:
    """The server's tickets arrive at a closed socket, which would answer with a reset."""
    outcomes: list[tuple[int, str]] = []
    driver = DRIVERS["asyncio" if asynchronous else "threads"]()

    async def main() -> None:
        for _ in range(TIMES):
            async with await driver.connect(address, tls=ids.client(), timeout=60) as conn:
                await conn.sendall(b"." * SENT, timeout=60)

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen(TIMES)
        address = listener.getsockname()
        with Call(_count_into, ids, outcomes, listener) as counting:
            driver.run(main)
            counting.join(30)
    assert outcomes == [(SENT, "clean")] * TIMES


def test_close_in_the_middle_of_a_send_says_no_goodbye(ids: Identities) -> None:
    """What the peer has is not all, so it must not look as if it were."""
    with tls_pair(ids.client(), ids.server()) as (ours, theirs):
        with Call(ours.sendall, b"." * 50_000_000, timeout=60) as sending:
            sending.wait_until_blocked()
            ours.close()
            with pytest.raises(hs.Closed):
                sending.result(30)
        with pytest.raises((hs.Truncated, hs.Reset)):
            while theirs.recv(1 << 20, timeout=30):
                pass


def test_a_send_that_timed_out_poisons_and_close_says_no_goodbye(ids: Identities) -> None:
    with tls_pair(ids.client(), ids.server()) as (ours, theirs):
        with pytest.raises(hs.DeadlineExceeded) as caught:
            ours.sendall(b"." * 50_000_000, timeout=1.0)
        assert 0 < caught.value.bytes_done < 50_000_000
        with pytest.raises(hs.Poisoned):
            ours.sendall(b"x")
        ours.close()
        with pytest.raises((hs.Truncated, hs.Reset)):
            while theirs.recv(1 << 20, timeout=30):
                pass


# ---- Both directions at once


def test_one_reader_one_writer_and_a_close_from_a_third_thread(ids: Identities, only: Any) -> None:
    with tls_pair(ids.client(**only), ids.server(**only)) as (ours, theirs):
        with Call(ours.recv, 1, timeout=60) as reading:
            reading.wait_until_blocked()
            with Call(ours.sendall, b"." * 50_000_000, timeout=60) as writing:
                writing.wait_until_blocked()
                with pytest.raises(hs.Busy):
                    ours.recv(1)
                with pytest.raises(hs.Busy):
                    ours.sendall(b"x")
                ours.close()
                for call in (reading, writing):
                    with pytest.raises(hs.Closed):
                        call.result(30)
        theirs.abort()


def test_reading_and_writing_at_once_mixes_nothing_up(ids: Identities, only: Any) -> None:
    """What breaks 16 to 28 of 48 connections of the standard library."""
    size = 3_000_000
    up, down = bytes(range(256)) * (size // 256), bytes(range(255, -1, -1)) * (size // 256)

    def receive(conn: hs.Connection, wanted: int) -> bytes:
        return conn.recv_exactly(wanted, timeout=20)

    with tls_pair(ids.client(**only), ids.server(**only)) as (ours, theirs):
        with (
            Call(receive, ours, len(down)) as down_end,
            Call(receive, theirs, len(up)) as up_end,
            Call(ours.sendall, up, timeout=20),
        ):
            theirs.sendall(down, timeout=20)
            assert down_end.result(30) == down
            assert up_end.result(30) == up


def test_cancelled_handshake_of_a_task_leaves_nothing(ids: Identities) -> None:

    async def main() -> None:
        task = asyncio.ensure_future(aio.connect(peer.address, tls=ids.client()))
        while not peer.received:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with PeerScript([("recv", 1), ("recv_until_eof",)], check=False) as peer:
        asyncio.run(main())


def test_counters_are_of_the_plaintext(ids: Identities) -> None:
    with tls_pair(ids.client(), ids.server()) as (ours, theirs):
        ours.sendall(b"12345")
        assert theirs.recv(10, timeout=30) == b"12345"
        assert (ours.bytes_sent, theirs.bytes_received) == (5, 5)
        assert (ours.bytes_received, theirs.bytes_sent) == (0, 0)


def test_settimeout_zero_never_waits_over_tls(ids: Identities) -> None:
    with tls_pair(ids.client(), ids.server()) as (ours, theirs):
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1)
        theirs.sendall(b"x" * 5)
        assert poll_until(lambda: _try_recv(ours) == b"xx", 30)
        assert ours.recv(10) == b"xxx", "decrypted, so no descriptor tells of it"


def _try_recv(conn: hs.Connection) -> bytes:
    try:
        return conn.recv(2)
    except BlockingIOError:
        return b""


def test_the_kernel_does_no_tls(ids: Identities) -> None:
    """With kTLS alerts and tickets would come by other ways than the ones that are read here."""
    tcp_ulp = 31
    with tls_pair(ids.client(), ids.server()) as pair:
        for conn in pair:
            assert conn.getsockopt(socket.IPPROTO_TCP, tcp_ulp, 16).rstrip(b"\0") == b""


def test_detach_is_refused(ids: Identities) -> None:
    with tls_pair(ids.client(), ids.server()) as (ours, theirs):
        with pytest.raises(ValueError, match="of no use to anybody else"):
            ours.detach()
        ours.sendall(b"x")
        assert theirs.recv(1, timeout=30) == b"x"


def test_configs_are_shared_by_threads(ids: Identities) -> None:
    client, count, lock = ids.client(), [0], threading.Lock()

    def go(_index: int) -> None:
        for _ in range(10):
            with visit(server, client) as conn:
                conn.sendall(b"x")
                assert conn.recv_exactly(1, timeout=60) == b"x"
                with lock:
                    count[0] += 1

    with serve(echo, ids.server()) as server:
        run_threaded(go, 4)
    assert count == [40]
