"""Who tries to connect to this machine: SYNs by source, network and port, while somebody scans it.

    with SynWatch("eth0") as watch:
        ...
        print(watch.report().text())

A native program of its own listens (AF_PACKET, which needs CAP_NET_RAW), at a fraction of a per cent
of a core. Nothing is blocked and no setting is touched. What it cannot see: packets that the network
card or XDP dropped, and other network namespaces. A source that is made up is counted as the source.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardsock.lab._program import Program
from hardsock.lab.unavailable import Unavailable

if TYPE_CHECKING:
    from hardsock import Listener, ListenerStats

__all__ = ["SynListener", "SynNetwork", "SynReport", "SynSource", "SynWatch", "TcpCounters"]

_RECORDER = Path(__file__).with_name("hardsock-scan")
_NETSTAT = Path("/proc/thread-self/net/netstat")
_ROWS_MAX, _RING_MIN, _RING_MAX, _LISTENERS_MAX = 1 << 20, 8192, 1 << 30, 256


@dataclass(frozen=True)
class SynSource:
    """An address that SYNs came from, since it is one of those that are kept.

    Attributes:
        address: As text.
        count: SYNs; at most so many.
        error: By how much *count* may be too high: 0 unless there were more sources than rows.
        first: When the first came, in seconds since 1970; *last* likewise.
        last: When the last came, in seconds since 1970.
        ports: Different ports that it asked for: exact below 16, else an estimate (standard error
            6.5 %).
        some_ports: The first of them, 16 at most.
    """

    address: str
    count: int
    error: int
    first: float
    last: float
    ports: int
    some_ports: tuple[int, ...]

    @property
    def sure(self) -> int:
        """SYNs that are surely its own."""
        return self.count - self.error


@dataclass(frozen=True)
class SynNetwork:
    """A /24 (IPv4) or /64 (IPv6) that SYNs came from: as `SynSource`.

    Attributes:
        network: As text: ``"192.0.2.0/24"``.
        count: SYNs; at most so many.
        error: By how much *count* may be too high.
        first: Seconds since 1970, as *last*.
        last: When the last came, in seconds since 1970.
        sources: Different addresses of it, an estimate (standard error 6.5 %).
        some_ports: The first ports that it asked for, 16 at most.
    """

    network: str
    count: int
    error: int
    first: float
    last: float
    sources: int
    some_ports: tuple[int, ...]

    @property
    def sure(self) -> int:
        """SYNs that are surely its own."""
        return self.count - self.error


@dataclass(frozen=True)
class TcpCounters:
    """What TCP of this network namespace did meanwhile, on all ports: TcpExt of /proc/net/netstat.

    Fields are None where the kernel does not tell.

    Attributes:
        syncookies_sent: SYNs that were answered without keeping anything of them: the queue of
            half-open was full.
        syncookies_failed: Answers to cookies that were none of ours.
        listen_overflows: Connections that were dropped since nobody accepted those before them.
        listen_drops: SYNs and connections that listening sockets dropped for any reason,
            *listen_overflows* too.
        request_queue_full: Times that the queue of half-open connections was full, and a SYN was
            dropped for it.
    """

    syncookies_sent: int | None
    syncookies_failed: int | None
    listen_overflows: int | None
    listen_drops: int | None
    request_queue_full: int | None


_COUNTERS = {
    "syncookies_sent": "SyncookiesSent",
    "syncookies_failed": "SyncookiesFailed",
    "listen_overflows": "ListenOverflows",
    "listen_drops": "ListenDrops",
    "request_queue_full": "TCPReqQFullDrop",
}


@dataclass(frozen=True)
class SynListener:
    """A listener of ours, beside what was sent to its port.

    Attributes:
        address: Where it listens, as text.
        syns: SYNs to its port, whatever address they were sent to.
        stats: Since it was made. Accepted far fewer than *syns*: most were never to become
            connections.
    """

    address: str
    syns: int
    stats: ListenerStats


@dataclass(frozen=True)
class SynReport:
    """What a `SynWatch` knows. ``saw`` holds each SYN that the kernel had let through when asked.

    Attributes:
        interface: Where it listened; ``None``: on all.
        seconds: Since the recording began.
        saw: SYNs without ACK, to this machine or to be forwarded by it.
        ipv6: How many of them came over IPv6.
        attributed: How many surely belong to the sources that have a row; all, while there are rows
            enough.
        attributed_networks: The same of networks.
        kernel_drops: SYNs that were not seen, since the ring was full.
        pending: SYNs that the kernel had not handed over in 5 seconds; 0 unless the machine stands
            still.
        cut: Packets that ended before it could be told what they are.
        downs: Times that the interface went down or away. Nothing was seen until it was up again.
        different_sources: An estimate (standard error 1.6 %).
        different_ports: Ports that were asked for, 0 to 65535: exact.
        sources: Those first that surely sent most.
        networks: Those first that surely sent most.
        ports: (port, SYNs to it), those first that were asked most. Exact.
        tcp: What the kernel counted meanwhile.
        listeners: Those that it was given, in their order.
        cpu: Seconds of processor time that the recording took.
    """

    interface: str | None
    seconds: float
    saw: int
    ipv6: int
    attributed: int
    attributed_networks: int
    kernel_drops: int
    pending: int
    cut: int
    downs: int
    different_sources: int
    different_ports: int
    sources: tuple[SynSource, ...]
    networks: tuple[SynNetwork, ...]
    ports: tuple[tuple[int, int], ...]
    tcp: TcpCounters
    listeners: tuple[SynListener, ...]
    cpu: float

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        found = asdict(self)
        for one, listener in zip(found["listeners"], self.listeners, strict=True):
            one["stats"] = listener.stats._asdict()
        return found

    def text(self) -> str:
        """All of it, for people."""
        return "\n".join(_text(self))

    def nft(self, *, at_least: int = 100) -> str:
        """A script for ``nft -f`` with two sets: those of *sources* that surely sent *at_least* SYNs.

        It is text: nothing is applied, and the rule that would drop their SYNs is a comment. Anybody
        can send SYNs from made-up addresses, so a rule of this kind can be made to lock out others.
        A report holds its *top* sources only: ask for as many as may be wanted.

        Raises:
            ValueError: *at_least* is less than 1.
        """
        if at_least < 1:
            raise ValueError(f"at_least must be 1 or more, got {at_least!r}")
        return _nft(self, [one for one in self.sources if one.sure >= at_least], at_least)


class SynWatch:
    """Counts SYNs by where they come from, while its block runs.

    Args:
        interface: Only those that come in there; None: all, ``lo`` too.
        rows: How many sources, and how many networks, are kept: some 400 bytes each.
        ring: Bytes of kernel memory for what has not been read yet, twice (IPv4, IPv6). A SYN takes
            about 160 of it.
        listeners: TCP listeners of this process, for `SynReport.listeners`.

    Raises:
        ValueError: A number is out of range, a listener is none of TCP; on entry: no such interface.
        Unavailable: On entry: no CAP_NET_RAW, no packet sockets, or the recorder is not installed.
    """

    def __init__(
        self,
        interface: str | None = None,
        *,
        rows: int = 4096,
        ring: int = 4 << 20,
        listeners: Iterable[Listener] = (),
    ) -> None:
        if not 1 <= rows <= _ROWS_MAX:
            raise ValueError(f"rows must be from 1 to {_ROWS_MAX}, got {rows!r}")
        if not _RING_MIN <= ring <= _RING_MAX:
            raise ValueError(f"ring must be from {_RING_MIN} to {_RING_MAX} bytes, got {ring!r}")
        self.interface, self.rows, self.ring = interface, rows, ring
        self._listeners = tuple(listeners)
        for one in self._listeners:
            if not isinstance(one.address, tuple):
                raise ValueError(f"listeners: {one.address!r} is no address of TCP")
        if len(self._listeners) > _LISTENERS_MAX:
            raise ValueError(f"listeners: at most {_LISTENERS_MAX}, got {len(self._listeners)}")
        self._recorder: Program | None = None
        self._before: dict[str, int] = {}

    def __enter__(self) -> SynWatch:
        recorder = Program(_RECORDER, [str(self._index()), str(self.rows), str(self.ring)])
        try:
            said, _, why = recorder.line().partition(" ")
            if said != "ready":
                raise Unavailable(_refusal(why))
            self._before = _netstat()
        except BaseException:
            recorder.close()
            raise
        self._recorder = recorder
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()

    def close(self) -> None:
        """End the recording. Safe to call twice."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None

    def report(self, top: int = 20) -> SynReport:
        """What has been seen since the block began: the *top* first rows of each table.

        Blocks for up to a tenth of a second, since the kernel hands SYNs over by the block: a task
        of an event loop calls it in a thread. Any thread may.

        Raises:
            ValueError: *top* is out of range.
            InvalidResult: The recorder was killed, or does not answer.
            RuntimeError: Outside of the block.
        """
        if not 0 <= top <= _ROWS_MAX:
            raise ValueError(f"top must be from 0 to {_ROWS_MAX}, got {top!r}")
        ports = [int(one.address[1]) for one in self._listeners]
        found = json.loads(self._running().ask(" ".join(map(str, ["report", top, *ports]))))
        after = _netstat()
        counters = {
            field: after[key] - self._before[key] if key in after and key in self._before else None
            for field, key in _COUNTERS.items()
        }
        listeners = tuple(
            SynListener(_written(one.address), syns, one.stats())
            for one, syns in zip(self._listeners, found["asked"], strict=True)
        )
        same = {one.name for one in fields(SynReport)} & found.keys()
        told = {name: found[name] for name in same} | {
            "interface": self.interface,
            "ipv6": found["saw_6"],
            "sources": tuple(map(_source, found["sources"])),
            "networks": tuple(map(_network, found["networks"])),
            "ports": tuple((port, count) for port, count in found["ports"]),
            "tcp": TcpCounters(**counters),
            "listeners": listeners,
        }
        return SynReport(**told)

    def _running(self) -> Program:
        if self._recorder is None:
            raise RuntimeError("nothing is recorded: use it in a with block")
        return self._recorder

    def _index(self) -> int:
        if self.interface is None:
            return 0
        try:
            return socket.if_nametoindex(self.interface)
        except OSError:
            there = ", ".join(name for _, name in socket.if_nameindex())
            raise ValueError(
                f"interface: there is none named {self.interface!r} here; there are {there}"
            ) from None


