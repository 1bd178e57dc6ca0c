"""Failures of networked programs: provoked, measured, drawn, and prevented.

``hardsock lab list`` and ``hardsock lab run NAME``; docs/experiments has what they found.
"""

from __future__ import annotations

from hardsock.lab.experiments.backlog import BACKLOG
from hardsock.lab.experiments.broken_service import BROKEN_SERVICE
from hardsock.lab.experiments.cancel_lost import CANCEL_LOST
from hardsock.lab.experiments.dead_peer import DEAD_PEER
from hardsock.lab.experiments.deadline_lost import DEADLINE_LOST
from hardsock.lab.experiments.descriptors import DESCRIPTORS
from hardsock.lab.experiments.dial_storm import DIAL_STORM
from hardsock.lab.experiments.dns_hang import DNS_HANG
from hardsock.lab.experiments.endless_line import ENDLESS_LINE
from hardsock.lab.experiments.experiment import Experiment, Finding
from hardsock.lab.experiments.far_away import FAR_AWAY
from hardsock.lab.experiments.fin_timeout import FIN_TIMEOUT
from hardsock.lab.experiments.half_close import HALF_CLOSE
from hardsock.lab.experiments.held_ports import HELD_PORTS
from hardsock.lab.experiments.idle_flood import IDLE_FLOOD
from hardsock.lab.experiments.keepalive_workers import KEEPALIVE_WORKERS
from hardsock.lab.experiments.linger_zero import LINGER_ZERO
from hardsock.lab.experiments.loopback_ports import LOOPBACK_PORTS
from hardsock.lab.experiments.lossy import LOSSY
from hardsock.lab.experiments.messages import MESSAGES
from hardsock.lab.experiments.nagle import NAGLE
from hardsock.lab.experiments.pool_leak import POOL_LEAK
from hardsock.lab.experiments.ports import PORTS
from hardsock.lab.experiments.reset_storm import RESET_STORM
from hardsock.lab.experiments.short_patience import SHORT_PATIENCE
from hardsock.lab.experiments.sleepy_reader import SLEEPY_READER
from hardsock.lab.experiments.stale_keepalive import STALE_KEEPALIVE
from hardsock.lab.experiments.syn_scan import SYN_SCAN
from hardsock.lab.experiments.thread_collapse import THREAD_COLLAPSE
from hardsock.lab.experiments.tls_lossy import TLS_LOSSY
from hardsock.lab.experiments.tls_starvation import TLS_STARVATION
from hardsock.lab.experiments.tuned_together import TUNED_TOGETHER
from hardsock.lab.experiments.wide_range import WIDE_RANGE

__all__ = ["EXPERIMENTS", "Experiment", "Finding"]

EXPERIMENTS = (
    DNS_HANG,
    NAGLE,
    SLEEPY_READER,
    MESSAGES,
    ENDLESS_LINE,
    HALF_CLOSE,
    LINGER_ZERO,
    RESET_STORM,
    PORTS,
    LOOPBACK_PORTS,
    HELD_PORTS,
    FIN_TIMEOUT,
    WIDE_RANGE,
    TLS_STARVATION,
    POOL_LEAK,
    STALE_KEEPALIVE,
    DEAD_PEER,
    SHORT_PATIENCE,
    DESCRIPTORS,
    IDLE_FLOOD,
    BACKLOG,
    TUNED_TOGETHER,
    THREAD_COLLAPSE,
    KEEPALIVE_WORKERS,
    SYN_SCAN,
    DEADLINE_LOST,
    CANCEL_LOST,
    FAR_AWAY,
    LOSSY,
    TLS_LOSSY,
    BROKEN_SERVICE,
    DIAL_STORM,
)
"""All experiments, in the order in which `hardsock lab list` names them."""
