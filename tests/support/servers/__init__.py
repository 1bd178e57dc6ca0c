"""Real servers to test against, each on a free loopback port, from a temporary directory.

    with require(redis_server()) as redis:
        conn = hardsock.connect(redis.address)

Each function is a context manager that yields a `Server` once it accepts connections, stops it by
its process id at the end, and raises `PeerMissing` if the program is not installed.
"""

from __future__ import annotations

from hardsock.lab.servers import (
    PeerMissing,
    Server,
    ServerFailed,
    http_server,
    nginx,
    redis_server,
)
from support.servers.databases import postgres
from support.servers.proxies import haproxy, nginx_stream, openssl_s_server, stunnel

__all__ = [
    "PeerMissing",
    "Server",
    "ServerFailed",
    "haproxy",
    "http_server",
    "nginx",
    "nginx_stream",
    "openssl_s_server",
    "postgres",
    "redis_server",
    "stunnel",
]
