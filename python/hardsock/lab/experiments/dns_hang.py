"""A timeout for connecting that does not hold for the name lookup."""

from __future__ import annotations

import socket
import time

import hardsock as hs
from hardsock.lab.dns import DeadDNS, use_dns
from hardsock.lab.experiments.experiment import Bar, Chart, Experiment, Finding
from hardsock.lab.namespaces import run_in_namespace

_TIMEOUT = 0.5


def measure_inside() -> dict[str, tuple[float, str]]:
    """Seconds that both took, with a name server that never answers, and what ended them."""
    took = {}
    with DeadDNS():  # It takes questions, and is silent.
        use_dns("127.0.0.1", timeout=2, attempts=1)
        begin = time.monotonic()
        try:
            socket.create_connection(("db.example", 5432), timeout=_TIMEOUT).close()
        except OSError as exc:
            took["plain"] = time.monotonic() - begin, type(exc).__name__
        begin = time.monotonic()
        try:
            hs.connect(("db.example", 5432), timeout=_TIMEOUT).close()
        except hs.HardsockError as exc:
            took["hardsock"] = time.monotonic() - begin, type(exc).__name__
    return took


def _measure() -> Finding:
    took = run_in_namespace(measure_inside, timeout=60.0)
    (plain, plain_end), (ours, our_end) = took["plain"], took["hardsock"]
    return Finding(
        plain={"seconds": plain},
        hardsock={"seconds": ours},
        # What ended them tells whose timer it was, however slow this machine is.
        shown=plain > 3 * _TIMEOUT and (plain_end, our_end) == ("gaierror", "DeadlineExceeded"),
        text=f"Asked to take {_TIMEOUT} s at most, `socket.create_connection` came back after "
        f"{plain:.2f} s ({plain_end}), `hardsock.connect` after {ours:.2f} s ({our_end}). The resolver was told to try once "
        "and wait 2 s; the defaults are two attempts of 5 s for each name server.",
        chart=Chart(
            kind="timeline",
            title=f"connect(..., timeout={_TIMEOUT}) while the name server is silent",
            x="seconds",
            bars=[
                Bar("socket", 0, plain, "plain", failed=True, note=f"{plain:.2f} s"),
                Bar("hardsock", 0, ours, "hardsock", note=f"{ours:.2f} s"),
            ],
            limit=(_TIMEOUT, "asked for"),
        ),
    )


DNS_HANG = Experiment(
    name="dns-hang",
    title="The timeout that stops at the name",
    claim="A connect timeout does not limit the name lookup.",
    why="`create_connection` calls getaddrinfo(3) first, and that knows no timeout but the "
    "resolver's own (resolv.conf(5): `timeout` and `attempts`). The timeout that was given is for "
    "each address that is tried after it: with four addresses it may be had four times.",
    instead="`hardsock.connect(address, timeout=)` is for the whole call, lookup and all addresses "
    "and TLS. Without it: look names up in a thread that may be left behind, and count those.",
    measure=_measure,
    seconds=3,
)
