"""A thread that waits for a silent peer, and another one that wants it back."""

from __future__ import annotations

import socket
import time

import hardsock as hs
from hardsock.demo.measure import duration, median
from hardsock.demo.scene import Bound, Outcome, Scene
from hardsock.lab import Call, PeerScript
from hardsock.lab.endpoint import connect_to
from hardsock.lab.waits import poll_until

_PATIENCE = 1.0
_ROUNDS = 20
_MOST_MEDIAN = 0.01
_MOST_WORST = 0.25
_LAST_WORDS = b"still here"


def _close_under_a_recv() -> tuple[float, bool]:
    """Close a plain socket while another thread is in its recv.

    Returns:
        How long recv stayed blocked (watched for `_PATIENCE` seconds at most), and whether its
        descriptor's number meanwhile belonged to another socket.
    """
    with PeerScript([("stall",)]) as peer:
        sock = connect_to(peer.address)
        sock.settimeout(None)
        number = sock.fileno()
        with Call(sock.recv, 1) as call:
            call.wait_until_blocked()
            begin = time.monotonic()
            sock.close()
            with socket.socket() as other:
                reused = other.fileno() == number
            poll_until(lambda: not call.running, _PATIENCE)
            seconds = time.monotonic() - begin
            peer.release()
    return seconds, reused


def _cancel_by_stdlib() -> Outcome:
    seconds, _reused = _close_under_a_recv()
    return Outcome(f"cannot be cancelled: after close() still blocked for {seconds:.1f} s")


def _close_by_stdlib() -> Outcome:
    seconds, reused = _close_under_a_recv()
    more = ", and its descriptor number was reused under it" if reused else ""
    return Outcome(f"still blocked {seconds:.1f} s after close(){more}")


def _moment_of(error: type[hs.HardsockError], conn: hs.Connection, token: hs.CancelToken) -> float:
    """Block in recv; the time at which *error* ended it."""
    try:
        conn.recv(1, token=token)
    except error:
        return time.monotonic()
    raise AssertionError("recv returned")


def _latency_outcome(error: str, latencies: list[float], text: str = "") -> Outcome:
    middle, worst = median(latencies), max(latencies)
    return Outcome(
        f"{error} after {duration(middle)} (median of {len(latencies)}; worst {duration(worst)})"
        + text,
        {"median": middle, "worst": worst},
    )


def _cancel_by_hardsock() -> Outcome:
    latencies = []
    with PeerScript([("stall",), ("send", _LAST_WORDS), ("recv_until_eof",)]) as peer:
        with hs.connect(peer.address, timeout=5.0) as conn:
            for _ in range(_ROUNDS):
                token = hs.CancelToken()
                with Call(_moment_of, hs.Cancelled, conn, token) as call:
                    call.wait_until_blocked()
                    begin = time.monotonic()
                    token.cancel("the demo wants its thread back")
                    latencies.append(call.result() - begin)
            peer.release()
            usable = conn.recv_exactly(len(_LAST_WORDS), timeout=5.0) == _LAST_WORDS
    text = ", connection still usable" if usable else ", connection BROKEN"
    outcome = _latency_outcome("Cancelled", latencies, text)
    return Outcome(outcome.text, {**outcome.measured, "broken connections": not usable})


def _close_by_hardsock() -> Outcome:
    latencies = []
    with PeerScript([("recv_until_eof",)], connections=_ROUNDS) as peer:
        for _ in range(_ROUNDS):
            conn = hs.connect(peer.address, timeout=5.0)
            with Call(_moment_of, hs.Closed, conn, hs.CancelToken()) as call:
                call.wait_until_blocked()
                begin = time.monotonic()
                conn.close()
                latencies.append(call.result() - begin)
    return _latency_outcome("Closed", latencies)


_LATENCY_BOUNDS = (
    Bound(of="median", at_most=_MOST_MEDIAN, unit="s"),
    Bound(of="worst", at_most=_MOST_WORST, unit="s"),
)

SCENES = (
    Scene(
        name="cancel",
        title="Cancel a blocked recv from another thread",
        shows="Any waiting call can be called off at once, and the connection survives it.",
        stdlib=_cancel_by_stdlib,
        hardsock=_cancel_by_hardsock,
        bounds=(*_LATENCY_BOUNDS, Bound(of="broken connections", at_most=0)),
    ),
    Scene(
        name="close",
        title="Close from another thread while recv is blocked",
        shows="Closing wakes the one who waits, and no descriptor number is reused under a call.",
        stdlib=_close_by_stdlib,
        hardsock=_close_by_hardsock,
        bounds=_LATENCY_BOUNDS,
    ),
)
