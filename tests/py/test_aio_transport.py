"""Transports and streams over hardsock behave as asyncio's own, and better where those may hang."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import selectors
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock import aio
from hardsock.aio import _host, _transport, streams
from hardsock.aio import loop as hsloop
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.waits import poll_until
from support.kernel import unread
from support.loops import RUNS, task_parked
from support.pki import make_authority
from support.require import need_module

pytestmark = pytest.mark.usefixtures("event_loops")

LATE = 30.0
# What is compared: asyncio's loop says what should be seen.
LOOPS: dict[str, Callable[[Any], Any]] = {"asyncio": asyncio.run, "hardsock": hsloop.run}


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    runner = LOOPS[request.param]
    return lambda main: runner(main())


@dataclass
class Files:
    serving: ssl.SSLContext
    asking: ssl.SSLContext
    server: hs.TLSConfig
    client: hs.TLSConfig


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    authority = make_authority(tmp_path_factory.mktemp("pki"), "ca")
    identity = authority.issue(file="server")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(identity.certificate, identity.key)
    return Files(
        serving,
        ssl.create_default_context(cafile=str(authority.certificate)),
        hs.TLSConfig(
            role="server",
            certificates=hs.Certificate(chain=identity.certificate, key=identity.key),
        ),
        hs.TLSConfig(ca=authority.certificate),
    )


class Noting(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self, *, keep_open: bool = False) -> None:
        self.events: list[Any] = []
        self.received = bytearray()
        self.keep_open = keep_open
        self.lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.changed = asyncio.Event()
        self.transport: Any = None

    def _note(self, event: Any) -> None:
        self.events.append(event)
        self.changed.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._note("made")

    def data_received(self, data: bytes) -> None:
        if not self.received:
            self._note("data")
        self.received += data
        self.changed.set()

    def eof_received(self) -> bool:
        self._note("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self._note("lost")
        self.lost.set_result(exc)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with aio.timeout(LATE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


async def pair(
    *, keep_open: bool = False, ssl_server: Any = None, ssl_client: Any = None
) -> tuple[Noting, Noting, Any]:
    """A client, the server's end, and the server."""
    accepted: asyncio.Future[Noting] = asyncio.get_running_loop().create_future()

    class Accepted(Noting):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            accepted.set_result(self)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Accepted(keep_open=keep_open), "127.0.0.1", 0, ssl=ssl_server
    )
    port = server.sockets[0].getsockname()[1]
    name = None if ssl_client is None else "localhost"
    _, client = await loop.create_connection(
        Noting, "127.0.0.1", port, ssl=ssl_client, server_hostname=name
    )
    return client, await accepted, server


async def end(*protocols: Noting, server: Any) -> None:
    for protocol in protocols:
        protocol.transport.close()
        await protocol.lost
    server.close()
    await server.wait_closed()


def test_callbacks_come_in_the_order_of_asyncio(run: Any) -> None:
    async def main() -> None:
        client, accepted, server = await pair()
        client.transport.write(b"question")
        await accepted.until(lambda: accepted.received == b"question")
        accepted.transport.writelines([b"an", bytearray(b"sw"), memoryview(b"er")])
        accepted.transport.close()
        assert accepted.transport.is_closing()
        assert await client.lost is None
        assert client.events == ["made", "data", "eof", "lost"]
        assert client.received == b"answer"
        assert await accepted.lost is None
        assert accepted.events == ["made", "data", "lost"]
        client.transport.write(b"too late")  # Does nothing, as ever.
        await end(server=server)

    run(main)


def test_half_closed_connections_go_on_in_the_other_direction(run: Any) -> None:
    async def main() -> None:
        client, accepted, server = await pair(keep_open=True)
        assert client.transport.can_write_eof()
        client.transport.write(b"all")
        client.transport.write_eof()
        with pytest.raises(RuntimeError, match="after write_eof"):
            client.transport.write(b"more")
        await accepted.until(lambda: "eof" in accepted.events)
        accepted.transport.write(b"answer")
        await client.until(lambda: client.received == b"answer")
        await end(accepted, client, server=server)

    run(main)


