"""A peer that sends one byte at a time, so that each single read succeeds."""

from __future__ import annotations

import hardsock as hs
from hardsock.demo.measure import timed
from hardsock.demo.scene import Bound, Outcome, Scene
from hardsock.lab import PeerScript
from hardsock.lab.endpoint import connect_to

_TIMEOUT = 0.5
_SLACK = 0.1
_SIZE = 25
_INTERVAL = 0.1
_DRIP = ("drip", b"." * _SIZE, _INTERVAL)


def _stdlib() -> Outcome:
    with PeerScript([_DRIP]) as peer, connect_to(peer.address) as sock:
        sock.settimeout(_TIMEOUT)
        with sock.makefile("rb") as file, timed() as watch:
            data = file.read(_SIZE)
    return Outcome(f"no timeout: {len(data)} bytes after {watch}, each read was on time")


def _hardsock() -> Outcome:
    with PeerScript([_DRIP]) as peer, hs.connect(peer.address, timeout=_TIMEOUT) as conn:
        kept = 0
        with timed() as watch:
            try:
                conn.recv_exactly(_SIZE, timeout=_TIMEOUT)
            except hs.DeadlineExceeded as exc:
                kept = exc.bytes_done
        again = len(conn.recv(_SIZE, timeout=_TIMEOUT))
    return Outcome(
        f"DeadlineExceeded after {watch}; the {kept} bytes so far are kept, and read next",
        {"return": watch.seconds, "bytes lost": max(0, kept - again)},
    )


SCENE = Scene(
    name="drip",
    title=f"{_SIZE} bytes dripping in, one per {_INTERVAL:g} s, {_TIMEOUT:g} s allowed",
    shows="A timeout per read is no limit for a message; a deadline is, and loses no byte.",
    stdlib=_stdlib,
    hardsock=_hardsock,
    bounds=(
        Bound(of="return", at_least=_TIMEOUT, at_most=_TIMEOUT + _SLACK, unit="s"),
        Bound(of="bytes lost", at_most=0),
    ),
)