def _refusal(why: str) -> str:
    told = f"SYNs cannot be recorded here: {why}"
    if "Operation not permitted" in why:
        told += (
            "; it needs CAP_NET_RAW. Run it as root, or with that capability alone (systemd: "
            "AmbientCapabilities=CAP_NET_RAW), or inside of a hardsock.lab.Namespace, which an "
            "ordinary user can have"
        )
    return told


def _netstat() -> dict[str, int]:
    """The counters of TcpExt; none where there is no /proc."""
    try:
        lines = [line.split() for line in _NETSTAT.read_text().splitlines()]
    except OSError:
        return {}
    rows = [row[1:] for row in lines if row and row[0] == "TcpExt:"]
    if len(rows) != 2:
        return {}
    return {name: int(value) for name, value in zip(*rows, strict=True)}


def _source(found: dict[str, Any]) -> SynSource:
    return SynSource(
        found["who"],
        found["count"],
        found["error"],
        found["first"],
        found["last"],
        found["different"],
        tuple(found["ports"]),
    )


def _network(found: dict[str, Any]) -> SynNetwork:
    return SynNetwork(
        found["who"],
        found["count"],
        found["error"],
        found["first"],
        found["last"],
        found["different"],
        tuple(found["ports"]),
    )


def _written(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# ---- for people


def _text(report: SynReport) -> list[str]:
    where = report.interface or "all interfaces"
    saw = f"saw {report.saw:,}, attributed {report.attributed:,}"
    lines = [
        f"SYNs on {where} in {report.seconds:.1f} s: {saw}",
        f"different sources: about {report.different_sources:,}",
        f"not seen: {report.kernel_drops:,} dropped by the kernel for want of room in the ring",
    ]
    if report.pending:
        lines.append(f"not seen yet: {report.pending:,} that the kernel has not handed over")
    if report.downs:
        lines.append(f"the interface went down {report.downs} times: nothing was seen meanwhile")
    if report.sources:
        lines.append(f"\n{'source':40}{'SYNs':>12}{'at most':>12}{'ports':>8}  first of them")
    for one in report.sources:
        shown = " ".join(map(str, one.some_ports[:8]))
        lines.append(f"{one.address:40}{one.sure:>12,}{one.count:>12,}{one.ports:>8,}  {shown}")
    if report.networks:
        lines.append(f"\n{'network':40}{'SYNs':>12}{'at most':>12}{'sources':>8}")
    for net in report.networks:
        lines.append(f"{net.network:40}{net.sure:>12,}{net.count:>12,}{net.sources:>8,}")
    if report.ports:
        asked = ", ".join(f"{port} ({count:,})" for port, count in report.ports)
        lines.append(f"\nports: {asked}; {report.different_ports:,} in all")
    lines.append("\nTCP of this network namespace meanwhile, on all ports:")
    for name, value in asdict(report.tcp).items():
        told = "unknown" if value is None else f"{value:,}"
        lines.append(f"  {name.replace('_', ' '):20}{told:>12}")
    for listener in report.listeners:
        stats = listener.stats
        lines.append(
            f"listener {listener.address}: {listener.syns:,} SYNs to its port; accepted "
            f"{stats.accepted:,}, shed {stats.shed:,}, {stats.aborted:,} left, waiting now "
            f"{stats.queue_length}"
        )
    lines.append(f"the recording took {report.cpu:.3f} s of processor time")
    return lines


def _nft(report: SynReport, sources: list[SynSource], at_least: int) -> str:
    by_version: dict[int, list[str]] = {4: [], 6: []}
    for one in sources:
        by_version[ipaddress.ip_address(one.address).version].append(one.address)
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    lines = [
        f"# hardsock lab scan, {when}: sources of at least {at_least} SYNs in {report.seconds:.0f} s.",
        "# Not applied by hardsock. Addresses of SYNs can be made up: look at them first.",
        "table inet hardsock_scan {",
    ]
    for version, addresses in by_version.items():
        lines += [f"\tset sources{version} {{", f"\t\ttype ipv{version}_addr"]
        lines += ["\t\tflags timeout", "\t\ttimeout 1h"]
        if addresses:
            lines.append(f"\t\telements = {{ {', '.join(addresses)} }}")
        lines.append("\t}")
    lines += [
        "\t# chain input {",
        "\t#\ttype filter hook input priority filter; policy accept;",
        "\t#\tip saddr @sources4 tcp flags & (syn | ack) == syn counter drop",
        "\t#\tip6 saddr @sources6 tcp flags & (syn | ack) == syn counter drop",
        "\t# }",
        "}",
    ]
    return "\n".join(lines) + "\n"
