"""What the tests of hardsock-tune share: the program, fake roots, and private namespaces.

Settings are written in namespaces that a test made, or in files below a temporary directory; never
on the machine that runs the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hardsock.lab import Namespace
from support.require import require

TOP = Path(__file__).resolve().parent.parent.parent
BINARY = Path(os.environ.get("HARDSOCK_TUNE", TOP / "build/tune/release/hardsock-tune"))

OK, DRIFT, USAGE, PROFILE, PERMISSION, REFUSED, PARTLY, CONFLICT, SYSTEM, RESIDUE, GLOBAL = range(
    11
)

DEFAULTS = {
    "kernel/osrelease": "6.18.0",
    "net/core/somaxconn": "4096",
    "net/core/netdev_max_backlog": "1000",
    "net/ipv4/ip_local_port_range": "32768\t60999",
    "net/ipv4/ip_local_reserved_ports": "",
    "net/ipv4/ip_unprivileged_port_start": "1024",
    "net/ipv4/tcp_rmem": "4096\t131072\t33554432",
    "net/ipv4/tcp_wmem": "4096\t16384\t4194304",
    "net/ipv4/tcp_syncookies": "1",
    "net/ipv4/tcp_timestamps": "1",
    "net/ipv4/tcp_tw_reuse": "2",
    "net/ipv4/tcp_sack": "1",
    "net/ipv4/tcp_window_scaling": "1",
    "net/ipv4/tcp_moderate_rcvbuf": "1",
    "net/ipv4/tcp_abort_on_overflow": "0",
    "net/ipv4/tcp_max_tw_buckets": "131072",
    "net/ipv4/tcp_retries2": "15",
    "net/ipv4/tcp_max_orphans": "131072",
    "net/ipv4/tcp_max_syn_backlog": "2048",
    "net/ipv4/tcp_migrate_req": "0",
    "net/ipv4/tcp_slow_start_after_idle": "1",
    "net/ipv4/tcp_fin_timeout": "60",
    "fs/nr_open": "1048576",
    "fs/file-max": "2466170",
}


def tune(
    *args: object,
    env: dict[str, str] | None = None,
    root: Path | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the program with a clean environment."""
    command = [str(BINARY), *map(str, args)]
    if root is not None:
        command += ["--root", str(root)]
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", **(env or {})}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=60, cwd=cwd
    )


def answer(*args: object, **kwargs: Any) -> Any:
    """Run with JSON output and return it."""
    return json.loads(tune(*args, "--format", "json", **kwargs).stdout)


class Root:
    """A directory that looks like / to the program."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for key, value in DEFAULTS.items():
            self.put(key, value)
        (path / "proc/net").mkdir()
        (path / "run").mkdir()

    def file(self, key: str) -> Path:
        return self.path / "proc/sys" / key

    def put(self, key: str, value: str) -> None:
        self.file(key).parent.mkdir(parents=True, exist_ok=True)
        self.file(key).write_text(value + "\n")

    def get(self, key: str) -> str:
        return " ".join(self.file(key).read_text().split())

    def listen(self, *ports: int, inode: int = 0) -> None:
        lines = ["  sl  local_address rem_address   st"]
        zeros = "00000000:00000000 00:00000000 00000000 0 0"
        lines += [
            f"   {i}: 00000000:{p:04X} 00000000:0000 0A {zeros} {inode and inode + i} 1 0 100"
            for i, p in enumerate(ports)
        ]
        (self.path / "proc/net/tcp").write_text("\n".join(lines) + "\n")

    def tree(self) -> dict[str, str]:
        base = self.path / "proc/sys"
        return {str(p.relative_to(base)): p.read_text() for p in base.rglob("*") if p.is_file()}

    def tune(self, *args: object, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return tune(*args, root=self.path, **kwargs)

    def answer(self, *args: object) -> Any:
        return answer(*args, root=self.path)


def profile(path: Path, settings: str, head: str = "name: t\nsummary: s\n") -> Path:
    """Write a profile with one line `key: {value: ...}` per setting; `why` is added."""
    lines = [line.strip() for line in settings.strip().split("\n")]
    body = "".join(f"  {line[:-1]}, why: w, risk: r}}\n" for line in lines)
    path.write_text(f"{head}settings:\n{body}")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Root:
    (tmp_path / "root").mkdir()
    return Root(tmp_path / "root")


@pytest.fixture
def ns() -> Iterator[Namespace]:
    with require(Namespace(mount=False)) as namespace:
        yield namespace
