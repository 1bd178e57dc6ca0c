"""What asyncpg waits for on hardsock's event loop ends, and what breaks off is an error."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

from support.require import need_module

need_module("asyncpg")

import asyncpg

import hardsock as hs
from adapters.http_contract import SHORT, causes, nothing_open, server_context
from adapters.postgres_peer import PostgresPeer
from hardsock.aio import loop as hsloop
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.peers import PeerScript
from support.require import require
from support.tls import Identities

pytestmark = pytest.mark.usefixtures("event_loops")

LATE = 60.0
_ENDED = {"own": asyncio.TimeoutError, "scope": hs.DeadlineExceeded, "cancel": hs.Cancelled}


def _where(port: int, context: Any) -> dict[str, Any]:
    """asyncpg's own limits are not the tests'."""
    settings = {"host": "127.0.0.1", "port": port, "user": "u", "password": "p", "database": "d"}
    return {**settings, "ssl": context or False, "timeout": 600}


@contextlib.asynccontextmanager
async def _connected(port: int, context: Any) -> Any:
    conn = await asyncpg.connect(**_where(port, context))
    try:
        yield conn
    finally:
        conn.terminate()
        await asyncio.sleep(0)


async def _use(wait: str, port: int, context: Any, token: hs.CancelToken, end: str) -> None:
    """Wait under *token*, whose time begins when there is something to wait for."""

    def begin() -> None:
        if end == "scope":
            token.set_timeout(SHORT)
        elif end == "cancel":
            thread.start()

    own = SHORT if end == "own" else None
    thread = threading.Timer(SHORT, token.cancel, ("stop button",))
    try:
        if wait in ("silent", "drip"):
            async with _connected(port, context) as conn:
                with hs.scope(token):
                    begin()
                    await conn.execute("stall" if wait == "silent" else "drip", timeout=own)
        elif wait == "queue":
            pool = await asyncpg.create_pool(**_where(port, context), min_size=1, max_size=1)
            try:
                await pool.acquire()
                with hs.scope(token):
                    begin()
                    await pool.acquire(timeout=own)
            finally:
                pool.terminate()
                await asyncio.sleep(0)
        else:
            where = _where(port, context)
            where["host"] = "nobody.test" if wait == "dead DNS" else where["host"]
            where["timeout"] = own or where["timeout"]
            with hs.scope(token):
                begin()
                await asyncpg.connect(**where)
    finally:
        if thread.ident is not None:
            await asyncio.to_thread(thread.join)


def _ends(wait: str, port: int, end: str, context: Any = None) -> None:
    token = hs.CancelToken()
    with pytest.raises(Exception) as ended:
        hsloop.run(_use(wait, port, context, token, end))
    found = [type(one) for one in causes(ended.value)]
    assert _ENDED[end] in found, found
    del ended
    nothing_open()


@pytest.mark.parametrize("end", ["own", "scope", "cancel"])
@pytest.mark.parametrize("transport", ["plain", "tls"])
@pytest.mark.parametrize("wait", ["silent", "drip", "queue"])
def test_what_asyncpg_waits_for_ends(wait: str, transport: str, end: str, ids: Identities) -> None:
    context = hs.ssl_context(ca=ids.ca) if transport == "tls" else None
    with PostgresPeer(server_context(ids)) as peer:
        _ends(wait, peer.port, end, context)
        assert peer.secured == (transport == "tls")


@pytest.mark.parametrize("end", ["own", "scope", "cancel"])
def test_asyncpg_connects_into_a_black_hole_and_ends(end: str) -> None:
    with BlackHole() as hole:
        _ends("black hole", hole.address[1], end)


@pytest.mark.parametrize("end", ["own", "scope", "cancel"])
def test_a_stalled_handshake_of_asyncpg_ends(end: str, ids: Identities) -> None:
    with PeerScript([("recv", 8), ("send", b"S"), ("stall",)], check=False) as peer:
        _ends("TLS stall", int(peer.address[1]), end, hs.ssl_context(ca=ids.ca))


def _dead_dns(end: str) -> bool:
    """Runs inside of a namespace."""
    from hardsock.lab.dns import DeadDNS, use_dns

    with DeadDNS():
        use_dns("127.0.0.1", timeout=30, attempts=5)
        _ends("dead DNS", 5432, end)
    return True


@pytest.mark.net
@pytest.mark.parametrize("end", ["own", "scope", "cancel"])
def test_a_dead_name_server_ends_for_asyncpg(end: str) -> None:
    with require(Namespace()) as namespace:
        assert namespace.run("adapters.test_asyncpg_waits:_dead_dns", end, timeout=120)


@pytest.mark.parametrize("transport", ["plain", "tls"])
@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_an_answer_to_asyncpg_that_breaks_off_is_an_error(
    fault: str, transport: str, ids: Identities
) -> None:
    async def main(port: int) -> None:
        context = hs.ssl_context(ca=ids.ca) if transport == "tls" else None
        with hs.timeout(LATE):
            async with _connected(port, context) as conn:
                with pytest.raises((asyncpg.ConnectionDoesNotExistError, ConnectionError)):
                    await conn.execute(fault)
                assert conn.is_closed()

    with PostgresPeer(server_context(ids)) as peer:
        hsloop.run(main(peer.port))
        nothing_open()
