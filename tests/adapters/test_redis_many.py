"""redis-py's clients of a cluster and of Sentinel over hardsock, against real ones."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry

import hardsock as hs
import hardsock.adapters.redis
from adapters.endings import SHORT, causes
from adapters.http_contract import nothing_open, server_context
from adapters.redis_parts import OLD, PATIENT, bounded, trusting, with_tls
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.peers import PeerScript
from hardsock.lab.servers.process import (
    Server,
    clean_environment,
    find_program,
    free_port,
    running,
    work_directory,
)
from hardsock.lab.threads import IO_WAITS, Call
from hardsock.lab.waits import poll_until
from support.require import require
from support.servers import redis_server
from support.tls import Identities

pytestmark = pytest.mark.skipif(
    OLD,
    reason="before 6.0 redis-py left the connections of nodes that had failed to the collector",
)


@dataclass(frozen=True)
class Node:
    """A server, which is also there without TLS, and where clients of the test's transport find it."""

    server: Server
    address: tuple[str, int]

    @property
    def name(self) -> str:
        return "{}:{}".format(*self.address)


@pytest.fixture(scope="module", params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, ids: Identities) -> Identities | None:
    """Who is trusted, or None: without TLS."""
    return ids if request.param == "tls" else None


@contextlib.contextmanager
def _node(tls: Identities | None, *options: str) -> Iterator[Node]:
    secured, port = with_tls(tls)
    with require(redis_server(*secured, *options)) as server:
        yield Node(server, server.address if tls is None else (server.address[0], port))


@pytest.fixture(scope="module")
def nodes(tls: Identities | None) -> Iterator[list[Node]]:
    """Three primaries of one cluster."""
    between = () if tls is None else ("--tls-cluster", "yes")
    with contextlib.ExitStack() as opened:
        nodes = [
            opened.enter_context(
                _node(tls, "--cluster-enabled", "yes", "--cluster-port", str(free_port()), *between)
            )
            for _ in range(3)
        ]
        secured = () if tls is None else ("--tls", "--cacert", str(tls.ca))
        subprocess.run(
            [
                find_program("redis-cli"),
                *secured,
                *("--cluster", "create"),
                *(one.name for one in nodes),
                "--cluster-yes",
            ],
            check=True,
            capture_output=True,
            timeout=120,
            env=clean_environment(),
        )
        for one in nodes:
            with redis.Redis(*one.server.address) as client:
                assert poll_until(
                    lambda c=client: c.cluster("info")["cluster_state"] == "ok",  # type: ignore[misc]
                    60,
                )
        yield nodes


def _url(address: Any, tls: Identities | None) -> str:
    return "{}://{}:{}".format("redis" if tls is None else "rediss", *address)


@contextlib.contextmanager
def _cluster(
    nodes: list[Node],
    tls: Identities | None,
    total: float | None = None,
    limits: hs.DialLimits | None = None,
) -> Iterator[Any]:
    made = hardsock.adapters.redis.cluster(
        _url(nodes[0].address, tls), total=30, dial_limits=limits, **PATIENT, **trusting(tls)
    )
    made.total = total
    try:
        yield made
    finally:
        made.close()


def _blocked(server: Server) -> None:
    """Returns when a client of the server is in a blocking command."""
    with redis.Redis(*server.address) as asked:
        assert poll_until(lambda: asked.info("clients")["blocked_clients"] > 0, 60)


def _ends(end: str, call: Callable[[], object], when: Callable[[], None]) -> None:
    """*call* is ended by *end*; a cancel comes from another thread once *when* has returned."""
    if end != "cancel":

        def ended() -> None:
            with hs.timeout(SHORT) if end == "scope" else contextlib.nullcontext():
                call()

        with Call(ended) as running, pytest.raises(redis.exceptions.TimeoutError) as late:
            running.result(60)
        assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))
        return
    token = hs.CancelToken()

    def within() -> None:
        with hs.scope(token):
            call()

    with Call(within) as running:
        when()
        token.cancel("stop button")
        with pytest.raises(hs.Cancelled) as cancelled:
            running.result(60)
    assert cancelled.value.reason == "stop button"


def test_a_cluster_serves_over_hardsock(nodes: list[Node], tls: Identities | None) -> None:
    limits = hs.DialLimits(in_flight=1)
    with _cluster(nodes, tls, 30, limits) as client:
        for number in range(20):
            client.set(f"key {number}", number)
        with client.pipeline() as pipe:
            for number in range(20):
                pipe.get(f"key {number}")
            assert pipe.execute() == [b"%d" % number for number in range(20)]
        found = [one for one in hs.open_connections() if one.how == "connect"]
        assert {one.peer for one in found} == {one.name for one in nodes}
        assert {one.site.file for one in found} == {__file__}
        assert limits.stats().begun >= len(nodes), "each of them had a place"
        assert limits.stats().in_flight == 0
    nothing_open()


