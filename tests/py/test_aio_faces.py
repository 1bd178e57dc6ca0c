"""Connections as the streams of trio and anyio: those libraries' own checks, and their TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock import aio
from support.loops import RUNS
from support.pki import make_authority
from support.require import need_module

pytestmark = pytest.mark.usefixtures("event_loops")

need_module("trio")
need_module("anyio")

import anyio  # noqa: E402
import anyio.streams.tls  # noqa: E402
import trio  # noqa: E402
import trio.testing  # noqa: E402

from hardsock.aio import anyio_stream, trio_stream  # noqa: E402

LOOPS = [*RUNS, "trio"]


def run(loop: str, main: Callable[[], Awaitable[Any]]) -> Any:
    if loop == "trio":
        return trio.run(main)
    if loop == "uvloop":
        need_module("uvloop")  # Before there is a coroutine that nobody awaits.
    return RUNS[loop](main())  # type: ignore[arg-type]


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def connected(**options: Any) -> tuple[aio.Connection, aio.Connection]:
    listening = options.pop("listening", {})
    async with await aio.listen(("127.0.0.1", 0), **listening) as listener:
        client = await aio.connect(listener.address, timeout=30, **options)
        return client, await listener.accept(timeout=30)


def clog(conn: aio.Connection) -> None:
    """Fill what is between it and its peer, until the kernel has stopped making room, too."""
    with contextlib.suppress(hs.DeadlineExceeded):
        while True:
            conn.blocking.send(b"x" * 65536, timeout=0.05)


# ---- trio


async def tcp_pair() -> tuple[trio_stream.Stream, trio_stream.Stream]:
    left, right = await connected()
    return trio_stream.Stream(left), trio_stream.Stream(right)


async def clogged_tcp_pair() -> tuple[trio_stream.Stream, trio_stream.Stream]:
    small = hs.SocketOptions(send_buffer=8192, recv_buffer=8192)  # of a fixed size, then
    left, right = await connected(options=small, listening={"options": small})
    for conn in (left, right):
        clog(conn)
    return trio_stream.Stream(left), trio_stream.Stream(right)


async def unix_pair() -> tuple[trio_stream.Stream, trio_stream.Stream]:
    left, right = socket.socketpair()
    return trio_stream.Stream(aio.adopt(left)), trio_stream.Stream(aio.adopt(right))


async def clogged_unix_pair() -> tuple[trio_stream.Stream, trio_stream.Stream]:
    pair = await unix_pair()
    for stream in pair:
        clog(stream.conn)
    return pair


@pytest.mark.parametrize(
    ("make", "make_clogged"),
    [(tcp_pair, clogged_tcp_pair), (unix_pair, clogged_unix_pair)],
    ids=["tcp", "unix"],
)
def test_it_passes_the_checks_of_trio(make: Any, make_clogged: Any) -> None:
    trio.run(trio.testing.check_half_closeable_stream, make, make_clogged)


def test_it_passes_the_checks_of_trio_over_our_tls(tmp_path: Path) -> None:
    authority = make_authority(tmp_path, "ca")
    files = authority.issue(file="server")
    server = hs.TLSConfig(
        role="server", certificates=hs.Certificate(chain=files.certificate, key=files.key)
    )
    client = hs.TLSConfig(ca=authority.certificate)

    async def tls_pair() -> tuple[trio_stream.Stream, trio_stream.Stream]:
        async with await aio.listen(("127.0.0.1", 0), tls=server) as listener:
            pair: list[aio.Connection] = []

            async def accept() -> None:
                pair.append(await listener.accept(timeout=30))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(accept)
                ours = await aio.connect(
                    listener.address, tls=client, server_name="localhost", timeout=30
                )
        return trio_stream.Stream(ours), trio_stream.Stream(pair[0])

    trio.run(trio.testing.check_half_closeable_stream, tls_pair, None)


def test_tls_of_trio_runs_over_it(tmp_path: Path) -> None:
    authority = make_authority(tmp_path, "ca")
    files = authority.issue(file="server")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(files.certificate, files.key)
    asking = ssl.create_default_context(cafile=str(authority.certificate))

    async def main() -> None:
        left, right = await tcp_pair()
        client = trio.SSLStream(left, asking, server_hostname="localhost")
        server = trio.SSLStream(right, serving, server_side=True)

        async def answer() -> None:
            assert await server.receive_some(64) == b"question"
            await server.send_all(b"answer")
            await server.aclose()

        async with client, trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            await client.send_all(b"question")
            assert await client.receive_some(64) == b"answer"
            assert await client.receive_some(64) == b""

    trio.run(main)


def test_a_deadline_of_ours_stays_what_it_is_under_trio() -> None:
    async def main() -> None:
        left, right = await tcp_pair()
        async with left, right:
            with pytest.raises(hs.DeadlineExceeded) as caught, hs.timeout(0.01):
                await left.receive_some(1)
            assert caught.value.op == "recv"
            right.conn.abort()
            with pytest.raises(trio.BrokenResourceError) as broken:
                await left.receive_some(1)
            assert isinstance(broken.value.__cause__, hs.Reset)

    trio.run(main)


def test_open_stream_takes_what_connect_takes() -> None:
    async def main() -> None:
        async with await aio.listen(("127.0.0.1", 0)) as listener:
            async with await trio_stream.open_stream(listener.address, timeout=30) as stream:
                assert stream.conn.getpeername() == listener.address

    trio.run(main)


# ---- anyio


def test_anyio_streams_carry_bytes_both_ways_and_end_half_by_half(loop: str) -> None:
    async def main() -> None:
        left, right = map(anyio_stream.Stream, await connected())
        async with left, right:
            await left.send(b"question")
            assert await right.receive() == b"question"
            await left.send_eof()
            with pytest.raises(anyio.EndOfStream):
                await right.receive()
            await right.send(b"answer")
            assert await left.receive(2) == b"an"
            assert await left.receive() == b"swer"
            with pytest.raises(ValueError, match="max_bytes"):
                await left.receive(0)
            with pytest.raises(anyio.ClosedResourceError):
                await left.send(b"more")

    run(loop, main)


def test_errors_are_those_of_anyio(loop: str) -> None:
    async def main() -> None:
        left, right = map(anyio_stream.Stream, await connected())
        async with left, right:
            with pytest.raises(hs.DeadlineExceeded), hs.timeout(0.01):
                await left.receive()
            with anyio.move_on_after(0.01) as scope:
                await left.receive()
            assert scope.cancelled_caught
            async with anyio.create_task_group() as group:

                async def wait_for_close() -> None:
                    with pytest.raises(anyio.ClosedResourceError):
                        await left.receive()

                group.start_soon(wait_for_close)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(anyio.BusyResourceError):
                    await left.receive()
                await left.aclose()
            await left.aclose()
            right.conn.abort()
        left, right = map(anyio_stream.Stream, await connected())
        async with left, right:
            right.conn.abort()
            with pytest.raises(anyio.BrokenResourceError) as broken:
                await left.receive()
            assert isinstance(broken.value.__cause__, hs.Reset)

    run(loop, main)


def test_a_cancelled_scope_is_seen_before_anything_is_sent(loop: str) -> None:
    async def main() -> None:
        left, right = map(anyio_stream.Stream, await connected())
        async with left, right:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await left.send(b"never")
            with anyio.CancelScope() as scope:
                scope.cancel()
                await left.send_eof()
            await left.send(b"x")
            assert await right.receive() == b"x"

    run(loop, main)


def test_tls_of_anyio_runs_over_it(loop: str, tmp_path: Path) -> None:
    authority = make_authority(tmp_path, "ca")
    files = authority.issue(file="server")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(files.certificate, files.key)
    asking = ssl.create_default_context(cafile=str(authority.certificate))

    async def main() -> None:
        left, right = map(anyio_stream.Stream, await connected())

        async def answer() -> None:
            server = await anyio.streams.tls.TLSStream.wrap(right, ssl_context=serving)
            assert await server.receive() == b"question"
            await server.send(b"answer")
            with contextlib.suppress(anyio.EndOfStream):
                await server.receive()
            await server.aclose()

        async with anyio.create_task_group() as group:
            group.start_soon(answer)
            client = await anyio.streams.tls.TLSStream.wrap(
                left, hostname="localhost", ssl_context=asking
            )
            await client.send(b"question")
            assert await client.receive() == b"answer"
            await client.aclose()

    run(loop, main)


def test_a_connectable_connects_and_fails_as_anyio_does(loop: str) -> None:
    async def main() -> None:
        async with await aio.listen(("127.0.0.1", 0)) as listener:
            address = listener.address
            target = anyio_stream.Connectable(listener.address, timeout=30)
            async with await target.connect() as stream:
                known = anyio.abc.SocketAttribute
                assert stream.extra(known.remote_address) == listener.address
                assert stream.extra(known.remote_port) == listener.address[1]
                assert stream.extra(known.local_address)[0] == "127.0.0.1"
                assert stream.extra(known.family) == socket.AF_INET
        with pytest.raises(anyio.ConnectionFailed) as failed:
            await target.connect()
        assert isinstance(failed.value.__cause__, hs.ConnectError)
        token = hs.CancelToken()
        token.cancel("no more")
        with pytest.raises(hs.Cancelled, match="no more"):
            await anyio_stream.Connectable(address, token=token).connect()
        if hasattr(anyio.abc, "ByteStreamConnectable"):
            assert isinstance(target, anyio.abc.ByteStreamConnectable)

    run(loop, main)
