"""Framing and socket-typed libraries against real programs: Redis, nginx, an SMTP client."""

from __future__ import annotations

import importlib.util
import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis
import urllib3

import hardsock as hs
from hardsock import aio
from support.require import require
from support.servers import nginx, redis_server

CRLF = hs.Line("\r\n")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def redis_address() -> Iterator[tuple[str, int]]:
    with require(redis_server()) as server:
        yield server.address


@pytest.fixture(scope="module")
def nginx_address() -> Iterator[tuple[str, int]]:
    files = {"hello.txt": b"hello\n", "big.bin": bytes(range(256)) * 4096}
    with require(nginx(files)) as server:
        yield server.address


# ---- Redis


def test_a_pipeline_of_ten_thousand_commands(redis_address: tuple[str, int]) -> None:
    resp = example("resp_client")
    with hs.connect(redis_address, timeout=30) as conn, hs.timeout(30):
        words = [b"v%d" % i + b"\r\n" * (i % 3) for i in range(5000)]
        conn.sendall(
            b"".join(
                resp.encode(b"SET", b"k%d" % i, w) + resp.encode(b"GET", b"k%d" % i)
                for i, w in enumerate(words)
            )
        )
        for word in words:
            assert resp.read_reply(conn) == b"OK"
            assert resp.read_reply(conn) == word
        assert conn.buffered == 0
        conn.sendall(resp.encode(b"LRANGE", b"nothing", b"0", b"-1") + resp.encode(b"NO"))
        assert resp.read_reply(conn) == []
        with pytest.raises(resp.RespError, match="unknown command"):
            resp.read_reply(conn)


def test_replies_taken_in_batches_of_lines(redis_address: tuple[str, int]) -> None:
    with hs.connect(redis_address, timeout=30) as conn, hs.timeout(30):
        conn.sendall(b"PING\r\n" * 10_000)
        got: list[bytes] = []
        while len(got) < 10_000:
            got += conn.recv_lines(10_000 - len(got), CRLF)
        assert got == [b"+PONG"] * 10_000


def test_the_same_awaited(redis_address: tuple[str, int]) -> None:
    import asyncio

    async def main() -> None:
        async with await aio.connect(redis_address, timeout=30) as conn:
            sending = asyncio.create_task(conn.sendall(b"PING\r\n" * 10_000, timeout=30))
            count = 0
            async for line in conn.lines(CRLF, timeout=30):
                assert line == b"+PONG"
                count += 1
                if count == 10_000:
                    break
            await sending
            assert conn.buffered == 0

    asyncio.run(main())


class OverHardsock(redis.Connection):
    """What redis-py lets one override to bring one's own socket."""

    def _connect(self) -> Any:
        return hs.connect((self.host, self.port), timeout=30)


def test_redis_py_runs_unchanged(redis_address: tuple[str, int]) -> None:
    host, port = redis_address
    pool = redis.ConnectionPool(
        connection_class=OverHardsock, host=host, port=port, socket_timeout=5
    )
    client = redis.Redis(connection_pool=pool)
    client.set("big", b"x" * 3_000_000)
    assert client.get("big") == b"x" * 3_000_000
    with client.pipeline(transaction=False) as pipeline:
        for i in range(1000):
            pipeline.incr("counter", i)
        assert pipeline.execute()[-1] == sum(range(1000))
    with client.pubsub() as pubsub:
        pubsub.subscribe("news")
        assert pubsub.get_message(timeout=30)["type"] == "subscribe"
        assert pubsub.get_message(timeout=0.01) is None
        client.publish("news", "hello")
        assert pubsub.get_message(timeout=30)["data"] == b"hello"
    pool.disconnect()


# ---- HTTP


def get_chunked(conn: hs.Connection, path: str) -> bytes:
    conn.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert conn.recv_line(CRLF) == b"HTTP/1.1 200 OK"
    headers = {}
    while line := conn.recv_line(CRLF):
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip()
    assert headers[b"transfer-encoding"] == b"chunked"
    body = b""
    while size := int(conn.recv_line(CRLF), 16):
        body += conn.recv_exactly(size)
        assert conn.recv_exactly(2) == b"\r\n"
    assert conn.recv_line(CRLF) == b""
    return body