@pytest.mark.parametrize("end", ["deadline", "scope", "cancel"])
def test_a_command_of_a_cluster_ends_and_the_next_gets_its_own_answer(
    end: str, nodes: list[Node], tls: Identities | None
) -> None:
    with _cluster(nodes, tls, 30) as client:
        node = client.get_node_from_key("never")
        holder = next(one.server for one in nodes if one.address[1] == node.port)
        client.total = SHORT if end == "deadline" else None
        _ends(end, lambda: client.blpop("never", 0), lambda: _blocked(holder))
        client.total = 30
        for number in range(5):
            client.set("own", number)
            assert client.get("own") == b"%d" % number
    nothing_open()


_TRANSACTIONS = pytest.mark.skipif(
    not hasattr(redis.cluster, "TransactionStrategy"),
    reason="before 6.2 redis-py had no transactions in a cluster",
)


@_TRANSACTIONS
def test_a_scope_that_ends_a_transaction_of_a_cluster_gives_its_place_back(
    nodes: list[Node], tls: Identities | None
) -> None:
    token, held = hs.CancelToken(), []
    made = hardsock.adapters.redis.cluster(
        _url(nodes[0].address, tls), max_connections=1, **PATIENT, **trusting(tls)
    )
    with contextlib.closing(made) as client:
        with hs.timeout(60):
            client.set("watched", 1)
        with hs.scope(token), pytest.raises(hs.Cancelled):
            with client.pipeline(transaction=True) as pipe:
                held.append(pipe)
                pipe.watch("watched")
                token.cancel("stop button")
                pipe.get("watched")
        with hs.timeout(60):
            client.set("watched", 2)
            with client.pipeline(transaction=True) as pipe:
                pipe.get("watched")
                assert pipe.execute() == [b"2"]
    nothing_open()


@pytest.fixture(scope="module")
def sentinel(tls: Identities | None) -> Iterator[tuple[Node, Node]]:
    """A primary, and a sentinel that knows it as "main"."""
    with _node(tls) as primary, work_directory() as directory:
        port = free_port()
        config = directory / "sentinel.conf"
        secured, tls_port = with_tls(tls)
        words = [*secured, *(() if tls is None else ("--tls-replication", "yes"))]
        lines = [
            f"{name.removeprefix('--')} {value}"
            for name, value in zip(words[::2], words[1::2], strict=True)
        ]
        lines += [f"port {port}", "bind 127.0.0.1", f"dir {directory}"]
        lines += ["sentinel monitor main {} {} 1".format(*primary.address)]
        config.write_text("\n".join(lines) + "\n")
        argv = [find_program("redis-server"), str(config), "--sentinel"]
        with running("sentinel", argv, port, directory) as server:
            yield primary, Node(server, server.address if tls is None else ("127.0.0.1", tls_port))


def _secured(tls: Identities | None, **settings: Any) -> dict[str, Any]:
    """For the clients that Sentinel gives, and for those that ask it."""
    secured = {} if tls is None else {"ssl": True, **trusting(tls)}
    told = {**PATIENT, **settings, **secured}
    return {**told, "sentinel_kwargs": told}


def test_a_client_of_sentinel_serves_over_hardsock(
    sentinel: tuple[Node, Node], tls: Identities | None
) -> None:
    limits = hs.DialLimits(in_flight=1)
    made = hardsock.adapters.redis.sentinel(
        [sentinel[1].address], total=30, dial_limits=limits, **_secured(tls)
    )
    client = made.master_for("main")
    assert client.total == 30
    client.set("by sentinel", "1")
    assert client.get("by sentinel") == b"1"
    found = [one for one in hs.open_connections() if one.how == "connect"]
    assert {one.peer for one in found} == {one.name for one in sentinel}
    assert limits.stats()[:3] == (0, 0, 2), "one for the sentinel and one for the primary"
    client.connection_pool.disconnect()
    for one in made.sentinels:
        one.connection_pool.disconnect()
    nothing_open()


