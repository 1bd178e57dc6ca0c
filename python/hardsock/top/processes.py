"""Finding processes that can be inspected, and asking one."""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hardsock._inspect import directories, socket_name, start_time

_NAME = re.compile(r"(\d+)-(\d+)\.sock")


@dataclass(frozen=True)
class Process:
    """A process with an inspect socket."""

    pid: int
    path: Path
    user: str
    command: str


def command_of(pid: int) -> str:
    """What was started, with its arguments; ``"?"`` when the process does not tell."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return "?"
    return " ".join(word.decode("utf-8", "replace") for word in words) or "?"


def user_of(pid: int) -> str:
    """The name of the user that a process belongs to, or the number."""
    try:
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return "?"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def places() -> list[Path]:
    """Where sockets may be: those of this user, and for root those of all."""
    found = list(directories())
    if os.geteuid() == 0:
        found += sorted(Path("/run/user").glob("*/hardsock"))
        found += sorted(Path("/tmp").glob("hardsock-*"))
    return list(dict.fromkeys(found))


def processes() -> Iterator[Process]:
    """All that can be inspected, by number. What a process that was killed left is passed over."""
    found: dict[int, Path] = {}
    for place in places():
        try:
            names = os.listdir(place)
        except OSError:
            continue
        for name in names:
            match = _NAME.fullmatch(name)
            if match is not None and _is_alive(int(match[1]), match[2]):
                found.setdefault(int(match[1]), place / name)
    for pid, path in sorted(found.items()):
        yield Process(pid, path, user_of(pid), command_of(pid))


def _is_alive(pid: int, since: str) -> bool:
    try:
        return start_time(pid) == since
    except OSError:
        return False


def socket_of(pid: int) -> Path | None:
    """The inspect socket of a process, or ``None``: it has none, or is another user's.

    Raises:
        ProcessLookupError: If there is no such process.
    """
    try:
        name = socket_name(pid)
    except OSError as error:
        raise ProcessLookupError(f"there is no process {pid}") from error
    return next((place / name for place in places() if (place / name).exists()), None)


class Inspector:
    """A connection to an inspect socket."""

    def __init__(self, path: Path, timeout: float = 2.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(os.fspath(path))
        except OSError:
            self._socket.close()
            raise
        self._file = self._socket.makefile("rb")

    def report(self, name: str) -> dict[str, Any]:
        """As ``hardsock.report()`` in that process; ``"connection 17"``: of that one.

        Raises:
            LookupError: If there is no such connection.
            OSError: If it does not answer, or not in a way that this version understands.
        """
        self._socket.sendall(f"{name}\n".encode())
        line = self._file.readline()
        if not line:
            raise ConnectionError("the process has ended, or refuses this user")
        found = cast("dict[str, Any]", json.loads(line))
        if found.get("error") == "there is no such connection":
            raise LookupError(found["error"])
        if "error" in found:
            raise ConnectionError(f"{name}: {found['error']}")
        if found.get("version") != 1:
            raise ConnectionError(f"it tells version {found.get('version')} of the reports, not 1")
        return found

    def close(self) -> None:
        """Idempotent."""
        self._file.close()
        self._socket.close()
