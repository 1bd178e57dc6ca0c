"""A flood at a descriptor limit of 64: everybody is answered or told, nobody is left in silence."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

import hardsock as hs
from hardsock.lab.waits import poll_until
from support import http1
from support.http1_process import child
from support.serving import few_workers

if TYPE_CHECKING:
    from support.tls import Identities

PATIENCE = 30.0
DESCRIPTORS = 64
CLIENTS = 150


def is_answered(conn: hs.Connection, tls: Identities | None) -> bool:
    """Ask, and stay. False if the client is told to go; silence is an error."""
    try:
        if tls is not None:
            conn.upgrade_to_tls(tls.client(), server_name="localhost", timeout=PATIENCE)
        conn.sendall(http1.request(), timeout=PATIENCE)
        return conn.recv(4096, timeout=PATIENCE).startswith(b"HTTP/1.1 200 OK\r\n")
    except (hs.Reset, hs.EndOfStream, hs.Truncated):
        return False


def flood(driver: str, tls: Identities | None, settings: dict[str, Any]) -> tuple[Any, int]:
    """What the server counted, and how many clients were answered."""
    with child(driver, tls, descriptors=DESCRIPTORS, **settings) as server:
        with contextlib.ExitStack() as stack:
            conns = []
            for _ in range(CLIENTS):
                with contextlib.suppress(hs.ConnectError):
                    conns.append(stack.enter_context(hs.connect(server.address, timeout=PATIENCE)))
            answered = sum(is_answered(conn, tls) for conn in conns)

        def goes_on() -> bool:
            with contextlib.suppress(hs.ConnectError):
                with hs.connect(server.address, timeout=PATIENCE) as conn:
                    return is_answered(conn, tls)
            return False

        assert poll_until(goes_on, PATIENCE)
    return server.stats, answered


@pytest.mark.parametrize(
    "limit", [None, 40, 1000], ids=["the default", "below the limit", "above it"]
)
def test_a_flood_of_clients_that_stay(
    limit: int | None, driver: str, tls: Identities | None
) -> None:
    """As browsers do, until the server has enough of it: who finds no place by then is told."""
    settings: dict[str, Any] = {}
    if limit is not None:
        settings["max_connections"] = limit
        settings = few_workers(driver, 2, **settings)
    peak = 0
    # On a slow machine the first are idle for too long before the sixteenth has asked.
    for idle_timeout in (1.0, 4.0, 16.0):
        if peak < 16:
            stats, answered = flood(driver, tls, {**settings, "idle_timeout": idle_timeout})
            peak = stats["peak_active"]
    assert peak >= 16
    assert stats["accepted"] > answered
