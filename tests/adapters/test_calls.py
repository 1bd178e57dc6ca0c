"""What a request costs beside the plain library's, in calls of Python: clocks tell little on a busy machine.

Each limit is what it was when it was set, and a little: a call that is added to each request shows here.
"""

from __future__ import annotations

import asyncio
import http.client
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
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
from support.require import require
from support.servers import redis_server

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
            counts = []
            for _ in range(2 * TRIES):
                count = 0

                def note(_frame: Any, event: str, _arg: Any) -> None:
                    nonlocal count
                    count += event in ("call", "c_call")

                sys.setprofile(note)
                try:
                    await client.get("key")
                finally:
                    sys.setprofile(None)
                counts.append(count)
            found.append(min(counts))
            await client.aclose()
        plain, ours = found
        # Before 3.12 plain redis-py has a task for each command, by wait_for(), which waits for nothing.
        most = plain if sys.version_info >= (3, 12) else plain - 50
        assert ours <= most, (plain, ours)

    asyncio.run(main())


def test_a_scope_makes_few_calls() -> None:
    def block() -> None:
        with hs.timeout(TOTAL, name="x"):
            pass

    assert calls_of(block) <= 8  # Where trio is loaded it is asked whether it runs.
