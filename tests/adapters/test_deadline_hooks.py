"""Deadlines that travel by the hooks of other libraries, and what a server stops because of them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

import hardsock as hs
from adapters.web import Web
from hardsock import deadline
from support.require import need_module, require
from support.servers.databases import postgres

pytestmark = pytest.mark.usefixtures("event_loops")

SOON = 0.2
LATE = 60.0


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as server:
        yield server


def sent(web: Web, name: str = "x-request-timeout-ms") -> list[int]:
    """What the requests said, those that said something."""
    found = []
    for text in web.requests:
        for line in text.split("\r\n"):
            key, _, value = line.partition(":")
            if key.lower() == name:
                found.append(int(value))
    return found


# ---- clients


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_httpx_sends_what_is_left_with_each_redirect(library: str, web: Web) -> None:
    need_module(library)
    httpx: Any = importlib.import_module(library)
    from hardsock.deadline import httpx as hooks

    hook = hooks.hook(names=["x-request-timeout-ms", "grpc-timeout"])
    with httpx.Client(
        event_hooks={"request": [hook]}, follow_redirects=True, trust_env=False
    ) as client:
        client.get(web.url("/hello"))
        assert sent(web) == []
        with hs.timeout(LATE):
            client.get(web.url("/redirect/hello"))
        assert len(sent(web)) == 2
        assert sent(web)[1] <= sent(web)[0] <= LATE * 1000
        assert "grpc-timeout" in web.requests[-1].lower()
        with pytest.raises(hs.DeadlineExceeded), hs.timeout(0):
            client.get(web.url("/hello"))
        before = len(web.requests)
        with pytest.raises(httpx.TimeoutException), hs.timeout(SOON):  # A plain client.
            client.get(web.url("/silent"))
        assert len(web.requests) == before + 1

    async def main() -> None:
        hooked = {"request": [hooks.async_hook()]}
        async with httpx.AsyncClient(event_hooks=hooked, trust_env=False) as client:
            with hs.timeout(LATE):
                await client.get(web.url("/hello"))

    before = len(sent(web))
    asyncio.run(main())
    assert len(sent(web)) == before + 1


def test_requests_sends_what_is_left_with_each_redirect(web: Web) -> None:
    need_module("requests")
    import requests

    from hardsock.deadline.requests import carrying

    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", carrying(requests.adapters.HTTPAdapter)())
        session.get(web.url("/hello"))
        with hs.timeout(LATE):
            session.get(web.url("/redirect/hello"))
        assert len(sent(web)) == 2
        with pytest.raises(hs.DeadlineExceeded), hs.timeout(0):
            session.get(web.url("/hello"))


def test_aiohttp_sends_what_is_left_with_each_redirect(web: Web) -> None:
    need_module("aiohttp")
    import aiohttp

    from hardsock.deadline.aiohttp import trace_config

    async def main() -> None:
        async with aiohttp.ClientSession(trace_configs=[trace_config()]) as session:
            async with session.get(web.url("/hello")):
                pass
            with hs.timeout(LATE):
                async with session.get(web.url("/redirect/hello")) as response:
                    assert await response.text() == "1"
            with pytest.raises(hs.DeadlineExceeded), hs.timeout(0):
                await session.get(web.url("/hello"))
            with pytest.raises(hs.DeadlineExceeded), hs.timeout(SOON):
                await session.get(web.url("/silent"))

    asyncio.run(main())
    assert len(sent(web)) == 3


# ---- A -> B -> C


class Quiet(WSGIRequestHandler):
    def log_message(self, *_args: Any) -> None:
        pass


class Threaded(WSGIServer):
    request_queue_size = 64


@contextlib.contextmanager
def serving_wsgi(app: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, server_class=Threaded, handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
def test_two_services_stop_at_once_when_the_caller_gives_up(told: bool) -> None:
    """A waits for a moment; without the header C works on to a limit of its own."""
    need_module("httpx")
    from hardsock.adapters import httpx as adapted
    from hardsock.deadline import httpx as hooks

    ends: dict[str, str] = {}
    own_limit = LATE if told else 2.0
    ended = threading.Semaphore(0)
    begun = threading.Event()

    def c(_environ: Any, start_response: Any) -> list[bytes]:
        begun.set()
        token = hs.current()
        assert token is not None
        ends["C"] = "told" if token.wait(own_limit) else "worked for nobody"
        ended.release()
        token.check()
        start_response("200 OK", [("Content-Length", "0")])
        return []

    hook = {"request": [hooks.hook()]} if told else {}

    def b(_environ: Any, start_response: Any) -> list[bytes]:
        try:
            answer = inner.get(url_c)
        except hs.DeadlineExceeded:
            ends["B"] = "told"
            raise
        else:
            ends["B"] = "told" if answer.status_code == 504 else "worked for nobody"
        finally:
            ended.release()
        start_response(f"{answer.status_code} from C", [("Content-Length", "0")])
        return []

    with (
        serving_wsgi(deadline.wsgi(c, default=LATE)) as url_c,
        serving_wsgi(deadline.wsgi(b)) as url_b,
        adapted.client(event_hooks=hook, trust_env=False) as inner,
        adapted.client(event_hooks=hook, trust_env=False) as client,
    ):
        # What B was told is rounded down: its 504 may come a moment before A gives up.
        for seconds in (0.5, 5, 20):  # On a busy machine C may not even have been asked.
            with contextlib.suppress(hs.DeadlineExceeded), hs.timeout(seconds):
                # Where C was not told it works on, and its 200 may be in time where nobody ran for a while.
                assert client.get(url_b).status_code in ((504,) if told else (504, 200))
            if begun.is_set():
                break
        assert ended.acquire(timeout=LATE / 2), "B and C are still at it"
        assert ended.acquire(timeout=LATE / 2), "B or C is still at it"
    assert ends == dict.fromkeys("BC", "told" if told else "worked for nobody")


# ---- gRPC, in processes of its own: it keeps threads and event loops for life


@pytest.mark.parametrize("scene", ["calls", "stream", "awaited"])
def test_grpc_carries_deadlines_both_ways(scene: str) -> None:
    need_module("grpc")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("grpc_scenes.py")), scene],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "as it should be\n"), done.stderr


# ---- PostgreSQL


def test_postgresql_stops_a_statement_when_the_scope_ends() -> None:
    need_module("psycopg")
    import psycopg

    from hardsock.deadline.postgres import limited, statement_timeout

    with require(postgres()) as server:
        host, port = server.address
        conn = psycopg.connect(host=host, port=port, user="postgres", autocommit=True)
        with conn:

            def limit() -> str:
                row = conn.execute("SHOW statement_timeout").fetchone()
                assert row is not None
                return str(row[0])

            for seconds in (SOON, 5, 20):  # A busy machine may have none left to ask with.
                with contextlib.suppress(hs.DeadlineExceeded), hs.timeout(seconds):
                    conn.execute(statement_timeout())
                    with pytest.raises(psycopg.errors.QueryCanceled):
                        conn.execute("SELECT pg_sleep(600)")
                    break
            else:
                pytest.fail("no deadline left time to ask with")
            assert limit() != "0"
            conn.execute(statement_timeout())  # No deadline here: back to the default.
            assert limit() == "0"
            with hs.timeout(LATE), limited(conn) as bounded:
                bounded.execute("SELECT 1")
                first = limit()
            assert first.endswith("ms")
            assert limit() == "0"
            with conn.transaction():
                conn.execute(statement_timeout(hs.CancelToken(LATE), local=True))
                assert limit() != "0"
            assert limit() == "0"
            with pytest.raises(hs.DeadlineExceeded), hs.timeout(SOON):
                conn.execute(statement_timeout(spend=SOON))


def test_the_text_for_postgresql_is_never_zero_and_never_too_large() -> None:
    from hardsock.deadline.postgres import statement_timeout

    assert statement_timeout() == "SET statement_timeout TO DEFAULT"
    assert statement_timeout(local=True) == "SET LOCAL statement_timeout TO DEFAULT"
    assert statement_timeout(hs.CancelToken(5e9)) == f"SET statement_timeout = {2**31 - 1}"
    with pytest.raises(hs.DeadlineExceeded):
        statement_timeout(hs.CancelToken(0), floor=0)
