"""hardsock with all socket options left alone, for works where setting them shows.

By default hardsock sets TCP_NODELAY, keepalive and TCP_USER_TIMEOUT on every connection and reads
them back; the peers here set none of them (Go: TCP_NODELAY and keepalive).
"""

from __future__ import annotations

from typing import Any

import hardsock as hs

from ..model import Target
from . import _common, hardsock
from ._common import DEADLINE

PLAIN = hs.SocketOptions(nodelay=None)

version = hardsock.version


def connect_close(target: Target, seconds: float, count: int) -> dict[str, Any]:
    address = (target.host, target.port)
    token = hs.CancelToken()

    def operation() -> None:
        hs.connect(address, timeout=DEADLINE, token=token, options=PLAIN).close()

    return _common.rate(operation, seconds)
