"""The works of `bench.adapters`: pairs of clients, the plain library's and the adapter's.

A work is a function that makes its two sides. It imports the library, and starts its server, only then:
what is not installed costs no other work.
"""

from __future__ import annotations

import asyncio
import importlib
import ssl
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import hardsock as hs
from hardsock.lab.certificates import make_certificate
from hardsock.lab.servers import Server, nginx, redis_server
from hardsock.lab.servers.process import free_port

TOTAL = 30.0  # seconds; no measured call ever comes near it
CLOSE = {"Connection": "close"}

Call = Callable[[], object]
Loop = Callable[[], asyncio.AbstractEventLoop]


@dataclass(frozen=True)
class Slice:
    """What a side has done in one of its turns."""

    calls: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        return self.calls / self.seconds

    @property
    def cpu_per_call(self) -> float:
        return self.cpu / self.calls


Side = Callable[[float], Slice]


def measure(call: Call, seconds: float) -> Slice:
    """Call for so many seconds."""
    count, began, cpu = 0, time.perf_counter(), time.thread_time()
    while (took := time.perf_counter() - began) < seconds:
        for _ in range(10):
            call()
        count += 10
    return Slice(count, took, time.thread_time() - cpu)


async def measure_awaited(call: Callable[[], Awaitable[object]], seconds: float) -> Slice:
    """Await for so many seconds."""
    count, began, cpu = 0, time.perf_counter(), time.thread_time()
    while (took := time.perf_counter() - began) < seconds:
        for _ in range(10):
            await call()
        count += 10
    return Slice(count, took, time.thread_time() - cpu)


def blocking(call: Call) -> Side:
    return partial(measure, call)


@dataclass(frozen=True)
class Awaited:
    """A client that is awaited: how it is made, asked and closed, on the event loop that will run it."""

    make: Callable[[], Awaitable[Any]]
    call: Callable[[Any], Awaitable[object]]
    close: Callable[[Any], Awaitable[object]]


def on_asyncio(opened: ExitStack, awaited: Awaited, loop: Loop = asyncio.new_event_loop) -> Side:
    """A side on an event loop of its own, which runs while the side is measured."""
    runs = loop()
    opened.callback(runs.close)
    client = runs.run_until_complete(awaited.make())  # type: ignore[arg-type]
    opened.callback(lambda: runs.run_until_complete(awaited.close(client)))  # type: ignore[arg-type]
    call = partial(awaited.call, client)
    return lambda seconds: runs.run_until_complete(measure_awaited(call, seconds))


class _Trio:
    """A run of trio in a thread: what one has opened is good for that one only."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._main, name="trio")
        self._thread.start()
        self._begun.wait()

    def _main(self) -> None:
        import trio

        trio.run(self._until_stopped)

    async def _until_stopped(self) -> None:
        import trio

        self._token, self._stop = trio.lowlevel.current_trio_token(), trio.Event()
        self._begun.set()
        await self._stop.wait()

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        import trio

        return trio.from_thread.run(function, *args, trio_token=self._token)

    def end(self) -> None:
        import trio

        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join()


def on_trio(opened: ExitStack, awaited: Awaited) -> Side:
    runs = _Trio()
    opened.callback(runs.end)
    client = runs.run(awaited.make)
    opened.callback(runs.run, awaited.close, client)
    return partial(runs.run, measure_awaited, partial(awaited.call, client))


class Where:
    """Servers, each started when it is asked for, and who has signed their certificate."""

    def __init__(self, opened: ExitStack, directory: Path) -> None:
        self._opened = opened
        self.certificate = make_certificate(directory)
        self.ca = str(self.certificate[0])

    @cached_property
    def _plain(self) -> Server:
        return self._opened.enter_context(nginx())

    @cached_property
    def _tls(self) -> Server:
        return self._opened.enter_context(nginx(certificate=self.certificate))

    def url(self, tls: bool) -> str:
        if tls:
            return f"https://127.0.0.1:{self._tls.port}/hello.txt"
        return f"http://127.0.0.1:{self._plain.port}/hello.txt"

    @cached_property
    def _redis(self) -> Server:
        return self._opened.enter_context(redis_server())

    def redis(self, tls: bool) -> tuple[str, dict[str, Any]]:
        """Its URL, and what a client has to be told besides."""
        if tls:
            return f"rediss://127.0.0.1:{self._redis_tls_port}", {"ssl_ca_certs": self.ca}
        return f"redis://127.0.0.1:{self._redis.port}", {}

    @cached_property
    def _redis_tls_port(self) -> int:
        certificate, key = map(str, self.certificate)
        port = free_port()
        options = ["--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key]
        options += ["--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"]
        self._opened.enter_context(redis_server(*options))
        return port

    @cached_property
    def postgres(self) -> int:
        """Its port: TLS for the one who asks for it."""
        return int(
            self._opened.enter_context(_databases().postgres(certificate=self.certificate)).port
        )

    @cached_property
    def mariadb(self) -> int:
        """Its port: TLS for the one who asks for it."""
        return int(
            self._opened.enter_context(_databases().mariadb(certificate=self.certificate)).port
        )


def _databases() -> Any:
    """The tests' own servers."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    try:
        return importlib.import_module("support.servers.databases")
    finally:
        del sys.path[0]


