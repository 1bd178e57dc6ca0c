"""TLS handshakes on a path that loses packets: one try, and tries within one deadline."""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hardsock as hs
from hardsock.lab import inside
from hardsock.lab.certificates import make_certificate
from hardsock.lab.experiments.experiment import Chart, Experiment, Finding, Line
from hardsock.lab.wire import InvalidResult, Wire

_DELAY, _LOSS = 0.02, 0.15
_HANDSHAKES, _AT_ONCE = 100, 20
_TRY, _DEADLINE = 1.0, 6.0
_PORT = 7100


def _hold(conn: hs.Connection) -> None:
    """Until the client has ended."""
    with contextlib.suppress(hs.HardsockError):
        conn.recv(1)


def serve(certificate: str, key: str) -> None:
    """TLS, until told to stop."""
    tls = hs.TLSConfig(role="server", certificates=hs.Certificate(chain=certificate, key=key))
    with hs.serve(
        _hold, (Wire.B, _PORT), tls=tls, drain_timeout=1, max_connections=2 * _HANDSHAKES
    ):
        inside.ready()
        inside.wait_for_stop()


def _one_try(certificate: str) -> Callable[[], bool]:
    context = ssl.create_default_context(cafile=certificate)

    def dial() -> bool:
        try:
            with (
                socket.create_connection((Wire.B, _PORT), timeout=_TRY) as sock,
                context.wrap_socket(sock, server_hostname=Wire.B),
            ):
                return True
        except OSError:
            return False

    return dial


def _within_a_deadline(certificate: str) -> Callable[[], bool]:
    tls = hs.TLSConfig(ca=certificate, sessions=False)

    def dial() -> bool:
        with hs.timeout(_DEADLINE):
            while hs.remaining():
                with contextlib.suppress(hs.HardsockError):
                    hs.connect((Wire.B, _PORT), timeout=_TRY, tls=tls).close()
                    return True
        return False

    return dial


def _time_of(dial: Callable[[], bool]) -> tuple[float, bool]:
    begin = time.monotonic()
    done = dial()
    return time.monotonic() - begin, done


def dial_all(certificate: str) -> dict[str, list[tuple[float, bool]]]:
    """Seconds of each dial, and whether there was a connection."""
    found = {}
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for side, make in (("plain", _one_try), ("hardsock", _within_a_deadline)):
            found[side] = list(threads.map(_time_of, [make(certificate)] * _HANDSHAKES))
    return found


def _measure() -> Finding:
    invalid = ""
    with (
        tempfile.TemporaryDirectory() as directory,
        Wire(delay=_DELAY, loss=_LOSS, seed=15) as wire,
    ):
        certificate, key = map(str, make_certificate(Path(directory), [Wire.B]))
        with wire.b.start(serve, certificate, key, timeout=300.0) as server:
            server.wait_ready()
            found: dict[str, Any] = wire.a.run(dial_all, certificate, timeout=300.0)
        conditions = wire.conditions()
        try:
            wire.judge()
        except InvalidResult as exc:
            invalid = str(exc)
    plain, ours = (_figures(found[side]) for side in ("plain", "hardsock"))
    return Finding(
        plain=plain,
        hardsock=ours,
        shown=plain["failed"] >= _HANDSHAKES / 10 and ours["failed"] < plain["failed"] / 4,
        invalid=invalid,
        conditions=conditions,
        text=f"On a wire that lost {_LOSS:.0%} of its packets, {plain['failed']} of {_HANDSHAKES} TLS handshakes "
        f"failed with one try of {_TRY:g} s. With tries of {_TRY:g} s within one deadline of {_DEADLINE:g} s it "
        f"was {ours['failed']}; half of those that came about took {ours['median_seconds'] * 1e3:.0f} ms or less, "
        f"and the longest {ours['longest_seconds']:.1f} s.",
        chart=Chart(
            kind="lines",
            title=f"{_HANDSHAKES} TLS handshakes, {_LOSS:.0%} of packets lost: how many are done",
            x="seconds since each began",
            y="handshakes",
            lines=[
                Line(f"one try of {_TRY:g} s", "plain", _done(found["plain"])),
                Line(f"tries within {_DEADLINE:g} s", "hardsock", _done(found["hardsock"])),
            ],
            limit=(_HANDSHAKES, "all"),
        ),
    )


def _figures(dials: list[tuple[float, bool]]) -> dict[str, float]:
    took = sorted(seconds for seconds, done in dials if done)
    return {
        "handshakes": len(dials),
        "failed": len(dials) - len(took),
        "median_seconds": took[len(took) // 2] if took else 0.0,
        "longest_seconds": took[-1] if took else 0.0,
    }


def _done(dials: list[tuple[float, bool]]) -> list[tuple[float, int]]:
    took = sorted(seconds for seconds, done in dials if done)
    points = [(0.0, 0), *((seconds, number + 1) for number, seconds in enumerate(took))]
    return [*points, (_DEADLINE, len(took))]


TLS_LOSSY = Experiment(
    name="tls-lossy",
    title="Handshakes that are worth a second try",
    claim="On a path that loses packets a short timeout for the TLS handshake fails often, and more often than the "
    "path does: a second try at once would have done it.",
    why="A lost SYN, or a lost answer to one, costs a second (RFC 6298), which is all that the try has. A new "
    "connection has no worse luck than the old one. But tries need an end that is common to all of them, or "
    "three tries of a minute are three minutes; and a timeout of `ssl` is one for each read, which a "
    "handshake has several of.",
    instead="One deadline around all tries, and a time for each: `with hs.timeout(6): ... "
    "hs.connect(..., timeout=1, tls=...)`, where a try ends with the earlier of the two, name, TCP and TLS "
    "together. Never the same handshake with weaker settings. Better still is not to shake hands: a `Pool`.",
    measure=_measure,
    seconds=15,
    is_short=False,
)
