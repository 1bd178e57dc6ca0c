"""Five services that are in trouble, and what a reader of top, the page and the metrics finds.

The captures in docs/observing.md are made here: ``HARDSOCK_WRITE_CAPTURES=1`` writes them anew. Else
each is compared with what is seen now, numbers and addresses aside.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hardsock.lab.namespaces import Namespace
from support.require import free_threaded, need_module, require

DOCS = Path(__file__).parents[2] / "docs" / "observing.md"
MINUTE = 60

pytestmark = pytest.mark.slow

PRELUDE = """\
import re, socket, sys, threading
import hardsock as hs
from hardsock import debug
from hardsock.metrics import Collector
from prometheus_client import REGISTRY, start_http_server

REGISTRY.register(Collector())
metrics = start_http_server(0, "127.0.0.1")
page = hs.serve(debug.handler(), ("127.0.0.1", 0), drain_timeout=1, name="page")
page.__enter__()
port = metrics[0].server_port

def ready():
    print(page.address[1], port, flush=True)
"""

LEAK = """
backend = socket.create_server(("127.0.0.1", 0), backlog=100)
lost = []

def place_order(number):
    conn = hs.connect(backend.getsockname())
    lost.append(conn)  # Nobody closes it.

for number in range(40):
    place_order(number)
ready()
sys.stdin.readline()
"""

STALL = """
silent = socket.create_server(("127.0.0.1", 0))
pool = hs.Pool(silent.getsockname(), name="stock", max_size=2)

def ask_stock():
    with pool.connection(timeout=50) as conn:
        conn.sendall(b"how many?")
        conn.recv(100)

threads = [threading.Thread(target=ask_stock, daemon=True) for _ in range(6)]
for thread in threads:
    thread.start()
while (pool.stats().lent, pool.stats().waiting) != (2, 4):  # Six wait while the pool dials.
    pass
ready()
sys.stdin.readline()
"""

GIL = """
def echo(conn):
    while data := conn.recv(100):
        conn.sendall(data)

server = hs.serve(echo, ("127.0.0.1", 0), drain_timeout=1)
server.__enter__()

def check_invoice():
    while True:
        re.fullmatch(r"(a+)+b", "a" * 22)  # Holds the GIL for a long time.

threading.Thread(target=check_invoice, daemon=True).start()
client = hs.connect(server.address)
while hs.metrics()["seconds"]["read_stall_gil"]["sum"] < 2:
    client.sendall(b"x")
    client.recv(1)
ready()
sys.stdin.readline()
"""

PORTS = """
backend = socket.create_server(("127.0.0.1", 40000), backlog=100)
kept = []

def fetch_price():
    kept.append(hs.connect(("127.0.0.1", 40000)))

ready()
sys.stdin.readline()
for _ in range(30):
    try:
        fetch_price()
    except hs.ConnectError as exc:
        print(exc.errno, flush=True)
        break
sys.stdin.readline()
"""

DESCRIPTORS = """
import resource
ready()
sys.stdin.readline()
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))

def serve_forever(conn):
    conn.recv(1)

server = hs.serve(serve_forever, ("127.0.0.1", 0), drain_timeout=1, workers=2, max_connections=6)
server.__enter__()
listener = hs.listen(("127.0.0.1", 0))
ends = []

def open_report():
    ends.append(open("/dev/null"))

clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
try:
    while True:
        open_report()
except OSError:
    pass
try:
    listener.accept(timeout=0.1)
except hs.HardsockError:
    pass
