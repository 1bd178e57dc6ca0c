"""Failures of networked programs: provoked, measured, drawn, and prevented.

``hardsock lab list`` and ``hardsock lab run NAME``; docs/experiments has what they found.
"""

from __future__ import annotations

from hardsock.lab.experiments.dns_hang import DNS_HANG
from hardsock.lab.experiments.experiment import Experiment, Finding
from hardsock.lab.experiments.half_close import HALF_CLOSE
from hardsock.lab.experiments.messages import MESSAGES
from hardsock.lab.experiments.nagle import NAGLE
from hardsock.lab.experiments.ports import PORTS
from hardsock.lab.experiments.tls_starvation import TLS_STARVATION

__all__ = ["EXPERIMENTS", "Experiment", "Finding"]

EXPERIMENTS = (
    DNS_HANG,
    NAGLE,
    MESSAGES,
    HALF_CLOSE,
    PORTS,
    TLS_STARVATION,
)
"""All experiments, in the order in which `hardsock lab list` names them."""
