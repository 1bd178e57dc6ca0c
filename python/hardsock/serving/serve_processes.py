"""Serving with several processes."""

from __future__ import annotations

import inspect
import os
import pickle
import socket
from collections.abc import Callable
from typing import Any, Literal

from hardsock._core import Breaker, CancelToken, Listener
from hardsock._names import suggests
from hardsock._options import SocketOptions, _check_int, _check_seconds
from hardsock.connecting.connect import Address
from hardsock.listening.listen import check_settings, listen
from hardsock.listening.peer_limits import PeerLimits
from hardsock.listening.proxy_protocol import ProxyProtocol
from hardsock.serving.options import ServeOptions
from hardsock.serving.processes import Plan, ProcessServer
from hardsock.tls.config import TLSConfig

__all__ = ["serve_processes"]


@suggests
def serve_processes(
    handler: Callable[..., object],
    address: Address | socket.socket | int,
    *,
    drain_timeout: float,
    processes: int | None = None,
    per: Literal["connection", "message"] = "connection",
    start_timeout: float = 30.0,
    name: str | None = None,
    workers: int | None = None,
    max_connections: int | None = None,
    idle_timeout: float | None = None,
    read_timeout: float | None = None,
    write_timeout: float | None = None,
    handler_timeout: float | None = None,
    linger: float | None = None,
    drain_idle: float | None = None,
    token: CancelToken | None = None,
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
    max_handshakes: int | None = None,
    handshake_rate: int | None = None,
    tls_fallback: TLSConfig | None = None,
    tls_breaker: Callable[[], Breaker] | None = None,
    insecure_allow_weaker_fallback: bool = False,
    proxy_protocol: ProxyProtocol | None = None,
    peer_limits: PeerLimits | None = None,
    timeout: float | None = None,
) -> ProcessServer:
    """Serve *address* with several processes, each of which runs ``serve`` or ``aio.serve``.

    For handlers that compute, which the threads of one process cannot do at the same time::

        if __name__ == "__main__":
            with hs.serve_processes(handler, ("", 8080), processes=4, drain_timeout=10) as server:
                server.wait()  # SIGTERM drains all, SIGHUP replaces them one by one

    One that dies is started again, at once if it has lived for a minute, else after a pause that
    grows from 1 to 30 s. With TLS their session tickets are sealed with the same keys, so that a
    client is resumed by whichever process it meets.

    Args:
        handler: A function at the top of a module that a fresh interpreter can import, as
            ``multiprocessing`` asks; ``async def`` is served by ``aio.serve`` in each process.
        address: As for ``listen``. A ``Listener`` that exists belongs to this process, with its
            settings: give an address or a listening socket, and the settings, instead.
        drain_timeout: Seconds that the end of one process may take.
        processes: How many; by default as many as this one may use CPUs.
        per: As for ``serve`` and ``aio.serve``: how often *handler* is called.
        start_timeout: Seconds that one may take from its start until it serves.
        name: Of processes, tokens and log messages.
        workers, max_connections, idle_timeout, read_timeout, write_timeout, handler_timeout, linger,
        drain_idle:
            As for ``serve``, of each process; *workers* not for an ``async def``.
        token: Ends all processes when it ends: all calls of all handlers are cancelled at once.
        measure_delays: As for ``serve``; ``ProcessServer.stats`` adds them up.
        options, backlog, reuse_port, dual_stack, defer_accept, fastopen, unix_mode, unlink_stale,
        tls, max_handshakes, handshake_rate, tls_fallback, insecure_allow_weaker_fallback,
        proxy_protocol, peer_limits:
            As for ``listen``. *max_handshakes*, *handshake_rate* and *peer_limits* are of each
            process.
        tls_breaker: What makes one, in each process: its state cannot be shared. For instance
            ``functools.partial(hs.Breaker, failures=3)``; by default ``Breaker``. So the fallback
            begins in each process when that many of its own clients have failed.
        timeout: Seconds to look *address* up.

    Raises:
        HardsockError: As ``listen`` does.
        ValueError, TypeError: A parameter is wrong, or two contradict each other.
    """
    count = len(os.sched_getaffinity(0)) if processes is None else processes
    _check_int("processes", count, 1, 1024)
    _check_seconds("start_timeout", start_timeout, 0.1)
    if not callable(handler):
        raise TypeError(f"handler must be callable, not {type(handler).__name__}")
    _check_importable(handler)
    if isinstance(address, Listener):
        raise TypeError(
            "address must not be a Listener, which belongs to this process with its settings: give "
            "its address, or a listening socket, and the settings"
        )
    if token is not None and not isinstance(token, CancelToken):
        raise TypeError(f"token must be a CancelToken or None, not {type(token).__name__}")
    if workers is not None and inspect.iscoroutinefunction(handler):
        raise ValueError("workers has no use for a handler that is a coroutine function")
    serving = _given(
        per=None if per == "connection" else per,
        workers=workers,
        max_connections=max_connections,
        idle_timeout=idle_timeout,
        read_timeout=read_timeout,
        write_timeout=write_timeout,
        handler_timeout=handler_timeout,
        linger=linger,
        drain_idle=drain_idle,
    )
    title = "hardsock-serve" if name is None else name
    serving |= {"name": title, "measure_delays": measure_delays}
    ServeOptions(drain_timeout=drain_timeout, **serving)
    of_connections = _given(
        tls=tls,
        max_handshakes=max_handshakes,
        handshake_rate=handshake_rate,
        tls_fallback=tls_fallback,
        tls_breaker=tls_breaker,
        insecure_allow_weaker_fallback=insecure_allow_weaker_fallback or None,
        proxy_protocol=proxy_protocol,
        peer_limits=peer_limits,
    )
    _check_int("max_handshakes", max_handshakes, 1, 1 << 20)
    _check_int("handshake_rate", handshake_rate, 1)
    check_settings(**of_connections | {"tls_breaker": _make_breaker(tls_breaker)})
    of_connections |= _given(options=options)
    listener = listen(
        address,
        options=options,
        backlog=backlog,
        reuse_port=reuse_port,
        dual_stack=dual_stack,
        defer_accept=defer_accept,
        fastopen=fastopen,
        unix_mode=unix_mode,
        unlink_stale=unlink_stale,
        timeout=timeout,
    )
    try:
        plan = Plan(handler, of_connections, serving, drain_timeout)
        return ProcessServer(plan, listener, count, title, start_timeout, token)
    except BaseException:
        listener.close()
        raise


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _make_breaker(make: Callable[[], Breaker] | None) -> Breaker | None:
    """One for a check of the settings, as each process will make its own."""
    if make is None:
        return None
    advice = (
        "give what makes one in each process, functools.partial(hs.Breaker, failures=5) for one"
    )
    if isinstance(make, Breaker):
        raise TypeError(f"tls_breaker is a Breaker, whose state is of this process: {advice}")
    try:
        pickle.dumps(make)
        made = make()
    except Exception as exc:
        raise ValueError(
            f"tls_breaker cannot be used in another process, got {make!r}: {exc}; {advice}"
        ) from exc
    if not isinstance(made, Breaker):
        raise TypeError(f"tls_breaker must make a Breaker, not {type(made).__name__}; {advice}")
    return made


def _check_importable(handler: Callable[..., object]) -> None:
    try:
        pickle.dumps(handler)
    except Exception as exc:
        raise ValueError(
            "handler must be something that another process can import, a function at the top of "
            f"a module for instance, got {handler!r}: {exc}"
        ) from exc
