"""hardsock's blocking connections: a deadline on every call; a token where the work says so."""

from __future__ import annotations

import functools
from typing import Any

import hardsock as hs

from ..model import Target
from . import _cancel, _common, _hardsock_pool, _hardsock_tls, _importing
from ._common import DEADLINE, FRAMES_PER_CLOCK_READ, LINES_PER_CLOCK_READ, MESSAGE

FRAMING = hs.LengthPrefix()  # four bytes, big endian
importing = _importing.of("import hardsock")


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


def lines(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target) as conn:
        messages = conn.lines(timeout=DEADLINE)
        return _common.rate_of(lambda: _common.all_of(messages, LINES_PER_CLOCK_READ), seconds)


def _frames(target: Target, seconds: float, count: int) -> dict[str, Any]:
    with connect(target) as conn:
        messages = conn.frames(FRAMING, timeout=DEADLINE)
        return _common.rate_of(lambda: _common.all_of(messages, count), seconds)


def frames_1k(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _frames(target, seconds, FRAMES_PER_CLOCK_READ["frames_1k"])


def frames_1m(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _frames(target, seconds, FRAMES_PER_CLOCK_READ["frames_1m"])


def idle_memory(target: Target, seconds: float, count: int) -> dict[str, Any]:
    def open_one() -> hs.Connection:
        conn = connect(target)
        exchange(conn)
        return conn

    return _common.hold(open_one, count)


tls_handshake = _hardsock_tls.tls_handshake
tls_resume = _hardsock_tls.tls_resume
tls_request_reply = _hardsock_tls.tls_request_reply
tls_receive = _hardsock_tls.tls_receive
tls_send = _hardsock_tls.tls_send
tls_accept = _hardsock_tls.tls_accept
tls_idle_memory = _hardsock_tls.tls_idle_memory
tls_idle_memory_server = _hardsock_tls.tls_idle_memory_server

pool_checkout = _hardsock_pool.pool_checkout
pool_checkout_8 = _hardsock_pool.pool_checkout_8
pool_fairness = _hardsock_pool.pool_fairness
pool_idle_memory = _hardsock_pool.pool_idle_memory
pool_lent_memory = _hardsock_pool.pool_lent_memory
pool_watching = _hardsock_pool.pool_watching
