"""How long behind its deadline a call of an adapter ends, for each kind of wait and each client."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import hardsock as hs
from hardsock.lab import BlackHole, PeerScript

DEADLINE = 0.5
ALLOWED = 0.05 * DEADLINE + 0.05

Call = Callable[[], object]
Ask = Callable[[str, tuple[str, int]], object]
"""Ask a server, of a scheme and at an address, what it never answers."""


def lateness(call: Call, tries: int) -> str:
    """How long after the deadline it has raised, at the most.

    Raises:
        RuntimeError: The call was answered, or something else than the deadline has ended it.
    """
    worst = 0.0
    for _ in range(tries):
        began = time.monotonic()
        try:
            call()
        except Exception as exc:
            late = time.monotonic() - began - DEADLINE
            if not any(isinstance(one, hs.DeadlineExceeded) for one in _causes(exc)):
                raise RuntimeError("this is no end by the deadline") from exc
            worst = max(worst, late)
        else:
            raise RuntimeError("it was answered")
    verdict = "" if worst <= ALLOWED else f"  MISSED: more than {ALLOWED * 1000:.0f} ms"
    return f"{worst * 1000:6.1f} ms late{verdict}"


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        for inner in exc.args:  # urllib3 puts the cause in there.
            if isinstance(inner, BaseException):
                yield from _causes(inner)
        exc = exc.__cause__ or exc.__context__


# ---- clients


def _url(scheme: str, address: tuple[str, int]) -> str:
    return "{}://{}:{}/".format(scheme, *address)


def _requests(opened: ExitStack) -> Ask:
    import hardsock.adapters.requests

    session = hardsock.adapters.requests.session(DEADLINE)
    opened.callback(session.close)
    session.trust_env = False
    return lambda scheme, address: session.get(_url(scheme, address))


def _urllib3(opened: ExitStack) -> Ask:
    import hardsock.adapters.urllib3

    manager = hardsock.adapters.urllib3.PoolManager(total=DEADLINE, retries=False)
    return lambda scheme, address: manager.request("GET", _url(scheme, address))


def _http_client(opened: ExitStack) -> Ask:
    from hardsock.adapters.http import HTTPConnection, HTTPSConnection

    context = hs.ssl_context()

    def ask(scheme: str, address: tuple[str, int]) -> object:
        made = (
            HTTPConnection(*address, total=DEADLINE)
            if scheme == "http"
            else HTTPSConnection(*address, total=DEADLINE, context=context)
        )
        with contextlib.closing(made) as conn:
            conn.request("GET", "/")
            return conn.getresponse().read()

    return ask


def _httpx(opened: ExitStack) -> Ask:
    import hardsock.adapters.httpx

    client = hardsock.adapters.httpx.client(total=DEADLINE, trust_env=False, timeout=None)
    opened.callback(client.close)
    return lambda scheme, address: client.get(_url(scheme, address))


def _httpx_async(opened: ExitStack) -> Ask:
    import hardsock.adapters.httpx

    async def make() -> Any:
        return hardsock.adapters.httpx.async_client(total=DEADLINE, trust_env=False, timeout=None)

    async def ask(client: Any, url: str) -> object:
        return await client.get(url)

    loop = asyncio.new_event_loop()
    opened.callback(loop.close)
    client = loop.run_until_complete(make())
    opened.callback(lambda: loop.run_until_complete(client.aclose()))
    return lambda scheme, address: loop.run_until_complete(ask(client, _url(scheme, address)))


def _aiohttp(opened: ExitStack) -> Ask:
    import aiohttp

    from hardsock.aio import loop

    async def ask(url: str) -> object:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout()) as session:
            with hs.timeout(DEADLINE):
                async with session.get(url) as answer:
                    return await answer.read()

    return lambda scheme, address: loop.run(ask(_url(scheme, address)))


_PATIENT: dict[str, Any] = {"socket_timeout": 60, "socket_connect_timeout": 60}


def _redis(opened: ExitStack) -> Ask:
    import hardsock.adapters.redis

    def ask(scheme: str, address: tuple[str, int]) -> object:
        url = _url(scheme, address)
        with hardsock.adapters.redis.client(url, total=DEADLINE, **_PATIENT) as client:
            return client.get("key")

    return ask


def _redis_async(opened: ExitStack) -> Ask:
    import hardsock.adapters.redis

    async def ask(url: str) -> object:
        client = hardsock.adapters.redis.async_client(url, total=DEADLINE, **_PATIENT)
        try:
            return await client.get("key")
        finally:
            await client.aclose()

    return lambda scheme, address: asyncio.run(ask(_url(scheme, address)))


def _psycopg(opened: ExitStack) -> Ask:
    import hardsock.adapters.psycopg

    def ask(_scheme: str, address: tuple[str, int]) -> object:
        info = "host={} port={} user=u dbname=d sslmode=require".format(*address)
        with hs.timeout(DEADLINE):
            return hardsock.adapters.psycopg.connect(info)

    return ask


def _pymysql(opened: ExitStack) -> Ask:
    import hardsock.adapters.pymysql

    def ask(_scheme: str, address: tuple[str, int]) -> object:
        host, port = address
        with hs.timeout(DEADLINE):
            return hardsock.adapters.pymysql.connect(host=host, port=port, user="u", password="p")

    return ask


# ---- waits


@dataclass(frozen=True)
class Kind:
    """What servers of a protocol do that never answer."""

    schemes: tuple[str, str]
    """Without TLS, and with it."""
    silent: tuple[Any, ...]
    """Steps of a `PeerScript`."""
    drip: tuple[Any, ...] = ()
    tls: bool = True


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
_ASKED = ("recv_until", b"\r\n\r\n")
WEB = Kind(
    ("http", "https"),
    (_ASKED, ("stall",)),
    (_ASKED, ("send", _HEAD), ("drip", b"x" * 100000, 0.01)),
)
REDIS = Kind(
    ("redis", "rediss"),
    (("recv", 1), ("stall",)),
    (("recv", 1), ("drip", b"$60000\r\n" + b"x" * 60000, 0.01)),
)
DATABASE = Kind(("", ""), (("stall",),), tls=False)

CLIENTS: dict[str, tuple[Callable[[ExitStack], Ask], Kind]] = {
    "requests": (_requests, WEB),
    "urllib3": (_urllib3, WEB),
    "http.client": (_http_client, WEB),
    "httpx": (_httpx, WEB),
    "httpx, asyncio": (_httpx_async, WEB),
    "aiohttp": (_aiohttp, WEB),
    "redis-py": (_redis, REDIS),
    "redis-py, asyncio": (_redis_async, REDIS),
    "psycopg": (_psycopg, DATABASE),
    "PyMySQL": (_pymysql, DATABASE),
}


def waits() -> Iterator[tuple[str, Callable[[ExitStack], Call]]]:
    """Their names, and what makes the call: one server at a time, as each try is a connection."""
    for client, (make, kind) in CLIENTS.items():
        yield f"{client}, connect black hole", _into_a_hole(make, kind)
        yield f"{client}, silent server", _to_a_peer(make, kind.schemes[0], kind.silent)
        if kind.drip:
            yield f"{client}, dripping answer", _to_a_peer(make, kind.schemes[0], kind.drip)
        if kind.tls:
            yield f"{client}, TLS stall", _to_a_peer(make, kind.schemes[1], (("stall",),))


def _into_a_hole(make: Callable[[ExitStack], Ask], kind: Kind) -> Callable[[ExitStack], Call]:
    def made(opened: ExitStack) -> Call:
        ask, hole = make(opened), opened.enter_context(BlackHole())
        return lambda: ask(kind.schemes[0], hole.address)

    return made


def _to_a_peer(
    make: Callable[[ExitStack], Ask], scheme: str, script: tuple[Any, ...]
) -> Callable[[ExitStack], Call]:
    def made(opened: ExitStack) -> Call:
        ask = make(opened)
        peer = opened.enter_context(
            PeerScript(list(script), connections=100, check=False, timeout=1)
        )
        return lambda: ask(scheme, peer.address)

    return made
