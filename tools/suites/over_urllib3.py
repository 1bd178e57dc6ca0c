"""A pytest plugin: urllib3's own suite, unchanged, over hardsock's adapter.

Nothing else in hardsock patches a library. Here its classes are replaced, since the suite asks for
them by their names. A bare SSLContext, which the adapter refuses, is taken over.
"""

from __future__ import annotations

import ssl

import urllib3.connectionpool
import urllib3.poolmanager

import hardsock
from hardsock.adapters import urllib3 as over


class HTTPSConnection(over.HTTPSConnection):
    """The adapter's, which takes the suite's contexts."""

    def connect(self) -> None:
        """As the adapter has it."""
        if type(self.ssl_context) is ssl.SSLContext:
            own = None
            if self.cert_file:
                own = hardsock.Certificate(
                    chain=self.cert_file, key=self.key_file, password=self.key_password
                )
            self.ssl_context = hardsock.ssl_context(self.ssl_context, certificates=own)
        super().connect()


pools = urllib3.connectionpool
pools.HTTPConnectionPool.ConnectionCls = over.HTTPConnection  # type: ignore[misc]
pools.HTTPSConnectionPool.ConnectionCls = HTTPSConnection  # type: ignore[misc]
for kind in (pools.HTTPConnectionPool, pools.HTTPSConnectionPool):
    kind.QueueCls = over.ScopedQueue
