"""What the kernel knows of a process's sockets, without asking the process: /proc/PID/net."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from pathlib import Path
from typing import Any

_STATES = {
    1: "established",
    2: "syn_sent",
    3: "syn_recv",
    4: "fin_wait1",
    5: "fin_wait2",
    6: "time_wait",
    7: "close",
    8: "close_wait",
    9: "last_ack",
    10: "listen",
    11: "closing",
    12: "new_syn_recv",
}
_SOCKET = re.compile(r"socket:\[(\d+)\]")


def _address(text: str) -> str:
    """``"0100007F:1F90"``: words in the machine's own byte order."""
    digits, _, port = text.partition(":")
    words = [
        int(digits[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(digits), 8)
    ]
    host = ipaddress.ip_address(b"".join(words))
    return f"[{host}]:{int(port, 16)}" if host.version == 6 else f"{host}:{int(port, 16)}"


def _inodes(pid: int) -> dict[int, int]:
    """Socket inodes and the descriptors that a process has them as."""
    found = {}
    place = f"/proc/{pid}/fd"
    for name in os.listdir(place):
        try:
            match = _SOCKET.fullmatch(os.readlink(f"{place}/{name}"))
        except OSError:
            continue  # Closed meanwhile.
        if match is not None:
            found[int(match[1])] = int(name)
    return found


def connections(pid: int) -> list[dict[str, Any]]:
    """TCP sockets of a process: fd, local, peer, state, unread, unsent, retransmits.

    Raises:
        OSError: If there is no such process, or this user may not look.
    """
    inodes = _inodes(pid)
    found = []
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # A kernel without IPv6.
        for line in lines:
            fields = line.split()
            fd = inodes.get(int(fields[9]))
            if fd is None:
                continue
            unsent, _, unread = fields[4].partition(":")
            found.append(
                {
                    "fd": fd,
                    "local": _address(fields[1]),
                    "peer": _address(fields[2]),
                    "state": _STATES.get(int(fields[3], 16), "?"),
                    "unread": int(unread, 16),
                    "unsent": int(unsent, 16),
                    "retransmits": int(fields[6], 16),
                }
            )
    return sorted(found, key=lambda one: int(one["fd"]))


def descriptors(pid: int) -> dict[str, int | None]:
    """How many are open, and the soft limit or ``None``.

    Raises:
        OSError: As ``connections``.
    """
    limits = Path(f"/proc/{pid}/limits").read_text()
    match = re.search(r"^Max open files\s+(\S+)", limits, re.M)
    limit = int(match[1]) if match is not None and match[1].isdigit() else None
    return {"open": len(os.listdir(f"/proc/{pid}/fd")), "limit": limit}
