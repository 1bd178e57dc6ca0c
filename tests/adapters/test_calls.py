"""What a request costs beside the plain library's, in calls of Python: clocks tell little on a busy machine.

Each limit is what it was when it was set, and a little: a call that is added to each request shows here.
"""

from __future__ import annotations

import asyncio
import http.client
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import httpx
import pytest
import redis
import redis.asyncio
import requests
import urllib3

import hardsock as hs
import hardsock.adapters.http
import hardsock.adapters.httpx
import hardsock.adapters.redis
import hardsock.adapters.requests
import hardsock.adapters.urllib3
from adapters.http_peer import HttpPeer
from hardsock.aio import loop as hsloop
from support.require import need_module, require
from support.servers import redis_server
from support.servers.databases import mariadb, postgres

TOTAL = 60.0
TRIES = 9


def calls_of(function: Callable[[], object]) -> int:
    """Calls of functions, Python's and C's, in one of it: the least of a few."""
    for _ in range(3):
        function()
    found = []
    for _ in range(TRIES):
        count = 0

        def note(_frame: Any, event: str, _arg: Any) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(note)
        try:
            function()
        finally:
            sys.setprofile(None)
        found.append(count)
    return min(found)


async def calls_of_awaited(ask: Callable[[], Awaitable[object]], tries: int = TRIES) -> int:
    """As ``calls_of``, of what is awaited; it has been asked before."""
    found = []
    for _ in range(tries):
        count = 0

        def note(_frame: Any, event: str, _arg: Any) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(note)
        try:
            await ask()
        finally:
            sys.setprofile(None)
        found.append(count)
    return min(found)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _http_client(url: str, opened: ExitStack) -> Iterator[Callable[[], object]]:
    host, _, path = url.partition("://")[2].partition("/")
    for kind in (http.client.HTTPConnection, hardsock.adapters.http.HTTPConnection):
        conn: Any = kind(host, timeout=TOTAL)
        opened.callback(conn.close)

        def call(conn: Any = conn) -> bytes:
            conn.request("GET", f"/{path}")
            return bytes(conn.getresponse().read())

        yield call


def _urllib3(url: str, opened: ExitStack) -> Iterator[Callable[[], object]]:
    for made in (urllib3.PoolManager(), hardsock.adapters.urllib3.PoolManager(total=TOTAL)):
        opened.callback(made.clear)
        yield lambda made=made: made.request("GET", url).data  # type: ignore[misc]


def _requests(url: str, opened: ExitStack) -> Iterator[Callable[[], object]]:
    for made in (requests.Session(), hardsock.adapters.requests.session(total=TOTAL)):
        made.trust_env = False
        opened.callback(made.close)
        yield lambda made=made: made.get(url).content  # type: ignore[misc]


def _httpx(url: str, opened: ExitStack) -> Iterator[Callable[[], object]]:
    for made in (
        httpx.Client(trust_env=False, timeout=TOTAL),
        hardsock.adapters.httpx.client(total=TOTAL, trust_env=False),
    ):
        opened.callback(made.close)
        yield lambda made=made: made.get(url).content  # type: ignore[misc]


@pytest.mark.parametrize(
    ("clients", "most"),
    [(_http_client, 2), (_urllib3, 5), (_requests, 10), (_httpx, 9)],
    ids=["http.client", "urllib3", "requests", "httpx"],
)
def test_a_request_makes_few_calls_more(clients: Any, most: int, opened: ExitStack) -> None:
    peer = opened.enter_context(HttpPeer(None))
    plain, ours = (calls_of(call) for call in clients(peer.url("/ok?x"), opened))
    assert ours - plain <= most, (plain, ours)


def test_a_command_of_redis_makes_few_calls_more(opened: ExitStack) -> None:
    server = opened.enter_context(require(redis_server()))
    url = "redis://{}:{}".format(*server.address)
    clients = (redis.Redis.from_url(url), hardsock.adapters.redis.client(url, total=TOTAL))
    for client in clients:
        opened.callback(client.close)
    plain, ours = (calls_of(lambda c=client: c.get("key")) for client in clients)  # type: ignore[misc]
    assert ours - plain <= 4, (plain, ours)


def test_an_awaited_command_of_redis_makes_few_calls_more(opened: ExitStack) -> None:
    server = opened.enter_context(require(redis_server()))
    url = "redis://{}:{}".format(*server.address)

    async def main() -> None:
        found = []
        for client in (
            redis.asyncio.Redis.from_url(url),
            hardsock.adapters.redis.async_client(url, total=TOTAL),
        ):
            for _ in range(3):
                await client.get("key")
            found.append(await calls_of_awaited(partial(client.get, "key"), 2 * TRIES))
            await client.aclose()
        plain, ours = found
        # Before 3.12 plain redis-py has a task for each command, by wait_for(), which waits for nothing.
        # Ours are 50 calls less than these if the answer is there at once, which is the server's matter.
        most = plain if sys.version_info >= (3, 12) else plain - 20
        assert ours <= most, (plain, ours)

    asyncio.run(main())


