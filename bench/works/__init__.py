"""The works, in the order of the table. One file each; add a new one here and to the drivers."""

from __future__ import annotations

from ..model import Work
from . import (
    cancel_latency,
    connect_close,
    frames,
    http_servers,
    idle_memory,
    importing,
    lines,
    pools,
    request_reply,
    ten_thousand,
    tls_bulk,
    tls_connection,
    tls_handshake,
)

ALL: tuple[Work, ...] = (
    connect_close.WORK,
    request_reply.WORK,
    cancel_latency.WORK,
    cancel_latency.ACROSS_CPUS,
    idle_memory.WORK,
    lines.WORK,
    frames.ONE_KIB,
    frames.ONE_MIB,
    request_reply.AWAITED,
    ten_thousand.ECHO,
    ten_thousand.CHURN,
    idle_memory.AWAITED,
    idle_memory.SERVED,
    *http_servers.WORKS,
    tls_handshake.FULL,
    tls_handshake.RESUMED,
    tls_handshake.ACCEPTED,
    tls_bulk.RECEIVE,
    tls_bulk.SEND,
    tls_connection.REQUEST_REPLY,
    tls_connection.IDLE,
    tls_connection.IDLE_SERVER,
    pools.CHECKOUT,
    pools.CHECKOUT_THREADS,
    pools.FAIRNESS,
    pools.IDLE_MEMORY,
    pools.LENT_MEMORY,
    pools.WATCHING,
    importing.TIME,
    importing.MEMORY,
)
