"""A pytest plugin: httpcore's own suite, unchanged, over hardsock's network backends.

A test that gives a backend of its own keeps it: those of mocks never come to a socket.
"""

from __future__ import annotations

import httpcore._async.connection
import httpcore._async.connection_pool
import httpcore._async.socks_proxy
import httpcore._sync.connection
import httpcore._sync.connection_pool
import httpcore._sync.socks_proxy

from hardsock.adapters import httpcore as over

for module in ("connection", "connection_pool", "socks_proxy"):
    getattr(httpcore._sync, module).SyncBackend = over.NetworkBackend
    getattr(httpcore._async, module).AutoBackend = over.AsyncNetworkBackend
