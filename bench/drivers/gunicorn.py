"""gunicorn with one worker process of 64 threads (gthread), which parks quiet connections."""

from __future__ import annotations

import atexit
import importlib.metadata
import socket
import subprocess
import sys
import time
from pathlib import Path

from . import _common, _http
from ._crowd import Announce

THREADS = 64


def version() -> str:
    return f"gunicorn {importlib.metadata.version('gunicorn')}"


_master: subprocess.Popen[bytes] | None = None


def _serve(announce: Announce) -> None:
    global _master
    with socket.create_server(("127.0.0.1", 0), backlog=_common.BACKLOG) as sock:
        argv = [sys.executable, "-m", "gunicorn", "bench.drivers._http_apps:wsgi"]
        argv += ["--bind", f"fd://{sock.fileno()}", "--backlog", str(_common.BACKLOG)]
        argv += ["--workers", "1", "--worker-class", "gthread", "--threads", str(THREADS)]
        argv += ["--worker-connections", str(_http.MOST_CONNECTIONS), "--keep-alive", "3600"]
        argv += ["--log-level", "warning"]
        _master = subprocess.Popen(
            argv,
            pass_fds=[sock.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # Ours is for what the bench reads.
        )
        atexit.register(_end)
        announce(sock.getsockname()[1])
        if _master.wait() != 0:
            raise RuntimeError(f"gunicorn ended with {_master.returncode}")


def _end() -> None:
    assert _master is not None
    _master.terminate()
    try:
        _master.wait(5)
    except subprocess.TimeoutExpired:
        _master.kill()


def _children() -> list[int]:
    assert _master is not None
    text = Path(f"/proc/{_master.pid}/task/{_master.pid}/children").read_text()
    return [int(child) for child in text.split()]


def _memory() -> int:
    return sum(_http.anonymous_bytes_of(child) for child in _children())


def _cpu() -> int:
    return sum(time.clock_gettime_ns(_clock_of(child)) for child in _children())


def _clock_of(pid: int) -> int:
    """clock_getcpuclockid(3): CPUCLOCK_SCHED of the whole process."""
    return ~pid << 3 | 2


_works = _http.Works(parsed=_serve, memory=_memory, cpu=_cpu)
http_parsed = _works.http_parsed
http_parsed_churn = _works.http_parsed_churn
http_idle_memory = _works.http_idle_memory
