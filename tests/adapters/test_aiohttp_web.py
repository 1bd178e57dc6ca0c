"""aiohttp's server, and its client beside it, unchanged, on hardsock's event loop."""

from __future__ import annotations

import contextlib
import io
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

import hardsock as hs
from adapters.http_contract import server_context
from adapters.web import Web
from hardsock import aio
from hardsock.aio import loop as hsloop
from hardsock.lab.dns import DeadDNS, use_dns
from hardsock.lab.namespaces import Namespace
from support.promptly import ends_soon
from support.require import require
from support.tls import Identities

pytestmark = pytest.mark.usefixtures("event_loops")

SOON = 0.2
LATE = 60.0


@contextlib.asynccontextmanager
async def aiohttp_site(tmp_path: Path, tls: Any = None) -> AsyncIterator[str]:
    async def name(request: Any) -> Any:
        return web.Response(text=request.match_info["name"])

    async def echo(request: Any) -> Any:
        return web.Response(body=await request.read())

    async def file(_request: Any) -> Any:
        return web.FileResponse(tmp_path / "file")

    async def socket(request: Any) -> Any:
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        async for message in answer:
            await answer.send_str(message.data.upper())
        return answer

    app = web.Application(client_max_size=1 << 30)
    app.add_routes(
        [
            web.get("/name/{name}", name),
            web.post("/echo", echo),
            web.get("/file", file),
            web.get("/socket", socket),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        yield f"{'http' if tls is None else 'https'}://localhost:{port}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("tls", "own"),
    [(False, False), (True, False), (True, True)],
    ids=["plain", "tls", "tls of hardsock"],
)
def test_aiohttp_serves_and_asks(tls: bool, own: bool, ids: Identities, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"file" * 100_000)

    async def main() -> None:
        async with aiohttp_site(tmp_path, server_context(ids) if tls else None) as url:
            context = (
                hs.ssl_context(ca=ids.ca) if own else ssl.create_default_context(cafile=ids.ca)
            )
            connector = aiohttp.TCPConnector(ssl=context if tls else True)
            async with aiohttp.ClientSession(connector=connector) as session:
                for number in range(20):
                    async with session.get(f"{url}/name/{number}") as response:
                        assert await response.text() == str(number)
                assert {one.how for one in hs.open_connections()} >= {"listen", "accept"}
                body = bytes(range(256)) * 20_000
                async with session.post(f"{url}/echo", data=io.BytesIO(body)) as response:
                    assert await response.read() == body
                async with session.get(f"{url}/file") as response:
                    assert await response.read() == b"file" * 100_000
                async with session.ws_connect(f"{url}/socket") as socket:
                    await socket.send_str("hello")
                    assert (await socket.receive()).data == "HELLO"

    before = len(hs.open_connections())
    hsloop.run(main())
    assert len(hs.open_connections()) == before


def test_a_scope_ends_what_aiohttp_waits_for() -> None:
    async def main(web: Web) -> None:
        async with aiohttp.ClientSession() as session:
            for path in ("/silent", "/drip"):
                with ends_soon(), pytest.raises(hs.DeadlineExceeded):
                    async with aio.timeout(SOON), session.get(web.url(path)) as response:
                        await response.read()
            async with session.get(web.url("/hello")) as response:
                assert await response.read() == b"3"

    with Web() as web:
        hsloop.run(main(web))


def _dead_names() -> float:
    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(hs.DeadlineExceeded), hs.timeout(0.3):
                await session.get("http://nobody.test/")

    with DeadDNS("127.0.0.1", 53):
        use_dns("127.0.0.1", timeout=30, attempts=5)
        began = time.monotonic()
        hsloop.run(main())
        return time.monotonic() - began


@pytest.mark.net
def test_a_dead_name_server_does_not_hold_up_the_end_of_the_loop() -> None:
    with require(Namespace()) as namespace:
        took = namespace.run(_dead_names, timeout=120)
        assert took < 60, "a resolver thread that is joined takes two and a half minutes"
