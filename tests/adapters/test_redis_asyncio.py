"""redis.asyncio over hardsock, against a real redis-server and against bad peers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff, NoBackoff

import hardsock as hs
import hardsock.adapters.redis
from adapters.endings import SHORT, causes
from adapters.http_contract import nothing_open, server_context
from adapters.redis_parts import *
from adapters.redis_parts import NAME, OLD, QUIET, bounded, url_of, with_tls
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.peers import PeerScript
from hardsock.lab.servers.process import Server
from support.loops import RUNS
from support.require import require
from support.servers import redis_server
from support.tls import Identities

pytestmark = pytest.mark.usefixtures("event_loops")


@pytest.fixture(params=list(RUNS))
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.asynccontextmanager
async def _client(
    address: Any, end: str = "", tls: Identities | None = None, **settings: Any
) -> AsyncIterator[Any]:
    url = url_of(address, tls, settings)
    total = SHORT if end == "deadline" else None
    made = hardsock.adapters.redis.async_client(url, total=total, **settings)
    try:
        yield made
    finally:
        await made.aclose()


async def _ends(
    end: str, call: Callable[[], Coroutine[Any, Any, Any]], when: Callable[[], object] | None = None
) -> None:
    """*call* is ended by *end*; a cancel comes from another thread, once *when* has returned."""
    if end == "cancel":
        token = hs.CancelToken()

        def stop() -> None:
            if when is not None:
                when()
            token.cancel("stop button")

        stopper = threading.Timer(SHORT, stop)  # Wherever it is by then, it has to end.
        stopper.start()
        try:
            with pytest.raises(hs.Cancelled) as cancelled, hs.scope(token):
                await bounded(call)
        finally:
            await asyncio.to_thread(stopper.join)
        assert cancelled.value.reason == "stop button"
        return
    scope = hs.timeout(SHORT) if end == "scope" else contextlib.nullcontext()
    with pytest.raises((redis.exceptions.TimeoutError, hs.DeadlineExceeded)) as late, scope:
        await bounded(call)
    assert isinstance(late.value, redis.exceptions.TimeoutError) or end == "scope"
    assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("fault", ["silent", "drip"])
def test_a_reply_that_does_not_come_ends(
    end: str, tls: bool, fault: str, ids: Identities, loop: str
) -> None:
    last = ("stall",) if fault == "silent" else ("drip", b"$60000\r\n" + b"x" * 60000, 0.01)
    context = server_context(ids) if tls else None
    script = [("recv", 1), last]
    with PeerScript(script, check=False, tls=context) as peer:

        async def main() -> None:
            async with _client(peer.address, end, ids if tls else None, **QUIET) as client:
                await _ends(end, lambda: client.get("key"), lambda: peer.wait_steps(1, 60))

        RUNS[loop](main())
        nothing_open()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_a_reply_that_breaks_off_is_a_failure(
    tls: bool, fault: str, ids: Identities, loop: str
) -> None:
    last = ("rst",) if fault == "reset" else ("close",)
    script = [("recv", 1), ("send", b"$5000\r\nonly this"), last]
    context = server_context(ids) if tls else None
    with PeerScript(script, check=False, tls=context) as peer:

        async def main() -> None:
            once = Retry(NoBackoff(), 0)
            settings = {"retry": once, **QUIET}
            async with _client(peer.address, "", ids if tls else None, **settings) as client:
                with hs.timeout(60), pytest.raises(redis.exceptions.ConnectionError):
                    await client.get("key")
                nothing_open()

        RUNS[loop](main())


def test_a_connect_into_a_black_hole_ends(end: str, loop: str) -> None:
    with BlackHole() as hole:

        async def main() -> None:
            async with _client(hole.address, end) as client:
                await _ends(end, client.ping)

        RUNS[loop](main())
        nothing_open()


def test_a_stalled_handshake_ends(end: str, ids: Identities, loop: str) -> None:
    with PeerScript([("stall",)], check=False) as peer:

        async def main() -> None:
            async with _client(peer.address, end, ids) as client:
                await _ends(end, client.ping)

        RUNS[loop](main())
        nothing_open()


def test_the_queue_of_the_pool_ends(
    end: str, served: tuple[Any, Identities | None], loop: str
) -> None:
    address, tls = served

    async def main() -> None:
        async with _client(address, end, tls, size=1) as client:
            held = await client.connection_pool.get_connection(*NAME)
            await _ends(end, client.ping)
            await client.connection_pool.release(held)
            client.total = None
            assert await client.ping()

    RUNS[loop](main())
    nothing_open()


@pytest.mark.skipif(OLD, reason="before 6.0 redis-py did not try to connect again")
@pytest.mark.parametrize("transport", ["plain", "tls"])
def test_the_pauses_between_tries_end(end: str, transport: str, loop: str, ids: Identities) -> None:
    again = Retry(ConstantBackoff(600), 3)
    with hs.listen(("127.0.0.1", 0)) as listener:
        address = listener.address
    tls = ids if transport == "tls" else None

    async def main() -> None:
        async with _client(address, end, tls, retry=again, **QUIET) as client:
            await _ends(end, client.ping)

    RUNS[loop](main())
    nothing_open()


class _Early(asyncio.SelectorEventLoop):
    """A loop whose timers come up to 1.9 ms early, as uvloop's may by 1.5."""

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return super().call_at(when - 0.0019, callback, *args, context=context)


