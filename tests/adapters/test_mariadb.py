"""PyMySQL over hardsock, and the clients of asyncio on hardsock's event loop, against MariaDB."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiomysql
import pymysql
import pytest

import hardsock as hs
import hardsock.adapters.pymysql
from adapters.http_contract import SHORT, causes, nothing_open, server_context
from adapters.mysql_peer import GREETING_PACKET, MySQLPeer
from hardsock.aio import loop as hsloop
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.peers import PeerScript
from hardsock.lab.servers.process import Server
from hardsock.lab.threads import IO_WAITS, Call
from hardsock.lab.waits import poll_until
from support.require import require
from support.servers.databases import mariadb
from support.tls import Identities

LATE = 60.0
SLEEP = "SELECT SLEEP(60)"
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


# ---- the event loop


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


# ---- aiomysql, and what is not a statement


async def _use(wait: str, port: int, context: Any, token: hs.CancelToken, end: str) -> None:
    """Wait under *token*, whose time begins when there is something to wait for."""

    def begin() -> None:
        if end == "scope":
            token.set_timeout(SHORT)
        else:
            thread.start()

    where: dict[str, Any] = {"host": "127.0.0.1", "port": port}
    where |= {"user": "u", "password": "p", "ssl": context}
    thread = threading.Timer(SHORT, token.cancel, ("stop button",))
    try:
        if wait in ("silent", "drip"):
            async with await aiomysql.connect(**where) as conn:
                with hs.scope(token):
                    begin()
                    await conn.query("stall" if wait == "silent" else "drip")
        elif wait == "queue":
            async with aiomysql.create_pool(**where, minsize=1, maxsize=1) as pool:
                async with pool.acquire():
                    with hs.scope(token):
                        begin()
                        await pool.acquire()
        else:
            if wait == "dead DNS":
                where["host"] = "nobody.test"
            with hs.scope(token):
                begin()
                await aiomysql.connect(**where)
    finally:
        if thread.ident is not None:
            await asyncio.to_thread(thread.join)


def _ends(wait: str, port: int, end: str, context: Any = None) -> None:
    token = hs.CancelToken()
    with pytest.raises(Exception) as ended:
        hsloop.run(_use(wait, port, context, token, end))
    found = [type(one) for one in causes(ended.value)]
    assert (hs.Cancelled if end == "cancel" else hs.DeadlineExceeded) in found, found
    del ended
    nothing_open()


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("end", ["scope", "cancel"])
@pytest.mark.parametrize("transport", ["plain", "tls"])
@pytest.mark.parametrize("wait", ["silent", "drip", "queue"])
def test_what_aiomysql_waits_for_ends(wait: str, transport: str, end: str, ids: Identities) -> None:
    context = hs.ssl_context(ca=ids.ca) if transport == "tls" else None
    with MySQLPeer(server_context(ids)) as peer:
        _ends(wait, peer.port, end, context)


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("transport", ["plain", "tls"])
@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_an_answer_to_aiomysql_that_breaks_off_is_an_error(
    fault: str, transport: str, ids: Identities
) -> None:
    async def main(port: int) -> None:
        context = hs.ssl_context(ca=ids.ca) if transport == "tls" else None
        where: dict[str, Any] = {"host": "127.0.0.1", "port": port, "user": "u", "password": "p"}
        with hs.timeout(LATE):
            conn = await aiomysql.connect(**where, ssl=context)
            with pytest.raises(pymysql.err.OperationalError):
                await conn.query(fault)
            conn.close()

    with MySQLPeer(server_context(ids)) as peer:
        hsloop.run(main(peer.port))
        nothing_open()


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_aiomysql_connects_into_a_black_hole_and_ends(end: str) -> None:
    with BlackHole() as hole:
        _ends("black hole", hole.address[1], end)


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_a_stalled_handshake_of_aiomysql_ends(end: str, ids: Identities) -> None:
    with PeerScript([("send", GREETING_PACKET), ("recv", 36), ("stall",)], check=False) as peer:
        _ends("TLS stall", int(peer.address[1]), end, hs.ssl_context(ca=ids.ca))


def _dead_dns(end: str) -> bool:
    """Runs inside of a namespace."""
    from hardsock.lab.dns import DeadDNS, use_dns

    with DeadDNS():
        use_dns("127.0.0.1", timeout=30, attempts=5)
        _ends("dead DNS", 3306, end)
    return True


@pytest.mark.net
@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_a_dead_name_server_ends_for_aiomysql(end: str) -> None:
    with require(Namespace()) as namespace:
        assert namespace.run("adapters.test_mariadb:_dead_dns", end, timeout=120)
