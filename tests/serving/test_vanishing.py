"""Clients that are gone without a word, in namespaces: packets that are dropped, SYNs without an ACK."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab import inside
from hardsock.lab.namespaces import Namespace
from hardsock.lab.waits import poll_until
from support import http1
from support.require import Unavailable, available, require
from support.serving import Honest, Server, abused, few_workers, serving
from support.tls import Identities

pytestmark = [pytest.mark.net, pytest.mark.slow]

PATIENCE = 30.0
GONE = "127.9.0.1"
EACH = 8
LOST = f"""
    add table ip lost
    add chain ip lost input {{ type filter hook input priority 0; }}
    add rule ip lost input ip saddr {GONE} drop
    add rule ip lost input ip daddr {GONE} drop
"""


@pytest.fixture(params=["plain", "tls"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """Where the certificates are; None: without TLS."""
    return str(tmp_path) if request.param == "tls" else None


@pytest.fixture
def namespace() -> Any:
    with available():
        if shutil.which("nft") is None:
            raise Unavailable("no nft")
    with require(Namespace()) as made:
        yield made


def begin(server: Server, ids: Identities | None, said: bytes) -> hs.Connection:
    """A client that has been answered once, and then has said so much."""
    config = False if ids is None else ids.client()
    conn = hs.connect(
        server.address, tls=config, server_name="localhost" if ids else None,
        source=(GONE, 0), timeout=PATIENCE,
    )  # fmt: skip
    conn.sendall(http1.request())
    assert conn.recv_until(http1.GREETING, timeout=PATIENCE).startswith(b"HTTP/1.1 200")
    conn.sendall(said)
    return conn


def vanish(driver: str, folder: str | None, who_notices: str) -> dict[str, Any]:
    """In a namespace: clients between requests, in a head, in a body and in an answer are lost."""
    ids = None if folder is None else Identities(Path(folder))
    settings = few_workers(driver, 3 * EACH, max_connections=60)
    times = http1.GENEROUS
    if who_notices == "the server":
        times = http1.Times(head=3.0, body=3.0, answer=3.0)
        settings["idle_timeout"] = 3.0
    else:  # Nothing is due in the program: only the kernel can know.
        times = http1.Times(head=600.0, body=600.0, answer=600.0)
        settings["options"] = hs.SocketOptions(dead_after=2.0)
    states = [b"", http1.request()[:-2], http1.LONG_BODY, http1.request("/bytes/30000000")]
    with abused(driver, ids, times, **settings) as (server, honest), contextlib.ExitStack() as gone:
        for said in states * EACH:
            gone.enter_context(begin(server, ids, said))
        subprocess.run(["nft", "-f", "-"], input=LOST, text=True, check=True)
        honest.wait_for_more()
        assert poll_until(lambda: _ended(server) >= EACH * len(states), PATIENCE), server.stats()
        honest.wait_for_more()
        return server.stats()._asdict()


def _ended(server: Server) -> int:
    stats = server.stats()
    return stats.failed + stats.cut + stats.endings.get("dead peer", 0)


def test_lost_clients_are_noticed_by_the_times_of_a_message(
    driver: str, folder: str | None, namespace: Namespace
) -> None:
    stats = namespace.run(vanish, driver, folder, "the server", timeout=60)
    assert stats["idle_timeouts"] == EACH
    assert stats["errors"] == {"DeadlineExceeded": 3 * EACH}


def test_lost_clients_are_noticed_by_the_kernel(
    driver: str, folder: str | None, namespace: Namespace
) -> None:
    stats = namespace.run(vanish, driver, folder, "the kernel", timeout=60)
    quiet = stats["endings"].get("dead peer", 0)  # Without a handler, where nobody waits in one.
    assert quiet == (EACH if driver.endswith("messages") else 0)
    assert stats["errors"] == {"DeadPeer": 4 * EACH - quiet}


# ---- SYNs ---------------------------------------------------------------------------------------

OURS = "10.9.0.254"


def _sum16(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _syn(source: str, port: int, target: tuple[str, int], number: int) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton(target[0])

    def tcp(checksum: int) -> bytes:
        return struct.pack(
            "!HHIIBBHHH", port, target[1], number, 0, 5 << 4, 2, 65535, checksum, 0
        )  # fmt: skip

    checksum = _sum16(addresses + struct.pack("!BBH", 0, socket.IPPROTO_TCP, 20) + tcp(0))
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP, 0)
    return head + addresses + tcp(checksum)


def _counter(name: str) -> int:
    lines = [line.split() for line in Path("/proc/net/netstat").read_text().splitlines()]
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        if name in names:
            return int(values[names.index(name)])
    raise AssertionError(f"no counter {name}")


def flood_with_syns(driver: str, folder: str | None, count: int) -> dict[str, Any]:
    """In a namespace: SYNs from hosts that never answer, while honest clients ask."""
    ids = None if folder is None else Identities(Path(folder))
    inside.swallow(f"{OURS}/24")
    for key in ("all", "lo"):
        inside.write_sysctl(f"net.ipv4.conf.{key}.rp_filter", 0)
    settings: dict[str, Any] = {"address": (OURS, 0), "backlog": 256}
    if ids is not None:
        settings["tls"] = ids.server(certificates=ids.issue((OURS, "localhost")))
    with serving(driver, **settings) as server:
        ca = None if ids is None else ids.ca
        with Honest(server, ca=ca, source=OURS) as honest:
            honest.wait_for_more()
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
                for number in range(count):
                    source = f"10.9.0.{1 + number % 250}"
                    raw.sendto(_syn(source, 1024 + number, server.address, number), (OURS, 0))
                    if number % 1000 == 999:
                        honest.wait_for_more(1)
            honest.wait_for_more()
        stats = server.settled()
        queued = server.listener.stats().queue_length
    return {
        "answers": sum(honest.answers),
        "handled": stats.handled,
        "queued": queued,
        "cookies": _counter("SyncookiesSent"),
    }


def test_five_thousand_syns_cost_the_server_nothing(
    driver: str, folder: str | None, namespace: Namespace
) -> None:
    found = namespace.run(flood_with_syns, driver, folder, 5000, timeout=60)
    assert found["cookies"] > 4000, "the flood did not fill the kernel's queue"
    assert found["queued"] == 0
    assert 0 < found["handled"] <= found["answers"], "who never answered was never accepted"