@pytest.mark.skipif(OLD, reason="before 6.0 redis-py did not try to connect again")
def test_a_timer_that_comes_early_is_no_reason_for_another_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = hardsock.adapters.redis.AsyncConnection
    connect = kind._connect
    tries: list[Any] = []

    async def counted(conn: Any) -> None:
        tries.append(conn)
        await connect(conn)

    monkeypatch.setattr(kind, "_connect", counted)
    with hs.listen(("127.0.0.1", 0)) as listener:
        address = listener.address

    async def main() -> None:
        again = Retry(ConstantBackoff(600), 3)
        async with _client(address, "scope", retry=again, **QUIET) as client:
            await _ends("scope", client.ping)

    with contextlib.closing(_Early()) as loop:
        loop.run_until_complete(main())
    assert len(tries) == 1


def _dead_dns(end: str, loop: str) -> bool:
    from hardsock.lab.dns import DeadDNS, use_dns

    async def main() -> None:
        async with _client(("nobody.test", 6379), end) as client:
            await _ends(end, client.ping)

    with DeadDNS():
        use_dns("127.0.0.1", timeout=30, attempts=5)
        RUNS[loop](main())
    return True


@pytest.mark.net
def test_a_dead_name_server_ends(end: str, loop: str) -> None:
    with require(Namespace()) as namespace:
        assert namespace.run("adapters.test_redis_asyncio:_dead_dns", end, loop, timeout=120)


def test_commands_pipelines_and_messages_work(server: Server, loop: str) -> None:
    async def main() -> None:
        async with _client(server.address, size=4, health_check_interval=1) as client:
            await client.set("async a", "1")
            async with client.pipeline() as pipe:
                pipe.incr("async a").incr("async a").get("async a")
                assert await pipe.execute() == [2, 3, b"3"]
            assert await client.eval("return ARGV[1]", 0, "x" * 100_000) == b"x" * 100_000
            await client.delete("async a")
            async with client.pubsub() as subscriber:
                await subscriber.subscribe("async news")
                assert (await subscriber.get_message(timeout=30))["type"] == "subscribe"
                assert await subscriber.get_message(timeout=0.05) is None
                await client.publish("async news", "x")
                assert (await subscriber.get_message(timeout=30))["data"] == b"x"

    RUNS[loop](main())
    nothing_open()


