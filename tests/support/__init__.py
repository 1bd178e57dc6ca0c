"""What the tests of hardsock stand on: peers, servers, namespaces, faults, threads, leak checks.

Half of it is `hardsock.lab`, which is shipped. Its modules are known here under both names:
``support.dns`` *is* ``hardsock.lab.dns``, so that a patch made through one is seen through the other.

Names used all over are offered here; the rest is imported from its module. That no test leaves
anything behind is `hardsock.pytest_plugin`'s task.
"""

from __future__ import annotations

import sys

from hardsock.lab import (
    blackhole,
    dns,
    endpoint,
    inside,
    inventory,
    namespaces,
    netlink,
    peers,
    threads,
)
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.dns import (
    DROP,
    NXDOMAIN,
    SERVFAIL,
    DeadDNS,
    ScriptedDNS,
    answer,
    resolv_conf,
    use_dns,
)
from hardsock.lab.endpoint import connect_to
from hardsock.lab.inventory import Leak, leak_check, snapshot
from hardsock.lab.namespaces import Namespace, NamespaceUnavailable, run_in_namespace
from hardsock.lab.peers import PeerFailure, PeerScript
from hardsock.lab.threads import Call, Hung, ThreadFailures, run_threaded, wait_until_blocked
from support.echo import EchoServer, SinkServer
from support.faults import strace_inject
from support.require import Unavailable, available, require

for _module in (blackhole, dns, endpoint, inside, inventory, namespaces, netlink, peers, threads):
    sys.modules[f"{__name__}.{_module.__name__.rpartition('.')[2]}"] = _module

__all__ = [
    "DROP",
    "NXDOMAIN",
    "SERVFAIL",
    "BlackHole",
    "Call",
    "DeadDNS",
    "EchoServer",
    "Hung",
    "Leak",
    "Namespace",
    "NamespaceUnavailable",
    "PeerFailure",
    "PeerScript",
    "ScriptedDNS",
    "SinkServer",
    "ThreadFailures",
    "Unavailable",
    "answer",
    "available",
    "connect_to",
    "leak_check",
    "require",
    "resolv_conf",
    "run_in_namespace",
    "run_threaded",
    "snapshot",
    "strace_inject",
    "use_dns",
    "wait_until_blocked",
]
