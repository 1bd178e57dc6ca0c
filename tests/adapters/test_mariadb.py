"""PyMySQL over hardsock, and the clients of asyncio on hardsock's event loop, against MariaDB."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.cursors import SSCursor

import hardsock as hs
import hardsock.adapters.pymysql
from adapters.endings import SHORT, causes
from adapters.http_contract import nothing_open
from hardsock.aio import loop as hsloop
from hardsock.lab.servers.process import Server
from hardsock.lab.threads import IO_WAITS, Call
from hardsock.lab.waits import poll_until
from support.require import need_module, require
from support.servers.databases import mariadb
from support.tls import Identities

LATE = 60.0
SLEEP = "SELECT SLEEP(60)"
ROWS = "SELECT SLEEP(0.05), REPEAT('x', 100000) FROM seq_1_to_10000"
"""A row now and then, each too large to wait for another one in the server's buffer."""
_IF_INSTALLED = [one for one in ("asyncmy",) if importlib.util.find_spec(one) is not None]
"""It is built by a C compiler, where there is no wheel: no peer that CI must have."""


@pytest.fixture(scope="module")
def server(ids: Identities) -> Iterator[Server]:
    identity = ids.server_identity
    with require(mariadb(certificate=(Path(identity.chain), Path(identity.key)))) as found:
        yield found


# ---- PyMySQL


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_pymysql_asks_and_its_statements_end(
    server: Server, ids: Identities, end: str, tls: bool
) -> None:
    settings: dict[str, Any] = {"ssl": {"ca": str(ids.ca)}} if tls else {"ssl_disabled": True}
    with hs.timeout(LATE):
        conn = hardsock.adapters.pymysql.connect(
            host="127.0.0.1", port=server.port, user="root", **settings
        )
        with contextlib.closing(conn), conn.cursor() as cursor:
            cursor.execute("SELECT REPEAT('x', 300000), %s", (42,))
            assert cursor.fetchone() == ("x" * 300_000, 42)
            cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
            assert bool(cursor.fetchone()[1]) == tls
            token = hs.CancelToken(SHORT if end == "scope" else None)

            def sleep() -> None:
                with hs.scope(token):
                    cursor.execute(SLEEP)

            with Call(sleep) as call:
                if end == "cancel":
                    call.wait_until_blocked(IO_WAITS, timeout=LATE)
                    token.cancel("stop button")
                    with pytest.raises(hs.Cancelled):
                        call.result(LATE)
                else:
                    with pytest.raises(pymysql.err.OperationalError) as late:
                        call.result(LATE)
                    assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))
                    del late
            with contextlib.suppress(pymysql.err.Error):
                cursor.close()
            assert not conn.open
            conn.close = lambda: None  # It is closed already.
    nothing_open()


@contextlib.contextmanager
def _begun(end: str) -> Iterator[tuple[hs.CancelToken, Callable[[], None]]]:
    """A token, and what is called when there is something that it is to end."""
    token = hs.CancelToken()
    thread = threading.Timer(SHORT, token.cancel, ("stop button",))
    try:
        yield token, thread.start if end == "cancel" else lambda: token.set_timeout(SHORT)
    finally:
        if thread.ident is not None:
            thread.join()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_rows_that_pymysql_streams_end(
    server: Server, ids: Identities, end: str, tls: bool
) -> None:
    settings: dict[str, Any] = {"ssl": {"ca": str(ids.ca)}} if tls else {"ssl_disabled": True}
    settings |= {"host": "127.0.0.1", "port": server.port, "user": "root", "database": "mysql"}
    with hs.timeout(LATE):
        conn = hardsock.adapters.pymysql.connect(cursorclass=SSCursor, **settings)
    kind = pymysql.err.Error if end == "scope" else hs.Cancelled
    with (
        _begun(end) as (token, begin),
        pytest.raises(kind) as ended,
        hs.scope(token),
        conn.cursor() as cursor,
    ):
        cursor.execute(ROWS)
        assert cursor.fetchone() is not None
        begin()
        while cursor.fetchone() is not None:
            pass
    wanted = hs.Cancelled if end == "cancel" else hs.DeadlineExceeded
    assert any(isinstance(one, wanted) for one in causes(ended.value))
    assert not conn.open
    del ended
    nothing_open()