Pair = tuple[Side, Side]
"""Plain, and ours."""
Work = Callable[[ExitStack, Where, bool, bool], Pair]
"""Makes them: for TLS or not, with a new connection for each call or not."""


# ---- HTTP


def of_requests(opened: ExitStack, where: Where, tls: bool, new: bool) -> Pair:
    import requests

    import hardsock.adapters.requests

    def side(session: requests.Session) -> Side:
        session.trust_env, session.verify = False, where.ca
        if new:
            session.headers.update(CLOSE)
        opened.callback(session.close)
        url = where.url(tls)
        return blocking(lambda: session.get(url).content)

    return side(requests.Session()), side(hardsock.adapters.requests.session(total=TOTAL))


def of_urllib3(opened: ExitStack, where: Where, tls: bool, new: bool) -> Pair:
    import urllib3

    import hardsock.adapters.urllib3

    def side(manager: Any) -> Side:
        url, headers = where.url(tls), CLOSE if new else {}
        return blocking(lambda: manager.request("GET", url, headers=headers).data)

    plain = urllib3.PoolManager(ca_certs=where.ca)
    return side(plain), side(hardsock.adapters.urllib3.PoolManager(total=TOTAL, ca_certs=where.ca))


def _httpx_clients(library: str, way: str, where: Where, new: bool) -> tuple[Call, Call]:
    """What makes the two, blocking or awaited."""
    plain = importlib.import_module(library)
    ours = importlib.import_module(f"hardsock.adapters.{library}")
    settings: dict[str, Any] = {"headers": CLOSE if new else {}, "trust_env": False}
    verify = ssl.create_default_context(cafile=where.ca)
    kind, make = (
        (plain.Client, ours.client) if way == "" else (plain.AsyncClient, ours.async_client)
    )
    return (
        lambda: kind(timeout=TOTAL, verify=verify, **settings),
        lambda: make(total=TOTAL, tls=hs.TLSConfig(ca=where.ca), **settings),
    )


def of_httpx(library: str, way: str, opened: ExitStack, where: Where, tls: bool, new: bool) -> Pair:
    url = where.url(tls)

    def side(make: Callable[[], Any]) -> Side:
        if way == "":
            client = make()
            opened.callback(client.close)
            return blocking(lambda: client.get(url).content)

        async def made() -> Any:
            return make()

        async def call(client: Any) -> object:
            return (await client.get(url)).content

        awaited = Awaited(made, call, lambda client: client.aclose())
        return on_trio(opened, awaited) if way == "trio" else on_asyncio(opened, awaited)

    plain, ours = _httpx_clients(library, way, where, new)
    return side(plain), side(ours)


