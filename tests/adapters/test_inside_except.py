"""Calls that are made in an ``except`` block: what is handled there is none of their causes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import botocore.config
import botocore.exceptions
import httpx
import pytest
import redis
import requests
from urllib3.exceptions import HTTPError, MaxRetryError

import hardsock as hs
import hardsock.adapters.botocore
import hardsock.adapters.httpx
import hardsock.adapters.redis
import hardsock.adapters.requests
import hardsock.adapters.urllib3
from adapters.http_contract import nothing_open
from adapters.http_peer import HttpPeer


@pytest.fixture
def refusing() -> Iterator[int]:
    """A port where nobody listens, and nobody will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def _while_handling(
    kind: Callable[[None, str], Exception], call: Callable[..., Any], *args: Any
) -> Any:
    try:
        raise kind(None, "an older one")
    except hs.HardsockError:
        return call(*args)


# ---- A cancel before the call is none of the call


def _redis(port: int) -> None:
    with hardsock.adapters.redis.client(f"redis://127.0.0.1:{port}", size=1) as client:
        client.get("key")


def _redis_cluster(port: int) -> None:
    hardsock.adapters.redis.cluster(f"redis://127.0.0.1:{port}")


def _redis_asyncio(port: int) -> None:
    async def get() -> None:
        async with hardsock.adapters.redis.async_client(f"redis://127.0.0.1:{port}") as client:
            try:
                raise hs.Cancelled(None, "an older one")
            except hs.Cancelled:
                await client.get("key")

    asyncio.run(get())


def _botocore(port: int) -> None:
    client = hardsock.adapters.botocore.client(
        "sqs",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="eu-central-1",
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",
        config=botocore.config.Config(retries={"total_max_attempts": 1}, proxies={}),
    )
    with contextlib.closing(client):
        client.list_queues()


def _full_urllib3(port: int) -> None:
    pool = hardsock.adapters.urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=1, block=True)
    with contextlib.closing(pool):
        taken = pool._get_conn()
        try:
            pool.request("GET", "/", retries=False, pool_timeout=0.01)
        finally:
            taken.close()


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (_redis, redis.ConnectionError),
        (_redis_cluster, redis.exceptions.RedisClusterException),
        (_redis_asyncio, redis.ConnectionError),
        (_botocore, botocore.exceptions.EndpointConnectionError),
        (_full_urllib3, HTTPError),
    ],
)
def test_an_old_cancel_is_not_raised_again(call: Any, kind: Any, refusing: int) -> None:
    with pytest.raises(kind) as plain:
        call(refusing)
    with pytest.raises(type(plain.value)):
        _while_handling(hs.Cancelled, call, refusing)
    nothing_open()


# ---- Breakers, and tries


def _get_urllib3(url: str, breaker: hs.Breaker) -> None:
    with hardsock.adapters.urllib3.PoolManager(breaker=breaker, retries=False) as manager:
        manager.request("GET", url)


def _get_requests(url: str, breaker: hs.Breaker) -> None:
    with hardsock.adapters.requests.session(breaker=breaker) as session:
        session.trust_env = False
        session.get(url)


def _get_httpx(url: str, breaker: hs.Breaker) -> None:
    with hardsock.adapters.httpx.Client(breaker=breaker, trust_env=False) as client:
        client.get(url)


def _get_httpx_awaited(url: str, breaker: hs.Breaker) -> None:
    async def get() -> None:
        async with hardsock.adapters.httpx.AsyncClient(breaker=breaker, trust_env=False) as client:
            try:
                raise hs.Cancelled(None, "an older one")
            except hs.Cancelled:
                await client.get(url)

    asyncio.run(get())


@pytest.mark.parametrize("get", [_get_urllib3, _get_requests, _get_httpx, _get_httpx_awaited])
def test_a_breaker_learns_of_this_call(get: Any) -> None:
    breaker = hs.Breaker(failures=1)
    with HttpPeer() as peer:
        with pytest.raises((HTTPError, requests.RequestException, httpx.HTTPError)):
            _while_handling(hs.Cancelled, get, peer.url("/reset"), breaker)
    assert [one.state for one in breaker.states()] == ["open"]


def test_a_node_is_tried_again_while_the_refusal_of_another_is_handled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR, "urllib3")  # Its records would keep the errors alive.
    with HttpPeer() as peer, hardsock.adapters.urllib3.PoolManager(retries=2) as manager:

        def get() -> None:
            manager.request("GET", peer.url("/reset"))

        with pytest.raises(MaxRetryError):
            _while_handling(hs.BreakerOpen, get)
        assert [path for path, _ in peer.seen] == ["/reset"] * 3
    nothing_open()
