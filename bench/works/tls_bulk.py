"""Bulk data over TLS 1.3: time per MiB, in calls of 256 KiB, on one connection, AES-128-GCM.

The peer (peers/tls_peer.c) sends, or receives, without end. Receiving: every call asks for up to
256 KiB and may get less (stdlib and Go get a record of 16 KiB at a time). stdlib and hardsock
receive into a buffer, asyncio and uvloop read from a StreamReader whose limit is 256 KiB. A deadline
of 5 s on every call; asyncio and uvloop: around each.

Worker and peer share one CPU, so a MiB takes what both need, and no waking of an idle CPU (with one
CPU each, that was on virtual machines the greatest part, and who spins, as Go does, looked best).
The rows "CPU" count the worker's own time in the same slices.
"""

from __future__ import annotations

import dataclasses

from ..model import Goal, Measure, Placement, Work, with_cpu

_AT_MOST_C = Goal(text="<= 1.05 x c", of="hardsock", against="c", at_most=1.05)
_AT_MOST_STDLIB = Goal(text="<= 1.00 x stdlib", of="hardsock", against="stdlib", at_most=1.00)

_RECEIVE = Work(
    name="tls_receive",
    title="TLS receive, 1 MiB",
    measure=Measure.RATE,
    peer_program="tls_peer",
    peer_mode="source",
    placement=Placement.SHARED,
    implementations=(
        "c",
        "hardsock",
        "stdlib",
        "hardsock-aio",
        "hardsock-aio-uvloop",
        "asyncio",
        "uvloop",
        "go",
    ),
    c_programs={"c": ("tls_bulk", "receive")},
    goals=(_AT_MOST_C, _AT_MOST_STDLIB),
    tls=True,
)

RECEIVE = with_cpu(_RECEIVE)

SEND = with_cpu(
    dataclasses.replace(
        _RECEIVE,
        name="tls_send",
        title="TLS send, 1 MiB",
        peer_mode="sink",
        c_programs={"c": ("tls_bulk", "send")},
    )
)
