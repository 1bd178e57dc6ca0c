"""Making awaited connections and listeners: the twins of the functions of ``hardsock``."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from typing import Literal

import hardsock
from hardsock import _core
from hardsock._core import Breaker, CancelToken
from hardsock._defaults import whole_call
from hardsock._dial_limits import DialLimits, dial_queue
from hardsock._dialing import Dialing, dialing
from hardsock._names import suggests
from hardsock._observed import connects
from hardsock._options import SocketOptions, kernel_settings
from hardsock._records import Resolution
from hardsock.aio._connection import Connection
from hardsock.aio._host import current_hub
from hardsock.aio._listener import Listener
from hardsock.aio._timeout import sleep
from hardsock.connecting.adopt import adopt as _adopt
from hardsock.connecting.connect import (
    Address,
    Left,
    Way,
    check_via,
    name_in,
    rare_settings,
    sources_of,
    tls_settings,
    warn_of_changes,
    way_through,
)
from hardsock.listening.listen import first_of
from hardsock.listening.peer_limits import PeerLimits
from hardsock.listening.proxy_protocol import ProxyProtocol
from hardsock.tls.config import TLSConfig

__all__ = ["adopt", "connect", "listen", "resolve"]

_Attempt = Callable[[bool | TLSConfig, float | None], Awaitable[Connection]]


async def connect(
    address: Address,
    *,
    timeout: float | None = None,
    token: CancelToken | None = None,
    options: SocketOptions | None = None,
    source: tuple[str, int] | None = None,
    family: int = 0,
    attempt_delay: float = 0.25,
    max_in_flight: int = 6,
    tls: bool | TLSConfig = False,
    server_name: str | None = None,
    commit: Literal["tcp", "tls"] = "tcp",
    breaker: Breaker | None = None,
    via: str | None = None,
    proxy_tls: TLSConfig | None = None,
    limits: DialLimits | None = None,
    handshake_tries: int = 1,
    tls_fallback: TLSConfig | None = None,
    tls_breaker: Breaker | None = None,
    insecure_allow_weaker_fallback: bool = False,
) -> Connection:
    """As ``hardsock.connect``, with the same parameters, awaited."""
    rest = (attempt_delay, max_in_flight, breaker, dial_queue(limits))
    plain = (
        tls_fallback is None
        and tls_breaker is None
        and handshake_tries == 1
        and handshake_tries is not True
        and not insecure_allow_weaker_fallback
    )
    if plain and via is None and proxy_tls is None:
        return await _attempt(
            address, server_name, commit, token, options, source, family, rest, tls, timeout
        )
    # No function within this one: its cells would cost the usual call as well.
    check_via(via, proxy_tls, commit)
    common = (address, server_name, commit, token, options, source, family, rest)
    attempt: _Attempt = partial(_attempt, *common)
    if via is not None:
        attempt = partial(_attempt_via, via, proxy_tls, limits, *common)
    if plain:
        with whole_call(timeout, token) as seconds:
            return await attempt(tls, seconds)
    asked = dialing(
        address,
        server_name,
        tls,
        tries=handshake_tries,
        fallback=tls_fallback,
        breaker=tls_breaker,
        allow_weaker=insecure_allow_weaker_fallback,
    )
    with whole_call(timeout, token) as seconds:
        return await _with_care(attempt, asked, Left(seconds), token)


async def _attempt_via(
    via: str,
    proxy_tls: TLSConfig | None,
    limits: DialLimits | None,
    address: Address,
    server_name: str | None,
    commit: str,
    token: CancelToken | None,
    options: SocketOptions | None,
    source: tuple[str, int] | None,
    family: int,
    rest: tuple[float, int, Breaker | None, _core.DialQueue | None],
    tls: bool | TLSConfig,
    timeout: float | None,
) -> Connection:
    """To the proxy, through it, and TLS; with a place of *limits* until all of it is there."""
    way, left = way_through(via, address, tls, server_name, proxy_tls), Left(timeout)
    proxy, rare = (way.proxy.host, way.proxy.port), (*rest[:3], None)
    place = nullcontext() if limits is None else limits.place(timeout=left(), token=token)
    async with place:
        conn = await _attempt(
            *(proxy, None, commit, token, options, source, family, rare), way.proxy_tls, left()
        )
        return await _through(conn, way, left, token)


async def _through(conn: Connection, way: Way, left: Left, token: CancelToken | None) -> Connection:
    """From the proxy to the target."""
    from hardsock.connecting.proxies import tunnel_awaited

    try:
        limits = lambda: {"timeout": left(), "token": token}  # noqa: E731
        await tunnel_awaited(conn, way.proxy, way.host, way.port, limits)
        if way.tls is not None:
            await conn.upgrade_to_tls(way.tls, server_name=way.name, timeout=left(), token=token)
    except BaseException:
        conn.abort()
        raise
    return conn


async def _with_care(
    attempt: _Attempt,
    asked: Dialing,
    left: Left,
    token: CancelToken | None,
) -> Connection:
    while True:
        try:
            conn = await attempt(asked.choose(), left())
        except BaseException as exc:
            if (pause := asked.failed(exc, left(), token)) is None:
                raise
            # Here, so that what ends it has the lost handshake as its context.
            await sleep(pause, token=token)
        else:
            asked.succeeded()
            return conn


async def _attempt(
    address: Address,
    server_name: str | None,
    commit: str,
    token: CancelToken | None,
    options: SocketOptions | None,
    source: tuple[str, int] | None,
    family: int,
    rest: tuple[float, int, Breaker | None, _core.DialQueue | None],
    tls: bool | TLSConfig,
    timeout: float | None,
) -> Connection:
    found: list[tuple[str, int]] | None = None
    if source is not None and (name := name_in(source, "source")) is not None:
        left = Left(timeout)
        found = sources_of(
            await resolve((name[0], 1), timeout=timeout, token=token, family=family), name[1]
        )
        timeout = left()
    conn = await connects.op_connect(
        current_hub(),
        address,
        timeout=timeout,
        token=token,
        sockopts=kernel_settings(options),
        **tls_settings(tls, server_name, commit),
        **rare_settings(found or source, family, *rest),
    )
    if conn.changed_settings:
        warn_of_changes(conn.audit(), stacklevel=2)
    return Connection(conn)


async def resolve(
    address: Address,
    *,
    timeout: float | None = None,
    token: CancelToken | None = None,
    family: int = 0,
) -> Resolution:
    """As ``hardsock.resolve``, awaited."""
    resolution: Resolution = await _core._op_resolve(
        current_hub(), address, timeout=timeout, token=token, family=family
    )
    return resolution


@suggests
async def listen(
    address: Address | socket.socket | int,
    *,
    options: SocketOptions | None = None,
    backlog: int = 4096,
    reuse_port: bool = False,
    dual_stack: bool | None = None,
    defer_accept: int | None = None,
    fastopen: int | None = None,
    unix_mode: int | None = None,
    unlink_stale: bool = True,
    tls: TLSConfig | None = None,
    max_handshakes: int = 256,
    handshake_rate: int | None = None,
    tls_fallback: TLSConfig | None = None,
    tls_breaker: Breaker | None = None,
    insecure_allow_weaker_fallback: bool = False,
    proxy_protocol: ProxyProtocol | None = None,
    peer_limits: PeerLimits | None = None,
    timeout: float | None = None,
    token: CancelToken | None = None,
) -> Listener:
    """As ``hardsock.listen``, with the same parameters; only the lookup of a name is awaited."""
    name = None if isinstance(address, (socket.socket, int)) else name_in(address)
    if name is not None:
        address = first_of(await resolve((name[0], 1), timeout=timeout, token=token), name[1])
    return Listener(
        hardsock.listen(
            address,
            options=options,
            backlog=backlog,
            reuse_port=reuse_port,
            dual_stack=dual_stack,
            defer_accept=defer_accept,
            fastopen=fastopen,
            unix_mode=unix_mode,
            unlink_stale=unlink_stale,
            tls=tls,
            max_handshakes=max_handshakes,
            handshake_rate=handshake_rate,
            tls_fallback=tls_fallback,
            tls_breaker=tls_breaker,
            insecure_allow_weaker_fallback=insecure_allow_weaker_fallback,
            proxy_protocol=proxy_protocol,
            peer_limits=peer_limits,
        )
    )


@suggests
def adopt(
    conn: hardsock.Connection | socket.socket | int, *, options: SocketOptions | None = None
) -> Connection:
    """Await on a connection that exists: a ``hardsock.Connection``, a socket or a descriptor.

    A ``hardsock.Connection`` is shared, not taken: it may go on being used in threads, in the
    other direction. The rest is as in ``hardsock.adopt``. ValueError: *options* beside
    a ``hardsock.Connection``.
    """
    current_hub()  # Without an event loop nothing is taken.
    if isinstance(conn, hardsock.Connection):
        if options is not None:
            raise ValueError("options go with a socket or a descriptor, not with a Connection")
        return Connection(conn)
    return Connection(_adopt(conn, options=options))
