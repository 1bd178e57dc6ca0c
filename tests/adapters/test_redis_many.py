"""redis-py's clients of a cluster and of Sentinel over hardsock, against real ones."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

import hardsock as hs
import hardsock.adapters.redis
from adapters.http_contract import SHORT, causes, nothing_open
from adapters.redis_parts import OLD
from hardsock.lab.peers import PeerScript
from hardsock.lab.servers.process import (
    Server,
    clean_environment,
    find_program,
    free_port,
    running,
    work_directory,
)
from hardsock.lab.threads import Call
from hardsock.lab.waits import poll_until
from support.require import require
from support.servers import redis_server

pytestmark = pytest.mark.skipif(
    OLD,
    reason="before 6.0 redis-py left the connections of nodes that had failed to the collector",
)


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Server]]:
    """Three primaries of one cluster."""
    with contextlib.ExitStack() as opened:
        nodes = [
            opened.enter_context(
                require(
                    redis_server("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
                )
            )
            for _ in range(3)
        ]
        addresses = ["{}:{}".format(*one.address) for one in nodes]
        subprocess.run(
            [find_program("redis-cli"), "--cluster", "create", *addresses, "--cluster-yes"],
            check=True,
            capture_output=True,
            timeout=120,
            env=clean_environment(),
        )
        for one in nodes:
            with redis.Redis(*one.address) as client:
                assert poll_until(
                    lambda c=client: c.cluster("info")["cluster_state"] == "ok",  # type: ignore[misc]
                    60,
                )
        yield nodes


@contextlib.contextmanager
def _cluster(
    nodes: list[Server], total: float | None = None, limits: hs.DialLimits | None = None
) -> Iterator[Any]:
    url = "redis://{}:{}".format(*nodes[0].address)
    made = hardsock.adapters.redis.cluster(url, total=30, dial_limits=limits)
    made.total = total
    try:
        yield made
    finally:
        made.close()


def test_a_cluster_serves_over_hardsock(nodes: list[Server]) -> None:
    limits = hs.DialLimits(in_flight=1)
    with _cluster(nodes, 30, limits) as client:
        for number in range(20):
            client.set(f"key {number}", number)
        with client.pipeline() as pipe:
            for number in range(20):
                pipe.get(f"key {number}")
            assert pipe.execute() == [b"%d" % number for number in range(20)]
        found = [one for one in hs.open_connections() if one.how == "connect"]
        assert {one.peer for one in found} == {"{}:{}".format(*one.address) for one in nodes}
        assert {one.site.file for one in found} == {__file__}
        assert limits.stats().begun >= len(nodes), "each of them had a place"
        assert limits.stats().in_flight == 0
    nothing_open()


@pytest.mark.parametrize("end", ["deadline", "scope", "cancel"])
def test_a_command_of_a_cluster_ends_and_the_next_gets_its_own_answer(
    end: str, nodes: list[Server]
) -> None:
    with _cluster(nodes, SHORT if end == "deadline" else None) as client:
        if end == "cancel":
            token = hs.CancelToken()

            def pop() -> None:
                with hs.scope(token):
                    client.blpop("never", 0)

            with Call(pop) as call:
                call.wait_until_blocked()
                token.cancel("stop button")
                with pytest.raises(hs.Cancelled):
                    call.result(20)
        else:
            scope = hs.timeout(SHORT) if end == "scope" else contextlib.nullcontext()
            with scope, pytest.raises(redis.exceptions.TimeoutError) as late:
                client.blpop("never", 0)
            assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))
            del late
        client.total = 30
        for number in range(5):
            client.set("own", number)
            assert client.get("own") == b"%d" % number
    nothing_open()


@pytest.mark.parametrize("end", ["deadline", "scope", "cancel"])
def test_looking_for_the_nodes_ends(end: str) -> None:
    with PeerScript([("recv", 1), ("stall",)], check=False, connections=20) as peer:
        url = "redis://{}:{}".format(*peer.address)

        def make(token: Any = None) -> None:
            scope = hs.timeout(SHORT) if end == "scope" else contextlib.nullcontext()
            with hs.scope(token) if token else scope:
                hardsock.adapters.redis.cluster(url, total=SHORT if end == "deadline" else None)

        if end == "cancel":
            token = hs.CancelToken()
            with Call(make, token) as call:
                peer.wait_steps(1)
                token.cancel("stop button")
                with pytest.raises(hs.Cancelled):
                    call.result(20)
            del call
        else:
            with pytest.raises(redis.exceptions.TimeoutError) as late:
                make()
            assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))
            del late
    nothing_open()


@pytest.fixture(scope="module")
def sentinel() -> Iterator[tuple[Server, Server]]:
    """A primary, and a sentinel that knows it as "main"."""
    with require(redis_server()) as primary, work_directory() as directory:
        port = free_port()
        config = directory / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
        )
        argv = [find_program("redis-server"), str(config), "--sentinel"]
        with running("sentinel", argv, port, directory) as server:
            yield primary, server


def test_a_client_of_sentinel_serves_over_hardsock(sentinel: tuple[Server, Server]) -> None:
    asked = sentinel[1]
    limits = hs.DialLimits(in_flight=1)
    made = hardsock.adapters.redis.sentinel([asked.address], total=30, dial_limits=limits)
    client = made.master_for("main")
    assert client.total == 30
    client.set("by sentinel", "1")
    assert client.get("by sentinel") == b"1"
    found = [one for one in hs.open_connections() if one.how == "connect"]
    assert {one.peer for one in found} == {"{}:{}".format(*one.address) for one in sentinel}
    assert limits.stats()[:3] == (0, 0, 2), "one for the sentinel and one for the primary"
    client.total = SHORT
    with pytest.raises(redis.exceptions.TimeoutError):
        client.blpop("never", 0)
    client.total = 30
    assert client.get("by sentinel") == b"1"
    client.connection_pool.disconnect()
    for one in made.sentinels:
        one.connection_pool.disconnect()
    nothing_open()


@pytest.mark.parametrize("end", ["deadline", "cancel"])
def test_asking_a_sentinel_ends(end: str) -> None:
    with PeerScript([("recv", 1), ("stall",)], check=False, connections=20) as peer:
        made = hardsock.adapters.redis.sentinel([peer.address], total=SHORT)
        client = made.master_for("main")
        if end == "deadline":
            with pytest.raises(redis.exceptions.TimeoutError) as late:
                client.ping()
            assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))
            del late
        else:
            client.total = None
            token = hs.CancelToken()

            def ping() -> None:
                with hs.scope(token):
                    client.ping()

            with Call(ping) as call:
                peer.wait_steps(1)
                token.cancel("stop button")
                with pytest.raises(hs.Cancelled):
                    call.result(20)
            del call
        for one in made.sentinels:
            one.connection_pool.disconnect()
        client.connection_pool.disconnect()
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
            await call()
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
            await call()
    finally:
        await asyncio.to_thread(thread.join)


def _blocked(server: Server) -> Any:
    """Returns when a client of the server is in a blocking command."""

    def when() -> None:
        with redis.Redis(*server.address) as asked:
            poll_until(lambda: asked.info("clients")["blocked_clients"] > 0, 20)

    return when


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("end", ["deadline", "scope", "cancel"])
def test_a_command_of_an_awaited_cluster_ends_and_the_next_gets_its_own_answer(
    end: str, nodes: list[Server]
) -> None:
    async def main() -> None:
        url = "redis://{}:{}".format(*nodes[0].address)
        limits = hs.DialLimits(in_flight=1)
        client = hardsock.adapters.redis.async_cluster(url, total=30, dial_limits=limits)
        try:
            async with client.pipeline() as pipe:
                for number in range(20):
                    pipe.set(f"key {number}", number)
                assert all(await pipe.execute())
            (place,) = {client.keyslot("never")}
            node = client.nodes_manager.get_node_from_slot(place)
            holder = next(one for one in nodes if one.port == node.port)
            await _ends_awaited(end, client, lambda: client.blpop("never", 0), _blocked(holder))
            client.total = 30
            for number in range(5):
                await client.set("own", number)
                assert await client.get("own") == b"%d" % number
            found = [one for one in hs.open_connections() if one.how == "connect"]
            assert {one.peer for one in found} == {"{}:{}".format(*one.address) for one in nodes}
            assert limits.stats().begun >= len(nodes), "each of them had a place"
            assert limits.stats().in_flight == 0
        finally:
            await client.aclose()

    _awaited(main)
    nothing_open()


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("end", ["deadline", "scope", "cancel"])
def test_finding_the_nodes_ends_where_it_is_awaited(end: str) -> None:
    with PeerScript([("recv", 1), ("stall",)], check=False, connections=20) as peer:

        async def main() -> None:
            client = hardsock.adapters.redis.async_cluster("redis://{}:{}".format(*peer.address))
            try:
                await _ends_awaited(
                    end, client, lambda: client.get("key"), lambda: peer.wait_steps(1)
                )
            finally:
                await client.aclose()

        _awaited(main)
    nothing_open()


@pytest.mark.usefixtures("event_loops")
def test_an_awaited_client_of_sentinel_serves_over_hardsock(
    sentinel: tuple[Server, Server],
) -> None:
    async def main() -> None:
        limits = hs.DialLimits(in_flight=1)
        made = hardsock.adapters.redis.async_sentinel(
            [sentinel[1].address], total=30, dial_limits=limits
        )
        client = made.master_for("main")
        await client.set("by sentinel", "1")
        assert await client.get("by sentinel") == b"1"
        found = [one for one in hs.open_connections() if one.how == "connect"]
        assert {one.peer for one in found} == {"{}:{}".format(*one.address) for one in sentinel}
        assert limits.stats()[:3] == (0, 0, 2), "one for the sentinel and one for the primary"
        await _ends_awaited("deadline", client, lambda: client.blpop("never", 0), None)
        client.total = 30
        assert await client.get("by sentinel") == b"1"
        for one in (client, *made.sentinels):
            await one.connection_pool.disconnect()

    _awaited(main)
    nothing_open()


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("end", ["deadline", "scope", "cancel"])
def test_asking_an_awaited_sentinel_ends(end: str) -> None:
    with PeerScript([("recv", 1), ("stall",)], check=False, connections=20) as peer:

        async def main() -> None:
            made = hardsock.adapters.redis.async_sentinel([peer.address])
            client = made.master_for("main")
            try:
                await _ends_awaited(end, client, client.ping, lambda: peer.wait_steps(1))
            finally:
                for one in (client, *made.sentinels):
                    await one.connection_pool.disconnect()

        _awaited(main)
    nothing_open()
