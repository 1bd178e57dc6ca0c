"""httpcore2 over hardsock: its public hook, ``ConnectionPool(network_backend=NetworkBackend())``.

Tested with httpcore2 2.16 to 2.16. Covered: lookup, connect, TLS, every read and write, pauses between
connect retries. Lost: the pool's own queue waits on what no token reaches; give it
``extensions={"timeout": {"pool": seconds}}``, or use the httpx adapter, which has a queue of its own.
"""

from __future__ import annotations

import httpcore2

from hardsock.adapters._httpcore import backends

__all__ = ["AsyncNetworkBackend", "NetworkBackend"]

NetworkBackend, AsyncNetworkBackend = backends(httpcore2)
