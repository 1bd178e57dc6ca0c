"""A name server that takes every question and never answers."""

from __future__ import annotations

import asyncio
import socket
import time

import hardsock as hs
from hardsock.demo.measure import LIMIT, duration
from hardsock.demo.scene import Bound, Outcome, Scene
from hardsock.lab import DeadDNS, Namespace, inside, use_dns
from hardsock.lab.namespaces import Running

_TIMEOUT = 0.5
_SLACK = 0.1
_EXIT_SLACK = 0.5
# The final dot keeps glibc from trying again below the machine's own domain.
_ADDRESS = ("db.dead-dns.test.", 5432)


def _serve() -> None:
    # As resolv.conf(5) has it by default, but for 2 s instead of 5 s: 4 s in all.
    use_dns("127.0.0.1", timeout=2, attempts=2)
    with DeadDNS():
        inside.ready()
        inside.wait_for_stop()


def _report(begin: float) -> None:
    inside.ready({"begin": begin, "end": time.monotonic()})


def _by_socket() -> None:
    begin = time.monotonic()
    try:
        socket.create_connection(_ADDRESS, timeout=_TIMEOUT)
    except OSError:
        _report(begin)


def _by_asyncio() -> None:
    async def connect() -> None:
        begin = time.monotonic()
        try:
            await asyncio.wait_for(asyncio.open_connection(*_ADDRESS), _TIMEOUT)
        except (OSError, asyncio.TimeoutError):
            _report(begin)

    asyncio.run(connect())


def _by_hardsock() -> None:
    begin = time.monotonic()
    try:
        hs.connect(_ADDRESS, timeout=_TIMEOUT)
    except hs.DeadlineExceeded:
        _report(begin)


def _times(process: Running) -> tuple[float, float]:
    """Seconds from the beginning of the call to its return, and to the end of the process."""
    times = process.wait_ready()
    process.process.wait(LIMIT)
    gone = time.monotonic()
    process.result()
    return times["end"] - times["begin"], gone - times["begin"]


def _stdlib() -> Outcome:
    with (
        Namespace() as ns,
        ns.start(_serve, timeout=LIMIT) as server,
    ):
        server.wait_ready()
        with (
            ns.start(_by_socket, timeout=LIMIT) as first,
            ns.start(_by_asyncio, timeout=LIMIT) as second,
        ):
            returned, gone = _times(first)
            asyncio_returned, asyncio_gone = _times(second)
    return Outcome(
        f"returned after {duration(returned)}, process ended after {duration(gone)}; "
        f"asyncio: {duration(asyncio_returned)} and {duration(asyncio_gone)}"
    )


def _hardsock() -> Outcome:
    with Namespace() as ns, ns.start(_serve, timeout=LIMIT) as server:
        server.wait_ready()
        with ns.start(_by_hardsock, timeout=LIMIT) as process:
            returned, gone = _times(process)
    return Outcome(
        f"returned after {duration(returned)}, process ended after {duration(gone)}",
        {"return": returned, "exit": gone},
    )


SCENE = Scene(
    name="dead-dns",
    title=f"A dead DNS server, {_TIMEOUT:g} s allowed; then the process exits",
    shows="The name lookup is part of the deadline, and a lookup under way delays no exit.",
    stdlib=_stdlib,
    hardsock=_hardsock,
    bounds=(
        Bound(of="return", at_least=_TIMEOUT, at_most=_TIMEOUT + _SLACK, unit="s"),
        Bound(of="exit", at_most=_TIMEOUT + _EXIT_SLACK, unit="s"),
    ),
)
