"""A small laboratory: bad networks, bad peers and real servers, without touching the machine.

Black holes, dead or scripted name servers, peers that drip, servers from temporary directories,
and throw-away network and mount namespaces to put them in. All traffic stays on loopback or inside
such a namespace; what would change a setting refuses to work anywhere else.

The demo and the tests of hardsock stand on it. Whatever a machine cannot offer (a program, a
privilege) raises `Unavailable`.
"""

from __future__ import annotations

from hardsock.lab.bad_proxy import BadProxy, Behaviour
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.certificates import make_certificate
from hardsock.lab.dns import DeadDNS, ScriptedDNS, use_dns
from hardsock.lab.inventory import differences, leak_check, snapshot
from hardsock.lab.namespaces import Namespace, NamespaceUnavailable, run_in_namespace
from hardsock.lab.peers import PeerScript
from hardsock.lab.scan import SynReport, SynWatch
from hardsock.lab.threads import Call, Hung, run_threaded, wait_until_blocked
from hardsock.lab.unavailable import Unavailable
from hardsock.lab.waits import poll_until
from hardsock.lab.wire import Impairment, InvalidResult, Wire, WireStats

__all__ = [
    "BadProxy",
    "Behaviour",
    "BlackHole",
    "Call",
    "DeadDNS",
    "Hung",
    "Impairment",
    "InvalidResult",
    "Namespace",
    "NamespaceUnavailable",
    "PeerScript",
    "ScriptedDNS",
    "SynReport",
    "SynWatch",
    "Unavailable",
    "Wire",
    "WireStats",
    "differences",
    "leak_check",
    "make_certificate",
    "poll_until",
    "run_in_namespace",
    "run_threaded",
    "snapshot",
    "use_dns",
    "wait_until_blocked",
]
