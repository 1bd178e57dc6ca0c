"""hardsock as it is by default, where connections to one server resume each other's sessions.

Elsewhere the works over TLS keep none, so that each connection is as to a server of its own.
"""

from __future__ import annotations

from typing import Any

from ..model import Target
from . import _hardsock_tls, hardsock

version = hardsock.version


def tls_idle_memory(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _hardsock_tls.idle_memory(target, count, _hardsock_tls.client_config())
