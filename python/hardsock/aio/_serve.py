"""Serving connections in an event loop, with as many tasks as there may be connections."""

from __future__ import annotations

import inspect
import socket
from typing import Any, Literal

from hardsock._core import Breaker, CancelToken
from hardsock._core import Listener as BlockingListener
from hardsock._names import suggests
from hardsock._options import SocketOptions
from hardsock.aio._factories import resolve
from hardsock.aio._listener import Listener
from hardsock.aio._messages import MessageServer
from hardsock.aio._server import Handler, Server
from hardsock.connecting.connect import Address, name_in
from hardsock.listening.listen import first_of
from hardsock.listening.peer_limits import PeerLimits
from hardsock.listening.proxy_protocol import ProxyProtocol
from hardsock.serving.opening import open_listener
from hardsock.serving.options import DefaultSeconds, ServeOptions, many_connections
from hardsock.tls.config import TLSConfig

__all__ = ["serve"]


@suggests
def serve(
    handler: Handler,
    address: Address | socket.socket | int | Listener | BlockingListener,
    *,
    drain_timeout: float,
    per: Literal["connection", "message"] = "connection",
    max_connections: int | None = None,
    idle_timeout: float | None = None,
    read_timeout: float | None = None,
    write_timeout: float | None = None,
    handler_timeout: float | None = None,
    linger: float = DefaultSeconds(2.0),
    drain_idle: float = DefaultSeconds(1.0),
    token: CancelToken | None = None,
    name: str | None = None,
    measure_delays: bool = False,
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
) -> Server:
    """Serve *address*: await ``handler(conn)`` for each connection, or message, in a task.

    It runs inside ``async with``, whose end drains::

        async with aio.serve(handler, ("", 8080), drain_timeout=10) as server:
            await server.wait()  # until it is cancelled, or until server.stop()

    As ``hardsock.serve`` in everything else: when *max_connections* are not finished, nothing more
    is accepted; calls in a handler obey its connection's token; a handler that returns ends its
    connection in an orderly way, one that raises resets it and is logged.

    Args:
        handler: A coroutine function, called with an ``aio.Connection``.
        per: How often. ``"connection"``: once, at once, so that it may speak first; it reads message
            after message in a loop, and the connection has a task for as long as it lasts.
            ``"message"``: whenever a message begins, as for ``hardsock.serve``; it answers one and
            returns. A quiet connection then has no task and costs a third of the memory. What the
            handler wants to know the next time it keeps in ``conn.state``.
        max_connections: Connections accepted and not finished. By default 10,000, or what the
            limit of descriptors (RLIMIT_NOFILE) allows if that is less.
        handler_timeout: As for ``hardsock.serve``; a handler that waits for something else then has
            its task cancelled, up to a quarter (at most 5 s) later.
        drain_timeout, idle_timeout, read_timeout, write_timeout, linger, drain_idle, token,
        name, measure_delays, timeout: As for ``hardsock.serve``.
        options, backlog, reuse_port, dual_stack, defer_accept, fastopen, unix_mode, unlink_stale,
        tls, max_handshakes, handshake_rate, tls_fallback, tls_breaker,
        insecure_allow_weaker_fallback, proxy_protocol, peer_limits:
            As for ``listen``.

    Raises:
        ValueError, TypeError: A parameter is wrong, or two contradict each other.
        HardsockError: From ``async with``: as ``listen`` does.
    """
    _check_handler(handler)
    if token is not None and not isinstance(token, CancelToken):
        raise TypeError(f"token must be a CancelToken or None, not {type(token).__name__}")
    checked = ServeOptions(
        drain_timeout=drain_timeout,
        per=per,
        max_connections=many_connections() if max_connections is None else max_connections,
        idle_timeout=idle_timeout,
        read_timeout=read_timeout,
        write_timeout=write_timeout,
        handler_timeout=handler_timeout,
        linger=linger,
        drain_idle=drain_idle,
        name="hardsock-serve" if name is None else name,
        measure_delays=measure_delays,
    )
    asked: dict[str, object] = {
        "options": options,
        "backlog": backlog,
        "reuse_port": reuse_port,
        "dual_stack": dual_stack,
        "defer_accept": defer_accept,
        "fastopen": fastopen,
        "unix_mode": unix_mode,
        "unlink_stale": unlink_stale,
        "tls": tls,
        "max_handshakes": max_handshakes,
        "handshake_rate": handshake_rate,
        "tls_fallback": tls_fallback,
        "tls_breaker": tls_breaker,
        "insecure_allow_weaker_fallback": insecure_allow_weaker_fallback,
        "proxy_protocol": proxy_protocol,
        "peer_limits": peer_limits,
    }

    async def open_it() -> BlockingListener:
        where: Any = address._listener if isinstance(address, Listener) else address
        target = name_in(where) if isinstance(where, (str, tuple)) else None
        if target is not None:
            answer = await resolve((target[0], 1), timeout=timeout, token=token)
            where = first_of(answer, target[1])
        return open_listener(where, asked)

    driver = MessageServer if checked.per == "message" else Server
    return driver(handler, open_it, checked, token)


def _check_handler(handler: Handler) -> None:
    if not callable(handler):
        raise TypeError(f"handler must be callable, not {type(handler).__name__}")
    if inspect.isfunction(handler) and not inspect.iscoroutinefunction(handler):
        raise TypeError(f"handler must be a coroutine function (async def), got {handler!r}")
