"""A scan, and the recorder that sees it: what runs in a namespace of the test's own.

Packets are written to ``lo`` as they are, from whatever source; they have no checksums, so that IP
and TCP drop them. A packet may be lost on the way, when the machine has more to do than it can: so
they are sent in rounds until the recorder knows all of them.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import hardsock as hs
from hardsock.cli.main import main
from hardsock.lab import SynReport, SynWatch, inside, poll_until
from hardsock.lab._program import Program
from hardsock.lab.netlink import set_link_up

_SYN, _SYN_ACK, _ACK = 0x02, 0x12, 0x10
_PATIENCE = 60.0


def _tcp(port: int, flags: int) -> bytes:
    return struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 5 << 4, flags, 1024, 0, 0)


def packet(
    source: str, port: int, flags: int = _SYN, *, before: bytes = b"", kind: int = 6
) -> bytes:
    """TCP over IPv4 or IPv6; *before*: options, or extension headers of which *kind* is the first."""
    address = ipaddress.ip_address(source)
    if address.version == 4:
        head = struct.pack(
            "!BBHHHBBH4s4s",
            0x45 + len(before) // 4,
            0,
            40 + len(before),
            0,
            0,
            64,
            kind,
            0,
            address.packed,
            bytes([127, 0, 0, 1]),
        )
    else:
        head = struct.pack("!IHBB", 6 << 28, 20 + len(before), kind, 64) + address.packed
        head += ipaddress.ip_address("::1").packed
    return head + before + _tcp(port, flags)


def frame(ip: bytes, tag: int | None = None) -> bytes:
    """An Ethernet frame to ``lo``, in the VLAN *tag*."""
    kind = 0x0800 if ip[0] >> 4 == 4 else 0x86DD
    vlan = b"" if tag is None else struct.pack("!HH", 0x8100, tag)
    return bytes(12) + vlan + struct.pack("!H", kind) + ip


class Sender:
    """Writes frames to ``lo``."""

    def __enter__(self) -> Sender:
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._sock.bind(("lo", 0))
        self.sent = 0
        return self

    def __exit__(self, *_details: object) -> None:
        self._sock.close()

    def send(self, frames: list[bytes]) -> None:
        """Write each of them once."""
        for one in frames:
            self._sock.send(one)
        self.sent += len(frames)


def _until(watch: SynWatch, sender: Sender, frames: list[bytes], names: set[str]) -> SynReport:
    """Send all *frames* again and again, until sources of those *names* have been seen."""
    found: list[SynReport] = []

    def all_are_there() -> bool:
        sender.send(frames)
        found[:] = [watch.report(1000)]
        return names <= {one.address for one in found[0].sources}

    assert poll_until(all_are_there, _PATIENCE)
    return found[0]


def all_shapes() -> dict[str, Any]:
    """SYNs of each kind, and what is none."""
    syns = {
        f"10.9.{n // 8}.{n + 1}": frame(packet(f"10.9.{n // 8}.{n + 1}", 80)) for n in range(16)
    }
    syns |= {f"2001:db8::{n + 1}": frame(packet(f"2001:db8::{n + 1}", 443)) for n in range(4)}
    syns["10.8.0.1"] = frame(packet("10.8.0.1", 22, before=bytes(8)))
    syns["10.8.0.2"] = frame(packet("10.8.0.2", 22), tag=0)
    hop_by_hop = bytes([6, 0, 1, 4, 0, 0, 0, 0])
    syns["2001:db8::a"] = frame(packet("2001:db8::a", 22, before=hop_by_hop, kind=0))
    noise = [
        frame(packet("10.7.0.1", 80, _SYN_ACK)),
        frame(packet("10.7.0.2", 80, _ACK)),
        frame(packet("10.7.0.3", 80, kind=17)),
        frame(packet("10.7.0.4", 80), tag=7),
        frame(packet("10.7.0.5", 80)[:30]),
    ]
    with Sender() as sender, SynWatch("lo") as watch:
        frames = [*noise, *syns.values()]
        report = _until(watch, sender, frames, set(syns))
    return {
        "rounds": sender.sent // len(frames),
        "wanted": list(syns),
        "report": report.as_dict(),
        "text": report.text(),
        "nft": report.nft(at_least=1),
    }


def full_ring() -> dict[str, Any]:
    """A recorder that stands still while its ring, of the least size, runs over; and goes on."""
    frames = [frame(packet(f"10.9.1.{n + 1}", 80)) for n in range(200)]
    with Sender() as sender, SynWatch("lo", ring=8192) as watch:
        recorder = watch._running().process.pid
        found: list[SynReport] = []

        def runs_over() -> bool:
            os.kill(recorder, signal.SIGSTOP)
            os.waitpid(recorder, os.WUNTRACED)
            sender.send(frames)
            os.kill(recorder, signal.SIGCONT)
            found[:] = [watch.report(1000)]
            return found[0].kernel_drops > 0

        assert poll_until(runs_over, _PATIENCE)
        sent = sender.sent
        after = _until(watch, sender, [frame(packet("10.8.8.8", 81))], {"10.8.8.8"})
        return {"full": found[0].as_dict(), "after": after.as_dict(), "sent": sent}


def counters_of_the_kernel() -> dict[str, Any]:
    """Connections to a listener of ours where each SYN gets a cookie, and to one that accepts none."""
    inside.write_sysctl("net.ipv4.tcp_syncookies", 2)
    with (
        hs.listen(("127.0.0.1", 0)) as listener,
        SynWatch(listeners=[listener]) as watch,
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
    ):
        for _ in range(3):
            hs.connect(listener.address, timeout=_PATIENCE).abort()
            listener.accept(timeout=_PATIENCE).abort()
        waiting: list[socket.socket] = []

        def overflows() -> bool:
            if len(waiting) < 20:
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(full.getsockname())
            return (watch.report().tcp.listen_overflows or 0) > 0

        assert poll_until(overflows, _PATIENCE)
        for one in waiting:
            one.close()
        report = watch.report()
        return {"report": report.as_dict(), "text": report.text()}


def interface_that_goes_down() -> dict[str, Any]:
    """``lo`` goes down under the recorder, and comes up again."""
    inside.check_isolated("net")
    with Sender() as sender, SynWatch("lo") as watch:
        pid = watch._running().process.pid
        _set_down("lo")
        down = poll_until(lambda: watch.report().downs > 0, _PATIENCE)
        sleeps = poll_until(lambda: _state(pid) == "S", _PATIENCE)
        set_link_up("lo")
        report = _until(watch, sender, [frame(packet("10.8.8.8", 81))], {"10.8.8.8"})
        return {"down": down, "sleeps": sleeps, "downs": report.downs}


def _set_down(dev: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh22x", dev.encode(), 0))


def command_line(*arguments: str) -> int:
    """``hardsock lab scan`` itself."""
    return main(["lab", "scan", *arguments])


def interrupted_command() -> int:
    """The same, with Ctrl-C while it records."""

    def interrupt(_self: Program, _seconds: float) -> bool:
        raise KeyboardInterrupt

    Program.dies_within = interrupt  # type: ignore[method-assign]
    return command_line()


def used_after_its_thread() -> int:
    """A recording that one thread begins, and many others read when the first is over."""
    watch = SynWatch("lo")
    beginner = threading.Thread(target=watch.__enter__)
    beginner.start()
    beginner.join()
    with closing(watch), Sender() as sender:
        _until(watch, sender, [frame(packet("10.8.8.8", 81))], {"10.8.8.8"})
        with ThreadPoolExecutor(4) as others:
            found = others.map(lambda top: len(watch.report(top).sources), [0, 1] * 8)
            return sum(found)


_OWNER = """
import os, signal, sys
from hardsock.lab import SynWatch
with SynWatch("lo") as watch:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        while True:
            signal.pause()
    print(watch._running().process.pid, child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_owner() -> bool:
    """Whether a recorder ends with its owner, though a child of that holds the pipe to it open."""
    with subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        recorder, child = map(int, owner.stdout.readline().split())
    try:
        return poll_until(lambda: _is_over(recorder), _PATIENCE)
    finally:
        os.kill(child, signal.SIGKILL)


def _is_over(pid: int) -> bool:
    try:
        return _state(pid) == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