def test_paused_reading_delivers_nothing_and_loses_nothing(run: Any) -> None:
    async def main() -> None:
        client, accepted, server = await pair()
        accepted.transport.pause_reading()
        assert not accepted.transport.is_reading()
        client.transport.write(b"early")
        sock = accepted.transport.get_extra_info("socket")
        # Once it is in the kernel's queue, a loop that still listened would have it in its next turn.
        assert poll_until(lambda: unread(sock.fileno()) == 5, 60)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not accepted.received
        accepted.transport.resume_reading()
        accepted.transport.resume_reading()
        await accepted.until(lambda: accepted.received == b"early")
        await end(client, accepted, server=server)

    run(main)


def test_writers_are_told_to_pause_and_to_go_on(run: Any) -> None:
    async def main() -> None:
        client, accepted, server = await pair()
        accepted.transport.pause_reading()
        client.transport.set_write_buffer_limits(high=100_000)
        assert client.transport.get_write_buffer_limits() == (25_000, 100_000)
        sent = 0
        while "pause" not in client.events:
            client.transport.write(b"x" * 65536)
            sent += 65536
        assert client.transport.get_write_buffer_size() > 100_000
        accepted.transport.resume_reading()
        await client.until(lambda: "resume" in client.events)
        await accepted.until(lambda: len(accepted.received) == sent)
        assert client.transport.get_write_buffer_size() == 0
        await end(client, accepted, server=server)

    run(main)


