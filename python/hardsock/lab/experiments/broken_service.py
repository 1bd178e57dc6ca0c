"""A service that is stuck: every caller pays the whole timeout to learn the same thing."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import Any

import hardsock as hs
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.namespaces import run_in_namespace

_CALLS = 30
_TIMEOUT = 0.2
_FAILURES = 5


def _count(listener: socket.socket) -> int:
    """Connections that came to the server: its kernel has taken them."""
    listener.setblocking(False)
    number = 0
    try:
        while True:
            listener.accept()[0].close()
            number += 1
    except BlockingIOError:
        return number


def _plain(address: tuple[str, int]) -> list[float]:
    """Seconds of each call that the caller waited for a TLS handshake."""
    context = ssl.create_default_context()
    took = []
    for _ in range(_CALLS):
        begin = time.monotonic()
        with (
            contextlib.suppress(OSError),
            socket.create_connection(address, timeout=_TIMEOUT) as sock,
        ):
            context.wrap_socket(sock, server_hostname="service.example")
        took.append(time.monotonic() - begin)
    return took


def _ours(address: tuple[str, int]) -> list[float]:
    breaker = hs.Breaker(failures=_FAILURES, patience=_TIMEOUT / 2)
    tls = hs.TLSConfig()
    took = []
    for _ in range(_CALLS):
        begin = time.monotonic()
        with contextlib.suppress(hs.HardsockError):
            hs.connect(
                address, timeout=_TIMEOUT, tls=tls, server_name="service.example", breaker=breaker
            ).abort()
        took.append(time.monotonic() - begin)
    return took


def measure_inside() -> dict[str, Any]:
    """Per side: what each call took, and how many of them the server saw."""
    found: dict[str, Any] = {}
    for side, call in (("plain", _plain), ("hardsock", _ours)):
        with listen(backlog=2 * _CALLS) as listener:  # It is connected to, and never says a word.
            took = call(listener.getsockname())
            found[side] = {"took": took, "reached": _count(listener)}
    return found


def _sums(took: list[float]) -> list[tuple[int, float]]:
    return [(number, sum(took[:number])) for number in range(len(took) + 1)]


def _measure() -> Finding:
    found = run_in_namespace(measure_inside, timeout=240.0)
    plain, ours = found["plain"], found["hardsock"]
    return Finding(
        plain=_figures(plain),
        hardsock=_figures(ours),
        shown=plain["reached"] > 0.8 * _CALLS and ours["reached"] <= 2 * _FAILURES,
        text=f"A service that accepts and is silent, and {_CALLS} calls one after the other, each with "
        f"{_TIMEOUT:g} s for its TLS handshake. Without a breaker all of them waited, {sum(plain['took']):.1f} s in "
        f"all, and {plain['reached']} connections reached the service that was stuck. With `hs.Breaker` "
        f"{ours['reached']} did, for {sum(ours['took']):.1f} s; the others were told at once, with what had been "
        "wrong before.",
        chart=Chart(
            kind="lines",
            title=f"{_CALLS} calls to a service that is stuck: seconds waited",
            x="calls",
            y="seconds, added up",
            lines=[
                Line("a timeout each", "plain", _sums(plain["took"])),
                Line("with hs.Breaker", "hardsock", _sums(ours["took"])),
            ],
        ),
    )


def _figures(found: dict[str, Any]) -> dict[str, float]:
    return {
        "calls": len(found["took"]),
        "reached_the_service": found["reached"],
        "seconds_waited": sum(found["took"]),
    }


BROKEN_SERVICE = Experiment(
    name="broken-service",
    title="Everybody finds out for themselves",
    claim="A timeout bounds what one caller pays for a service that is stuck; without a breaker all callers pay "
    "it, and the service is asked again by each of them.",
    why="A timeout forgets. The next caller begins with a connection and a handshake as if nothing were known, "
    "holds a thread and a slot of a pool for as long, and takes from the service the rest that it would need "
    "to come back.",
    instead="`breaker=hs.Breaker()` for all who connect to the same servers: after five failures in a row nobody "
    "tries for 30 s, then one does. It does not count what this side is to blame for: cancels, a "
    "lack of descriptors, deadlines too short for an answer (`patience`). Weaker TLS after failures is no "
    "cure, but what an attacker waits for.",
    measure=_measure,
    seconds=9,
)
