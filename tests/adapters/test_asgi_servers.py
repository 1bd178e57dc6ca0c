"""uvicorn and hypercorn, unchanged, on hardsock's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import sys
from pathlib import Path
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import pytest
import uvicorn

import hardsock as hs
from adapters.asgi_app import application
from hardsock import deadline
from hardsock.adapters import httpx
from hardsock.aio import loop as hsloop
from hardsock.lab.servers.process import free_port, running, work_directory
from support.promptly import ends_soon
from support.require import need_module
from support.tls import Identities

pytestmark = pytest.mark.usefixtures("event_loops")

TESTS = Path(__file__).resolve().parents[1]
LATE = 60.0


# ---- uvicorn


@pytest.mark.parametrize("protocol", ["h11", "httptools"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_uvicorn_serves(protocol: str, tls: bool, ids: Identities) -> None:
    if protocol != "h11":
        need_module(protocol)
    settings: dict[str, Any] = {}
    if tls:
        settings = {
            "ssl_certfile": str(ids.server_identity.chain),
            "ssl_keyfile": str(ids.server_identity.key),
        }
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
        config = hs.TLSConfig(ca=ids.ca, alpn=("http/1.1",))
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


def test_uvicorn_by_its_command_line() -> None:
    """The line of docs/adapters.md, in a process of its own."""
    port = free_port()
    with work_directory() as directory:
        argv = [sys.executable, "-m", "uvicorn", "--loop", "hardsock.aio.loop:EventLoop"]
        argv += ["--port", str(port), "--app-dir", str(TESTS), "adapters.asgi_app:application"]
        with running("uvicorn", argv, port, directory) as server:
            conn = http.client.HTTPConnection(*server.address, timeout=LATE)
            with contextlib.closing(conn):
                conn.request("GET", "/loop")
                assert conn.getresponse().read() == b"hardsock.aio.loop"


# ---- hypercorn


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_hypercorn_serves(tls: bool, ids: Identities) -> None:
    config = hypercorn.config.Config()
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        config.bind = [f"fd://{bound.fileno()}"]
        config.errorlog = None
        if tls:
            config.certfile, config.keyfile = (
                str(ids.server_identity.chain),
                str(ids.server_identity.key),
            )

        async def main() -> None:
            end = asyncio.Event()
            serving = asyncio.create_task(
                hypercorn.asyncio.serve(application, config, shutdown_trigger=end.wait)  # type: ignore[arg-type]
            )
            url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
            trust = hs.TLSConfig(ca=ids.ca, alpn=("http/1.1",))
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
