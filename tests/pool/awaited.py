"""The awaited kinds of the same pools, for storms of cancelled tasks."""

from __future__ import annotations

import contextlib
from typing import Any

from pool.adapters import Place, checked, echo_command, postgres_text


class Awaited:
    """`exchange` as a user writes it; `take` holds a connection until the end of the program."""

    def __init__(self, place: Place) -> None:
        raise NotImplementedError

    async def exchange(self, n: int) -> None:
        raise NotImplementedError

    async def take(self) -> Any:
        raise NotImplementedError

    async def open(self) -> None:
        """Whatever must be awaited first."""


class Hardsock(Awaited):
    def __init__(self, place: Place) -> None:
        from hardsock import aio

        self.wait = place.wait
        self.pool = aio.Pool(place.address, max_size=place.size)

    async def exchange(self, n: int) -> None:
        async with self.pool.connection(timeout=self.wait) as conn:
            await conn.sendall(echo_command(n))
            size = int((await conn.recv_until(b"\r\n", max_size=64))[1:])
            answer = (await conn.recv_exactly(size + 2))[:-2]
            conn.mark_clean()
        checked(n, answer)

    async def take(self) -> Any:
        return await self.pool.acquire(timeout=self.wait)


class Httpcore(Awaited):
    def __init__(self, place: Place) -> None:
        import httpcore

        self.base = f"http://{place.address[0]}:{place.address[1]}"
        self.waits = {"timeout": {"pool": place.wait, "connect": 5.0, "read": 5.0, "write": 5.0}}
        self.pool = httpcore.AsyncConnectionPool(max_connections=place.size)

    async def exchange(self, n: int) -> None:
        answer = await self.pool.request("GET", f"{self.base}/{n}", extensions=self.waits)
        checked(n, answer.content)

    async def take(self) -> Any:
        import httpcore

        headers = {"Host": "test"}
        url = f"{self.base}/0"
        request = httpcore.Request("GET", url, headers=headers, extensions=self.waits)
        return await self.pool.handle_async_request(request)


class Redis(Awaited):
    def __init__(self, place: Place) -> None:
        import redis.asyncio as redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        host, port = place.address
        self.pool = redis.BlockingConnectionPool(
            host=host,
            port=port,
            max_connections=place.size,
            timeout=place.wait,
            retry=Retry(NoBackoff(), 0),
        )
        self.client = redis.Redis(connection_pool=self.pool)

    async def exchange(self, n: int) -> None:
        checked(n, await self.client.echo(str(n)))

    async def take(self) -> Any:
        return await self.pool.get_connection()


class PsycopgPool(Awaited):
    def __init__(self, place: Place) -> None:
        import psycopg_pool

        self.pool = psycopg_pool.AsyncConnectionPool(
            postgres_text(place), min_size=1, max_size=place.size, timeout=place.wait, open=False
        )

    async def open(self) -> None:
        await self.pool.open()

    async def exchange(self, n: int) -> None:
        async with self.pool.connection() as conn:
            row = await (await conn.execute(f"select {n}")).fetchone()
        checked(n, str(row and row[0]))

    async def take(self) -> Any:
        return await self.pool.getconn()


class SQLAlchemy(Awaited):
    def __init__(self, place: Place) -> None:
        import sqlalchemy
        from sqlalchemy.ext.asyncio import create_async_engine

        self.text = sqlalchemy.text
        self.engine = create_async_engine(
            f"postgresql+psycopg://postgres@{place.address[0]}:{place.address[1]}/postgres",
            pool_size=place.size,
            max_overflow=0,
            pool_timeout=place.wait,
        )
        self.open_contexts = contextlib.AsyncExitStack()

    async def exchange(self, n: int) -> None:
        async with self.engine.connect() as conn:
            answer = (await conn.execute(self.text(f"select {n}"))).scalar_one()
        checked(n, str(answer))

    async def take(self) -> Any:
        return await self.open_contexts.enter_async_context(self.engine.connect())


AWAITED: dict[str, type[Awaited]] = {
    "hardsock": Hardsock,
    "httpcore": Httpcore,
    "redis-py": Redis,
    "psycopg_pool": PsycopgPool,
    "SQLAlchemy": SQLAlchemy,
}
