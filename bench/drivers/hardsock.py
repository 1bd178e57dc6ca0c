"""hardsock's blocking connections: a deadline on every call; a token where the work says so."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import hardsock as hs

from ..model import Target
from . import _cancel, _common
from ._common import DEADLINE, FRAMES_PER_CLOCK_READ, LINES_PER_CLOCK_READ, MESSAGE

FRAME = hs.LengthPrefix(width=4)


def version() -> str:
    return f"hardsock {hs.__version__}"


def connect(target: Target) -> hs.Connection:
    return hs.connect((target.host, target.port), timeout=DEADLINE)


def exchange(conn: hs.Connection) -> None:
    conn.sendall(MESSAGE, timeout=DEADLINE)
    conn.recv_exactly(64, timeout=DEADLINE)


def connect_close(target: Target, seconds: float, count: int) -> dict[str, Any]:
    address = (target.host, target.port)
    token = hs.CancelToken()
    return _common.rate(lambda: hs.connect(address, timeout=DEADLINE, token=token).close(), seconds)


def request_reply(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target) as conn:
        return _common.rate(lambda: exchange(conn), seconds)


def cancel_latency(target: Target, seconds: float, count: int) -> dict[str, Any]:
    """A new token for each sample, always the same connection: cancelling a recv loses nothing."""

    def body(blocked: _cancel.Blocked) -> None:
        with connect(target) as conn:
            while blocked.more():
                token = hs.CancelToken()
                blocked.announce(functools.partial(token.cancel, "bench"))
                try:
                    conn.recv(64, timeout=30.0, token=token)
                except hs.Cancelled:
                    blocked.caught()

    return _cancel.measure(body, seconds)


def idle_memory(target: Target, seconds: float, count: int) -> dict[str, Any]:
    def open_one() -> hs.Connection:
        conn = connect(target)
        exchange(conn)
        return conn

    return _common.hold(open_one, count)


def lines(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target) as conn:
        iterator = conn.lines(timeout=DEADLINE)

        def take() -> int:
            for _ in itertools.islice(iterator, LINES_PER_CLOCK_READ):
                pass
            return LINES_PER_CLOCK_READ

        return _common.flow(take, seconds)


def frames(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target) as conn:

        def take() -> int:
            for _ in range(FRAMES_PER_CLOCK_READ):
                conn.recv_frame(FRAME, timeout=DEADLINE)
            return FRAMES_PER_CLOCK_READ

        return _common.flow(take, seconds)
