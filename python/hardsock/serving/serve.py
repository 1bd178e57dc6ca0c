"""Serving connections with a bounded number of threads."""

from __future__ import annotations

import socket
from typing import Literal

from hardsock._core import Breaker, CancelToken, Listener
from hardsock._names import suggests
from hardsock._options import SocketOptions
from hardsock.connecting.connect import Address
from hardsock.listening.peer_limits import PeerLimits
from hardsock.listening.proxy_protocol import ProxyProtocol
from hardsock.serving.messages import MessageServer
from hardsock.serving.opening import open_listener
from hardsock.serving.options import (
    DefaultCount,
    DefaultSeconds,
    ServeOptions,
    check_handler,
)
from hardsock.serving.server import Handler, Server
from hardsock.tls.config import TLSConfig

__all__ = ["serve"]


@suggests
def serve(
    handler: Handler,
    address: Address | socket.socket | int | Listener,
    *,
    drain_timeout: float,
    per: Literal["connection", "message"] = "connection",
    workers: int = DefaultCount(64),
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
    """Serve *address*: call ``handler(conn)`` for each connection, in a bounded number of threads.

    It runs at once. Use it as a context manager, whose end drains::

        with hs.serve(handler, ("", 8080), drain_timeout=10) as server:
            server.wait()  # until Ctrl-C, or until somebody calls server.stop()

    When *max_connections* are not finished, nothing more is accepted: further clients wait in the
    kernel's queue (*backlog*), and nothing piles up here.

    Every hardsock call in a handler obeys its connection's token, which the server cancels when
    time is up. When the handler returns, the connection is finished in an orderly way, also if
    there is input that nobody has read; if it raises, the connection is reset and the exception
    logged (``logging.getLogger("hardsock.serve")``, once a minute for each place), and serving goes
    on.

    Args:
        handler: Called with a ``Connection``, which is the server's again when it returns.
        per: How often. ``"connection"``: once; it waits for each message itself, and a connection
            costs a thread however quiet it is. ``"message"``: whenever a message begins; it reads
            one, answers, and returns, and the connection costs no thread until the next. What it
            wants to know then it keeps in ``conn.state``. It ends the connection by
            ``close_write()``, after which the server waits for the client's end, or ``close()``.
        address: As for ``listen``; or a ``Listener``, which is the server's from now on.
        drain_timeout: Seconds that the end may take. See ``Server.drain``.
        workers: How many handlers run at the same time; one that waits in a call of its connection
            does not count. By default 64, or *max_connections* if that is less.
        max_connections: Connections accepted and not finished. Per connection each has a thread,
            started when needed; by default *workers*. More than *workers* is for clients that
            stay connected and are quiet most of the time. Per message by default 10,000, or what
            the limit of descriptors (RLIMIT_NOFILE) allows if that is less.
        idle_timeout: Seconds after which a connection is ended on which nothing has moved while
            its handler waits for the beginning of a message, or while it has none. A client that
            spoke last waits for an answer, and is not idle: a handler that never answers (a log
            sink) gives its calls a *timeout* instead.
        read_timeout: Seconds that one message of the client's may take, from its first byte until
            the handler begins to answer: all calls that receive it together.
        write_timeout: Seconds that one answer may take, from the handler's first byte until it
            waits for the client again: all calls that send it together, and what the handler does
            between them.
        handler_timeout: Seconds that one call of *handler* may take: its token ends then. What it
            waits for outside of hardsock is not ended.
            A call that would go on beyond one of these three raises DeadlineExceeded, whose
            ``phase`` is ``"read_timeout"`` or ``"write_timeout"``; ``Server.stats`` counts each.
        linger: Seconds to wait for the client's end after the handler has returned. By default 2,
            or *drain_timeout* if that is less; with 0 unread input resets what was just sent.
        drain_idle: Seconds of a drain for which connections that are quiet stay, since a request may
            be on its way: it is answered, and the client may be told to ask elsewhere. By default 1,
            or a quarter of *drain_timeout* if that is less, and in a drain with another timeout at
            most half of it; with 0 they are closed at once. A drain is over as soon as there are no
            connections.
        token: Ends the server when it ends: all calls of all handlers are cancelled at once.
        name: Of threads, tokens and log messages.
        measure_delays: Count how late what arrives is noticed: ``ServerStats.delays``. The kernel then
            stamps what it receives, which ``recvmsg`` with room for ancillary data shows as well.
        options, backlog, reuse_port, dual_stack, defer_accept, fastopen, unix_mode, unlink_stale,
        tls, max_handshakes, handshake_rate, tls_fallback, tls_breaker,
        insecure_allow_weaker_fallback, proxy_protocol, peer_limits:
            As for ``listen``.
        timeout: Seconds until it listens: to look *address* up.

    Raises:
        HardsockError: As ``listen`` does.
        ValueError, TypeError: A parameter is wrong, or two contradict each other.
    """
    check_handler(handler)
    if token is not None and not isinstance(token, CancelToken):
        raise TypeError(f"token must be a CancelToken or None, not {type(token).__name__}")
    checked = ServeOptions(
        drain_timeout=drain_timeout,
        per=per,
        workers=workers,
        max_connections=max_connections,
        idle_timeout=idle_timeout,
        read_timeout=read_timeout,
        write_timeout=write_timeout,
        handler_timeout=handler_timeout,
        linger=linger,
        drain_idle=drain_idle,
        name="hardsock-serve" if name is None else name,
        measure_delays=measure_delays,
    )
    listener = open_listener(
        address,
        {
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
            "timeout": timeout,
            "token": token,
        },
    )
    try:
        if checked.per == "message":
            return MessageServer(handler, listener, checked, token)
        return Server(handler, listener, checked, token)
    except BaseException:
        if listener is not address:
            listener.close()
        raise