@pytest.mark.parametrize("end", ["deadline", "scope", "cancel"])
def test_a_command_of_a_client_of_sentinel_ends_and_the_next_gets_its_own_answer(
    end: str, sentinel: tuple[Node, Node], tls: Identities | None
) -> None:
    made = hardsock.adapters.redis.sentinel([sentinel[1].address], total=30, **_secured(tls))
    client = made.master_for("main")
    client.ping()
    client.total = SHORT if end == "deadline" else None
    _ends(end, lambda: client.blpop("never", 0), lambda: _blocked(sentinel[0].server))
    client.total = 30
    for number in range(5):
        assert client.echo(f"answer {number}") == b"answer %d" % number
    client.connection_pool.disconnect()
    for one in made.sentinels:
        one.connection_pool.disconnect()
    nothing_open()


# ---- asyncio


def _awaited(main: Any) -> Any:
    return asyncio.run(main())


async def _ends_awaited(end: str, client: Any, call: Any, when: Any) -> None:
    """The client's *call* is ended by *end*; a cancel comes from a thread once *when* returned."""
    client.total = SHORT if end == "deadline" else None
    if end != "cancel":
        scope = hs.timeout(SHORT) if end == "scope" else contextlib.nullcontext()
        with pytest.raises((redis.exceptions.TimeoutError, hs.DeadlineExceeded)) as late, scope:
            await bounded(call)
        assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))
        return
    token = hs.CancelToken()

    def stop() -> None:
        when()
        token.cancel("stop button")

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        with pytest.raises(hs.Cancelled), hs.scope(token):
            await bounded(call)
    finally:
        await asyncio.to_thread(thread.join)


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("end", ["deadline", "scope", "cancel"])
def test_a_command_of_an_awaited_cluster_ends_and_the_next_gets_its_own_answer(
    end: str, nodes: list[Node], tls: Identities | None
) -> None:
    async def main() -> None:
        limits = hs.DialLimits(in_flight=1)
        client = hardsock.adapters.redis.async_cluster(
            _url(nodes[0].address, tls), total=30, dial_limits=limits, **PATIENT, **trusting(tls)
        )
        try:
            async with client.pipeline() as pipe:
                for number in range(20):
                    pipe.set(f"key {number}", number)
                assert all(await pipe.execute())
            node = client.nodes_manager.get_node_from_slot(client.keyslot("never"))
            holder = next(one.server for one in nodes if one.address[1] == node.port)
            await _ends_awaited(
                end, client, lambda: client.blpop("never", 0), lambda: _blocked(holder)
            )
            client.total = 30
            for number in range(5):
                await client.set("own", number)
                assert await client.get("own") == b"%d" % number
            found = [one for one in hs.open_connections() if one.how == "connect"]
            assert {one.peer for one in found} == {one.name for one in nodes}
            assert limits.stats().begun >= len(nodes), "each of them had a place"
            assert limits.stats().in_flight == 0
        finally:
            await client.aclose()

    _awaited(main)
    nothing_open()


@_TRANSACTIONS
@pytest.mark.usefixtures("event_loops")
def test_a_scope_that_ends_a_transaction_of_an_awaited_cluster_gives_its_place_back(
    nodes: list[Node], tls: Identities | None
) -> None:
    async def main() -> None:
        token = hs.CancelToken()
        client = hardsock.adapters.redis.async_cluster(
            _url(nodes[0].address, tls), max_connections=1, **PATIENT, **trusting(tls)
        )
        try:
            with hs.timeout(60):
                await client.set("watched", 1)
            with pytest.raises(hs.Cancelled), hs.scope(token):
                async with client.pipeline(transaction=True) as pipe:
                    await pipe.watch("watched")
                    token.cancel("stop button")
                    await pipe.execute_command("GET", "watched")
            with hs.timeout(60):
                await client.set("watched", 2)
                async with client.pipeline(transaction=True) as pipe:
                    pipe.get("watched")
                    assert await pipe.execute() == [b"2"]
        finally:
            await client.aclose()

    _awaited(main)
    nothing_open()