def sends_counted(transport: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what is given to the kernel from now on."""
    sizes: list[int] = []
    begin = transport._begin_sendall

    def counting(hub: Any, data: bytes) -> Any:
        sizes.append(len(data))
        return begin(hub, data)

    monkeypatch.setattr(transport, "_begin_sendall", counting)
    return sizes


def test_a_head_and_its_body_are_sent_as_one_once_the_habit_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        client, accepted, server = await pair()
        sizes = sends_counted(client.transport, monkeypatch)
        for _ in range(3):
            client.transport.write(b"head")
            client.transport.write(b"body!")
            await asyncio.sleep(0)
        assert sizes == [4, 5, 9, 9]
        for _ in range(_transport._ALONE + 1):  # Until it is forgotten again.
            client.transport.write(b"alone")
            await asyncio.sleep(0)
        sizes.clear()
        client.transport.write(b"now")
        assert sizes == [3]
        await end(client, accepted, server=server)

    hsloop.run(main())


@pytest.mark.parametrize("ending", ["close", "write_eof", "stop", "flood"])
def test_what_is_gathered_is_sent_whatever_comes_next(ending: str) -> None:
    loop = hsloop.EventLoop()

    async def begin() -> Any:
        found = await pair()
        for _ in range(2):
            found[0].transport.write(b"1")
        found[0].transport.write(b"gathered")
        if ending == "close":
            found[0].transport.close()
        elif ending == "write_eof":
            found[0].transport.write_eof()
        elif ending == "flood":
            found[0].transport.write(bytes(1 << 20))
        return found

    async def arrives(accepted: Any) -> None:
        while b"11gathered" not in accepted.received:
            await asyncio.sleep(0)

    try:
        client, accepted, server = loop.run_until_complete(begin())
        assert client.transport.get_write_buffer_size() < (1 << 20) + 8
        loop.run_until_complete(asyncio.wait_for(arrives(accepted), LATE))
        loop.run_until_complete(end(client, accepted, server=server))
    finally:
        loop.close()


def test_a_selector_of_the_callers_own_gathers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = hsloop.EventLoop(selectors.SelectSelector())

    async def main() -> None:
        client, accepted, server = await pair()
        sizes = sends_counted(client.transport, monkeypatch)
        for _ in range(3):
            client.transport.write(b"x")
            client.transport.write(b"y")
        assert sizes == [1] * 6
        await end(client, accepted, server=server)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_writer_that_is_told_in_the_loops_own_turn_is_not_waited_past() -> None:
    """What sends before the wait wakes a writer, who has something to do at once."""

    async def main() -> None:
        client, accepted, server = await pair()
        writer_is_told = asyncio.get_running_loop().create_future()
        client.resume_writing = lambda: writer_is_told.set_result(None)
        for _ in range(2):
            client.transport.write(b"1")
        client.transport.write(b"2")
        client.transport.set_write_buffer_limits(0)  # It is above that now, and paused.
        await asyncio.wait_for(writer_is_told, LATE)
        await end(client, accepted, server=server)

    hsloop.run(main())


def test_what_is_written_behind_close_is_not_sent(run: Any) -> None:
    async def main() -> None:
        client, accepted, server = await pair()
        client.transport.write(b"the end")
        client.transport.close()
        client.transport.write(b"too late")
        assert await accepted.lost is None
        assert accepted.received == b"the end"
        assert await client.lost is None
        await end(server=server)

    run(main)


def test_what_was_written_before_close_still_arrives(run: Any) -> None:
    async def main() -> None:
        client, accepted, server = await pair()
        accepted.transport.pause_reading()
        while "pause" not in client.events:
            client.transport.write(b"x" * 65536)
        client.transport.write(b"the end")
        client.transport.close()
        accepted.transport.resume_reading()
        assert await accepted.lost is None
        assert accepted.received.endswith(b"the end")
        assert await client.lost is None
        await end(server=server)

    run(main)


def test_abort_resets_and_loses_what_was_written(run: Any) -> None:
    async def main() -> None:
        client, accepted, server = await pair()
        client.transport.abort()
        assert await client.lost is None
        await accepted.lost
        await end(server=server)

    run(main)


def test_a_reset_by_the_peer_is_an_error(run: Any) -> None:
    async def main() -> None:
        client, accepted, server = await pair()
        sock = accepted.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        accepted.transport.abort()
        assert isinstance(await client.lost, ConnectionResetError)
        await accepted.lost
        await end(server=server)

    run(main)


def test_a_fault_of_the_protocol_ends_the_connection_and_is_reported(run: Any) -> None:
    async def main() -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, what: told.append(what))
        client, accepted, server = await pair()

        def fail(_data: bytes) -> None:
            raise ZeroDivisionError

        accepted.data_received = fail  # type: ignore[method-assign]
        accepted.transport.set_protocol(accepted)
        client.transport.write(b"x")
        assert isinstance(await accepted.lost, ZeroDivisionError)
        assert isinstance(told[0]["exception"], ZeroDivisionError)
        await client.lost
        await end(server=server)

    run(main)


class Buffered(asyncio.BufferedProtocol):
    def __init__(self, size: int) -> None:
        self._buffer = bytearray(size)
        self.received = bytearray()
        self.lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self._buffer[:nbytes]

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)


def test_buffered_protocols_get_all_in_order(run: Any) -> None:
    async def main() -> None:
        client, accepted, server = await pair()
        buffered = Buffered(1000)
        accepted.transport.set_protocol(buffered)
        assert accepted.transport.get_protocol() is buffered
        data = bytes(range(256)) * 5000
        client.transport.write(data)
        client.transport.close()
        assert await buffered.lost is None
        assert buffered.received == data
        await end(server=server)

    run(main)


def test_a_file_is_sent_behind_what_was_written(run: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"f" * 3_000_000)

    async def main() -> None:
        client, accepted, server = await pair()
        loop = asyncio.get_running_loop()
        client.transport.write(b"head")
        with (tmp_path / "file").open("rb") as file:
            assert await loop.sendfile(client.transport, file, 5, 2_000_000) == 2_000_000
        client.transport.write(b"tail")
        await accepted.until(lambda: len(accepted.received) == 2_000_008)
        assert accepted.received[:5] == b"headf"
        assert accepted.received[-5:] == b"ftail"
        await end(client, accepted, server=server)

    run(main)


def test_addresses_and_the_socket_are_told(run: Any) -> None:
    async def main() -> None:
        client, accepted, server = await pair()
        for ours, theirs in ((client, accepted), (accepted, client)):
            extra = ours.transport.get_extra_info
            assert extra("peername") == theirs.transport.get_extra_info("sockname")
            sock = extra("socket")
            assert sock.family == socket.AF_INET
            assert sock.type == socket.SOCK_STREAM
            assert sock.getsockname() == extra("sockname")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert extra("nothing", 5) == 5
        await end(client, accepted, server=server)

    run(main)


def test_a_duplicate_of_the_socket_outlives_the_transport() -> None:
    """aiomysql begins TLS so: it duplicates the socket, closes the transport, and makes another."""

    async def main() -> None:
        client, accepted, server = await pair()
        duplicate = client.transport.get_extra_info("socket").dup()
        client.transport.close()
        await client.lost
        assert not any(one.how == "connect" for one in hs.open_connections())
        transport, again = await asyncio.get_running_loop().create_connection(
            Noting, sock=duplicate
        )
        transport.write(b"still here")
        await accepted.until(lambda: accepted.received == b"still here")
        await end(again, accepted, server=server)

    hsloop.run(main())


def test_tls_by_a_given_context(run: Any, files: Files) -> None:
    async def main() -> None:
        client, accepted, server = await pair(ssl_server=files.serving, ssl_client=files.asking)
        assert client.transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        client.transport.write(b"x" * 1_000_000)
        await accepted.until(lambda: len(accepted.received) == 1_000_000)
        accepted.transport.write(b"answer")
        await client.until(lambda: client.received == b"answer")
        await end(client, accepted, server=server)

    run(main)


def test_start_tls_on_a_connection_that_is_there(run: Any, files: Files) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        client, accepted, server = await pair()
        serving = asyncio.ensure_future(
            loop.start_tls(accepted.transport, accepted, files.serving, server_side=True)
        )
        await asyncio.sleep(0)  # The server is ready before the client begins, as STARTTLS has it.
        client.transport = await loop.start_tls(
            client.transport, client, files.asking, server_hostname="localhost"
        )
        accepted.transport = await serving
        client.transport.write(b"secret")
        await accepted.until(lambda: accepted.received == b"secret")
        await end(client, accepted, server=server)

    run(main)


# ---- what only hardsock's loop has


def test_tls_of_hardsock_on_both_ends(files: Files) -> None:
    async def main() -> None:
        client, accepted, server = await pair(ssl_server=files.server, ssl_client=files.client)
        extra = client.transport.get_extra_info
        assert extra("ssl_object").version() == "TLSv1.3"
        assert extra("ssl_object").getpeercert(True)
        assert extra("hardsock").tls.verified
        assert not client.transport.can_write_eof()
        client.transport.write(b"x" * 1_000_000)
        await accepted.until(lambda: len(accepted.received) == 1_000_000)
        accepted.transport.close()
        assert await client.lost is None
        await end(server=server)

    hsloop.run(main())


class StandsForOne(ssl.SSLContext):
    """As ``hardsock.ssl_context`` makes them: it knows the settings of hardsock's TLS."""

    config: hs.TLSConfig

    def tls_config(self, _server_side: bool = False) -> hs.TLSConfig:
        return self.config


@pytest.mark.parametrize("flags", [0, socket.AI_NUMERICHOST | socket.AI_NUMERICSERV])
def test_tls_of_hardsock_to_an_address_that_was_looked_up(flags: int, files: Files) -> None:
    """aiohttp 3.9 says so of it; and a service may have a name, which no server here listens at."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Noting, "127.0.0.1", 0, ssl=files.server)
        port = server.sockets[0].getsockname()[1]
        settings: dict[str, Any] = {"ssl": files.client, "server_hostname": "localhost"}
        transport, client = await loop.create_connection(
            Noting, "127.0.0.1", port, flags=flags, **settings
        )
        assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        await end(client, server=server)
        with pytest.raises(OSError, match="service/proto not found"):
            await loop.create_connection(Noting, "127.0.0.1", "no-such-service", **settings)
        with pytest.raises(ValueError, match="host and port was not specified"):
            await loop.create_connection(Noting, **settings)

    hsloop.run(main())


def test_a_context_that_stands_for_settings_of_hardsock_is_taken_for_them(files: Files) -> None:
    serving = StandsForOne(ssl.PROTOCOL_TLS_SERVER)
    serving.config = files.server
    asking = StandsForOne(ssl.PROTOCOL_TLS_CLIENT)
    asking.config = files.client

    async def main() -> None:
        client, accepted, server = await pair(ssl_server=serving, ssl_client=asking)
        assert client.transport.get_extra_info("hardsock").tls is not None
        assert accepted.transport.get_extra_info("hardsock").tls is not None
        await end(client, accepted, server=server)

    hsloop.run(main())


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="policies are on their way out")
def test_a_policy_makes_loops_of_hardsock() -> None:
    policy = hsloop.EventLoopPolicy()
    loop = policy.new_event_loop()
    assert isinstance(loop, aio.EventLoop)
    loop.close()
    with pytest.raises(AttributeError, match="nothing"):
        hsloop.nothing  # noqa: B018
    with pytest.raises(AttributeError, match="nothing"):
        aio.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_start_tls_with_settings_of_hardsock(files: Files) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        client, accepted, server = await pair()
        serving = asyncio.ensure_future(
            loop.start_tls(accepted.transport, accepted, files.serving, server_side=True)
        )
        await asyncio.sleep(0)  # The server is ready before the client begins, as STARTTLS has it.
        client.transport = await loop.start_tls(
            client.transport,
            client,
            files.client,  # type: ignore[arg-type]
            server_hostname="localhost",
        )
        accepted.transport = await serving
        accepted.transport.write(b"secret")
        await client.until(lambda: client.received == b"secret")
        await end(client, accepted, server=server)

    hsloop.run(main())


def test_a_name_of_the_wrong_server_is_refused(files: Files) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Noting, "127.0.0.1", 0, ssl=files.serving)
        port = server.sockets[0].getsockname()[1]
        for context in (files.client, files.asking):
            with pytest.raises(ssl.SSLCertVerificationError):
                await loop.create_connection(
                    Noting,
                    "127.0.0.1",
                    port,
                    ssl=context,  # type: ignore[arg-type]
                    server_hostname="wrong.test",
                )
        server.close()
        await server.wait_closed()

    hsloop.run(main())


def test_a_peer_that_never_reads_holds_a_closed_transport_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_transport, "FLUSH_TIMEOUT", 0.05)

    async def main() -> None:
        client, accepted, server = await pair()
        accepted.transport.pause_reading()
        client.transport.write(bytes(64 << 20))  # more than the kernel ever holds
        assert "pause" in client.events
        client.transport.close()
        assert isinstance(await client.lost, hs.DeadlineExceeded)
        await end(accepted, server=server)

    hsloop.run(main())


def test_a_connection_outlives_the_scope_that_opened_it() -> None:
    async def main() -> None:
        with hs.timeout(LATE) as token:
            client, accepted, server = await pair()
            client.transport.write(b"in the scope")
        token.cancel("the scope is over")
        await accepted.until(lambda: accepted.received == b"in the scope")
        with hs.timeout(LATE) as token:
            token.cancel("so is this one")
            accepted.transport.write(b"answer")
        await client.until(lambda: client.received == b"answer")
        await end(client, accepted, server=server)

    hsloop.run(main())


def test_handlers_see_the_context_of_their_server_but_no_scope() -> None:
    variable = contextvars.ContextVar("variable", default="nothing")
    seen: list[Any] = []

    class Looking(Noting):
        def data_received(self, data: bytes) -> None:
            seen.append((variable.get(), hs.current()))
            super().data_received(data)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        variable.set("the server's")
        with hs.timeout(LATE):
            server = await loop.create_server(Looking, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        _, client = await loop.create_connection(Noting, "127.0.0.1", port)
        client.transport.write(b"x")
        while not seen:
            await asyncio.sleep(0)
        await end(client, server=server)

    hsloop.run(main())
    assert seen == [("the server's", None)]


def test_connects_obey_the_scope_and_tell_every_attempt() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        with pytest.raises(hs.ConnectionRefused):
            await loop.create_connection(Noting, "localhost", port)
        token = hs.CancelToken()
        token.cancel("no more")
        with BlackHole() as hole, pytest.raises(hs.Cancelled, match="no more"), hs.scope(token):
            await loop.create_connection(Noting, *hole.addresses[0])

    hsloop.run(main())


def test_connections_of_protocols_are_in_the_ledger() -> None:
    async def main() -> None:
        before = len(hs.open_connections())
        client, accepted, server = await pair()
        assert len(hs.open_connections()) == before + 3
        await end(client, accepted, server=server)
        assert len(hs.open_connections()) == before

    hsloop.run(main())


def test_unix_sockets_and_sockets_that_are_given(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        accepted: list[Noting] = []

        def factory() -> Noting:
            accepted.append(Noting())
            return accepted[-1]

        path = str(tmp_path / "sock")
        server = await loop.create_unix_server(factory, path)
        _, first = await loop.create_unix_connection(Noting, path)
        given = socket.socket(socket.AF_UNIX)
        given.setblocking(False)
        await loop.sock_connect(given, path)
        _, second = await loop.create_unix_connection(Noting, sock=given)
        for number, protocol in enumerate((first, second)):
            protocol.transport.write(b"hello")
            while len(accepted) <= number or accepted[number].transport is None:
                await asyncio.sleep(0)
            await accepted[number].until(lambda n=number: accepted[n].received == b"hello")  # type: ignore[misc]
        await end(first, second, server=server)
        for protocol in accepted:
            await protocol.lost

    run(main)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", b"localhost", "::1", None])
def test_getaddrinfo_answers_as_ever(host: Any) -> None:
    async def ask() -> Any:
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo(
            host, 80, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE if host is None else 0
        )

    expected = asyncio.run(ask())
    assert sorted(hsloop.run(ask())) == sorted(expected)


def test_what_is_not_known_is_a_gaierror() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("nobody.invalid", 80, flags=socket.AI_NUMERICHOST)
        with pytest.raises(ValueError, match="server_hostname"):
            await loop.create_connection(Noting, "127.0.0.1", 1, server_hostname="x")
        with pytest.raises(TypeError, match="ssl must be"):
            await loop.create_connection(Noting, "127.0.0.1", 1, ssl="yes")  # type: ignore[call-overload]

    hsloop.run(main())


# ---- streams, on any loop of asyncio


@pytest.fixture(params=[*RUNS, "hardsock"])
def any_run(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    if request.param == "uvloop":
        need_module("uvloop")
    runner = hsloop.run if request.param == "hardsock" else RUNS[request.param]
    return lambda main: runner(main())


async def _open_asking(address: Any, **options: Any) -> Any:
    return streams.asking(await aio.connect(address, **options))


@pytest.fixture(params=[streams.open_connection, _open_asking], ids=["ahead", "asking"])
def opened(request: pytest.FixtureRequest) -> Any:
    """A reader of streams that reads ahead, or one that does not."""
    return request.param


def test_streams_read_write_and_end(any_run: Any, opened: Any) -> None:
    async def main() -> None:
        async with await aio.listen(("127.0.0.1", 0)) as listener:
            reader, writer = await opened(listener.address, timeout=LATE)
            peer = await listener.accept(timeout=LATE)
        assert isinstance(reader, asyncio.StreamReader)
        async with peer:
            writer.write(b"question\n")
            await writer.drain()
            assert await peer.recv_line(timeout=LATE) == b"question"
            await peer.sendall(b"one\ntwo and the rest")
            assert await reader.readline() == b"one\n"
            assert await reader.readuntil(b" ") == b"two "
            assert await reader.readexactly(3) == b"and"
            with pytest.raises(hs.DeadlineExceeded), hs.timeout(0.01):
                await reader.readline()
            await peer.close_write()
            assert await reader.read() == b" the rest"
            assert reader.at_eof()
            writer.write_eof()
            assert await peer.recv(1) == b""
        writer.close()
        await writer.wait_closed()

    any_run(main)


@pytest.mark.parametrize("wrap", [streams.wrap, streams.asking])
def test_streams_take_over_what_was_buffered(any_run: Any, wrap: Any) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            conn = aio.adopt(ours)
            theirs.sendall(b"line\nrest")
            assert await conn.recv_line() == b"line"
            reader, writer = wrap(conn)
            assert await reader.readexactly(4) == b"rest"
            writer.close()
            await writer.wait_closed()
        assert conn.closed

    any_run(main)


def test_a_reader_that_asks_takes_nothing_ahead_and_knows_what_has_come(any_run: Any) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            conn = aio.adopt(ours)
            reader, writer = streams.asking(conn)
            assert reader.is_quiet()
            theirs.sendall(b"line\nrest")
            assert not reader.is_quiet()
            for _ in range(10):
                await asyncio.sleep(0)
            assert conn.bytes_received == 0
            assert await reader.readline() == b"line\n"
            assert not reader.is_quiet()
            assert await reader.readexactly(4) == b"rest"
            assert reader.is_quiet()
            reading = asyncio.ensure_future(reader.read(1))
            await task_parked(reading)
            with pytest.raises(hs.Busy):
                await reader.read(1)
            writer.close()
            assert await asyncio.wait_for(reading, LATE) == b""
            assert not reader.is_quiet()
            await writer.wait_closed()

    any_run(main)


def test_a_reader_that_asks_is_told_of_a_reset(any_run: Any) -> None:
    async def main() -> None:
        async with await aio.listen(("127.0.0.1", 0)) as listener:
            reader, writer = await _open_asking(listener.address, timeout=LATE)
            peer = await listener.accept(timeout=LATE)
        reading = asyncio.ensure_future(reader.readline())
        await task_parked(reading)
        peer.abort()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reading, LATE)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    any_run(main)


def test_streams_carry_tls(any_run: Any, files: Files, opened: Any) -> None:
    async def main() -> None:
        async with await aio.listen(("127.0.0.1", 0), tls=files.server) as listener:
            accepting = asyncio.ensure_future(listener.accept(timeout=LATE))
            reader, writer = await opened(
                listener.address, tls=files.client, server_name="localhost", timeout=LATE
            )
            peer = await accepting
        async with peer:
            writer.write(b"x" * 500_000)
            await writer.drain()
            assert len(await peer.recv_exactly(500_000, timeout=LATE)) == 500_000
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    any_run(main)


class Unruly(asyncio.Protocol):
    """Under a TLS of asyncio's, say, that fails when it is asked first."""

    asked = False

    @property
    def _app_transport(self) -> object:
        if not self.asked:
            self.asked = True
            raise ZeroDivisionError
        return None


def test_a_transport_that_fails_at_the_loop_s_end_keeps_nothing_open() -> None:
    loop = hsloop.new_event_loop()
    pairs = [socket.socketpair() for _ in range(3)]

    async def begin() -> list[Any]:
        kinds = (asyncio.Protocol, Unruly, asyncio.Protocol)
        made = [
            (await loop.create_connection(kind, sock=ours))[0]
            for kind, (ours, _) in zip(kinds, pairs, strict=True)
        ]
        for transport in made[::2]:
            transport.write(b"x" * (1 << 22))
            transport.close()
        return made

    transports = loop.run_until_complete(begin())
    hub = _host.hub_of(loop)
    with pytest.raises(ZeroDivisionError):
        loop.close()

    assert loop.is_closed()
    assert hub is not None
    assert hub.closed
    for transport in transports[::2]:
        assert transport.get_extra_info("hardsock").closed
    transports[1].get_extra_info("hardsock").close()
    for _, theirs in pairs:
        theirs.close()


# ---- want of memory -----------------------------------------------------------------------------


def no_memory(*_args: object) -> Any:
    raise MemoryError


def quiet_about_memory(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(context["exception"], MemoryError), context


def test_a_receive_that_finds_no_memory_ends_the_connection_and_is_told() -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(quiet_about_memory)
        client, accepted, server = await pair()
        client.transport.pause_reading()
        client.transport._begin_recv = no_memory
        client.transport.resume_reading()
        assert isinstance(await asyncio.wait_for(client.lost, LATE), MemoryError)
        await accepted.lost
        await end(server=server)

    hsloop.run(main())


@pytest.mark.parametrize("pieces", [1, 3], ids=["at once", "gathered"])
def test_a_send_that_finds_no_memory_ends_the_connection_and_not_the_loop(pieces: int) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(quiet_about_memory)
        client, accepted, server = await pair()
        for _ in range(pieces - 1):
            client.transport.write(b"x")
        client.transport._begin_sendall = no_memory
        client.transport.write(b"y")
        assert isinstance(await asyncio.wait_for(client.lost, LATE), MemoryError)
        await accepted.lost
        await end(server=server)

    hsloop.run(main())


def test_a_stream_that_has_lost_what_was_queued_does_not_go_on() -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(quiet_about_memory)
        client, accepted, server = await pair()
        accepted.transport.pause_reading()
        client.transport.write(b"x" * (1 << 24))
        client.transport._begin_sendall = no_memory
        client.transport.write(b"y")
        accepted.transport.resume_reading()
        assert isinstance(await asyncio.wait_for(client.lost, LATE), MemoryError)
        await accepted.lost
        assert not accepted.received.strip(b"x")
        await end(server=server)

    hsloop.run(main())


def test_a_send_that_goes_on_and_finds_no_memory_ends_the_connection() -> None:
    class Short:
        """A send that has no memory for its next step."""

        def step(self) -> Any:
            raise MemoryError

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(quiet_about_memory)
        client, accepted, server = await pair()
        client.transport._begin_sendall = lambda *_: Short()
        client.transport.write(b"y")
        assert isinstance(await asyncio.wait_for(client.lost, LATE), MemoryError)
        await accepted.lost
        await end(server=server)

    hsloop.run(main())


def test_a_server_that_finds_no_memory_accepts_again() -> None:
    class Short:
        """A listener that has no memory for its next two calls."""

        def __init__(self, listener: Any) -> None:
            self._listener, self.left = listener, 2

        def _op_accept_many(self, *args: Any) -> Any:
            if self.left:
                self.left -= 1
                raise MemoryError
            return self._listener._op_accept_many(*args)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._listener, name)

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        loop.set_exception_handler(quiet_about_memory)
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        (accepting,) = loop._accepting.values()
        short = accepting._listener = Short(accepting._listener)
        for _ in range(2):  # The first is taken by the call that waits already.
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await asyncio.wait_for(reader.read(), LATE) == b"x"
            writer.close()
            await writer.wait_closed()
        assert short.left == 0
        await end(server=server)

    hsloop.run(main())
