"""asyncpg, unchanged, on hardsock's event loop, against PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.require import need_module

need_module("asyncpg")

import asyncpg

import hardsock as hs
from adapters.endings import causes
from hardsock import aio
from hardsock.aio import loop as hsloop
from hardsock.lab.servers.process import Server
from support.promptly import ends_soon
from support.require import require
from support.servers.databases import postgres
from support.tls import Identities

pytestmark = pytest.mark.usefixtures("event_loops")

SOON = 0.2
LATE = 60.0


@pytest.fixture(scope="module")
def server(ids: Identities) -> Iterator[Server]:
    """It speaks TLS to the one who asks for it."""
    identity = ids.server_identity
    with require(postgres(certificate=(Path(identity.chain), Path(identity.key)))) as found:
        yield found


def _where(server: Server, tls: bool, ids: Identities, *, own: bool = False) -> dict[str, Any]:
    """Over the ssl module's TLS, or our *own*."""
    host, port = server.address
    context = hs.ssl_context(ca=ids.ca) if own else ssl.create_default_context(cafile=ids.ca)
    return {
        "user": "postgres",
        "database": "postgres",
        "host": "localhost" if tls else host,
        "port": port,
        "ssl": context if tls else False,
    }


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_asyncpg_asks_a_real_database(server: Server, tls: bool, ids: Identities) -> None:
    async def main() -> None:
        settings = _where(server, tls, ids)
        conn = await asyncpg.connect(**settings)
        assert await conn.fetchval("SELECT $1::int + 1", 41) == 42
        rows = await conn.fetch("SELECT n, repeat('x', 1000) FROM generate_series(1, 5000) n")
        assert len(rows) == 5000
        with ends_soon(), pytest.raises(hs.DeadlineExceeded):
            async with aio.timeout(SOON):
                await conn.execute("SELECT pg_sleep(60)")
        # asyncpg cancels the query on the server, and the connection stays usable.
        assert await conn.fetchval("SELECT 1") == 1
        with hs.timeout(4.0):  # More than a machine stands still for.
            limit = deadline_text()
        await conn.execute(limit)
        with pytest.raises(asyncpg.QueryCanceledError):
            await conn.execute("SELECT pg_sleep(60)")
        await conn.close()
        async with asyncpg.create_pool(min_size=2, max_size=4, **settings) as pool:
            numbers = await asyncio.gather(*(pool.fetchval("SELECT $1::int", n) for n in range(50)))
        assert numbers == list(range(50))

    hsloop.run(main())


@contextlib.asynccontextmanager
async def _connected(server: Server, tls: bool, ids: Identities) -> AsyncIterator[Any]:
    conn = await asyncpg.connect(timeout=LATE, **_where(server, tls, ids, own=True))
    try:
        yield conn
    finally:
        conn.terminate()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def _ends(end: str) -> AsyncIterator[Callable[[], None]]:
    """The block is ended by *end*, as it should be; it calls what it gets when there is something to end."""
    token = hs.CancelToken()
    thread = threading.Timer(SOON, token.cancel, ("stop button",))

    def begin() -> None:
        if end == "scope":
            token.set_timeout(SOON)
        elif end == "cancel":
            thread.start()

    kinds = {"own": asyncio.TimeoutError, "scope": hs.DeadlineExceeded, "cancel": hs.Cancelled}
    with pytest.raises(kinds[end]), hs.scope(token):
        yield begin
    if end == "cancel":
        await asyncio.to_thread(thread.join)


@pytest.mark.parametrize("end", ["own", "scope", "cancel"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_statement_that_was_ended_leaves_the_connection_usable(
    server: Server, tls: bool, end: str, ids: Identities
) -> None:
    async def main() -> None:
        async with _connected(server, tls, ids) as conn:
            async with _ends(end) as begin:
                begin()
                await conn.execute("SELECT pg_sleep(600)", timeout=SOON if end == "own" else None)
            with hs.timeout(LATE):  # Nobody else's answer, and the server does not go on.
                assert await conn.fetchval("SELECT 41 + 1") == 42
                sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE $1"
                assert await conn.fetchval(sleeping, "SELECT pg_sleep%") == 0

    hsloop.run(main())
    assert hs.open_connections() == []


@pytest.mark.parametrize("end", ["own", "scope", "cancel"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_rows_that_are_streamed_end(server: Server, tls: bool, end: str, ids: Identities) -> None:
    """By COPY, which has a limit of its own for all of it, and by a cursor, which has none."""
    # Each is more than the server keeps before it sends.
    rows = "SELECT repeat('x', 10000), pg_sleep(0.05) FROM generate_series(1, 10000)"

    got: list[Any] = []

    async def copy(conn: Any, begin: Callable[[], None]) -> None:
        async def take(data: bytes) -> None:
            if not got:
                begin()
            got.append(data)

        await conn.copy_from_query(rows, output=take, timeout=SOON if end == "own" else None)

    async def iterate(conn: Any, begin: Callable[[], None]) -> None:
        await conn.transaction().start()
        async for row in conn.cursor(rows, prefetch=1):
            if not got:
                begin()
            got.append(row)

    async def main() -> None:
        for read in (copy,) if end == "own" else (copy, iterate):
            got.clear()
            async with _connected(server, tls, ids) as conn, _ends(end) as begin:
                await read(conn, begin)
            assert got or end == "own"

    hsloop.run(main())
    assert hs.open_connections() == []


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_transaction_that_cannot_roll_back_any_more_says_why(
    server: Server, tls: bool, ids: Identities
) -> None:
    """The scope has ended when the next row is asked for: the connection is lost, and BEGIN with it."""
    token = hs.CancelToken()

    async def main() -> None:
        async with _connected(server, tls, ids) as conn:
            with hs.scope(token):
                async with conn.transaction():
                    async for _ in conn.cursor("SELECT generate_series(1, 9)", prefetch=1):
                        token.cancel("enough")

    with pytest.raises(asyncpg.InterfaceError) as met:
        hsloop.run(main())
    assert any(isinstance(one, hs.Cancelled) for one in causes(met.value))
    assert hs.open_connections() == []


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_asyncpg_asks_nothing_under_a_scope_that_has_ended(
    server: Server, tls: bool, ids: Identities
) -> None:
    token = hs.CancelToken()
    token.cancel("before")

    async def main() -> None:
        settings = _where(server, tls, ids)
        async with (
            aio.timeout(LATE),
            asyncpg.create_pool(min_size=1, max_size=1, **settings) as pool,
        ):
            await pool.execute("DROP TABLE IF EXISTS unasked")
            await pool.execute("CREATE TABLE unasked (n int)")
            for how in ("pool", "connection", "transaction"):
                with pytest.raises(hs.Cancelled):
                    if how == "pool":
                        with hs.scope(token):
                            await pool.execute("INSERT INTO unasked VALUES (1)")
                    else:
                        async with pool.acquire() as conn:
                            with hs.scope(token):
                                if how == "transaction":
                                    await conn.transaction().start()
                                await conn.execute("INSERT INTO unasked VALUES (1)")
                assert await pool.fetchval("SELECT count(*) FROM unasked") == 0

    hsloop.run(main())
    assert hs.open_connections() == []


def deadline_text() -> str:
    from hardsock.deadline.postgres import statement_timeout

    return statement_timeout()
