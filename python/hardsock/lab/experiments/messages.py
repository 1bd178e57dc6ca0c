"""TCP is a stream of bytes: writes come glued together, and cut anywhere."""

from __future__ import annotations

import socket

import hardsock as hs
from hardsock.lab.endpoint import listen
from hardsock.lab.experiments.experiment import Bar, Chart, Experiment, Finding
from hardsock.lab.namespaces import run_in_namespace

_MESSAGES = 200
_SIZE = 8
_READ = 100
_DRAWN = 600
"""Bytes of the stream that the picture shows."""


def measure_inside() -> dict[str, list[int]]:
    """How many bytes each read brought, of messages of 8 bytes that were written one by one."""
    sizes: dict[str, list[int]] = {"plain": [], "hardsock": []}
    for side, came in sizes.items():
        with listen() as listener, socket.create_connection(listener.getsockname()) as sender:
            receiver, _ = listener.accept()
            sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number in range(_MESSAGES):
                sender.sendall(b"%07d\n" % number)
            if side == "plain":
                with receiver:
                    while sum(came) < _MESSAGES * _SIZE:
                        came.append(len(receiver.recv(_READ)))
            else:
                with hs.adopt(receiver) as conn:
                    lines = conn.lines()
                    came += [len(next(lines)) + 1 for _ in range(_MESSAGES)]
    return sizes


def _cut(sizes: list[int]) -> int:
    """How many reads end inside a message."""
    at = cut = 0
    for size in sizes:
        at += size
        cut += at % _SIZE != 0
    return cut


def _bars(sizes: list[int]) -> list[Bar]:
    bars, at = [], 0
    for size in sizes:
        if at < _DRAWN:
            cut = (at + size) % _SIZE != 0
            bars.append(Bar("recv(100)", at, min(at + size, _DRAWN), "plain", failed=cut))
        at += size
    lines = range(0, _DRAWN, _SIZE)
    bars += [Bar("lines()", begin, begin + _SIZE, "hardsock") for begin in lines]
    return bars


def _measure() -> Finding:
    sizes = run_in_namespace(measure_inside, timeout=60.0)
    plain, ours = sizes["plain"], sizes["hardsock"]
    cut, whole = _cut(plain), sum(size == _SIZE for size in ours)
    return Finding(
        plain={"reads": len(plain), "cut": cut},
        hardsock={"messages": len(ours), "whole": whole},
        shown=cut > 0 and len(plain) < _MESSAGES and whole == _MESSAGES,
        text=f"{_MESSAGES} messages of {_SIZE} bytes, each in a write and a packet of its own, came "
        f"in {len(plain)} reads of up to {_READ} bytes; {cut} of those ended inside a message. "
        f"hardsock's `conn.lines()` gave {whole} whole messages.",
        chart=Chart(
            kind="timeline",
            title="What one read brings of messages of 8 bytes (hatched: cut inside one)",
            x=f"byte of the stream (the first {_DRAWN})",
            bars=_bars(plain),
        ),
    )


MESSAGES = Experiment(
    name="messages",
    title="A read is not a message",
    claim="One write is not one read: messages come glued together and cut apart, also with "
    "TCP_NODELAY.",
    why="TCP carries bytes, not messages (RFC 9293 section 3.8). How many come with a read depends on "
    "what has arrived and on the size of the buffer. A program that works on loopback may fail "
    "under load without a change.",
    instead="Say how messages end, and let that be read: `conn.lines()`, `recv_exactly`, frames with "
    "a limit (docs/framing.md). With plain sockets: a buffer of your own, in one place.",
    measure=_measure,
    seconds=2,
)
