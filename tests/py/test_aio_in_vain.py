"""Under a scope that has ended nothing is asked over a connection that is there; tidying up goes on."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock import aio
from hardsock.aio import _host_scope
from hardsock.aio import loop as hsloop
from support.pki import make_authority

pytestmark = pytest.mark.usefixtures("event_loops")

LATE = 60.0
WAYS = ["plain", "ssl", "hardsock"]


@dataclass
class Files:
    serving: ssl.SSLContext
    asking: ssl.SSLContext
    client: hs.TLSConfig


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    authority = make_authority(tmp_path_factory.mktemp("pki"), "ca")
    identity = authority.issue(file="server")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(identity.certificate, identity.key)
    asking = ssl.create_default_context(cafile=str(authority.certificate))
    return Files(serving, asking, hs.TLSConfig(ca=authority.certificate))


@dataclass
class Kept:
    """A connection that has been used, and what its server has heard over it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    heard: list[bytes]
    over: asyncio.Event
    """The server has seen its end."""

    async def answer(self) -> bytes:
        async with aio.timeout(LATE):
            return await self.reader.readline()

    async def nothing_was_heard(self) -> None:
        async with aio.timeout(LATE):
            await self.over.wait()
        assert self.heard == [b"before\n"]
        assert self.reader.exception() is not None


@contextlib.asynccontextmanager
async def kept(way: str, files: Files) -> AsyncIterator[Kept]:
    heard: list[bytes] = []
    over = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Without a goodbye the end is an error of TLS.
        with contextlib.suppress(OSError, hs.HardsockError):
            while line := await reader.readline():
                heard.append(line)
                writer.write(line)
        writer.close()
        over.set()

    tls = None if way == "plain" else files.serving
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=tls)
    host, port = server.sockets[0].getsockname()
    asking: Any = {"plain": None, "ssl": files.asking, "hardsock": files.client}[way]
    named = {} if way == "plain" else {"server_hostname": "localhost"}
    async with aio.timeout(LATE):
        reader, writer = await asyncio.open_connection(host, port, ssl=asking, **named)
        found = Kept(reader, writer, heard, over)
        writer.write(b"before\n")
        assert await reader.readline() == b"before\n"
        try:
            yield found
        finally:
            writer.close()
            server.close()
            await over.wait()


def run(main: Callable[[Kept], Awaitable[None]], way: str, files: Files) -> None:
    async def within() -> None:
        async with kept(way, files) as found:
            await main(found)

    hsloop.run(within())
    assert hs.open_connections() == []


@pytest.mark.parametrize("wait", ["of the loop", "of hardsock"])
@pytest.mark.parametrize("end", ["before", "within", "computing"])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_asked(way: str, end: str, wait: str, files: Files) -> None:
    async def main(found: Kept) -> None:
        token = hs.CancelToken(0.001 if end == "computing" else None)
        if end == "before":
            token.cancel()
        error = hs.DeadlineExceeded if end == "computing" else hs.Cancelled
        with pytest.raises(error), hs.scope(token):
            if end == "within":
                token.cancel()
            elif end == "computing":
                assert token.wait(LATE), "for a time in which the loop does not run"
            found.writer.write(b"in vain\n")
            found.writer.write(b"more of it\n")
            await (aio.sleep(LATE) if wait == "of hardsock" else found.reader.readline())
        await found.nothing_was_heard()

    run(main, way, files)


@pytest.mark.parametrize("way", WAYS)
def test_a_task_that_was_begun_in_the_block_asks_nothing(way: str, files: Files) -> None:
    """It has its first step when the one that began it has been cancelled, and not yet heard of it."""

    async def main(found: Kept) -> None:
        async def ask() -> None:
            found.writer.write(b"in vain\n")

        token = hs.CancelToken()
        token.cancel()
        with pytest.raises(hs.Cancelled), hs.scope(token):
            asking = asyncio.create_task(ask())
            await asyncio.Event().wait()
        await asking
        await found.nothing_was_heard()

    run(main, way, files)


@pytest.mark.parametrize("scopes", [1, 2])
@pytest.mark.parametrize("wait", ["of the loop", "of hardsock"])
@pytest.mark.parametrize("way", WAYS)
def test_who_has_heard_of_the_end_tidies_up(way: str, wait: str, scopes: int, files: Files) -> None:
    async def main(found: Kept) -> None:
        async def goodbye() -> None:
            found.writer.write(b"from a task\n")

        token = hs.CancelToken()
        with pytest.raises(hs.Cancelled), contextlib.ExitStack() as entered:
            for _ in range(scopes):  # They end together.
                entered.enter_context(hs.scope(token))
            asyncio.get_running_loop().call_soon(token.cancel)
            try:
                await (aio.sleep(LATE) if wait == "of hardsock" else asyncio.Event().wait())
            finally:
                found.writer.write(b"goodbye\n")
                await asyncio.create_task(goodbye())
        assert [await found.answer() for _ in range(2)] == [b"goodbye\n", b"from a task\n"]

    run(main, way, files)


