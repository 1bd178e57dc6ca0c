"""Handshakes per second: TLS 1.3, from connect to close, one after the other.

A client connects with a 5 s deadline, does its handshake, verifies certificate (ECDSA P-256, signed by an
authority of the same kind) and name, receives one byte, and closes. The byte is the peer's word on
whether the session was resumed; a slice in which it is not as it should be fails. The peer
(peers/tls_peer.c) pins cipher and key exchange for all (peers/tls.h) and sends two tickets, as
OpenSSL does. Closing is what each library's users do: C, hardsock and Go send a close_notify and
close, stdlib only closes, asyncio and uvloop also wait for the peer's. Go is told to offer X25519
alone, or it would offer a post-quantum exchange that the peer does not know.

Full: no session is kept. Resumed: each connection resumes the session of one before it (asyncio and
uvloop cannot). The peer works on the same CPU, so its part is in every number; the rows "CPU" count
the client's own time in the same slices.

Accepted: the server's side, measured by its CPU time alone, since its clients (peers/tls_crowd.c, on
another CPU, 64 at a time) have more to do than it. Full handshakes; the server sends one byte and
closes. hardsock and stdlib accept in a loop of one thread (stdlib: from a listener that was wrapped,
so that each handshake keeps all others waiting), hardsock-aio, asyncio, uvloop and Go with a task
for each connection, "c" in one epoll loop.
"""

from __future__ import annotations

import dataclasses

from ..model import Goal, Measure, Placement, Work, with_cpu

_AT_MOST_C = Goal(text="<= 1.05 x c", of="hardsock", against="c", at_most=1.05)
_AT_MOST_STDLIB = Goal(text="<= 1.00 x stdlib", of="hardsock", against="stdlib", at_most=1.00)

_FULL = Work(
    name="tls_handshake",
    title="TLS handshake",
    measure=Measure.RATE,
    peer_program="tls_peer",
    peer_mode="handshake",
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
    c_programs={"c": ("tls_handshake", "full")},
    goals=(_AT_MOST_C, _AT_MOST_STDLIB),
    tls=True,
)

FULL = with_cpu(_FULL)

RESUMED = with_cpu(
    dataclasses.replace(
        _FULL,
        name="tls_resume",
        title="TLS resumed",
        c_programs={"c": ("tls_handshake", "resumed")},
        goals=(
            Goal(text="<= 1.05 x c", of="hardsock", against="c", at_most=1.05),
            _AT_MOST_STDLIB,
        ),
    )
)

ACCEPTED = dataclasses.replace(
    _FULL,
    name="tls_accept",
    title="TLS accepted, CPU",
    measure=Measure.CPU,
    peer_program="tls_crowd",
    peer_mode="64",
    placement=Placement.SPLIT,
    c_programs={"c": ("tls_server", "accept")},
)
