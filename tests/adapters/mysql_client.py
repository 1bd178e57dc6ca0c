"""aiomysql and asyncmy, which is made after it, as the contract of databases wants a client."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import hardsock as hs
from adapters.http_contract import server_context
from adapters.mysql_peer import GREETING_PACKET, MySQLPeer
from support.tls import Identities


class MySQLClient:
    """See `database_contract.Library`. Its only limit is of connecting, and not a total."""

    ends = ("scope", "cancel")
    port = 3306
    until_tls = (("send", GREETING_PACKET), ("recv", 36))
    own_limit = asyncio.TimeoutError

    def __init__(self, name: str, errors: str) -> None:
        self._name, self._errors = name, errors

    @property
    def _module(self) -> Any:
        return importlib.import_module(self._name)

    @property
    def broken(self) -> tuple[type[BaseException], ...]:
        return (importlib.import_module(self._errors).OperationalError,)

    def peer(self, ids: Identities) -> MySQLPeer:
        return MySQLPeer(server_context(ids))

    def _where(self, host: str, port: int, tls: Any) -> dict[str, Any]:
        return {"host": host, "port": port, "user": "u", "password": "p", "ssl": tls}

    @contextlib.asynccontextmanager
    async def connected(
        self, host: str, port: int, tls: Any, own: float | None = None
    ) -> AsyncIterator[Any]:
        conn = await self._module.connect(**self._where(host, port, tls))
        try:
            yield conn
        finally:
            conn.close()
            await asyncio.sleep(0)

    async def ask(self, conn: Any, what: str, own: float | None = None) -> object:
        return await conn.query(what)

    async def wait_for_a_place(
        self, port: int, tls: Any, begin: Callable[[], hs.CancelToken], own: float | None
    ) -> None:
        where = self._where("127.0.0.1", port, tls)
        async with self._module.create_pool(**where, minsize=1, maxsize=1) as pool:
            async with pool.acquire():
                with hs.scope(begin()):
                    await pool.acquire()
