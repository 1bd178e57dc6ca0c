"""A scan leaves nothing to look at: who it was stands in no table of sockets."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.namespaces import run_in_namespace
from hardsock.lab.scan import SynWatch

_SOURCES = 200
_CLOSED_PORTS = (22, 23, 3306, 6379)
_FIRST_SOURCE = int(ipaddress.IPv4Address("127.9.0.1"))
_TARGET = "127.0.0.1"
_LOOK_EVERY = 0.1
_SYN_RECV = "03"


def _checksum(data: bytes) -> int:
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _syn(source: int, port: int) -> bytes:
    """IPv4 and TCP; the kernel adds the checksum of the former."""
    target = int(ipaddress.IPv4Address(_TARGET))
    tcp = struct.pack("!HHIIBBHHH", 40000, port, source, 0, 5 << 4, 0x02, 1024, 0, 0)
    pseudo = struct.pack("!IIBBH", source, target, 0, socket.IPPROTO_TCP, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", _checksum(pseudo + tcp)) + tcp[18:]
    return struct.pack("!BBHHHBBHII", 0x45, 0, 40, 0, 0, 64, 6, 0, source, target) + tcp


def _half_open() -> set[str]:
    """Who has a half-open connection: what ``ss`` and ``netstat`` show."""
    rows = (line.split() for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:])
    return {row[2].partition(":")[0] for row in rows if row[3] == _SYN_RECV}


def _look(end: threading.Event, begin: float, seen: list[tuple[float, int]]) -> None:
    """Read the kernel's table again and again, and note how many sources were ever in it."""
    sources: set[str] = set()
    while not end.wait(_LOOK_EVERY):
        sources |= _half_open()
        seen.append((time.monotonic() - begin, len(sources)))


def measure_inside() -> dict[str, Any]:
    """(seconds, sources known) of either, and what was sent and seen."""
    with ExitStack() as stack:
        listener = stack.enter_context(listen(_TARGET, 0))
        raw = stack.enter_context(
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        )
        watch = stack.enter_context(SynWatch("lo"))
        ports = (listener.getsockname()[1], *_CLOSED_PORTS)
        begin, end = time.monotonic(), threading.Event()
        plain: list[tuple[float, int]] = [(0.0, 0)]
        ours: list[tuple[float, int]] = [(0.0, 0)]
        looking = threading.Thread(target=_look, args=(end, begin, plain))
        looking.start()
        for number in range(_SOURCES):
            for port in ports:
                raw.sendto(_syn(_FIRST_SOURCE + number, port), (_TARGET, 0))
            time.sleep(0.002)
            if number % 20 == 19:
                report = watch.report(_SOURCES)
                ours.append((time.monotonic() - begin, len(report.sources)))
        end.set()
        looking.join()
        report = watch.report(_SOURCES)
    return {
        "sent": _SOURCES * len(ports),
        "saw": report.saw,
        "sources": len(report.sources),
        "ports": report.different_ports,
        "plain": plain,
        "ours": ours,
        "cpu": report.cpu,
        "took": report.seconds,
    }


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=120.0)
    known = found["plain"][-1][1]
    return Finding(
        plain={"sources_known": known},
        hardsock={
            "sources_known": found["sources"],
            "syns_sent": found["sent"],
            "syns_seen": found["saw"],
            "processor_seconds": found["cpu"],
        },
        shown=found["sources"] == _SOURCES and known < _SOURCES / 2,
        text=f"{_SOURCES} sources sent {found['sent']} SYNs to {found['ports']} ports, one of which was "
        f"open, and answered no SYN-ACK but with a reset. A look at the kernel's table of connections, "
        f"{1 / _LOOK_EVERY:.0f} times a second, found {known} of the sources. `hs.SynWatch` saw "
        f"{found['saw']} SYNs and knew {found['sources']} sources and what each had asked for; in "
        f"{found['took']:.1f} s it took {1e3 * found['cpu']:.1f} ms of processor time.",
        chart=Chart(
            kind="lines",
            title=f"A scan from {_SOURCES} addresses: how many are known",
            x="seconds",
            y="sources known",
            lines=[
                Line("table of connections", "plain", found["plain"]),
                Line("hs.SynWatch", "hardsock", found["ours"]),
            ],
            limit=(_SOURCES, "all"),
        ),
        invalid=""
        if found["saw"] == found["sent"]
        else f"{found['sent']} SYNs were sent and {found['saw']} came: the machine dropped the others",
    )


SYN_SCAN = Experiment(
    name="syn-scan",
    title="A scan that no table shows",
    claim="Who scans a machine is not to be seen in netstat or ss: a SYN that is answered with a reset, "
    "or by a SYN cookie, leaves nothing, and a half-open connection is gone with the scanner's reset.",
    why="A closed port answers RST and keeps nothing; an open one keeps a request for as long as its "
    "SYN-ACK is under way; with a full queue it answers with a cookie and keeps nothing either (tcp(7), "
    "tcp_syncookies). Counters such as SyncookiesSent say how many there were, and not from where.",
    instead="`hardsock lab scan`, or `hs.SynWatch` beside the listener: it counts SYNs by source, network "
    "and port before TCP sees them. Addresses of SYNs can be made up: look before you block.",
    measure=_measure,
    seconds=3,
)