@contextlib.contextmanager
def _stopped(server: Server) -> Iterator[None]:
    """It takes nothing any more: what is sent fills the kernel's buffers, and waits."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


_MORE_THAN_FITS = b"x" * 50_000_000


def test_a_command_that_the_server_does_not_take_ends(end: str, loop: str) -> None:
    with require(redis_server()) as own:

        async def main() -> None:
            async with _client(own.address, socket_timeout=60) as client:
                await client.ping()
                client.total = SHORT if end == "deadline" else None
                with _stopped(own):
                    await _ends(end, lambda: client.set("key", _MORE_THAN_FITS))
                client.total = None
                assert await client.echo("own") == b"own"

        RUNS[loop](main())
    nothing_open()


def test_socket_timeout_is_for_what_the_server_does_not_take(loop: str) -> None:
    with require(redis_server()) as own:

        async def main() -> None:
            async with _client(own.address, retry=Retry(NoBackoff(), 0)) as client:
                await client.ping()
                for conn in client.connection_pool._available_connections:
                    conn.socket_timeout = SHORT  # Not for connecting: this machine may be busy.
                timed_out = pytest.raises(redis.exceptions.TimeoutError, match="writing")
                with _stopped(own), hs.timeout(60), timed_out:
                    await client.set("key", _MORE_THAN_FITS)

        RUNS[loop](main())
    nothing_open()


def test_a_scope_that_has_ended_changes_nothing(server: Server, loop: str) -> None:
    """Over a connection that was kept, where no wait would end with the scope."""
    token = hs.CancelToken()
    token.cancel("before")

    async def main() -> None:
        async with _client(server.address, size=1) as client:
            await client.set("async unasked", 7)
            with pytest.raises(hs.Cancelled), hs.scope(token):
                await client.incr("async unasked")
            async with client.pipeline() as pipe:
                pipe.incr("async unasked")
                with pytest.raises(hs.Cancelled), hs.scope(token):
                    await pipe.execute()
            assert await client.get("async unasked") == b"7"

    RUNS[loop](main())
    nothing_open()


@pytest.mark.parametrize("over", ["before", "within"])
def test_a_scope_that_ends_a_transaction_gives_its_place_back(
    over: str, server: Server, loop: str
) -> None:
    """And nothing is watched any more over the connection that the next one gets."""
    token = hs.CancelToken()

    async def main() -> None:
        async with _client(server.address, size=1) as client:
            with hs.timeout(60):
                await client.set("async watched", 1)
            with pytest.raises(hs.Cancelled), hs.scope(token):
                if over == "before":
                    token.cancel()
                async with client.pipeline() as pipe:
                    await pipe.watch("async watched")
                    token.cancel()
                    await pipe.get("async watched")
            with hs.timeout(60):
                await client.set("async watched", 2)
                async with client.pipeline(transaction=True) as pipe:
                    pipe.get("async watched")
                    assert await pipe.execute() == [b"2"]
            # The block has done what it was for, but giving back is a wait.
            with contextlib.suppress(hs.Cancelled), hs.scope(hs.CancelToken()) as quiet:
                async with client.pipeline() as pipe:
                    await pipe.watch("async watched")
                    quiet.cancel()
            with hs.timeout(60):
                await client.set("async watched", 3)
                async with client.pipeline(transaction=True) as pipe:
                    pipe.get("async watched")
                    assert await pipe.execute() == [b"3"]

    RUNS[loop](main())
    nothing_open()


def test_a_blocking_command_ends_and_the_next_gets_its_own_answer(
    end: str, served: tuple[Any, Identities | None], loop: str
) -> None:
    address, tls = served

    async def main() -> None:
        async with _client(address, tls=tls, size=1) as client:
            with hs.timeout(60):
                assert await client.echo("before") == b"before"
            client.total = SHORT if end == "deadline" else None
            await _ends(end, lambda: client.blpop("never", 0))
            client.total = None
            with hs.timeout(60):
                for number in range(5):
                    assert await client.echo(f"answer {number}") == b"answer %d" % number

    RUNS[loop](main())
    nothing_open()


@pytest.mark.parametrize("what", ["a reply", "a reply in the parser", "the end"])
def test_a_connection_with_what_nobody_asked_for_is_not_used_again(
    server: Server, what: str, loop: str
) -> None:
    async def main() -> None:
        settings = {"retry": Retry(NoBackoff(), 0), **QUIET}
        async with _client(server.address, size=1, **settings) as client:
            await client.ping()
            held = await client.connection_pool.get_connection(*NAME)
            first = held._reader
            newer = hasattr(redis.asyncio.Connection, "can_read")
            assert not await (held.can_read() if newer else held.can_read_destructive())
            if what == "the end":
                await held.send_command("QUIT")
                assert await held.read_response() == b"OK"
            else:
                await held.send_packed_command(held.pack_commands([("PING",), ("PING",)]))
                if what == "a reply in the parser":
                    assert await held.read_response() == b"PONG"
            # Nothing reads ahead: what comes stays with the kernel until somebody asks.
            while first.is_quiet():
                await asyncio.sleep(0)
            await client.connection_pool.release(held)
            with hs.timeout(60):
                assert await client.echo("own") == b"own"
            assert held._reader is not first

    RUNS[loop](bounded(main))
    nothing_open()


@pytest.mark.parametrize("how", ["scope", "cancel"])
def test_no_message_is_one_thing_and_the_end_of_the_scope_another(
    server: Server, how: str, loop: str
) -> None:
    """redis-py takes a time-out for ``None``, which a loop that waits for messages asks again after."""

    async def main() -> None:
        async with _client(server.address) as client, client.pubsub() as subscriber:
            await subscriber.subscribe("async quiet")
            assert (await subscriber.get_message(timeout=60))["type"] == "subscribe"
            await _ends(how, lambda: subscriber.get_message(timeout=600))

    RUNS[loop](main())
    nothing_open()


def test_a_subscriber_is_stopped_from_another_thread(server: Server, loop: str) -> None:
    async def main() -> None:
        async with _client(server.address) as client:

            async def listen() -> None:
                async with client.pubsub() as subscriber:
                    await subscriber.subscribe("async endless")
                    async for _ in subscriber.listen():
                        pass

            await _ends("cancel", listen)

    RUNS[loop](main())
    nothing_open()


def test_tls_and_unix_sockets_carry_commands(ids: Identities, tmp_path: Path, loop: str) -> None:
    path = tmp_path / "redis.sock"
    options, port = with_tls(ids)
    with require(redis_server(*options, "--unixsocket", str(path))):

        async def main() -> None:
            async with _client(("127.0.0.1", port), tls=ids) as client:
                assert await client.echo("over TLS") == b"over TLS"
                (found,) = (one for one in hs.open_connections() if one.how == "connect")
                assert found.site.function == "main"
            client = hardsock.adapters.redis.async_client(f"unix://{path}", total=30)
            assert await client.echo("over a unix socket") == b"over a unix socket"
            await client.aclose()

        RUNS[loop](main())
    nothing_open()


def test_a_certificate_of_somebody_else_is_refused(
    ids: Identities, tmp_path: Path, loop: str
) -> None:
    with PeerScript([("stall",)], check=False, tls=server_context(ids)) as peer:

        async def main() -> None:
            async with _client(peer.address, tls=Identities(tmp_path), retry=None) as client:
                with pytest.raises(redis.exceptions.ConnectionError, match="issuer") as refused:
                    await client.ping()
                assert any(isinstance(one, hs.CertificateError) for one in causes(refused.value))

        RUNS[loop](main())
    nothing_open()


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="url must begin with"):
        hardsock.adapters.redis.async_client("http://x")