def of_http_client(opened: ExitStack, where: Where, tls: bool, new: bool) -> Pair:
    import http.client

    import hardsock.adapters.http

    host, _, path = where.url(tls).partition("://")[2].partition("/")
    make: tuple[Callable[[], Any], ...]
    if not tls:
        make = (
            lambda: http.client.HTTPConnection(host, timeout=TOTAL),
            lambda: hardsock.adapters.http.HTTPConnection(host, timeout=TOTAL),
        )
    else:
        context, own = ssl.create_default_context(cafile=where.ca), hs.ssl_context(ca=where.ca)
        make = (
            lambda: http.client.HTTPSConnection(host, timeout=TOTAL, context=context),
            lambda: hardsock.adapters.http.HTTPSConnection(host, timeout=TOTAL, context=own),
        )

    def side(new_one: Callable[[], Any]) -> Side:
        kept = new_one()
        opened.callback(kept.close)

        def call() -> object:
            kept.request("GET", f"/{path}", headers=CLOSE if new else {})
            return kept.getresponse().read()

        return blocking(call)

    return side(make[0]), side(make[1])


def of_aiohttp(opened: ExitStack, where: Where, tls: bool, new: bool) -> Pair:
    """aiohttp itself, on the two event loops; a request's limit is its own, and a scope."""
    import aiohttp

    from hardsock.aio.loop import EventLoop

    url = where.url(tls)

    def side(context: Any, scope: Callable[[], Any], timeout: float | None, loop: Loop) -> Side:
        async def make() -> Any:
            connector = aiohttp.TCPConnector(ssl=context, force_close=new)
            return aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(timeout), trust_env=False
            )

        async def call(session: Any) -> object:
            with scope():
                async with session.get(url) as answer:
                    return await answer.read()

        return on_asyncio(opened, Awaited(make, call, lambda session: session.close()), loop)

    plain = ssl.create_default_context(cafile=where.ca)
    return (
        side(plain, nullcontext, TOTAL, asyncio.new_event_loop),
        side(hs.ssl_context(ca=where.ca), lambda: hs.timeout(TOTAL), None, EventLoop),
    )


# ---- Redis, and databases: the smallest question


def of_redis(opened: ExitStack, where: Where, tls: bool, new: bool) -> Pair:
    import redis

    import hardsock.adapters.redis

    def side(client: Any) -> Side:
        opened.callback(client.close)

        def call() -> object:
            found = client.get("key")
            if new:
                client.connection_pool.disconnect()
            return found

        return blocking(call)

    url, told = where.redis(tls)
    plain = redis.Redis.from_url(url, **told)
    return side(plain), side(hardsock.adapters.redis.client(url, total=TOTAL, **told))


def of_redis_async(opened: ExitStack, where: Where, tls: bool, new: bool) -> Pair:
    import redis.asyncio

    import hardsock.adapters.redis

    url, told = where.redis(tls)

    def side(make: Callable[[], Any]) -> Side:
        async def made() -> Any:
            return make()

        async def call(client: Any) -> object:
            found: object = await client.get("key")
            if new:
                await client.connection_pool.disconnect()
            return found

        return on_asyncio(opened, Awaited(made, call, lambda client: client.aclose()))

    return (
        side(lambda: redis.asyncio.Redis.from_url(url, **told)),
        side(lambda: hardsock.adapters.redis.async_client(url, total=TOTAL, **told)),
    )


def _connected(
    opened: ExitStack, connect: Callable[[], Any], ask: Callable[[Any], object], new: bool
) -> Side:
    """A side that asks over a connection of a database's client."""
    if new:

        def call() -> object:
            conn = connect()
            try:
                return ask(conn)
            finally:
                conn.close()

        return blocking(call)
    conn = connect()
    opened.callback(conn.close)
    return blocking(lambda: ask(conn))


def of_psycopg(opened: ExitStack, where: Where, tls: bool, new: bool) -> Pair:
    import psycopg

    import hardsock.adapters.psycopg

    where_to = f"host=127.0.0.1 port={where.postgres} user=postgres dbname=postgres"
    secured = f"sslmode=verify-full sslrootcert={where.ca}" if tls else "sslmode=disable"
    info = f"{where_to} {secured}"

    def ask(conn: Any) -> object:
        return conn.execute("SELECT 1").fetchone()

    def within(conn: Any) -> object:
        with hs.timeout(TOTAL):
            return ask(conn)

    plain = partial(psycopg.connect, info, autocommit=True)
    ours = partial(hardsock.adapters.psycopg.connect, info, autocommit=True)
    return _connected(opened, plain, ask, new), _connected(opened, ours, within, new)


