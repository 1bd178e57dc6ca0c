"""`python -m bench.adapters`: what the adapters cost, and how near their deadline they end.

Rates are of one thread with one keep-alive connection to nginx, or to redis-server, in rounds that
alternate between the plain library and the adapter; the ratio is the median of the rounds' ratios.
Lateness is the time behind a deadline of 0.5 s at which a call has raised, the largest of a few tries.
On a machine with other work to do neither says much: see the load that is printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
import requests
import urllib3

import hardsock as hs
import hardsock.adapters.redis
import hardsock.adapters.requests
import hardsock.adapters.urllib3
from hardsock.lab import BlackHole, PeerScript
from hardsock.lab.certificates import make_certificate
from hardsock.lab.servers import nginx, redis_server

DEADLINE = 0.5
ALLOWED = 0.05 * DEADLINE + 0.05


def rate(call: Callable[[], object], seconds: float) -> float:
    """Calls for each second of CPU and waiting, for *seconds*."""
    count, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        for _ in range(10):
            call()
        count += 10
    return count / took


def compare(plain: Callable[[], object], ours: Callable[[], object], options: Any) -> str:
    """The ratio of the rates, ours to plain."""
    for call in (plain, ours):
        call()
    ratios, rates = [], []
    for number in range(options.rounds):
        pair = (plain, ours) if number % 2 else (ours, plain)
        found = {id(call): rate(call, options.seconds) for call in pair}
        ratios.append(found[id(ours)] / found[id(plain)])
        rates.append(found[id(ours)])
    return f"{statistics.median(ratios):.2f} of plain's rate ({statistics.median(rates):.0f}/s)"


@contextmanager
def pairs(
    opened: ExitStack,
) -> Iterator[dict[str, tuple[Callable[[], object], Callable[[], object]]]]:
    """(plain, ours) of each work."""
    directory = Path(opened.enter_context(tempfile.TemporaryDirectory()))
    certificate = make_certificate(directory)
    found = {}
    for scheme in ("http", "https"):
        server = opened.enter_context(nginx(certificate=certificate if scheme == "https" else None))
        url = f"{scheme}://127.0.0.1:{server.port}/hello.txt"
        ca = str(certificate[0])
        plain, ours = requests.Session(), hardsock.adapters.requests.session(total=30)
        for session in (plain, ours):
            session.trust_env, session.verify = False, ca
            opened.callback(session.close)
        found[f"requests, {scheme}"] = (
            lambda u=url, s=plain: s.get(u).content,
            lambda u=url, s=ours: s.get(u).content,
        )
        managers = (
            urllib3.PoolManager(ca_certs=ca),
            hardsock.adapters.urllib3.PoolManager(total=30, ca_certs=ca),
        )
        found[f"urllib3, {scheme}"] = tuple(
            lambda u=url, m=manager: m.request("GET", u).data for manager in managers
        )
    server = opened.enter_context(redis_server())
    address = f"redis://127.0.0.1:{server.port}"
    clients = redis.Redis.from_url(address), hardsock.adapters.redis.client(address, total=30)
    for client in clients:
        opened.callback(client.close)
    found["redis-py, GET"] = tuple(lambda c=client: c.get("key") for client in clients)
    yield found


def lateness(call: Callable[[], object], tries: int) -> str:
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


def waits(opened: ExitStack) -> dict[str, Callable[[], object]]:
    """A request for each kind of wait."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    ask = ("recv_until", b"\r\n\r\n")
    session = hardsock.adapters.requests.session(DEADLINE)
    session.trust_env = False
    opened.callback(session.close)
    found: dict[str, Callable[[], object]] = {}
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
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a round of one side")
    parser.add_argument("--tries", type=int, default=3, help="for each wait")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, hardsock {hs.__version__}")
    with ExitStack() as opened, pairs(opened) as found:
        for name, (plain, ours) in found.items():
            print(f"{name:<22} {compare(plain, ours, options)}", flush=True)
    for name in ("connect black hole", "silent server", "dripping body", "TLS stall"):
        with ExitStack() as opened:  # one server at a time: each try is a connection
            print(f"{name:<22} {lateness(waits(opened)[name], options.tries)}", flush=True)


if __name__ == "__main__":
    main()
