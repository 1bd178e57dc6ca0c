"""asyncpg, unchanged, on hardsock's event loop, against PostgreSQL."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from support.require import need_module

need_module("asyncpg")

import asyncpg

import hardsock as hs
from hardsock import aio
from hardsock.aio import loop as hsloop
from support.promptly import ends_soon
from support.require import require
from support.servers.databases import postgres
from support.tls import Identities

pytestmark = pytest.mark.usefixtures("event_loops")

SOON = 0.2
LATE = 60.0


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_asyncpg_asks_a_real_database(tls: bool, ids: Identities) -> None:
    async def main(server: Any) -> None:
        host, port = server.address
        settings: dict[str, Any] = {"host": "localhost" if tls else host, "port": port}
        settings["ssl"] = ssl.create_default_context(cafile=ids.ca) if tls else False
        conn = await asyncpg.connect(user="postgres", database="postgres", **settings)
        assert await conn.fetchval("SELECT $1::int + 1", 41) == 42
        rows = await conn.fetch("SELECT n, repeat('x', 1000) FROM generate_series(1, 5000) n")
        assert len(rows) == 5000
        with ends_soon(), pytest.raises(hs.DeadlineExceeded):
            async with aio.timeout(SOON):
                await conn.execute("SELECT pg_sleep(60)")
        # asyncpg cancels the query on the server, and the connection stays usable.
        assert await conn.fetchval("SELECT 1") == 1
        with hs.timeout(1.0):
            limit = deadline_text()
        await conn.execute(limit)
        with pytest.raises(asyncpg.QueryCanceledError):
            await conn.execute("SELECT pg_sleep(60)")
        await conn.close()
        async with asyncpg.create_pool(
            user="postgres", database="postgres", min_size=2, max_size=4, **settings
        ) as pool:
            numbers = await asyncio.gather(*(pool.fetchval("SELECT $1::int", n) for n in range(50)))
        assert numbers == list(range(50))

    certificate = (Path(ids.server_identity.chain), Path(ids.server_identity.key)) if tls else None
    with require(postgres(certificate=certificate)) as server:
        hsloop.run(main(server))


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_asyncpg_asks_nothing_under_a_scope_that_has_ended(tls: bool, ids: Identities) -> None:
    token = hs.CancelToken()
    token.cancel("before")

    async def main(server: Any) -> None:
        host, port = server.address
        settings: dict[str, Any] = {"host": "localhost" if tls else host, "port": port}
        settings |= {
            "ssl": ssl.create_default_context(cafile=ids.ca) if tls else False,
            "user": "postgres",
        }
        async with (
            aio.timeout(LATE),
            asyncpg.create_pool(database="postgres", min_size=1, max_size=1, **settings) as pool,
        ):
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

    certificate = (Path(ids.server_identity.chain), Path(ids.server_identity.key)) if tls else None
    with require(postgres(certificate=certificate)) as server:
        hsloop.run(main(server))
    assert hs.open_connections() == []


def deadline_text() -> str:
    from hardsock.deadline.postgres import statement_timeout

    return statement_timeout()
