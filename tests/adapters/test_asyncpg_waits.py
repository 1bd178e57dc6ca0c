"""What asyncpg waits for on hardsock's event loop ends, and what breaks off is an error."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from support.require import need_module

need_module("asyncpg")

import asyncpg

import hardsock as hs
from adapters.database_contract import *
from adapters.http_contract import server_context
from adapters.postgres_peer import PostgresPeer
from support.tls import Identities


class Asyncpg:
    """See `database_contract.Library`."""

    ends = ("own", "scope", "cancel")
    port = 5432
    until_tls = (("recv", 8), ("send", b"S"))
    broken = (asyncpg.ConnectionDoesNotExistError, ConnectionError)
    own_limit = asyncio.TimeoutError

    def peer(self, ids: Identities) -> PostgresPeer:
        return PostgresPeer(server_context(ids))

    def _where(self, host: str, port: int, tls: Any) -> dict[str, Any]:
        """asyncpg's own limits are not the tests'."""
        settings = {"host": host, "port": port, "user": "u", "password": "p", "database": "d"}
        return {**settings, "ssl": tls or False, "timeout": 600}

    @contextlib.asynccontextmanager
    async def connected(
        self, host: str, port: int, tls: Any, own: float | None = None
    ) -> AsyncIterator[Any]:
        where = self._where(host, port, tls)
        conn = await asyncpg.connect(**{**where, "timeout": own or where["timeout"]})
        try:
            yield conn
        finally:
            conn.terminate()
            await asyncio.sleep(0)

    async def ask(self, conn: Any, what: str, own: float | None = None) -> object:
        try:
            return await conn.execute(what, timeout=own)
        finally:
            assert conn.is_closed() == (what in ("reset", "truncated"))

    async def wait_for_a_place(
        self, port: int, tls: Any, begin: Callable[[], hs.CancelToken], own: float | None
    ) -> None:
        where = self._where("127.0.0.1", port, tls)
        pool = await asyncpg.create_pool(**where, min_size=1, max_size=1)
        try:
            await pool.acquire()
            with hs.scope(begin()):
                await pool.acquire(timeout=own)
        finally:
            pool.terminate()
            await asyncio.sleep(0)


LIBRARY = Asyncpg()
