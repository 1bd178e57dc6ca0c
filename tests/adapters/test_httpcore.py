"""The contract, with a pool of httpcore alone over hardsock's backend: scopes end it, it has no total."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.require import need_module

need_module("httpcore")

import httpcore

import hardsock as hs
from adapters.http_contract import *
from adapters.http_contract import keep_what_a_driver_has
from hardsock.adapters.httpcore import NetworkBackend


class Client:
    def __init__(self, pool: httpcore.ConnectionPool) -> None:
        self._pool = pool

    def get(self, url: str) -> bytes:
        return self._pool.request("GET", url).content

    def post(self, url: str, body: bytes) -> int:
        return self._pool.request("POST", url, content=body).status

    def stream(self, url: str) -> Iterator[bytes]:
        opened = self._pool.stream("GET", url)
        response = opened.__enter__()

        def chunks() -> Iterator[bytes]:
            try:
                yield from response.iter_stream()
            finally:
                opened.__exit__(None, None, None)

        return chunks()


class Driver:
    name = "httpcore"
    timed_out = (hs.DeadlineExceeded,)
    failed = (httpcore.NetworkError, httpcore.ProtocolError)
    lacks = frozenset({"queue", "retries", "redirects", "bound"})
    """Its queue is a lock of its own, which no backend sees; a body is read in whatever scope there is."""

    @contextlib.contextmanager
    def client(
        self, total: float | None, ca: Path | None = None, retries: int = 0
    ) -> Iterator[Client]:
        tls = None if ca is None else hs.TLSConfig(ca=ca, alpn=("http/1.1",))
        with httpcore.ConnectionPool(
            network_backend=NetworkBackend(tls=tls), max_connections=1, retries=retries
        ) as pool:
            yield Client(pool)


@pytest.fixture(params=["scope", "cancel"])
def end(request: pytest.FixtureRequest) -> str:
    return str(request.param)


DRIVERS = [Driver()]
keep_what_a_driver_has(globals())