def test_a_block_that_is_left_without_waiting_loses_the_connection(files: Files) -> None:
    async def main(found: Kept) -> None:
        token = hs.CancelToken()
        with hs.scope(token):
            token.cancel("stop button")
            found.writer.write(b"in vain\n")
        with pytest.raises(hs.Cancelled, match="stop button"):
            await found.answer()
        await found.nothing_was_heard()

    run(main, "plain", files)


def test_a_shield_asks_what_it_likes(files: Files) -> None:
    async def main(found: Kept) -> None:
        token = hs.CancelToken()
        with pytest.raises(hs.Cancelled), hs.scope(token):
            token.cancel()
            with hs.shield(LATE):
                found.writer.write(b"tidying up\n")
                assert await found.answer() == b"tidying up\n"
            await asyncio.Event().wait()

    run(main, "plain", files)


def test_who_asks_beside_a_shield_does_not_wait_for_its_end(files: Files) -> None:
    async def main(found: Kept) -> None:
        async def ask(go: asyncio.Event) -> None:
            await go.wait()
            found.writer.write(b"in vain\n")

        token, go = hs.CancelToken(), asyncio.Event()
        with pytest.raises(hs.Cancelled), hs.scope(token):
            asking = asyncio.create_task(ask(go))
            token.cancel()
            with hs.shield(LATE):
                go.set()
                await found.nothing_was_heard()
            await asyncio.Event().wait()
        await asking

    run(main, "plain", files)


def ended_scope() -> hs.CancelToken:
    token = hs.CancelToken()
    token.cancel()
    return token


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("awaited", [False, True], ids=["at rest", "in use"])
def test_who_shares_the_connection_loses_nothing(awaited: bool, way: str, files: Files) -> None:
    """A late task writes; another one has just asked, or asks before the late one has heard."""

    async def main(found: Kept) -> None:
        def other() -> None:
            found.writer.write(b"of another\n")

        outside = contextvars.copy_context()  # Without the scope that ends.
        with pytest.raises(hs.Cancelled), hs.scope(ended_scope()):
            if awaited:
                outside.run(other)
            found.writer.write(b"late\n")
            if not awaited:
                outside.run(other)
            await asyncio.Event().wait()
        expected = [b"late\n", b"of another\n"]
        if awaited:
            expected.reverse()
        assert [await found.answer() for _ in range(2)] == expected
        assert not found.writer.is_closing()
        # It is known to be shared from now on.
        with pytest.raises(hs.Cancelled), hs.scope(ended_scope()):
            found.writer.write(b"late again\n")
            await asyncio.Event().wait()
        assert await found.answer() == b"late again\n"

    run(main, way, files)


def test_who_only_listens_hears_an_error(files: Files) -> None:
    async def main(found: Kept) -> None:
        listening = asyncio.create_task(found.reader.readline())
        await asyncio.sleep(0)
        with pytest.raises(hs.Cancelled), hs.scope(ended_scope()):
            found.writer.write(b"in vain\n")
            await asyncio.Event().wait()
        with pytest.raises(hs.Cancelled):
            await listening
        await found.nothing_was_heard()

    run(main, "plain", files)


def test_another_ends_its_side_behind_what_is_held(files: Files) -> None:
    async def main(found: Kept) -> None:
        outside = contextvars.copy_context()
        with pytest.raises(hs.Cancelled), hs.scope(ended_scope()):
            found.writer.write(b"late\n")
            outside.run(found.writer.write_eof)
            await asyncio.Event().wait()
        assert await found.answer() == b"late\n"

    run(main, "plain", files)


def test_a_file_of_another_goes_behind_what_is_held(files: Files, tmp_path: Path) -> None:
    async def main(found: Kept) -> None:
        loop = asyncio.get_running_loop()
        (tmp_path / "file").write_bytes(b"file\n")
        with open(tmp_path / "file", "rb") as file:
            with hs.scope(ended_scope()):
                found.writer.write(b"late\n")
                with pytest.raises(RuntimeError, match="scope around has ended"):
                    loop.sendfile(found.writer.transport, file).send(None)
                with hs.shield(LATE):
                    assert await loop.sendfile(found.writer.transport, file) == 5
        assert [await found.answer() for _ in range(2)] == [b"late\n", b"file\n"]

    run(main, "plain", files)


def test_a_file_that_is_sent_in_vain_leaves_the_connection(files: Files, tmp_path: Path) -> None:
    """Nothing of it has gone out; others may be asking over the connection."""

    async def main(found: Kept) -> None:
        loop = asyncio.get_running_loop()
        (tmp_path / "file").write_bytes(b"file\n")
        with open(tmp_path / "file", "rb") as file:
            with pytest.raises(hs.Cancelled), hs.scope(ended_scope()):
                await loop.sendfile(found.writer.transport, file)
            assert await loop.sendfile(found.writer.transport, file) == 5
            # It is a request as any other, and unanswered.
            with pytest.raises(hs.Cancelled), hs.scope(ended_scope()):
                found.writer.write(b"late\n")
                await asyncio.Event().wait()
        assert [await found.answer() for _ in range(2)] == [b"file\n", b"late\n"]

    run(main, "plain", files)


