"""What tests of TLS on connections share: servers, visits of clients, and what they say."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import hardsock as hs
from conformance.drivers import Driver

if TYPE_CHECKING:
    from support.tls import Identities


Clause = Callable[[Driver], Coroutine[Any, Any, None]]

VERSIONS = ("TLSv1.2", "TLSv1.3")


def echo(conn: hs.Connection) -> None:
    with conn:
        while data := conn.recv(65536, timeout=60):
            conn.sendall(data, timeout=60)
        conn.close_write(timeout=60)


def greet(conn: hs.Connection) -> None:
    """Says its server name, and waits for the end."""
    with conn:
        assert conn.tls is not None
        conn.sendall(f"{conn.tls.server_name}\n".encode(), timeout=60)
        conn.recv(1, timeout=60)


def info(conn: Any) -> hs.TLSInfo:
    found: hs.TLSInfo | None = conn.tls
    assert found is not None
    return found


def serve(
    handler: Callable[[hs.Connection], None], config: hs.TLSConfig, **settings: Any
) -> hs.Server:
    return hs.serve(handler, ("127.0.0.1", 0), tls=config, drain_timeout=10, **settings)


@contextlib.contextmanager
def visit(server: hs.Server, config: hs.TLSConfig, **settings: Any) -> Iterator[hs.Connection]:
    with hs.connect(server.address, tls=config, timeout=60, **settings) as conn:
        yield conn


def mutual(ids: Identities, mode: str, **settings: Any) -> hs.TLSConfig:
    return ids.server(client_certificates=mode, ca=ids.ca, **settings)
