"""What tests of redis-py share, awaited or not: a server, the ways to end a call, and versions.

from adapters.redis_parts import *
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from hardsock.lab.servers.process import Server
from support.require import require
from support.servers import redis_server
from support.tls import Identities

__all__ = ["NAME", "OLD", "QUIET", "end", "server", "url_of"]

QUIET: dict[str, Any] = {"protocol": 2}
"""Without HELLO; what a scripted peer hears first may still be a greeting."""

OLD = int(redis.__version__.split(".")[0]) < 6
NAME = ["PING"] if int(redis.__version__.split(".")[1]) < 3 and OLD else []
"""What get_connection() wanted to know before 5.3."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with require(redis_server()) as server:
        yield server


@pytest.fixture(params=["deadline", "scope", "cancel"])
def end(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def url_of(address: Any, tls: Identities | None, settings: dict[str, Any]) -> str:
    """The server's URL; what TLS wants besides goes into *settings*."""
    host, port = address
    if tls is not None:
        settings["ssl_ca_certs"] = str(tls.ca)
    return f"{'redis' if tls is None else 'rediss'}://{host}:{port}"