def of_pymysql(opened: ExitStack, where: Where, tls: bool, new: bool) -> Pair:
    import pymysql

    import hardsock.adapters.pymysql

    settings: dict[str, Any] = {"host": "127.0.0.1", "port": where.mariadb, "user": "root"}
    settings |= {"ssl": {"ca": where.ca}} if tls else {"ssl_disabled": True}

    def ask(conn: Any) -> object:
        conn.query("SELECT 1")
        return conn._result.rows

    def within(conn: Any) -> object:
        with hs.timeout(TOTAL):
            return ask(conn)

    plain = partial(pymysql.connect, **settings)
    ours = partial(hardsock.adapters.pymysql.connect, **settings)
    return _connected(opened, plain, ask, new), _connected(opened, ours, within, new)


def _on_both_loops(
    opened: ExitStack,
    connect: Callable[[Any], Awaitable[Any]],
    ask: Callable[[Any], Awaitable[object]],
    close: Callable[[Any], Awaitable[object]],
    contexts: tuple[Any, Any],
    new: bool,
) -> Pair:
    """An asynchronous client of a database, itself, on asyncio's loop and on hardsock's."""
    from hardsock.aio.loop import EventLoop

    def side(context: Any, scope: Callable[[], Any], loop: Loop) -> Side:
        async def make() -> Any:
            return None if new else await connect(context)

        async def call(conn: Any) -> object:
            with scope():
                if not new:
                    return await ask(conn)
                conn = await connect(context)
                found = await ask(conn)
                await close(conn)
                return found

        async def end(conn: Any) -> None:
            if conn is not None:
                await close(conn)

        return on_asyncio(opened, Awaited(make, call, end), loop)

    return (
        side(contexts[0], nullcontext, asyncio.new_event_loop),
        side(contexts[1], lambda: hs.timeout(TOTAL), EventLoop),
    )


def _contexts(where: Where, tls: bool, none: Any) -> tuple[Any, Any]:
    if not tls:
        return none, none
    return ssl.create_default_context(cafile=where.ca), hs.ssl_context(ca=where.ca)


def of_asyncpg(opened: ExitStack, where: Where, tls: bool, new: bool) -> Pair:
    import asyncpg

    async def connect(context: Any) -> Any:
        return await asyncpg.connect(
            host="127.0.0.1",
            port=where.postgres,
            user="postgres",
            database="postgres",
            ssl=context,
        )

    return _on_both_loops(
        opened,
        connect,
        lambda conn: conn.fetchval("SELECT 1"),
        lambda conn: conn.close(),
        _contexts(where, tls, False),
        new,
    )


def of_aiomysql(opened: ExitStack, where: Where, tls: bool, new: bool) -> Pair:
    import aiomysql

    async def connect(context: Any) -> Any:
        return await aiomysql.connect(
            host="127.0.0.1", port=where.mariadb, user="root", password="", ssl=context
        )

    return _on_both_loops(
        opened,
        connect,
        lambda conn: conn.query("SELECT 1"),
        lambda conn: conn.ensure_closed(),
        _contexts(where, tls, None),
        new,
    )


WEB: dict[str, Work] = {
    "requests": of_requests,
    "urllib3": of_urllib3,
    **{
        f"{library}, {way}" if way else library: partial(of_httpx, library, way)
        for library in ("httpx", "httpx2")
        for way in ("", "asyncio", "trio")
    },
    "http.client": of_http_client,
    "aiohttp": of_aiohttp,
}
DATABASES: dict[str, Work] = {
    "redis-py": of_redis,
    "redis-py, asyncio": of_redis_async,
    "psycopg": of_psycopg,
    "asyncpg": of_asyncpg,
    "PyMySQL": of_pymysql,
    "aiomysql": of_aiomysql,
}


def works() -> Iterator[tuple[str, Callable[[ExitStack, Where], Pair]]]:
    """Their names, and how each is made."""
    for schemes, found in ((("http", "https"), WEB), (("", "TLS"), DATABASES)):
        for library, make in found.items():
            for scheme in schemes:
                for new in (False, True):
                    name = ", ".join(filter(None, (library, scheme, "new" if new else "kept")))
                    yield name, partial(_made, make, scheme == schemes[1], new)


def _made(make: Work, tls: bool, new: bool, opened: ExitStack, where: Where) -> Pair:
    return make(opened, where, tls, new)
