"""Real servers that nobody here wrote, each on a free loopback port, from a temporary directory.

    with redis_server() as redis:
        conn = hardsock.connect(redis.address)

Each function is a context manager that yields a `Server` once it accepts connections, stops it by
its process id at the end, and raises `PeerMissing` if the program is not installed.
"""

from __future__ import annotations

from hardsock.lab.servers.process import PeerMissing, Server, ServerFailed
from hardsock.lab.servers.redis import redis_server
from hardsock.lab.servers.web import http_server, nginx

__all__ = ["PeerMissing", "Server", "ServerFailed", "http_server", "nginx", "redis_server"]
