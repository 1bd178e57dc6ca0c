"""The packets of one connection over loopback, in the order in which the kernel put them there."""

from __future__ import annotations

import socket
import struct

from hardsock.lab.experiments.experiment import Arrow
from hardsock.lab.unavailable import Unavailable
from hardsock.lab.waits import readable

__all__ = ["Tap", "arrows"]

_ETH_P_IP = 0x0800
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_MARKER = b"the last packet"
_ROOM = 8 << 20
_PATIENCE = 20.0


class Tap:
    """Keeps what passes over ``lo`` from now on. Needs CAP_NET_RAW: use it in a namespace,
    in one thread."""

    def __init__(self) -> None:
        try:
            self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        except PermissionError as exc:
            raise Unavailable(f"cannot capture packets: {exc}") from None
        self._tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        self._tap.bind(("lo", _ETH_P_IP))

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *_details: object) -> None:
        self._tap.close()

    def read(self, port: int) -> list[tuple[bool, str]]:
        """Of TCP to and from *port*, up to now: whether it went to the port, and what it was.

        Unavailable: packets were lost, so that nothing can be said.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as marker:
            marker.bind(("127.0.0.1", 0))
            marker.sendto(_MARKER, marker.getsockname())
            found: list[tuple[bool, str]] = []
            while True:
                if not readable(self._tap.fileno(), _PATIENCE):
                    raise Unavailable("the kernel shows no packets here")
                packet, (_device, _protocol, kind, *_hardware) = self._tap.recvfrom(1 << 16)
                if kind == socket.PACKET_OUTGOING:
                    continue  # Loopback shows each packet twice.
                if packet.endswith(_MARKER):
                    return found
                if (one := _parsed(packet, port)) is not None:
                    found.append(one)


def _parsed(packet: bytes, port: int) -> tuple[bool, str] | None:
    header = (packet[0] & 15) * 4
    if packet[9] != socket.IPPROTO_TCP:
        return None
    source, target, _seq, _ack, offset, flags = struct.unpack_from("!HHIIBB", packet, header)
    if port not in (source, target):
        return None
    size = struct.unpack_from("!H", packet, 2)[0] - header - (offset >> 4) * 4
    words = [name for bit, name in ((_SYN, "SYN"), (_FIN, "FIN"), (_RST, "RST")) if flags & bit]
    if size:
        words.append(f"{size:,} bytes")
    return target == port, " + ".join(words) or "ACK"


def arrows(
    packets: list[tuple[bool, str]], panel: str, *, without_acks: bool = True
) -> list[Arrow]:
    """For a chart of the kind ``"sequence"``; acknowledgements alone are left out by default."""
    return [
        Arrow(panel, to_right, label, failed="RST" in label)
        for to_right, label in packets
        if not (without_acks and label == "ACK")
    ]
