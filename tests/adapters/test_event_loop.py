"""aiohttp, asyncpg and uvicorn, unchanged, on hardsock's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from adapters.web import Web
from hardsock import aio, deadline
from hardsock.aio import loop as hsloop
from hardsock.lab.dns import DeadDNS, use_dns
from hardsock.lab.namespaces import Namespace
from support.pki import make_authority
from support.require import need_module, require
from support.servers.databases import postgres

pytestmark = pytest.mark.usefixtures("event_loops")

SOON = 0.2
LATE = 60.0
AT_ONCE = 8.0


@dataclass
class Files:
    ca: Path
    certificate: Path
    key: Path
    serving: ssl.SSLContext
    asking: ssl.SSLContext


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    authority = make_authority(tmp_path_factory.mktemp("pki"), "ca")
    identity = authority.issue(file="server")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(identity.certificate, identity.key)
    asking = ssl.create_default_context(cafile=str(authority.certificate))
    return Files(authority.certificate, identity.certificate, identity.key, serving, asking)


@contextlib.contextmanager
def ends_soon() -> Any:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < AT_ONCE


# ---- aiohttp


@contextlib.asynccontextmanager
async def aiohttp_site(tmp_path: Path, tls: Any = None) -> AsyncIterator[str]:
    from aiohttp import web

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
def test_aiohttp_serves_and_asks(tls: bool, own: bool, files: Files, tmp_path: Path) -> None:
    need_module("aiohttp")
    import aiohttp

    (tmp_path / "file").write_bytes(b"file" * 100_000)

    async def main() -> None:
        async with aiohttp_site(tmp_path, files.serving if tls else None) as url:
            context = hs.ssl_context(ca=files.ca) if own else files.asking
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
    need_module("aiohttp")
    import aiohttp

    async def main(web: Web) -> None:
        async with aiohttp.ClientSession() as session:
            for path in ("/silent", "/drip"):
                with ends_soon(), pytest.raises(hs.DeadlineExceeded):
                    async with aio.timeout(SOON), session.get(web.url(path)) as response:
                        await response.read()
            async with session.get(web.url("/hello")) as response:
                assert await response.text() == "3"

    with Web() as web:
        hsloop.run(main(web))


def _dead_names() -> float:
    import aiohttp

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
    need_module("aiohttp")
    with require(Namespace()) as namespace:
        took = namespace.run(_dead_names, timeout=120)
        assert took < 60, "a resolver thread that is joined takes two and a half minutes"


# ---- asyncpg


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_asyncpg_asks_a_real_database(tls: bool, files: Files) -> None:
    need_module("asyncpg")
    import asyncpg

    async def main(server: Any) -> None:
        host, port = server.address
        settings: dict[str, Any] = {"host": "localhost" if tls else host, "port": port}
        settings["ssl"] = files.asking if tls else False
        conn = await asyncpg.connect(user="postgres", database="postgres", **settings)
        assert await conn.fetchval("SELECT $1::int + 1", 41) == 42
        rows = await conn.fetch("SELECT n, repeat('x', 1000) FROM generate_series(1, 5000) n")
        assert len(rows) == 5000
        with ends_soon(), pytest.raises(hs.DeadlineExceeded):
            async with aio.timeout(SOON):
                await conn.execute("SELECT pg_sleep(60)")
        # asyncpg cancels the query on the server, and the connection stays usable.
        assert await conn.fetchval("SELECT 1") == 1
        with hs.timeout(SOON), pytest.raises(asyncpg.QueryCanceledError):
            await conn.execute(deadline_text())
            with hs.shield(LATE):
                await conn.execute("SELECT pg_sleep(60)")
        await conn.close()
        async with asyncpg.create_pool(
            user="postgres", database="postgres", min_size=2, max_size=4, **settings
        ) as pool:
            numbers = await asyncio.gather(*(pool.fetchval("SELECT $1::int", n) for n in range(50)))
        assert numbers == list(range(50))

    certificate = (files.certificate, files.key) if tls else None
    with require(postgres(certificate=certificate)) as server:
        hsloop.run(main(server))


def deadline_text() -> str:
    from hardsock.deadline.postgres import statement_timeout

    return statement_timeout()


# ---- uvicorn


async def application(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/wait":
        await asyncio.get_running_loop().create_future()
    text = f"{scope['client'][0]} {len(body)}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text})


@pytest.mark.parametrize("protocol", ["h11", "httptools"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_uvicorn_serves(protocol: str, tls: bool, files: Files) -> None:
    need_module("uvicorn")
    need_module("httpx")
    if protocol != "h11":
        need_module(protocol)
    import uvicorn

    from hardsock.adapters import httpx

    settings: dict[str, Any] = {}
    if tls:
        settings = {"ssl_certfile": str(files.certificate), "ssl_keyfile": str(files.key)}
    config = uvicorn.Config(
        deadline.asgi(application),
        port=0,
        loop="hardsock.aio.loop:EventLoop",
        http=protocol,  # type: ignore[arg-type]
        log_level="error",
        log_config=None,
        lifespan="off",
        **settings,
    )
    assert config.get_loop_factory() is hsloop.EventLoop
    server = uvicorn.Server(config)

    async def main() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.001)  # uvicorn has nothing to wait on.
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        config = hs.TLSConfig(ca=files.ca, alpn=("http/1.1",))
        async with httpx.async_client(total=LATE, tls=config, trust_env=False) as client:
            for size in (0, 1, 1_000_000):
                answer = await client.post(url, content=b"x" * size)
                assert answer.text == f"127.0.0.1 {size}"
            answers = await asyncio.gather(*(client.get(url) for _ in range(50)))
            assert {answer.text for answer in answers} == {"127.0.0.1 0"}
            with ends_soon():
                late = await client.get(f"{url}/wait", headers={"x-request-timeout-ms": "100"})
            assert late.status_code == 504
        server.should_exit = True
        await serving

    before = len(hs.open_connections())
    hsloop.run(main())
    assert len(hs.open_connections()) == before


# ---- hypercorn


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_hypercorn_serves(tls: bool, files: Files) -> None:
    need_module("hypercorn")
    need_module("httpx")
    import hypercorn.asyncio
    import hypercorn.config

    from hardsock.adapters import httpx

    config = hypercorn.config.Config()
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        config.bind = [f"fd://{bound.fileno()}"]
        config.errorlog = None
        if tls:
            config.certfile, config.keyfile = str(files.certificate), str(files.key)

        async def main() -> None:
            end = asyncio.Event()
            serving = asyncio.create_task(
                hypercorn.asyncio.serve(application, config, shutdown_trigger=end.wait)  # type: ignore[arg-type]
            )
            url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
            trust = hs.TLSConfig(ca=files.ca, alpn=("http/1.1",))
            async with httpx.async_client(total=LATE, tls=trust, trust_env=False) as client:
                for size in (0, 1, 1_000_000):
                    answer = await client.post(url, content=b"x" * size)
                    assert answer.text == f"127.0.0.1 {size}"
                answers = await asyncio.gather(*(client.get(url) for _ in range(50)))
                assert {answer.text for answer in answers} == {"127.0.0.1 0"}
                assert any(one.how == "accept" for one in hs.open_connections())
            end.set()
            await serving

        before = len(hs.open_connections())
        hsloop.run(main())
        assert len(hs.open_connections()) == before
        bound.detach()  # hypercorn has closed it.
