"""The few rtnetlink requests that experiments in a namespace need: addresses, routes, a device.

Speaks to the kernel itself, so that no `ip` program is needed. Works on the calling thread's
network namespace; the callers in `hardsock.lab.inside` see to it that this is a throw-away one.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
from typing import Literal

RouteKind = Literal["blackhole", "unreachable", "prohibit"]

_NETLINK_ROUTE = 0
_NLM_F_REQUEST, _NLM_F_ACK = 0x1, 0x4
_NLM_F_REPLACE, _NLM_F_CREATE = 0x100, 0x400
_NLMSG_ERROR = 2
_RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 20, 24
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 18, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_NODAD = 0x02
_RTA_DST = 1
_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_UNIVERSE = 254, 4, 0
_ROUTE_KINDS: dict[str, int] = {"blackhole": 6, "unreachable": 7, "prohibit": 8}

_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 0x1


def set_link_up(dev: str) -> None:
    """Bring *dev* up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh22x", dev.encode(), 0)
        flags = struct.unpack_from("h", fcntl.ioctl(sock, _SIOCGIFFLAGS, request), 16)[0]
        request = struct.pack("16sh22x", dev.encode(), flags | _IFF_UP)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, request)


def add_swallowing_device(dev: str) -> None:
    """Create a device that swallows every packet sent into it, and bring it up."""
    try:
        _add_link(dev, "dummy")
    except OSError:
        _add_link(dev, "ifb")  # Swallows too, as long as no traffic control feeds it.
    set_link_up(dev)


def _add_link(dev: str, kind: str) -> None:
    info = _attribute(_IFLA_INFO_KIND, kind.encode())
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)
    body += _attribute(_IFLA_IFNAME, dev.encode() + b"\0") + _attribute(_IFLA_LINKINFO, info)
    _request(_RTM_NEWLINK, body)


def add_address(address: str, dev: str = "lo") -> None:
    """Give *dev* an address, written as ``10.0.0.2/32`` or ``fd00::2/128``; usable at once."""
    interface = ipaddress.ip_interface(address)
    body = struct.pack(
        "=BBBBI",
        _family(interface),
        interface.network.prefixlen,
        _IFA_F_NODAD if interface.version == 6 else 0,
        _RT_SCOPE_UNIVERSE,
        socket.if_nametoindex(dev),
    )
    body += _attribute(_IFA_LOCAL, interface.packed) + _attribute(_IFA_ADDRESS, interface.packed)
    _request(_RTM_NEWADDR, body)


def add_route(network: str, kind: RouteKind) -> None:
    """Refuse traffic to *network*: connect fails at once with an errno that *kind* decides.

    blackhole gives EINVAL, unreachable EHOSTUNREACH, prohibit EACCES.
    """
    net = ipaddress.ip_network(network)
    body = struct.pack(
        "=BBBBBBBBI",
        _family(net),
        net.prefixlen,
        0,
        0,
        _RT_TABLE_MAIN,
        _RTPROT_STATIC,
        _RT_SCOPE_UNIVERSE,
        _ROUTE_KINDS[kind],
        0,
    )
    body += _attribute(_RTA_DST, net.network_address.packed)
    _request(_RTM_NEWROUTE, body)


def _family(
    value: ipaddress.IPv4Interface
    | ipaddress.IPv6Interface
    | ipaddress.IPv4Network
    | ipaddress.IPv6Network,
) -> int:
    return socket.AF_INET if value.version == 4 else socket.AF_INET6


def _attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + b"\0" * (-length % 4)


def _request(kind: int, body: bytes) -> None:
    """Send one request and wait for the kernel's verdict; raises OSError with its errno."""
    flags = _NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_REPLACE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE) as sock:
        sock.bind((0, 0))
        sock.settimeout(5.0)
        sock.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        reply = sock.recv(65536)
    _length, reply_kind, _flags, _sequence, _port, code = struct.unpack_from("=IHHIIi", reply)
    if reply_kind != _NLMSG_ERROR:
        raise OSError(f"netlink answered with message type {reply_kind}")
    if code:
        raise OSError(-code, f"netlink: {os.strerror(-code)}")
