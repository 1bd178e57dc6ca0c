"""A guard over the connections of another process, as the kernel's tables show them."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from hardsock import _core
from hardsock.guard.engine import Candidate
from hardsock.guard.scopes import Asked, Process, Seen, common_figures

__all__ = ["Foreign"]

_SOCKET = re.compile(r"socket:\[(\d+)\]")
_LISTENS = "0A"


class Foreign(Process):
    """The TCP connections that another process has accepted. Only looked at, unless told otherwise.

    It must be in the caller's network namespace. Ages count from the first look: nobody knows more,
    so that what was there before is young for a while. A connection on which the process has
    received something since it last sent is taken for one that it works on; the kernel tells that
    in ticks of 1 to 10 ms, so not when a request came in the tick of the last answer.

    Closing destroys the socket (SOCK_DESTROY, needs CAP_NET_ADMIN): the process sees ECONNABORTED,
    its client a reset. It is looked at again right before, by its cookie, which is never used
    again; between that and the end are a few microseconds in which a byte can come.

    Args:
        pid: The process.
        port: Only connections to this port of it; by default all ports that it listens on.
        act: ``"destroy"``: a guard that enforces may close. None: it may not.

    Raises:
        ProcessLookupError: There is none.
        ValueError, TypeError: A parameter is wrong.
    """

    lasting = ()

    def __init__(self, pid: int, *, port: int | None = None, act: str | None = None) -> None:
        super().__init__()
        if isinstance(pid, bool) or not isinstance(pid, int):
            raise TypeError(f"pid must be an int, not {type(pid).__name__}")
        if port is not None and (isinstance(port, bool) or not isinstance(port, int)):
            raise TypeError(f"port must be an int or None, not {type(port).__name__}")
        if act not in (None, "destroy"):
            raise ValueError(f'act must be "destroy" or None, got {act!r}')
        if not os.path.isdir(f"/proc/{pid}"):
            raise ProcessLookupError(f"there is no process {pid}")
        if os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net"):
            raise ValueError(
                f"process {pid} is in another network namespace: enter it first, with nsenter -n"
            )
        self.pid = pid
        self.port = port
        self.act = act
        self._first: dict[int, float] = {}
        self._rows: dict[int, bytes] = {}

    def look(self, now: float) -> Seen:
        inodes = _inodes(self.pid)
        ports = {self.port} if self.port is not None else _listening(self.pid, inodes)
        found, first, rows = [], {}, {}
        for cookie, inode, idle, state, local, peer, row in _core._foreign_rows():
            if inode not in inodes or int(local.rpartition(":")[2]) not in ports:
                continue
            first[cookie] = self._first.get(cookie, now)
            rows[cookie] = row
            found.append(Candidate(cookie, peer, now - first[cookie], idle, state, local))
        self._first, self._rows = first, rows
        figures = common_figures(found, self._growth(now, len(found)), self._limit())
        descriptors, limit = len(os.listdir(f"/proc/{self.pid}/fd")), _limit_of(self.pid)
        figures["descriptors"] = descriptors
        figures["descriptors_share"] = descriptors / limit if limit else None
        return Seen(figures, found)

    def retire(self, victim: Candidate, over: float, young: float) -> Asked:
        if self.act is None:
            return Asked("not allowed", victim.idle)
        return Asked(*_core._foreign_retire(self._rows[victim.id], over))

    def diagnose(self) -> dict[str, object]:
        seen = self.look(max(self._first.values(), default=0.0))
        hosts = Counter(one.peer.rpartition(":")[0] for one in seen.connections)
        states = Counter(one.state for one in seen.connections)
        return {"peers": dict(hosts.most_common(10)), "states": dict(states)}


def _inodes(pid: int) -> set[int]:
    """The sockets that a process has open."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            match = _SOCKET.fullmatch(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            continue  # Closed meanwhile.
        if match is not None:
            found.add(int(match[1]))
    return found


def _listening(pid: int, inodes: set[int]) -> set[int]:
    ports = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # No IPv6.
        for line in lines:
            words = line.split()
            if words[3] == _LISTENS and int(words[9]) in inodes:
                ports.add(int(words[1].rpartition(":")[2], 16))
    return ports


def _limit_of(pid: int) -> int | None:
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            soft = line.split()[3]
            return None if soft == "unlimited" else int(soft)
    return None