# ---- the event loop


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("end", ["scope", "cancel"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("name", ["aiomysql", "asyncmy"])
def test_rows_that_are_streamed_end(
    server: Server, ids: Identities, name: str, tls: bool, end: str
) -> None:
    if name == "asyncmy":  # It is built by a C compiler where there is no wheel.
        need_module(name)
    library = importlib.import_module(name)
    streaming = importlib.import_module(f"{name}.cursors").SSCursor

    async def main() -> None:
        context = hs.ssl_context(ca=ids.ca) if tls else None
        where: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "user": "root"}
        with hs.timeout(LATE):
            conn = await library.connect(password="", db="mysql", ssl=context, **where)
        kind = hs.Cancelled if end == "cancel" else hs.DeadlineExceeded
        with _begun(end) as (token, begin), pytest.raises(kind), hs.scope(token):
            # Not left by its own way, which reads the rest, of a connection that is lost, too.
            cursor = await conn.cursor(streaming).__aenter__()
            await cursor.execute(ROWS)
            assert await cursor.fetchone() is not None
            begin()
            while await cursor.fetchone() is not None:
                pass
        conn.close()
        await asyncio.sleep(0)

    hsloop.run(main())
    assert hs.open_connections() == []


def _sleeps(port: int) -> bool:
    """Whether a statement of ours is being run."""
    with contextlib.closing(pymysql.connect(host="127.0.0.1", port=port, user="root")) as asked:
        with asked.cursor() as cursor:
            cursor.execute("SHOW PROCESSLIST")
            return any(SLEEP in row for row in cursor.fetchall())


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("end", ["scope", "cancel"])
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("name", ["aiomysql", *_IF_INSTALLED])
def test_an_awaited_statement_ends(
    server: Server, ids: Identities, name: str, tls: bool, end: str
) -> None:
    library, token = importlib.import_module(name), hs.CancelToken()

    def stop() -> None:
        poll_until(lambda: _sleeps(server.port), LATE)
        token.cancel("stop button")

    async def ask(conn: Any) -> None:
        async with conn.cursor() as cursor:
            await cursor.execute("SELECT REPEAT('x', 300000), %s", (42,))
            assert await cursor.fetchone() == ("x" * 300_000, 42)
            await cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
            assert bool((await cursor.fetchone())[1]) == tls

    async def main() -> None:
        context = hs.ssl_context(ca=ids.ca) if tls else None
        with hs.timeout(LATE):
            conn = await library.connect(
                host="127.0.0.1", port=server.port, user="root", password="", ssl=context
            )
            await ask(conn)
        (found,) = hs.open_connections()
        if name == "aiomysql":  # asyncmy connects in a task of its own before Python 3.12.
            assert found.site.file == __file__
        scope = hs.timeout(SHORT) if end == "scope" else hs.scope(token)
        thread = threading.Thread(target=stop)
        if end == "cancel":
            thread.start()
        with pytest.raises(hs.Cancelled if end == "cancel" else hs.DeadlineExceeded), scope:
            await conn.query(SLEEP)
        if end == "cancel":
            await asyncio.to_thread(thread.join)
        conn.close()
        await asyncio.sleep(0)

    hsloop.run(main())
    assert hs.open_connections() == []


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("name", ["aiomysql", *_IF_INSTALLED])
def test_a_scope_that_has_ended_asks_nothing(
    server: Server, ids: Identities, name: str, tls: bool
) -> None:
    library, token = importlib.import_module(name), hs.CancelToken()
    token.cancel("before")

    async def main() -> None:
        where: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "user": "root"}
        where |= {"password": "", "ssl": hs.ssl_context(ca=ids.ca) if tls else None}
        where["autocommit"] = True
        with hs.timeout(LATE):
            asking, other = [await library.connect(**where) for _ in range(2)]
            try:
                async with other.cursor() as cursor:
                    await cursor.execute("CREATE OR REPLACE DATABASE asked")
                    await cursor.execute("CREATE TABLE asked.done (n INT)")
                    with pytest.raises(hs.Cancelled), hs.scope(token):
                        await asking.query("INSERT INTO asked.done VALUES (1)")
                    # What it had sent would be done by then: the server has seen the end of it.
                    while await _is_connected(cursor, asking.thread_id()):
                        pass
                    await cursor.execute("SELECT COUNT(*) FROM asked.done")
                    assert await cursor.fetchone() == (0,)
            finally:
                asking.close()
                other.close()
                await asyncio.sleep(0)

    hsloop.run(main())
    assert hs.open_connections() == []


async def _is_connected(cursor: Any, thread: int) -> bool:
    await cursor.execute(
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = %s", thread
    )
    return bool((await cursor.fetchone())[0])