def test_a_scope_makes_few_calls() -> None:
    def block() -> None:
        with hs.timeout(TOTAL, name="x"):
            pass

    assert calls_of(block) <= 8  # Where trio is loaded it is asked whether it runs.


# ---- Calls of the kernel, which hardsock makes itself

REQUESTS = 20
UNHARMED = "getrandom.invalid@1000000"


def kernel_calls(call: Callable[[], object]) -> dict[str, float]:
    """Of each kind, for one of it: on a connection that was asked before."""
    for _ in range(3):
        call()
    with hs.faults(UNHARMED) as faults:
        for _ in range(REQUESTS):
            call()
        return {name: count / REQUESTS for name, count in faults.calls.items()}


def at_most(counts: dict[str, float], **most: float) -> None:
    """Nothing else is called once for each."""
    assert {
        name: n for name, n in counts.items() if n > most.get(name, 0.5) and name != "alloc"
    } == {}


def test_a_query_of_pymysql_receives_once_and_not_for_each_packet(opened: ExitStack) -> None:
    need_module("pymysql")
    import hardsock.adapters.pymysql

    server = opened.enter_context(require(mariadb()))
    host, port = server.address
    conn = hardsock.adapters.pymysql.connect(host=host, port=port, user="root", ssl_disabled=True)
    opened.callback(conn.close)

    def call() -> None:
        with hs.timeout(TOTAL):
            conn.query("SELECT 1")

    # The one that finds nothing yet, and perhaps another one on a machine that stands still between
    # two packets.
    at_most(kernel_calls(call), send=1, recv=3, poll=2, getsockopt=1)


def test_a_statement_of_psycopg_waits_once_and_opens_nothing(opened: ExitStack) -> None:
    need_module("psycopg")
    import hardsock.adapters.psycopg

    server = opened.enter_context(require(postgres()))
    host, port = server.address
    conn = opened.enter_context(
        hardsock.adapters.psycopg.connect(
            f"host={host} port={port} user=postgres dbname=postgres", autocommit=True
        )
    )

    def call() -> None:
        with hs.timeout(TOTAL):
            conn.execute("SELECT 1")

    at_most(kernel_calls(call), poll=3)  # libpq sends and receives.


def _asyncpg(server: Any) -> tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]:
    import asyncpg

    host, port = server.address
    made = asyncpg.connect(host=host, port=port, user="postgres", database="postgres", ssl=False)
    return made, lambda conn: conn.fetchval("SELECT 1"), lambda conn: conn.close()


def _aiomysql(server: Any) -> tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]:
    import aiomysql

    host, port = server.address
    made = aiomysql.connect(host=host, port=port, user="root", password="")
    return made, lambda conn: conn.query("SELECT 1"), lambda conn: conn.ensure_closed()


def _aiohttp(server: HttpPeer) -> tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]:
    import aiohttp

    async def made() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(trust_env=False)

    async def ask(session: aiohttp.ClientSession) -> bytes:
        async with session.get(server.url("/ok?x")) as response:
            return bytes(await response.read())

    return made(), ask, lambda session: session.close()


@pytest.mark.parametrize(
    ("library", "start", "parts"),
    [
        ("aiohttp", HttpPeer, _aiohttp),
        ("asyncpg", postgres, _asyncpg),
        ("aiomysql", mariadb, _aiomysql),
    ],
    ids=["aiohttp", "asyncpg", "aiomysql"],
)
def test_a_question_on_our_loop_waits_with_one_call_for_each_turn(
    library: str, start: Any, parts: Any, opened: ExitStack
) -> None:
    need_module(library)
    server = opened.enter_context(require(start()))

    async def main() -> dict[str, float]:
        made, ask, close = parts(server)
        conn = await made

        async def call() -> None:
            with hs.timeout(TOTAL):
                await ask(conn)

        for _ in range(3):
            await call()
        # While faults are on, no try is taken for one that has emptied its socket: see test_loop.c.
        with hs.faults(UNHARMED) as faults:
            for _ in range(REQUESTS):
                await call()
            counts = {name: n / REQUESTS for name, n in faults.calls.items()}
        await close(conn)
        return counts

    # A turn that begins the task's step, one that waits, and a few more where the answer comes in pieces.
    at_most(hsloop.run(main()), send=1, recv=3, epoll_wait=3, getsockopt=1)


def test_a_request_of_aiohttp_on_our_loop_makes_few_calls_more(opened: ExitStack) -> None:
    """Of Python's and C's functions, than on asyncio's own loop."""
    need_module("aiohttp")
    server = opened.enter_context(HttpPeer())

    async def main() -> int:
        made, ask, close = _aiohttp(server)
        session = await made
        found = await calls_of_awaited(lambda: ask(session))
        await close(session)
        return found

    plain, ours = asyncio.run(main()), hsloop.run(main())
    assert ours - plain <= 8, (plain, ours)
