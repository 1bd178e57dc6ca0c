"""aiohttp's client, unchanged, on hardsock's event loop: the contract, and its pool's queue.

Each call is a task with a scope around it, as a program has it: ``with hs.timeout(60):``. A client has a
loop of its own, which runs in whatever thread asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import ssl
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import hardsock as hs
from adapters.endings import causes
from adapters.http_contract import *
from adapters.http_contract import (
    LATE,
    ends,
    keep_what_a_driver_has,
    nothing_open,
    server_context,
    total_of,
)
from adapters.http_peer import HttpPeer
from hardsock.aio import loop as hsloop
from support.tls import Identities

pytestmark = pytest.mark.usefixtures("event_loops")


class Client:
    """See `http_contract.Client`."""

    def __init__(self, total: float | None, context: Any) -> None:
        self._total, self._loop = total, hsloop.EventLoop()
        self._session = self._loop.run_until_complete(self._open(context))

    async def _open(self, context: Any) -> aiohttp.ClientSession:
        self._connector = connector = aiohttp.TCPConnector(ssl=context, limit_per_host=1)
        timeout = aiohttp.ClientTimeout()  # None of its own: hardsock's scopes alone
        return aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Run it as a task with the scope of the thread around it, and the client's limit."""
        outer = hs.current()

        async def within() -> Any:
            with contextlib.ExitStack() as scopes:
                if outer is not None:
                    scopes.enter_context(hs.scope(outer))
                if self._total is not None:
                    scopes.enter_context(hs.timeout(self._total))
                return await call

        try:
            return self._loop.run_until_complete(within())
        finally:
            self._loop.run_until_complete(self._settled())

    async def _settled(self) -> None:
        """What aiohttp has closed is closed: its TLS waits for the peer's goodbye.

        A program's loop goes on by itself; this one runs only while somebody asks.
        """
        end = time.monotonic() + LATE
        while len(hs.open_connections()) > sum(map(len, self._connector._conns.values())):
            assert time.monotonic() < end, hs.open_connections()
            await asyncio.sleep(0.001)

    async def fetch(self, url: str) -> bytes:
        async with self._session.get(url) as response:
            return await response.read()

    def get(self, url: str) -> bytes:
        return bytes(self.run(self.fetch(url)))

    async def _post(self, url: str, body: bytes) -> int:
        async with self._session.post(url, data=io.BytesIO(body)) as response:
            return response.status

    def post(self, url: str, body: bytes) -> int:
        return int(self.run(self._post(url, body)))

    async def _read(self, url: str, chunks: list[bytes]) -> None:
        async with self._session.get(url) as response:
            async for chunk in response.content.iter_any():
                chunks.append(chunk)

    def stream(self, url: str) -> Iterator[bytes]:
        """A body that is streamed is read in the task that asked."""
        chunks: list[bytes] = []
        self.run(self._read(url, chunks))
        yield from chunks

    async def get_behind_another(self, first: str, second: str) -> bytes:
        """The second waits for the connection that the first has."""
        async with self._session.get(first) as response:
            try:
                return await self.fetch(second)
            finally:  # The ssl module's TLS would wait for the peer's goodbye, beyond the loop's end.
                connection: Any = response.connection
                connection.transport.abort()

    async def _close(self) -> None:
        await self._session.close()
        await self._settled()

    def close(self) -> None:
        self._loop.run_until_complete(self._close())
        self._loop.close()


class Driver:
    """See `http_contract.Driver`."""

    name = "aiohttp"
    # aiohttp wraps what ends an attempt to connect, where it is not its own wait that ends.
    timed_out = (hs.DeadlineExceeded, aiohttp.ClientConnectorError)
    failed = (aiohttp.ClientError,)
    lacks = frozenset({"retries", "queue"})

    def __init__(self, own: bool) -> None:
        self._own = own
        self.name = "aiohttp over hardsock's TLS" if own else "aiohttp"

    @contextlib.contextmanager
    def client(
        self, total: float | None, ca: Path | None = None, retries: int = 0
    ) -> Iterator[Client]:
        if self._own:
            context: Any = hs.ssl_context(ca=ca)
        else:
            context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        made = Client(total, context)
        try:
            yield made
        finally:
            made.close()


DRIVERS = [Driver(own=False), Driver(own=True)]
keep_what_a_driver_has(globals())
# A body is bound by the scopes of the task that reads it: aiohttp gives no hook for another's.
del test_a_body_ends_with_the_scope_that_its_request_was_made_in  # noqa: F821


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    """From 3.10 on aiohttp opens its sockets itself; the ledger has those as adopted."""
    yield
    gc.collect()
    assert hs.open_connections() == []


def test_the_ledger_names_the_line_of_the_program(
    driver: Driver, peer: HttpPeer, ids: Identities
) -> None:
    with driver.client(30, ids.ca) as client:
        assert client.get(peer.url("/ok?x")) == b"x"
        (found,) = hs.open_connections()
        assert found.how in ("adopt", "connect")
        assert found.site.file == __file__


def test_a_certificate_of_somebody_else_is_refused(
    driver: Driver, ids: Identities, tmp_path: Path
) -> None:
    stranger = Identities(tmp_path)
    with HttpPeer(server_context(ids)) as peer, driver.client(30, stranger.ca) as client:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            client.get(peer.url("/ok?x"))
        refused = (hs.CertificateError, ssl.SSLCertVerificationError)
        assert any(isinstance(one, refused) for one in causes(caught.value))


def test_the_queue_of_the_connector_ends(
    driver: Driver, peer: HttpPeer, end: str, ids: Identities
) -> None:
    with driver.client(total_of(end), ids.ca) as client:
        call = client.get_behind_another
        ends(
            driver,
            end,
            lambda: client.run(call(peer.url("/chunks"), peer.url("/ok?x"))),
            lambda: peer.wait_for("/chunks"),
        )
        # A busy machine's deadline may come before it has asked at all.
        assert [path for path, _ in peer.seen] in ([], ["/chunks"])
    nothing_open()


def test_a_scope_that_has_ended_posts_nothing_over_a_connection_that_was_kept(
    driver: Driver, peer: HttpPeer, ids: Identities
) -> None:
    """A body is sent by a task of aiohttp's own."""
    token = hs.CancelToken()
    token.cancel("before")
    with driver.client(None, ids.ca) as client:
        assert client.get(peer.url("/ok?before")) == b"before"
        with hs.scope(token), pytest.raises(hs.Cancelled):
            client.post(peer.url("/silent"), bytes(1 << 20))
        assert client.get(peer.url("/ok?after")) == b"after"
    assert [path for path, _ in peer.seen] == ["/ok", "/ok"]


def test_a_time_that_passes_before_the_request_is_sent_asks_nobody(
    driver: Driver, peer: HttpPeer, ids: Identities
) -> None:
    async def late(client: Client) -> None:
        with hs.timeout(0.001) as token:
            assert token.wait(LATE), "the task computes, and the loop does not run"
            await client.fetch(peer.url("/silent"))

    with driver.client(None, ids.ca) as client:
        assert client.get(peer.url("/ok?before")) == b"before"
        with pytest.raises(hs.DeadlineExceeded):
            client.run(late(client))
        assert client.get(peer.url("/ok?after")) == b"after"
    assert [path for path, _ in peer.seen] == ["/ok", "/ok"]
