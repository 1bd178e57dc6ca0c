"""Connecting to where nobody ever answers: one address, and a name that has three."""

from __future__ import annotations

import socket

import hardsock as hs
from hardsock.demo.measure import LIMIT, error_of, timed
from hardsock.demo.scene import Bound, Outcome, Scene
from hardsock.lab import BlackHole, run_in_namespace, use_dns

_SINGLE_TIMEOUT = 0.3
_TIMEOUT = 0.5
_NAME = "three.holes.test"
_HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
_SLACK = 0.1


def _single_by_stdlib() -> Outcome:
    with BlackHole() as hole, timed() as watch:
        error = error_of(lambda: socket.create_connection(hole.address, timeout=_SINGLE_TIMEOUT))
    return Outcome(f"{error} after {watch}")


def _single_by_hardsock() -> Outcome:
    with BlackHole() as hole, timed() as watch:
        error = error_of(lambda: hs.connect(hole.address, timeout=_SINGLE_TIMEOUT))
    return Outcome(f"{error} after {watch}", {"return": watch.seconds})


def _with_three_holes(by_hardsock: bool) -> tuple[str, float, int]:
    """Runs inside a namespace, where a hosts file of ours is in force."""
    use_dns("127.0.0.1", hosts="".join(f"{host} {_NAME}\n" for host in _HOSTS))
    tried = 0
    with BlackHole(_HOSTS) as holes, timed() as watch:
        address = (_NAME, holes.port)
        try:
            if by_hardsock:
                hs.connect(address, timeout=_TIMEOUT, attempt_delay=0.1)
            else:
                socket.create_connection(address, timeout=_TIMEOUT)
        except hs.HardsockError as exc:
            error, tried = type(exc).__name__, len(exc.attempts)
        except OSError as exc:
            error = type(exc).__name__
        else:
            error = "connected"
        watch.stop()
    return error, watch.seconds, tried


def _three_by_stdlib() -> Outcome:
    error, seconds, _tried = run_in_namespace(_with_three_holes, False, timeout=LIMIT)
    return Outcome(f"{error} after {seconds:.2f} s: the timeout counts per address")


def _three_by_hardsock() -> Outcome:
    error, seconds, tried = run_in_namespace(_with_three_holes, True, timeout=LIMIT)
    return Outcome(
        f"{error} after {seconds:.2f} s, {tried} addresses tried",
        {"return": seconds, "addresses tried": tried},
    )


SCENES = (
    Scene(
        name="black-hole",
        title=f"Connect to a black hole, {_SINGLE_TIMEOUT:g} s allowed",
        shows="A connect that nobody answers ends on time, neither early nor late.",
        stdlib=_single_by_stdlib,
        hardsock=_single_by_hardsock,
        bounds=(
            Bound(
                of="return", at_least=_SINGLE_TIMEOUT, at_most=_SINGLE_TIMEOUT + _SLACK, unit="s"
            ),
        ),
    ),
    Scene(
        name="three-black-holes",
        title=f"A name with three black holes, {_TIMEOUT:g} s allowed",
        shows="The deadline is one for the whole call, however many addresses a name has.",
        stdlib=_three_by_stdlib,
        hardsock=_three_by_hardsock,
        bounds=(
            Bound(of="return", at_least=_TIMEOUT, at_most=_TIMEOUT + _SLACK, unit="s"),
            Bound(of="addresses tried", at_least=len(_HOSTS)),
        ),
    ),
)