def test_chunks_from_nginx_on_a_connection_that_is_kept(nginx_address: tuple[str, int]) -> None:
    with hs.connect(nginx_address, timeout=30) as conn, hs.timeout(20):
        for _ in range(3):
            assert get_chunked(conn, "/chunked/hello.txt") == b"hello\n"
            assert get_chunked(conn, "/chunked/big.bin") == bytes(range(256)) * 4096
            assert conn.buffered == 0


class HardsockHTTPConnection(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> Any:
        return hs.connect((self.host, self.port), timeout=30)


def test_urllib3_runs_unchanged(nginx_address: tuple[str, int]) -> None:
    host, port = nginx_address
    with urllib3.HTTPConnectionPool(host, port, maxsize=1) as pool:
        pool.ConnectionCls = HardsockHTTPConnection
        for path in ("/hello.txt", "/chunked/hello.txt", "/hello.txt"):
            assert pool.request("GET", path).data == b"hello\n"
        big = pool.request("GET", "/chunked/big.bin", preload_content=False)
        assert b"".join(big.stream(10_000)) == bytes(range(256)) * 4096
        assert pool.num_connections == 1  # it was kept, and used again


# ---- SMTP


def strict_smtp(conn: hs.Connection) -> list[bytes]:
    """As much of RFC 5321 as it takes to receive mail; the bodies it got."""
    mails: list[bytes] = []
    conn.sendall(b"220 strict\r\n")
    for line in conn.lines(hs.Line("\r\n", max_size=1000), timeout=60):
        verb = line[:4].upper()
        if verb == b"DATA":
            conn.sendall(b"354 go on\r\n")
            body = []
            while (line := conn.recv_line(CRLF, timeout=60)) != b".":
                body.append(line[1:] if line.startswith(b".") else line)
            mails.append(b"\r\n".join(body))
        conn.sendall(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
        if verb == b"QUIT":
            break
    return mails


def test_smtplib_delivers_to_a_strict_parser() -> None:
    from hardsock.lab.threads import Call

    with hs.listen(("127.0.0.1", 0)) as listener:

        def receive() -> list[bytes]:
            with listener.accept(timeout=60) as conn:
                return strict_smtp(conn)

        with Call(receive) as receiving:
            with smtplib.SMTP(*listener.address, timeout=60) as client:
                client.sendmail("a@x", ["b@y"], "Subject: dots\n\n.first\n..second\nlast")
            assert receiving.result() == [b"Subject: dots\r\n\r\n.first\r\n..second\r\nlast"]


@pytest.mark.parametrize("smuggled", [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n"])
def test_a_smuggled_end_of_data_is_refused(smuggled: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs, hs.adopt(ours) as conn:
        theirs.sendall(b"DATA\r\nfirst mail" + smuggled + b"MAIL FROM:<evil@x>\r\n.\r\n")
        assert conn.recv_line(CRLF, timeout=30) == b"DATA"
        with pytest.raises(hs.BadFrame):
            while conn.recv_line(CRLF, timeout=30) != b".":
                pass
        with pytest.raises(hs.Poisoned):
            conn.recv_line(CRLF, timeout=30)


# ---- the examples


def test_the_resp_example_runs(
    redis_address: tuple[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    host, port = redis_address
    example("resp_client").main(f"{host}:{port}")
    assert capsys.readouterr().out == "b'OK' b'hello'\n"


def test_the_frame_echo_example_serves() -> None:
    echo = example("frame_echo")
    with echo.serve(0) as server, hs.connect(server.address, timeout=30) as conn, hs.timeout(60):
        for payload in (b"", b"x", b"y" * (1 << 20)):
            conn.send_frame(payload, echo.FRAME)
            assert conn.recv_frame(echo.FRAME) == payload
        with pytest.raises(hs.FrameTooLarge):
            conn.send_frame(bytes((1 << 20) + 1), echo.FRAME)
        assert not conn.poisoned  # nothing of it was sent
        conn.sendall(b"\xff\xff\xff\xff")  # a header that claims 4 GiB
        with pytest.raises((hs.Reset, hs.EndOfStream)):
            conn.recv_frame(echo.FRAME)