print("full", flush=True)
sys.stdin.readline()
"""


@dataclass
class Service:
    pid: int
    page: int
    metrics: int
    environment: dict[str, str]
    process: subprocess.Popen[str]

    def top(self, view: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "hardsock", "top", str(self.pid), "--once", "--view", view],
            env={**self.environment, "COLUMNS": "110"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    def figures(self, *names: str) -> list[str]:
        text = self._get(self.metrics, "/metrics").decode()
        return [line for line in text.splitlines() if line.startswith(names)]

    def shown(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self._get(self.page, "/data"))
        return data

    def _get(self, port: int, path: str) -> bytes:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=MINUTE) as answer:
            body: bytes = answer.read()
            return body

    def say(self) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()


@contextmanager
def service(name: str, code: str) -> Iterator[Service]:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "app" / f"{name}.py"
        script.parent.mkdir()
        script.write_text(PRELUDE + code)
        environment = {**os.environ, "XDG_RUNTIME_DIR": folder, "HARDSOCK_INSPECT": "1"}
        with subprocess.Popen(
            [sys.executable, str(script)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                page, metrics = map(int, process.stdout.readline().split())
                environment["HARDSOCK_INSPECT"] = "0"
                yield Service(process.pid, page, metrics, environment, process)
            finally:
                process.kill()


def rows(text: str, *wanted: str) -> str:
    """The head of the table, and its rows that have one of the words."""
    lines = text.rstrip().splitlines()
    head = next(
        i for i, line in enumerate(lines) if re.search(r"\b(OPEN|LENT|WHAT|what|FD)\b", line)
    )
    kept = [line.rstrip() for line in lines[head + 1 :] if any(word in line for word in wanted)]
    assert kept, text
    return "\n".join([lines[head].rstrip(), *kept])


def see_leak(it: Service) -> dict[str, str]:
    (row,) = [one for one in it.shown()["sites"] if one["site"]["function"] == "place_order"]
    assert row["open"] == 40
    return {
        "top": rows(it.top("sites"), "place_order"),
        "metrics": "\n".join(it.figures('hardsock_open_connections{how="connect"}')),
    }


def see_stall(it: Service) -> dict[str, str]:
    (pool,) = it.shown()["pools"]
    assert {one["site"]["function"] for one in pool["holders"]} == {"ask_stock"}
    assert len(pool["waiters"]) == 4
    return {
        "top": rows(it.top("waiters"), "ask_stock"),
        "metrics": "\n".join(it.figures('hardsock_pool_pending_requests{pool="stock"}')),
    }


def see_gil(it: Service) -> dict[str, str]:
    text = it.figures(
        'socket_read_stall_seconds_sum{reason="gil"}',
        'socket_read_stall_seconds_count{reason="gil"}',
    )
    assert len(text) == 2
    count, total = (float(line.split()[1]) for line in sorted(text))
    assert total > 0.0001 * count
    assert it.shown()["stalls"]["gil"] >= 0.1
    head = next(line for line in it.top("sites").splitlines() if line.startswith("reads waited"))
    match = re.search(r"for the GIL (\d+(?:\.\d+)?)([smhd])$", head.rstrip())
    assert match is not None, head
    assert match[2] != "s" or float(match[1]) >= 2
    return {"top": head.rstrip(), "metrics": "\n".join(text)}


def see_ports(it: Service) -> dict[str, str]:
    from hardsock.lab.inside import write_sysctl

    write_sysctl("net.ipv4.ip_local_port_range", "50000 50019")
    assert it.say() == "99\n"
    (event,) = [one for one in it.shown()["events"] if one["kind"] == "connect_failed"]
    return {
        "page": f"{event['kind']} {event['what']}: {event['hint']}",
        "top": rows(it.top("events"), "connect_failed"),
        "metrics": "\n".join(it.figures('hardsock_events_total{kind="connect_failed"}')),
    }


def see_descriptors(it: Service) -> dict[str, str]:
    assert it.say() == "full\n"
    text = it.top("events")
    head = next(line.rstrip() for line in text.splitlines() if line.startswith("descriptors"))
    assert head.startswith("descriptors 60 of 60 (100 %)")
    return {"top": head + "\n\n" + "\n".join(rows(text, "shed", "no_descriptors").splitlines()[:2])}


STORIES: dict[str, tuple[str, Callable[[Service], dict[str, str]]]] = {
    "leak": (LEAK, see_leak),
    "stall": (STALL, see_stall),
    "gil": (GIL, see_gil),
    "ports": (PORTS, see_ports),
    "descriptors": (DESCRIPTORS, see_descriptors),
}


def captures(name: str) -> dict[str, str]:
    code, see = STORIES[name]
    with service(name, code) as it:
        return see(it)


def structure(text: str) -> str:
    """Without what differs from one run to the next."""
    text = re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "0", text)
    return re.sub(r"0 ?(ms|us|s|min|h|d)\b", "0", re.sub(r"\s+", " ", text)).strip()


def block(name: str, part: str) -> re.Pattern[str]:
    mark = re.escape(f"<!-- capture: {name} {part} -->")
    return re.compile(rf"({mark}\n\n```text\n)(.*?)(?=```\n)", re.DOTALL)


@pytest.mark.parametrize("name", STORIES)
def test_a_reader_finds_it_within_a_minute(name: str) -> None:
    need_module("prometheus_client")
    if name == "gil" and free_threaded():
        pytest.skip("there is no lock to wait for")
    began = time.monotonic()
    if name == "ports":
        with require(Namespace(mount=False)) as namespace:
            found = namespace.run(captures, name, timeout=120.0)
    else:
        found = captures(name)
    assert time.monotonic() - began < MINUTE
    text = DOCS.read_text()
    for part, seen in found.items():
        written = "".join(f"{line.rstrip()}\n" for line in seen.splitlines())
        match = block(name, part).search(text)
        assert match is not None, f"docs/observing.md has no capture {name} {part}:\n{written}"
        if os.environ.get("HARDSOCK_WRITE_CAPTURES") == "1":
            text = text[: match.start(2)] + written + text[match.end(2) :]
            DOCS.write_text(text)
        else:
            assert structure(match[2]) == structure(written)
