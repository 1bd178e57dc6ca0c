"""What tests of redis-py share, awaited or not: a server, the ways to end a call, and versions.

from adapters.redis_parts import *
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import redis

from hardsock.lab.servers.process import Server, free_port
from support.pki import CLIENT, SERVER
from support.require import require
from support.servers import redis_server
from support.tls import Identities

__all__ = [
    "NAME",
    "OLD",
    "PATIENT",
    "QUIET",
    "bounded",
    "end",
    "server",
    "served",
    "trusting",
    "url_of",
    "with_tls",
]

QUIET: dict[str, Any] = {"protocol": 2}
"""Without HELLO; what a scripted peer hears first may still be a greeting."""

PATIENT: dict[str, Any] = {"socket_timeout": 600, "socket_connect_timeout": 600}
"""No limit of redis-py's, 5 s from 8.1 on, may end what the test's deadline, scope or cancel has to."""

OLD = int(redis.__version__.split(".")[0]) < 6
NAME = ["PING"] if int(redis.__version__.split(".")[1]) < 3 and OLD else []
"""What get_connection() wanted to know before 5.3."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with require(redis_server()) as server:
        yield server


@pytest.fixture(scope="module", params=["plain", "tls"])
def served(
    request: pytest.FixtureRequest, ids: Identities
) -> Iterator[tuple[tuple[str, int], Identities | None]]:
    """Where a server is, without TLS or with it, and then whom to trust."""
    tls = ids if request.param == "tls" else None
    secured, port = with_tls(tls)
    with require(redis_server(*secured)) as found:
        yield (found.address if tls is None else (found.address[0], port)), tls


@pytest.fixture(params=["deadline", "scope", "cancel"])
def end(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def bounded(call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """What has not ended in a minute is cancelled, which is no end that a test expects."""
    task = asyncio.current_task()
    assert task is not None
    hung = asyncio.get_running_loop().call_later(60, task.cancel)
    try:
        await call()
    finally:
        hung.cancel()


def url_of(address: Any, tls: Identities | None, settings: dict[str, Any]) -> str:
    """The server's URL; what TLS wants besides goes into *settings*."""
    host, port = address
    settings.update({**PATIENT, **settings, **trusting(tls)})
    return f"{'redis' if tls is None else 'rediss'}://{host}:{port}"


def trusting(tls: Identities | None) -> dict[str, Any]:
    """What a client is told to trust."""
    return {} if tls is None else {"ssl_ca_certs": str(tls.ca)}


def with_tls(tls: Identities | None) -> tuple[list[str], int]:
    """What a server is started with to be there with TLS, too, and on which port it is then."""
    if tls is None:
        return [], 0
    # The nodes of a cluster are each other's clients, and show what they are servers with.
    identity, port = tls.issue(usages=(*SERVER, *CLIENT)), free_port()
    options = ["--tls-cert-file", str(identity.chain), "--tls-key-file", str(identity.key)]
    options += ["--tls-ca-cert-file", str(tls.ca), "--tls-auth-clients", "no"]
    return [*options, "--tls-port", str(port)], port
