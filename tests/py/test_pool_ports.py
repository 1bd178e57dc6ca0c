"""Port exhaustion: a hundred local ports, ten thousand requests, without a pool and with one."""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.namespaces import Namespace
from support.require import require

PORTS = 100
REQUESTS = 10_000
FRUITLESS = 2_000  # Each of them makes the kernel look at all ports.
POOL_SIZE = 4
SERVER_PORT = 40000
TIME_WAIT = 60  # seconds, fixed in the kernel (include/net/tcp.h)
FIRST_PORT = 50000


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with require(Namespace(mount=False)) as made:
        yield made


def _few_ports() -> None:
    from hardsock.lab.inside import write_sysctl

    write_sysctl("net.ipv4.ip_local_port_range", f"{FIRST_PORT} {FIRST_PORT + PORTS - 1}")
    # Linux may take a port of loopback out of TIME_WAIT after a second: to no other host.
    write_sysctl("net.ipv4.tcp_tw_reuse", 0)


def _ask(conn: hs.Connection) -> None:
    conn.sendall(b"x")
    assert conn.recv_exactly(1) == b"x"


def _requests(request: Callable[[Any], None], count: int) -> dict[str, Any]:
    """Send *count* of them to an echo server, one after the other; what came of it."""
    from support.echo import EchoServer

    _few_ports()
    with EchoServer(port=SERVER_PORT) as server:
        outcomes: Counter[str] = Counter()
        hint = ""
        began = time.monotonic()
        for _ in range(count):
            try:
                request(server.address)
                outcomes["answered"] += 1
            except hs.ConnectError as exc:
                outcomes[errno.errorcode.get(exc.errno or 0, "?")] += 1
                hint = hint or str(exc.hint)
        return {
            "outcomes": dict(outcomes),
            "accepted": server.accepted,
            "hint": hint,
            "elapsed": time.monotonic() - began,
        }


def _one_connection_each() -> dict[str, Any]:
    def request(address: Any) -> None:
        with hs.connect(address, timeout=20) as conn:
            _ask(conn)

    return _requests(request, FRUITLESS)


def _with_a_pool() -> dict[str, Any]:
    pool: hs.Pool | None = None

    def request(address: Any) -> None:
        nonlocal pool
        if pool is None:
            pool = hs.Pool(address, max_size=POOL_SIZE)
        with pool.connection(timeout=20) as conn:
            _ask(conn)
            conn.mark_clean()

    found = _requests(request, REQUESTS)
    assert pool is not None
    audit = pool.verify()
    pool.close()
    return {**found, "opened": audit.stats.opened, "acquired": audit.stats.acquired}


@pytest.mark.net
@pytest.mark.slow
def test_without_a_pool_the_ports_run_out(namespace: Namespace) -> None:
    found = namespace.run(_one_connection_each, timeout=300.0)
    outcomes = found["outcomes"]
    assert outcomes.keys() == {"answered", "EADDRNOTAVAIL"}
    assert outcomes["answered"] == found["accepted"]
    # A busy machine may need longer for all than a port stays in TIME_WAIT.
    rounds = 1 + int(found["elapsed"] // TIME_WAIT)
    assert PORTS <= outcomes["answered"] <= rounds * PORTS < FRUITLESS
    assert f" of the {PORTS} in net.ipv4.ip_local_port_range" in found["hint"]
    assert "Pool" in found["hint"]


@pytest.mark.net
@pytest.mark.slow
def test_with_a_pool_every_request_is_answered(namespace: Namespace) -> None:
    found = namespace.run(_with_a_pool, timeout=300.0)
    assert found["outcomes"] == {"answered": REQUESTS}
    assert found["acquired"] == REQUESTS
    # One borrower at a time: nobody ever needed a second connection.
    assert (found["accepted"], found["opened"]) == (1, 1)
