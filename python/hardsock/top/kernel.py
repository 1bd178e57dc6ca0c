"""What the kernel knows of a process's sockets, without asking the process.

In the caller's network namespace sock_diag(7) tells all of it, with tcp_info; of a process in
another one /proc/PID/net tells less.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from hardsock import _core

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


def _by_proc(pid: int, inodes: dict[int, int]) -> list[dict[str, Any]]:
    """Of any network namespace."""
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
    return found


_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3
_INET_DIAG_INFO = 2
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI48x")
# family, state, timer, retransmits; ports; addresses; interface and cookie; expires, rqueue,
# wqueue, uid, inode: struct inet_diag_msg.
_MESSAGE = struct.Struct("=4B2s2s16s16s12x5I")
_ATTRIBUTE = struct.Struct("=HH")


def _info_of(attributes: bytes) -> dict[str, Any]:
    """What tcp_info says, if it is there: seconds and bytes."""
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if length < _ATTRIBUTE.size:
            break
        if kind == _INET_DIAG_INFO:
            tcp = _core._tcp_fields(attributes[at + _ATTRIBUTE.size : at + length])
            if "bytes_sent" not in tcp:
                break  # A kernel before 4.19.
            return {
                "last_write": tcp["last_data_sent"] / 1e3,
                "last_read": tcp["last_data_recv"] / 1e3,
                "rtt": tcp["rtt"] / 1e6,
                "retransmits": tcp["total_retrans"],
                # Not bytes_acked, which counts the SYN.
                "sent": tcp["bytes_sent"] - tcp["bytes_retrans"],
                "received": tcp["bytes_received"],
                "tcp": tcp,
            }
        at += (length + 3) & ~3
    return {}


def _text(address: bytes, port: bytes, family: int) -> str:
    number = int.from_bytes(port, "big")
    if family == socket.AF_INET:
        return f"{ipaddress.IPv4Address(address[:4])}:{number}"
    return f"[{ipaddress.IPv6Address(address)}]:{number}"


def _row(message: bytes, inodes: dict[int, int]) -> dict[str, Any] | None:
    family, state, _, retransmits, sport, dport, local, peer, _, unread, unsent, _, inode = (
        _MESSAGE.unpack_from(message)
    )
    if (fd := inodes.get(inode)) is None:
        return None
    row = {
        "fd": fd,
        "local": _text(local, sport, family),
        "peer": _text(peer, dport, family),
        "state": _STATES.get(state, "?"),
        "unread": unread,
        "unsent": unsent,
        "retransmits": retransmits,
    }
    if row["state"] == "listen":  # There the fields mean something else: this is the backlog.
        row["unsent"] = 0
    else:
        row |= _info_of(message[_MESSAGE.size :])
    return row


def _by_diag(inodes: dict[int, int]) -> list[dict[str, Any]]:
    """Of this network namespace.

    Raises:
        OSError: The kernel does not tell.
    """
    found = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as sock:
        for family in (socket.AF_INET, socket.AF_INET6):
            body = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (_INET_DIAG_INFO - 1), 0xFFFFFFFF)
            size = _HEADER.size + len(body)
            sock.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 0, 0) + body)
            over = False
            while not over:
                answer, at = sock.recv(1 << 16), 0
                while at + _HEADER.size <= len(answer):
                    length, kind, *_ = _HEADER.unpack_from(answer, at)
                    over = kind == _DONE
                    if kind == _ERROR or length < _HEADER.size:
                        raise OSError("sock_diag does not tell of TCP sockets")
                    if kind == _SOCK_DIAG_BY_FAMILY:
                        row = _row(answer[at + _HEADER.size : at + length], inodes)
                        found += [] if row is None else [row]
                    at += (length + 3) & ~3
    return found


def _is_in_our_namespace(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    except OSError:
        return False  # Not ours to know.


def connections(pid: int) -> list[dict[str, Any]]:
    """TCP sockets of a process: fd, local, peer, state, unread, unsent, retransmits.

    In the caller's network namespace also what tcp_info has: last_read and last_write in seconds,
    received and sent bytes, rtt, and all retransmits instead of those in a row.

    Raises:
        OSError: If there is no such process, or this user may not look.
    """
    inodes = _inodes(pid)
    found = None
    if _is_in_our_namespace(pid):
        try:
            found = _by_diag(inodes)
        except OSError:
            pass  # A kernel without it.
    return sorted(_by_proc(pid, inodes) if found is None else found, key=lambda one: int(one["fd"]))


def descriptors(pid: int) -> dict[str, int | None]:
    """How many are open, and the soft limit or ``None``.

    Raises:
        OSError: As ``connections``.
    """
    limits = Path(f"/proc/{pid}/limits").read_text()
    match = re.search(r"^Max open files\s+(\S+)", limits, re.M)
    limit = int(match[1]) if match is not None and match[1].isdigit() else None
    return {"open": len(os.listdir(f"/proc/{pid}/fd")), "limit": limit}
