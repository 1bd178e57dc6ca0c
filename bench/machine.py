"""What the numbers were measured on: machine, kernel, settings, versions (no names, no paths)."""

from __future__ import annotations

import os
import platform
import shutil
import ssl
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from . import build

SYSCTLS = (
    "net/core/somaxconn",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/tcp_congestion_control",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_tw_reuse",
    "net/ipv4/tcp_wmem",
)
DISTRIBUTIONS = (
    "hardsock",
    "uvloop",
    "trio",
    "gevent",
    "greenlet",
    "urllib3",
    "redis",
    "psycopg-pool",
    "sqlalchemy",
)


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _first_line(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(
        command, cwd=build.ROOT, capture_output=True, text=True, check=False, timeout=20
    )
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else None


def _cpu_model() -> str | None:
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return None


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {
        "python": f"{platform.python_implementation()} {sys.version}",
        "libc": " ".join(platform.libc_ver()),
        "cc": _first_line(*build.compiler().split(), "--version"),
        "go": _first_line("go", "version"),
        "openssl": _first_line("openssl", "version"),
        "openssl of ssl": ssl.OPENSSL_VERSION,
    }
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _source() -> dict[str, Any]:
    changed = _first_line("git", "status", "--porcelain")
    return {"commit": _first_line("git", "rev-parse", "HEAD"), "changed": changed is not None}


def moment() -> dict[str, Any]:
    """What may be another by the next work."""
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "load_before": os.getloadavg()[0],
        "source": _source(),
    }


def describe() -> dict[str, Any]:
    """Everything needed to judge whether two runs may be compared."""
    return {
        **moment(),
        "machine": platform.machine(),
        "kernel": f"{platform.system()} {platform.release()} {platform.version()}",
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": _memory_bytes(),
        "sysctl": {name.replace("/", "."): _read(f"/proc/sys/{name}") for name in SYSCTLS},
        "versions": _versions(),
    }
