"""Which packets a TCP connection sends over loopback, as the kernel puts them there.

    with Capture(ours=conn.getsockname()[1], theirs=sock.getsockname()[1]) as wire:
        conn.close()
        wire.wait_for("<-- ACK")
    assert wire.rest() == ["--> FIN", "<-- ACK"]

Works with CAP_NET_RAW only, so inside a `Namespace`, and on connections that are set up already.

An event is a direction and ``FIN``, ``RST``, ``probe`` (keepalive), ``n bytes`` or ``n bytes again``
(sent anew; ``probe`` and ``again`` stand for any number of them in a row). ``ACK`` is the first
acknowledgement of the other side's FIN. All other acknowledgements are left out: when the kernel
sends them depends on its timers, and no ending depends on them.
"""

from __future__ import annotations

import ctypes
import select
import socket
import struct
from dataclasses import dataclass

from hardsock.lab.unavailable import Unavailable
from hardsock.lab.waits import Deadline

_ETH_P_IP = 0x0800
_FIN, _SYN, _RST = 1, 2, 4
_SO_ATTACH_FILTER = 26
_MARKER = b"no packet of the connection comes after this"
_PATIENCE = 60.0


def mute(sock: socket.socket) -> None:
    """Let the kernel drop whatever arrives for *sock*, as if its host were gone. Needs no rights."""
    return_0 = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: keep nothing
    program = struct.pack("HP", 1, ctypes.addressof(return_0))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


@dataclass
class _Segment:
    source: int
    target: int
    seq: int
    ack: int
    flags: int
    size: int


@dataclass
class _Side:
    """One direction: what was sent so far."""

    arrow: str
    sent: int | None = None
    """The sequence number behind the last byte."""
    fin: int | None = None
    """The one behind the FIN, until that is acknowledged."""

    def is_new(self, segment: _Segment) -> bool:
        return self.sent is None or _after(segment.seq + segment.size, self.sent)


class Capture:
    """What passes over loopback between two ports from now on."""

    def __init__(self, *, ours: int, theirs: int) -> None:
        self.events: list[str] = []
        self._sides = {(ours, theirs): _Side("-->"), (theirs, ours): _Side("<--")}
        try:
            self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        except PermissionError as exc:
            raise Unavailable(f"cannot capture packets: {exc}") from exc
        self._tap.bind(("lo", _ETH_P_IP))
        self._marker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._marker.bind(("127.0.0.1", 0))

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_details: object) -> None:
        self._tap.close()
        self._marker.close()

    def wait_for(self, event: str) -> None:
        """Read packets until *event* was the last one."""
        deadline = Deadline(_PATIENCE)
        while not self.events or self.events[-1] != event:
            self._read(deadline)

    def rest(self) -> list[str]:
        """All events, up to the last packet that is under way now."""
        self._marker.sendto(_MARKER, self._marker.getsockname())
        deadline = Deadline(_PATIENCE)
        while not self._read(deadline).endswith(_MARKER):
            pass
        return self.events

    def _read(self, deadline: Deadline) -> bytes:
        poller = select.poll()
        poller.register(self._tap, select.POLLIN)
        if not poller.poll(deadline.left() * 1000):
            raise AssertionError(f"no packet any more; so far: {self.events}")
        packet, (_device, _protocol, kind, *_hardware) = self._tap.recvfrom(1 << 16)
        # Loopback shows each packet twice: when it leaves and when it arrives.
        segment = _parse(packet) if kind != socket.PACKET_OUTGOING else None
        if segment is not None and not segment.flags & _SYN:
            self._note(segment)
        return packet if kind != socket.PACKET_OUTGOING else b""

    def _note(self, segment: _Segment) -> None:
        side = self._sides.get((segment.source, segment.target))
        if side is None:
            return
        other = self._sides[segment.target, segment.source]
        for event in _events(segment, side, other):
            text = f"{side.arrow} {event}"
            repeats = event == "probe" or event.endswith("again")
            if not (repeats and self.events[-1:] == [text]):
                self.events.append(text)


def _events(segment: _Segment, side: _Side, other: _Side) -> list[str]:
    if segment.flags & _RST:
        return ["RST"]
    found = []
    if other.fin is not None and segment.ack == other.fin:
        found.append("ACK")
        other.fin = None
    new = side.is_new(segment)
    if segment.size:
        found.append(f"{segment.size} bytes" + ("" if new else " again"))
    elif (
        not segment.flags & _FIN and side.sent is not None and not new and segment.seq != side.sent
    ):
        found.append("probe")  # It asks about the byte before the next one.
    if new:
        side.sent = (segment.seq + segment.size) % 2**32
    if segment.flags & _FIN:
        found.append("FIN")
        side.sent = side.fin = (segment.seq + segment.size + 1) % 2**32
    return found


def _parse(packet: bytes) -> _Segment | None:
    """The TCP segment of an IPv4 packet; None if it holds none."""
    if packet[9] != socket.IPPROTO_TCP:
        return None
    (length,) = struct.unpack_from("!H", packet, 2)
    begin = (packet[0] & 15) * 4
    source, target, seq, ack, offset, flags = struct.unpack_from("!HHIIBB", packet, begin)
    return _Segment(source, target, seq, ack, flags, length - begin - (offset >> 4) * 4)


def _after(left: int, right: int) -> bool:
    """Whether *left* is after *right* in 32-bit sequence numbers."""
    return 0 < (left - right) % 2**32 < 2**31
