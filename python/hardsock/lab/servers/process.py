"""Start a server program on a free port, wait until it accepts, stop it: what all servers share."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hardsock.lab.unavailable import Unavailable
from hardsock.lab.waits import Deadline, readable

_READY_TIMEOUT = 60.0
_STOP_TIMEOUT = 60.0  # a database writes, on a disk that others use as well
_CONNECT_INTERVAL = 0.01
_HOST = "127.0.0.1"


class PeerMissing(Unavailable):
    """A server program is not installed."""


class ServerFailed(AssertionError):
    """A server did not start or stop as it should; the message ends with its log."""


@dataclass(frozen=True)
class Server:
    """A server that accepts connections.

    Attributes:
        name: What program it is.
        host: The address on which it listens.
        port: Where it listens there.
        pid: Of its process, for signals.
        directory: Its temporary directory, gone after the block.
    """

    name: str
    host: str
    port: int
    pid: int
    directory: Path

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self.host, self.port

    def log(self) -> str:
        """What it has printed so far."""
        return (self.directory / "log").read_text(errors="replace")


def find_program(*names: str) -> str:
    """The path of the first of *names* that is installed; raises `PeerMissing`."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin:/sbin"
    for name in names:
        found = shutil.which(name, path=path)
        if found is not None:
            return found
    raise PeerMissing(f"{' or '.join(names)} is not installed")


def free_port() -> int:
    """A TCP port nobody uses, below the range that the kernel hands out to others by itself."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        lowest = int(file.read().split()[0])
    span = max(1, lowest - 10000)
    start = int.from_bytes(os.urandom(4), "little")
    for offset in range(span):
        port = 10000 + (start + offset) % span
        with socket.socket() as probe:
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


def primary_group(user: str | None) -> int | None:
    """The group id of *user*."""
    return None if user is None else pwd.getpwnam(user).pw_gid


@contextlib.contextmanager
def work_directory(owner: str | None = None) -> Iterator[Path]:
    """A temporary directory, given to the user *owner*."""
    with tempfile.TemporaryDirectory(prefix="hardsock-peer-") as name:
        if owner is not None:
            shutil.chown(name, owner)
        yield Path(name)


def clean_environment() -> dict[str, str]:
    """Our environment without what is preloaded into us: a sanitizer is not for other programs."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def _environment_of(program: str) -> dict[str, str]:
    """What a server starts with: a Python may import what was built for the sanitizer, and needs it."""
    return dict(os.environ) if program == sys.executable else clean_environment()


@contextlib.contextmanager
def running(
    name: str,
    argv: Sequence[str],
    port: int,
    directory: Path,
    *,
    user: str | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    is_ready: Callable[[socket.socket], bool] = lambda _sock: True,
    ready_timeout: float = _READY_TIMEOUT,
) -> Iterator[Server]:
    """Run *argv* until the end of the block; yields once *port* accepts connections.

    Args:
        is_ready: Asked with such a connection, for servers that accept before they can serve.
        ready_timeout: Seconds that it may take to begin.
    """
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=_environment_of(argv[0]),
            user=user,
            group=primary_group(user),
            extra_groups=None if user is None else [],
        )
    server = Server(name, _HOST, port, process.pid, directory)
    try:
        _wait_until_ready(server, process, is_ready, Deadline(ready_timeout))
        yield server
    finally:
        _stop(server, process, stop_signal)


def _wait_until_ready(
    server: Server,
    process: subprocess.Popen[bytes],
    is_ready: Callable[[socket.socket], bool],
    deadline: Deadline,
) -> None:
    pidfd = os.pidfd_open(process.pid)
    try:
        while not _accepts(server, is_ready):
            if readable(pidfd, _CONNECT_INTERVAL):
                raise ServerFailed(f"{server.name} ended at once:\n{server.log()}")
            if deadline.passed():
                raise ServerFailed(f"{server.name} does not get ready:\n{server.log()}")
    finally:
        os.close(pidfd)


def _accepts(server: Server, is_ready: Callable[[socket.socket], bool]) -> bool:
    try:
        with socket.create_connection(server.address, timeout=1.0) as sock:
            return is_ready(sock)
    except OSError:
        return False


def _stop(server: Server, process: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    process.send_signal(stop_signal)
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise ServerFailed(f"{server.name} had to be killed:\n{server.log()}") from None