def test_who_asked_before_the_last_one_waits_for_an_answer_too(files: Files) -> None:
    async def main(found: Kept) -> None:
        token = hs.CancelToken()
        found.writer.write(b"of another\n")
        with pytest.raises(hs.Cancelled), hs.scope(token):
            found.writer.write(b"in time\n")
            token.cancel()
            found.writer.write(b"late\n")
            await asyncio.Event().wait()
        expected = [b"of another\n", b"in time\n", b"late\n"]
        assert [await found.answer() for _ in range(3)] == expected

    run(main, "plain", files)


def test_what_others_have_still_to_send_is_not_lost(files: Files) -> None:
    """Though something arrives meanwhile, which cannot be the answer."""
    large = b"x" * (8 << 20) + b"\n"

    async def main() -> None:
        ours, peer = socket.socketpair()
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection(sock=ours)
        async with aio.timeout(LATE):
            writer.write(large)
            peer.sendall(b"news\n")
            assert await reader.readline() == b"news\n"
            with pytest.raises(hs.Cancelled), hs.scope(ended_scope()):
                writer.write(b"late\n")
                await asyncio.Event().wait()
            writer.close()
            with peer:
                assert await loop.run_in_executor(None, _all_of, peer) == large + b"late\n"

    hsloop.run(main())
    assert hs.open_connections() == []


def _all_of(peer: socket.socket) -> bytes:
    peer.settimeout(LATE)
    with peer.makefile("rb") as file:
        return file.read()


def test_a_shield_does_not_wait_for_what_was_asked_in_vain(files: Files) -> None:
    async def main(found: Kept) -> None:
        with pytest.raises(hs.Cancelled), hs.scope(ended_scope()):
            found.writer.write(b"in vain\n")
            with hs.shield(LATE):
                await found.nothing_was_heard()
            await asyncio.Event().wait()

    run(main, "plain", files)


def test_a_scope_of_another_threads_loop_ends_nothing_here(files: Files) -> None:
    """A context is copied into threads, as by `asyncio.to_thread`; that loop has not heard of the end."""

    async def ask() -> None:
        inherited = contextvars.copy_context()
        with hs.shield(LATE):
            async with kept("plain", files) as found:
                inherited.run(found.writer.write, b"here\n")
                assert await found.answer() == b"here\n"

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool, pytest.raises(hs.Cancelled), hs.scope(ended_scope()):
            pool.submit(contextvars.copy_context().run, lambda: hsloop.run(ask())).result()
            await asyncio.Event().wait()

    hsloop.run(main())
    assert hs.open_connections() == []


def test_a_scope_that_another_thread_collects_tells_in_the_loop(files: Files) -> None:
    async def main(found: Kept) -> None:
        with pytest.raises(hs.Cancelled), hs.scope(ended_scope()):
            scope = _host_scope._innermost.get()
            assert scope is not None
            told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            scope.tell_when_heard(lambda: told.set_result(threading.get_ident()))
            thread = threading.Thread(target=scope.forget)
            thread.start()
            thread.join()
            raise hs.Cancelled
        assert await asyncio.wait_for(told, LATE) == threading.get_ident()

    run(main, "plain", files)


def test_a_fault_of_a_protocol_does_not_keep_the_task_from_its_end(files: Files) -> None:
    async def main(found: Kept) -> None:
        reported: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, what: reported.append(what["exception"]))
        told: list[str] = []

        def fault() -> None:
            raise ValueError("of a protocol")

        with pytest.raises(hs.Cancelled), hs.scope(ended_scope()):
            scope = _host_scope._innermost.get()
            assert scope is not None
            scope.tell_when_heard(fault)
            scope.tell_when_heard(lambda: told.append("the next"))
            await asyncio.wait_for(asyncio.Event().wait(), LATE)
        assert [str(one) for one in reported] == ["of a protocol"]
        assert told == ["the next"]

    run(main, "plain", files)


def test_an_interrupt_in_a_protocol_does_not_keep_the_task_from_its_end() -> None:
    async def main() -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        with hs.scope(ended_scope()):
            scope = _host_scope._innermost.get()
            assert scope is not None
            scope.tell_when_heard(interrupt)
            await asyncio.wait_for(asyncio.Event().wait(), LATE)

    loop = hsloop.EventLoop()
    try:
        task = loop.create_task(main())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        with pytest.raises(hs.Cancelled):
            loop.run_until_complete(task)
    finally:
        loop.close()


def test_an_answer_may_be_late() -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            token = hs.CancelToken()
            with hs.scope(token):
                await reader.readline()
                token.cancel()
                writer.write(b"late\n")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with aio.timeout(LATE):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"ask\n")
            assert await reader.read() == b"late\n"
            writer.close()
            server.close()
            await server.wait_closed()

    hsloop.run(main())
    assert hs.open_connections() == []