@pytest.mark.usefixtures("event_loops")
def test_an_awaited_client_of_sentinel_serves_over_hardsock(
    sentinel: tuple[Node, Node], tls: Identities | None
) -> None:
    async def main() -> None:
        limits = hs.DialLimits(in_flight=1)
        made = hardsock.adapters.redis.async_sentinel(
            [sentinel[1].address], total=30, dial_limits=limits, **_secured(tls)
        )
        client = made.master_for("main")
        await client.set("by sentinel", "1")
        assert await client.get("by sentinel") == b"1"
        found = [one for one in hs.open_connections() if one.how == "connect"]
        assert {one.peer for one in found} == {one.name for one in sentinel}
        assert limits.stats()[:3] == (0, 0, 2), "one for the sentinel and one for the primary"
        for one in (client, *made.sentinels):
            await one.connection_pool.disconnect()

    _awaited(main)
    nothing_open()


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("end", ["deadline", "scope", "cancel"])
def test_a_command_of_an_awaited_client_of_sentinel_ends_and_the_next_gets_its_own_answer(
    end: str, sentinel: tuple[Node, Node], tls: Identities | None
) -> None:
    async def main() -> None:
        made = hardsock.adapters.redis.async_sentinel(
            [sentinel[1].address], total=30, **_secured(tls)
        )
        client = made.master_for("main")
        await client.ping()
        await _ends_awaited(
            end, client, lambda: client.blpop("never", 0), lambda: _blocked(sentinel[0].server)
        )
        client.total = 30
        for number in range(5):
            assert await client.echo(f"answer {number}") == b"answer %d" % number
        for one in (client, *made.sentinels):
            await one.connection_pool.disconnect()

    _awaited(main)
    nothing_open()


# ---- The first question: to a node about the others, to a sentinel about the primary


@dataclass(frozen=True)
class Asker:
    """A client that has not asked anybody yet, and is closed after its first command."""

    address: Any
    tls: Identities | None
    total: float | None = None
    scope: Callable[[], Any] = contextlib.nullcontext
    again: tuple[Any, int] = (NoBackoff(), 0)
    """The pause before another try, and how many of those there are."""

    def cluster(self) -> None:
        with self.scope():
            client = hardsock.adapters.redis.cluster(
                _url(self.address, self.tls),
                total=self.total,
                retry=Retry(*self.again),
                **PATIENT,
                **trusting(self.tls),
            )
        client.close()

    def sentinel(self) -> None:
        made = hardsock.adapters.redis.sentinel(
            [self.address], total=self.total, **_secured(self.tls, retry=Retry(*self.again))
        )
        client = made.master_for("main")
        try:
            with self.scope():
                client.ping()
        finally:
            for one in (client, *made.sentinels):
                one.connection_pool.disconnect()

    def async_cluster(self) -> None:
        async def main() -> None:
            client = hardsock.adapters.redis.async_cluster(
                _url(self.address, self.tls),
                total=self.total,
                retry=AsyncRetry(*self.again),
                **PATIENT,
                **trusting(self.tls),
            )
            try:
                with self.scope():
                    await client.get("key")
            finally:
                await client.aclose()

        asyncio.run(main())

    def async_sentinel(self) -> None:
        async def main() -> None:
            made = hardsock.adapters.redis.async_sentinel(
                [self.address],
                total=self.total,
                **_secured(self.tls, retry=AsyncRetry(*self.again)),
            )
            client = made.master_for("main")
            try:
                with self.scope():
                    await client.ping()
            finally:
                for one in (client, *made.sentinels):
                    await one.connection_pool.disconnect()

        asyncio.run(main())


_ASKERS: dict[str, Callable[[Asker], None]] = {
    "redis-py, cluster": Asker.cluster,
    "redis-py, Sentinel": Asker.sentinel,
    "redis.asyncio, cluster": Asker.async_cluster,
    "redis.asyncio, Sentinel": Asker.async_sentinel,
}


def _asked(
    kind: str, address: Any, tls: Identities | None, again: tuple[Any, int], **ending: Any
) -> None:
    _ASKERS[kind](Asker(address, tls, again=again, **ending))


def _first_question_ends(
    kind: str,
    end: str,
    address: Any,
    tls: Identities | None,
    again: tuple[Any, int] = (NoBackoff(), 0),
    when: Callable[[], object] | None = None,
) -> None:
    """It is ended by *end*; a cancel comes once *when* has returned, or the thread waits for something.

    Nothing here takes less than ten minutes by itself: what took that long would end with the same error.
    """
    ask = functools.partial(_asked, kind, address, tls, again)
    if end == "cancel":
        token = hs.CancelToken()
        with Call(functools.partial(ask, scope=lambda: hs.scope(token))) as running:
            if when is None:
                running.wait_until_blocked(IO_WAITS, 60)
            else:
                when()
            token.cancel("stop button")
            with pytest.raises(hs.Cancelled) as cancelled:
                running.result(60)
        assert cancelled.value.reason == "stop button"
        return
    ending: dict[str, Any] = (
        {"total": SHORT} if end == "deadline" else {"scope": lambda: hs.timeout(SHORT)}
    )
    with Call(functools.partial(ask, **ending)) as running:
        with pytest.raises((redis.exceptions.TimeoutError, hs.DeadlineExceeded)) as late:
            running.result(60)
    assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))


