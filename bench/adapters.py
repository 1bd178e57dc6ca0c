"""`python -m bench.adapters`: what the adapters cost, and how near their deadline they end.

Each work is a pair of clients, the plain library's and the adapter's, of one thread, which ask nginx,
or redis-server, in slices that alternate. "kept": one connection for all requests. "new": a connection
for each. Two ratios, ours to plain's, are the medians of the rounds' ratios: of the requests per second,
and of the CPU time of the thread per request, which says more on a machine with other work to do.
An asynchronous client runs on the event loop that is named.

Lateness is the time behind a deadline of 0.5 s at which a call has raised, the largest of a few tries.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import redis
import redis.asyncio
import requests
import urllib3

import hardsock as hs
import hardsock.adapters.http
import hardsock.adapters.httpx
import hardsock.adapters.redis
import hardsock.adapters.requests
import hardsock.adapters.urllib3
from hardsock.lab import BlackHole, PeerScript
from hardsock.lab.certificates import make_certificate
from hardsock.lab.servers import nginx, redis_server

DEADLINE = 0.5
ALLOWED = 0.05 * DEADLINE + 0.05
TOTAL = 30.0  # seconds; no measured call ever comes near it
NOT_SLOWER = 0.97  # of plain's rate, and 1 / that of its CPU time: a round's noise
CLOSE = {"Connection": "close"}

Call = Callable[[], object]


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


def measure(call: Call, seconds: float) -> Slice:
    """Call for so many seconds."""
    count, began, cpu = 0, time.perf_counter(), time.thread_time()
    while (took := time.perf_counter() - began) < seconds:
        for _ in range(10):
            call()
        count += 10
    return Slice(count, took, time.thread_time() - cpu)


class Awaited:
    """A side that is awaited, on an event loop of its own."""

    def __init__(self, opened: ExitStack, make: Callable[[], Any], url: str) -> None:
        self._loop = asyncio.new_event_loop()
        opened.callback(self._loop.close)
        self._client = self._loop.run_until_complete(self._made(make))
        opened.callback(lambda: self._loop.run_until_complete(self._client.aclose()))
        self._url = url

    @staticmethod
    async def _made(make: Callable[[], Any]) -> Any:
        return make()

    def slice(self, call: Callable[[Any], Awaitable[object]], seconds: float) -> Slice:
        return self._loop.run_until_complete(self._slice(call, seconds))

    async def _slice(self, call: Callable[[Any], Awaitable[object]], seconds: float) -> Slice:
        count, began, cpu = 0, time.perf_counter(), time.thread_time()
        while (took := time.perf_counter() - began) < seconds:
            for _ in range(10):
                await call(self._client)
            count += 10
        return Slice(count, took, time.thread_time() - cpu)


Side = Callable[[float], Slice]


def blocking(call: Call) -> Side:
    return lambda seconds: measure(call, seconds)


def awaited(
    opened: ExitStack, make: Callable[[], Any], call: Callable[[Any], Awaitable[object]]
) -> Side:
    side = Awaited(opened, make, "")
    return lambda seconds: side.slice(call, seconds)


@dataclass(frozen=True)
class Where:
    """Servers that are there, and who signed their certificate."""

    http: str
    https: str
    redis: str
    ca: str

    def url(self, scheme: str) -> str:
        return self.http if scheme == "http" else self.https


# ---- the works: each makes (plain, ours)


def of_requests(opened: ExitStack, where: Where, scheme: str, new: bool) -> tuple[Side, Side]:
    sessions = (requests.Session(), hardsock.adapters.requests.session(total=TOTAL))
    for session in sessions:
        session.trust_env, session.verify = False, where.ca
        if new:
            session.headers.update(CLOSE)
        opened.callback(session.close)
    url = where.url(scheme)
    plain, ours = (blocking(lambda s=s: s.get(url).content) for s in sessions)  # type: ignore[misc]
    return plain, ours


def of_urllib3(opened: ExitStack, where: Where, scheme: str, new: bool) -> tuple[Side, Side]:
    managers: tuple[Any, ...] = (
        urllib3.PoolManager(ca_certs=where.ca),
        hardsock.adapters.urllib3.PoolManager(total=TOTAL, ca_certs=where.ca),
    )
    url, headers = where.url(scheme), CLOSE if new else {}
    plain, ours = (
        blocking(lambda m=m: m.request("GET", url, headers=headers).data)  # type: ignore[misc]
        for m in managers
    )
    return plain, ours


def of_httpx(opened: ExitStack, where: Where, scheme: str, new: bool) -> tuple[Side, Side]:
    headers, url = CLOSE if new else {}, where.url(scheme)
    clients = (
        httpx.Client(
            headers=headers,
            trust_env=False,
            timeout=TOTAL,
            verify=ssl.create_default_context(cafile=where.ca),
        ),
        hardsock.adapters.httpx.client(
            total=TOTAL, headers=headers, trust_env=False, tls=hs.TLSConfig(ca=where.ca)
        ),
    )
    for client in clients:
        opened.callback(client.close)
    plain, ours = (blocking(lambda c=c: c.get(url).content) for c in clients)  # type: ignore[misc]
    return plain, ours


def of_httpx_async(opened: ExitStack, where: Where, scheme: str, new: bool) -> tuple[Side, Side]:
    headers, url = CLOSE if new else {}, where.url(scheme)

    def plain() -> Any:
        context = ssl.create_default_context(cafile=where.ca)
        return httpx.AsyncClient(headers=headers, trust_env=False, timeout=TOTAL, verify=context)

    def ours() -> Any:
        return hardsock.adapters.httpx.async_client(
            total=TOTAL, headers=headers, trust_env=False, tls=hs.TLSConfig(ca=where.ca)
        )

    async def call(client: Any) -> object:
        return (await client.get(url)).content

    return awaited(opened, plain, call), awaited(opened, ours, call)


def of_http_client(opened: ExitStack, where: Where, scheme: str, new: bool) -> tuple[Side, Side]:
    import http.client

    host, _, path = where.url(scheme).partition("://")[2].partition("/")
    make: tuple[Callable[[], Any], ...]
    if scheme == "http":
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


def of_redis(opened: ExitStack, where: Where, scheme: str, new: bool) -> tuple[Side, Side]:
    clients: tuple[Any, ...] = (
        redis.Redis.from_url(where.redis),
        hardsock.adapters.redis.client(where.redis, total=TOTAL),
    )
    for client in clients:
        opened.callback(client.close)

    def side(client: Any) -> Side:
        def call() -> object:
            found = client.get("key")
            if new:
                client.connection_pool.disconnect()
            return found

        return blocking(call)

    return side(clients[0]), side(clients[1])


def of_redis_async(opened: ExitStack, where: Where, scheme: str, new: bool) -> tuple[Side, Side]:
    async def call(client: Any) -> object:
        found: object = await client.get("key")
        if new:
            await client.connection_pool.disconnect()
        return found

    return (
        awaited(opened, lambda: redis.asyncio.Redis.from_url(where.redis), call),
        awaited(
            opened, lambda: hardsock.adapters.redis.async_client(where.redis, total=TOTAL), call
        ),
    )


WEB = {
    "requests": of_requests,
    "urllib3": of_urllib3,
    "httpx": of_httpx,
    "httpx, asyncio": of_httpx_async,
    "http.client": of_http_client,
}
DATABASES = {"redis-py": of_redis, "redis-py, asyncio": of_redis_async}


def works() -> Iterator[tuple[str, Callable[[ExitStack, Where], tuple[Side, Side]]]]:
    """Their names, and how each is made."""
    for schemes, found in ((("http", "https"), WEB), (("",), DATABASES)):
        for library, make in found.items():
            for scheme in schemes:
                for new in (False, True):
                    name = ", ".join(filter(None, (library, scheme, "new" if new else "kept")))
                    yield name, lambda o, w, m=make, s=scheme, n=new: m(o, w, s, n)  # type: ignore[misc]


def compare(plain: Side, ours: Side, options: Any) -> str:
    """The ratios, ours to plain."""
    for side in (plain, ours):
        side(options.seconds / 10)
    rates, cpus, found = [], [], []
    for number in range(options.rounds):
        order = (plain, ours) if number % 2 else (ours, plain)
        done = {id(side): side(options.seconds) for side in order}
        mine, theirs = done[id(ours)], done[id(plain)]
        rates.append(mine.rate / theirs.rate)
        cpus.append(mine.cpu_per_call / theirs.cpu_per_call)
        found.append(mine)
    rate, cpu = statistics.median(rates), statistics.median(cpus)
    verdict = "" if rate >= NOT_SLOWER and cpu <= 1 / NOT_SLOWER else "  SLOWER"
    return (
        f"rate {rate:.2f} of plain's ({statistics.median(one.rate for one in found):,.0f}/s), "
        f"CPU {cpu:.2f} ({statistics.median(one.cpu_per_call for one in found) * 1e6:,.0f} us)"
        f"{verdict}"
    )


def run_works(options: Any) -> None:
    with ExitStack() as opened:
        directory = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        certificate = make_certificate(directory)
        plain = opened.enter_context(nginx())
        tls = opened.enter_context(nginx(certificate=certificate))
        store = opened.enter_context(redis_server())
        where = Where(
            http=f"http://127.0.0.1:{plain.port}/hello.txt",
            https=f"https://127.0.0.1:{tls.port}/hello.txt",
            redis=f"redis://127.0.0.1:{store.port}",
            ca=str(certificate[0]),
        )
        for name, make in works():
            if options.only in name:
                with ExitStack() as sides:
                    print(f"{name:<26} {compare(*make(sides, where), options)}", flush=True)


# ---- lateness


def lateness(call: Call, tries: int) -> str:
    """How long after the deadline it has raised, at the most."""
    worst = 0.0
    for _ in range(tries):
        began = time.monotonic()
        try:
            call()
        except Exception:
            worst = max(worst, time.monotonic() - began - DEADLINE)
    verdict = "" if worst <= ALLOWED else f"  MISSED: more than {ALLOWED * 1000:.0f} ms"
    return f"{worst * 1000:6.1f} ms late{verdict}"


def waits(opened: ExitStack) -> dict[str, Call]:
    """A request for each kind of wait."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    ask = ("recv_until", b"\r\n\r\n")
    session = hardsock.adapters.requests.session(DEADLINE)
    session.trust_env = False
    opened.callback(session.close)
    found: dict[str, Call] = {}
    hole = opened.enter_context(BlackHole())
    found["connect black hole"] = lambda: session.get("http://{}:{}/".format(*hole.address))
    for name, scheme, script in (
        ("silent server", "http", [ask, ("stall",)]),
        ("dripping body", "http", [ask, ("send", head), ("drip", b"x" * 100000, 0.01)]),
        ("TLS stall", "https", [("stall",)]),
    ):
        peer = opened.enter_context(PeerScript(script, connections=100, check=False, timeout=1))
        url = "{}://{}:{}/".format(scheme, *peer.address)
        found[name] = lambda u=url: session.get(u)  # type: ignore[misc]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.adapters", description=__doc__)
    parser.add_argument("--only", default="", help="works with this in their name")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a slice of one side")
    parser.add_argument("--tries", type=int, default=3, help="for each wait; 0: none")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, hardsock {hs.__version__}")
    run_works(options)
    for name in ("connect black hole", "silent server", "dripping body", "TLS stall"):
        if options.tries:
            with ExitStack() as opened:  # one server at a time: each try is a connection
                print(f"{name:<26} {lateness(waits(opened)[name], options.tries)}", flush=True)


if __name__ == "__main__":
    main()
