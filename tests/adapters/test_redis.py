"""redis-py over hardsock, against a real redis-server and against bad peers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry

import hardsock as hs
import hardsock.adapters.redis
from adapters.endings import QUEUE_WAITS, SHORT, is_ended
from adapters.http_contract import nothing_open, server_context
from adapters.redis_parts import *
from adapters.redis_parts import NAME, OLD, QUIET, url_of
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.peers import PeerScript
from hardsock.lab.servers.process import Server
from hardsock.lab.threads import IO_WAITS, Call
from hardsock.lab.waits import poll_until
from support.require import require
from support.tls import Identities


@contextlib.contextmanager
def _client(
    address: Any, end: str = "", tls: Identities | None = None, **settings: Any
) -> Iterator[Any]:
    url = url_of(address, tls, settings)
    total = SHORT if end == "deadline" else None
    with hardsock.adapters.redis.client(url, total=total, **settings) as made:
        yield made
        made.connection_pool.disconnect()


def _ends(end: str, call: Any, waits: Sequence[str] = IO_WAITS) -> None:
    is_ended(end, call, redis.exceptions.TimeoutError, waits=waits)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("fault", ["silent", "drip"])
def test_a_reply_that_does_not_come_ends(end: str, tls: bool, fault: str, ids: Identities) -> None:
    last = ("stall",) if fault == "silent" else ("drip", b"$60000\r\n" + b"x" * 60000, 0.01)
    context = server_context(ids) if tls else None
    with PeerScript([("recv", 1), last], check=False, tls=context) as peer:
        with _client(peer.address, end, ids if tls else None, **QUIET) as client:
            _ends(end, lambda: client.get("key"))
            nothing_open()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_a_reply_that_breaks_off_is_a_failure(tls: bool, fault: str, ids: Identities) -> None:
    last = ("rst",) if fault == "reset" else ("close",)
    script = [("recv", 1), ("send", b"$5000\r\nonly this"), last]
    context = server_context(ids) if tls else None
    with PeerScript(script, check=False, tls=context) as peer:
        secured = ids if tls else None
        with _client(peer.address, "", secured, retry=Retry(NoBackoff(), 0), **QUIET) as client:
            with hs.timeout(60), pytest.raises(redis.exceptions.ConnectionError):
                client.get("key")
            nothing_open()


def test_a_connect_into_a_black_hole_ends(end: str) -> None:
    with BlackHole() as hole, _client(hole.address, end) as client:
        _ends(end, client.ping)
        nothing_open()


def test_a_stalled_handshake_ends(end: str, ids: Identities) -> None:
    with PeerScript([("stall",)]) as peer, _client(peer.address, end, ids) as client:
        _ends(end, client.ping)
        nothing_open()


def test_the_queue_of_the_pool_ends(end: str, served: tuple[Any, Identities | None]) -> None:
    address, tls = served
    with _client(address, end, tls, size=1) as client:
        held = client.connection_pool.get_connection(*NAME)
        _ends(end, client.ping, waits=QUEUE_WAITS)
        client.connection_pool.release(held)
        with hs.timeout(30):
            client.total = None
            assert client.ping()
    nothing_open()


@pytest.mark.skipif(OLD, reason="before 6.0 redis-py did not try to connect again")
@pytest.mark.parametrize("transport", ["plain", "tls"])
def test_the_pauses_between_tries_end(end: str, transport: str, ids: Identities) -> None:
    again = Retry(ConstantBackoff(600), 3)
    with hs.listen(("127.0.0.1", 0)) as listener:
        address = listener.address
    tls = ids if transport == "tls" else None
    with _client(address, end, tls, retry=again, **QUIET) as client:
        if end == "cancel":
            _ends(end, client.ping)
        else:
            scope = hs.timeout(SHORT) if end == "scope" else contextlib.nullcontext()
            with scope, pytest.raises(redis.exceptions.TimeoutError, match="no time left"):
                client.ping()
    nothing_open()


def _dead_dns(end: str) -> bool:
    from hardsock.lab.dns import DeadDNS, use_dns

    with DeadDNS():
        use_dns("127.0.0.1", timeout=30, attempts=5)
        with _client(("nobody.test", 6379), end) as client:
            _ends(end, client.ping)
    return True


@pytest.mark.net
def test_a_dead_name_server_ends(end: str) -> None:
    with require(Namespace()) as namespace:
        assert namespace.run("adapters.test_redis:_dead_dns", end, timeout=120)


def test_socket_timeout_is_a_total_for_the_reply() -> None:
    drip = [("recv", 1), ("drip", b"$5000\r\n" + b"x" * 5000, 0.01)]
    with PeerScript(drip, check=False) as peer:
        with _client(peer.address, socket_timeout=0.2, retry=None, **QUIET) as client:
            with hs.timeout(30), pytest.raises(redis.exceptions.TimeoutError):
                client.get("key")


def test_commands_pipelines_and_scripts_work(server: Server) -> None:
    with _client(server.address, size=4) as client, hs.timeout(30):
        client.set("a", "1")
        with client.pipeline() as pipe:
            pipe.incr("a").incr("a").get("a")
            assert pipe.execute() == [2, 3, b"3"]
        assert client.eval("return ARGV[1]", 0, "x" * 100_000) == b"x" * 100_000
        client.delete("a")
    nothing_open()


def test_a_scope_that_has_ended_changes_nothing(server: Server) -> None:
    """Over a connection that was kept, where no wait would end with the scope."""
    token = hs.CancelToken()
    token.cancel("before")
    with _client(server.address, size=1) as client:
        with hs.timeout(60):
            client.set("unasked", 7)
        with hs.scope(token), pytest.raises(hs.Cancelled):
            client.incr("unasked")
        with hs.timeout(60), client.pipeline() as pipe:
            pipe.incr("unasked")
            with hs.scope(token), pytest.raises(hs.Cancelled):
                pipe.execute()
        with hs.timeout(60):
            assert client.get("unasked") == b"7"
    nothing_open()


@pytest.mark.parametrize("over", ["before", "within"])
def test_a_scope_that_ends_a_transaction_gives_its_place_back(over: str, server: Server) -> None:
    """And nothing is watched any more over the connection that the next one gets."""
    token = hs.CancelToken()
    held = []  # A pipeline that is collected gives its place back, too.
    with _client(server.address, size=1) as client:
        with hs.timeout(60):
            client.set("watched", 1)
        with hs.scope(token), pytest.raises(hs.Cancelled):
            if over == "before":
                token.cancel()
            with client.pipeline() as pipe:
                held.append(pipe)
                pipe.watch("watched")
                token.cancel()
                pipe.get("watched")
        with hs.timeout(60), client.pipeline(transaction=True) as pipe:
            client.set("watched", 2)
            pipe.get("watched")
            assert pipe.execute() == [b"2"]
        with hs.timeout(60), hs.scope(hs.CancelToken()) as quiet, client.pipeline() as pipe:
            held.append(pipe)
            pipe.watch("watched")
            quiet.cancel()  # The block has done what it was for.
        with hs.timeout(60), client.pipeline(transaction=True) as pipe:
            client.set("watched", 3)
            pipe.get("watched")
            assert pipe.execute() == [b"3"]
    nothing_open()


def test_a_blocking_command_ends_and_the_next_gets_its_own_answer(
    end: str, served: tuple[Any, Identities | None]
) -> None:
    address, tls = served
    with _client(address, tls=tls, size=1) as client:
        with hs.timeout(60):
            assert client.echo("before") == b"before"
        client.total = SHORT if end == "deadline" else None
        _ends(end, lambda: client.blpop("never", 0))
        client.total = None
        with hs.timeout(60):
            for number in range(5):
                assert client.echo(f"answer {number}") == b"answer %d" % number
    nothing_open()


@pytest.mark.parametrize("what", ["a reply", "a reply in the parser", "the end"])
def test_a_connection_with_what_nobody_asked_for_is_not_used_again(
    server: Server, what: str
) -> None:
    with _client(server.address, size=1, retry=Retry(NoBackoff(), 0), **QUIET) as client:
        client.ping()
        held = client.connection_pool.get_connection(*NAME)
        first = held._sock
        assert not held.can_read()
        if what == "the end":
            held.send_command("QUIT")
            assert held.read_response() == b"OK"
        else:
            held.send_packed_command(held.pack_commands([("PING",), ("PING",)]))
            first.peek(len(b"+PONG\r\n+PONG\r\n"), timeout=60)
            if what == "a reply in the parser":
                assert held.read_response() == b"PONG"
        assert what == "a reply in the parser" or poll_until(lambda: not first._is_quiet(), 60)
        client.connection_pool.release(held)
        with hs.timeout(60):
            assert client.echo("own") == b"own"
        assert held._sock is not first
    nothing_open()


def test_a_subscriber_is_stopped_from_another_thread(server: Server) -> None:
    with _client(server.address) as client:
        token, got = hs.CancelToken(), threading.Event()

        def listen() -> None:
            with hs.scope(token), client.pubsub() as subscriber:
                subscriber.subscribe("news")
                for message in subscriber.listen():
                    if message["type"] == "message":
                        got.set()

        with Call(listen) as call:
            assert poll_until(lambda: client.publish("news", "x") > 0, 30)
            assert got.wait(20)
            token.cancel()
            with pytest.raises(hs.Cancelled):
                call.result(20)


def test_a_message_that_does_not_come_in_time_is_none(server: Server) -> None:
    with _client(server.address) as client, hs.timeout(30), client.pubsub() as subscriber:
        subscriber.subscribe("news")
        assert subscriber.get_message(timeout=30)["type"] == "subscribe"
        assert subscriber.get_message(timeout=0.05) is None
        assert subscriber.get_message() is None


def test_the_ledger_names_the_line_of_the_program(server: Server) -> None:
    with _client(server.address) as client, hs.timeout(30):
        client.ping()
        (found,) = (one for one in hs.open_connections() if one.how == "connect")
        assert found.site.function == "test_the_ledger_names_the_line_of_the_program"


def test_without_an_adapter_a_cancel_is_no_outage(server: Server) -> None:
    """As somebody would write it who has not heard of adapters."""

    class Own(redis.Connection):
        def _connect(self) -> Any:
            return hs.connect((self.host, self.port), timeout=30)

    with PeerScript([("recv", 1), ("stall",)]) as peer:
        host, port = peer.address
        pool = redis.ConnectionPool(
            connection_class=Own,
            host=host,
            port=port,
            retry=Retry(ConstantBackoff(60), 3),
            **QUIET,
        )
        token = hs.CancelToken()

        def ping() -> None:
            with hs.scope(token):
                redis.Redis(connection_pool=pool).ping()

        with Call(ping) as call:
            peer.wait_steps(1)
            token.cancel("shutting down")
            with pytest.raises(hs.Cancelled):
                call.result(20)


def test_settings_are_checked(ids: Identities) -> None:
    with pytest.raises(ValueError, match="url must begin with"):
        hardsock.adapters.redis.client("http://x")
    with PeerScript([("stall",)]) as peer:
        with _client(peer.address, tls=ids, ssl_validate_ocsp_stapled=True) as client:
            with pytest.raises(redis.RedisError, match="ssl_validate_ocsp_stapled is not for"):
                client.ping()