@pytest.fixture(params=list(_ASKERS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["deadline", "scope", "cancel"])
def end(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("fault", ["silent", "drip"])
def test_a_first_question_that_is_not_answered_ends(
    kind: str, end: str, fault: str, tls: Identities | None
) -> None:
    last = ("stall",) if fault == "silent" else ("drip", b"$60000\r\n" + b"x" * 60000, 0.01)
    context = None if tls is None else server_context(tls)
    with PeerScript([("recv", 1), last], check=False, connections=20, tls=context) as peer:
        begun = functools.partial(peer.wait_steps, 1, 60)
        _first_question_ends(kind, end, peer.address, tls, when=begun)
    nothing_open()


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_a_first_question_whose_answer_breaks_off_fails(
    kind: str, fault: str, tls: Identities | None
) -> None:
    last = ("rst",) if fault == "reset" else ("close",)
    script = [("recv", 1), ("send", b"$5000\r\nonly this"), last]
    context = None if tls is None else server_context(tls)
    with PeerScript(script, check=False, connections=1000, tls=context) as peer:
        asker = Asker(peer.address, tls, scope=lambda: hs.timeout(60))
        # That of a cluster is no RedisError.
        kinds = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException)
        with pytest.raises(kinds):
            _ASKERS[kind](asker)
    nothing_open()


@pytest.mark.usefixtures("event_loops")
def test_a_first_question_into_a_black_hole_ends(
    kind: str, end: str, tls: Identities | None
) -> None:
    with BlackHole() as hole:
        _first_question_ends(kind, end, hole.address, tls)
    nothing_open()


@pytest.mark.usefixtures("event_loops")
def test_a_first_question_behind_a_stalled_handshake_ends(
    kind: str, end: str, ids: Identities
) -> None:
    with PeerScript([("stall",)], check=False, connections=20) as peer:
        _first_question_ends(kind, end, peer.address, ids)
    nothing_open()


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("kind", [one for one in _ASKERS if "Sentinel" in one])
def test_the_pause_before_sentinel_is_asked_again_ends(
    kind: str, end: str, tls: Identities | None
) -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        address = listener.address
    _first_question_ends(kind, end, address, tls, (ConstantBackoff(600), 3))
    nothing_open()


@pytest.mark.usefixtures("event_loops")
def test_the_pause_of_an_awaited_cluster_that_is_down_ends(
    end: str, nodes: list[Node], tls: Identities | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of a second of redis-py's, here ten minutes, before it asks for the nodes again."""
    pausing = threading.Event()

    async def pause(_seconds: float) -> None:
        pausing.set()
        await asyncio.sleep(600)

    theirs = redis.asyncio.cluster
    monkeypatch.setattr(theirs, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": pause}))

    async def main(scope: Callable[[], Any], total: float | None) -> None:
        client = hardsock.adapters.redis.async_cluster(
            _url(nodes[0].address, tls), **PATIENT, **trusting(tls)
        )
        try:
            await client.initialize()
            client.total = total
            monkeypatch.setattr(theirs.ClusterNode, "execute_command", _is_down)
            with scope():
                await client.get("key")
        finally:
            await client.aclose()

    token = hs.CancelToken()
    scope = functools.partial(hs.scope, token)
    with Call(lambda: asyncio.run(main(scope, SHORT if end == "deadline" else None))) as running:
        if end != "deadline":  # That may come before, on a machine that stands still.
            assert pausing.wait(60)
            token.cancel("stop button") if end == "cancel" else token.set_timeout(SHORT)
        kinds = (redis.exceptions.TimeoutError, hs.DeadlineExceeded)
        with pytest.raises(hs.Cancelled if end == "cancel" else kinds) as ended:
            running.result(60)
    if end != "cancel":
        assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(ended.value))
    nothing_open()


async def _is_down(*_args: Any, **_settings: Any) -> None:
    raise redis.exceptions.ClusterDownError("CLUSTERDOWN The cluster is down")


def _dead_dns(kind: str, end: str) -> bool:
    from hardsock.lab.dns import DeadDNS, use_dns

    with DeadDNS():
        use_dns("127.0.0.1", timeout=30, attempts=5)
        _first_question_ends(kind, end, ("nobody.test", 6379), None)
    return True


@pytest.mark.net
@pytest.mark.usefixtures("event_loops")
def test_a_first_question_to_a_name_that_is_not_found_ends(kind: str, end: str) -> None:
    with require(Namespace()) as namespace:
        assert namespace.run("adapters.test_redis_many:_dead_dns", kind, end, timeout=120)
