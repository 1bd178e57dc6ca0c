"""Making listeners."""

from __future__ import annotations

import os
import socket
import warnings
from pathlib import Path
from typing import Any

from hardsock import _core
from hardsock._core import Breaker, CancelToken, Listener
from hardsock._errors import SettingWarning
from hardsock._greenlets import warn_of_greenlets
from hardsock._names import caller, suggests
from hardsock._options import SocketOptions, kernel_settings
from hardsock._records import Resolution
from hardsock.connecting.connect import Address, name_in, warn_of_changes
from hardsock.listening.peer_limits import PeerLimits
from hardsock.listening.proxy_protocol import ProxyProtocol
from hardsock.tls.config import TLSConfig, fallback_settings, server_context

__all__ = ["listen", "listen_fds"]

_MAX_HANDSHAKES = 256


@suggests
def listen(
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
    max_handshakes: int = _MAX_HANDSHAKES,
    handshake_rate: int | None = None,
    tls_fallback: TLSConfig | None = None,
    tls_breaker: Breaker | None = None,
    insecure_allow_weaker_fallback: bool = False,
    proxy_protocol: ProxyProtocol | None = None,
    peer_limits: PeerLimits | None = None,
    timeout: float | None = None,
    token: CancelToken | None = None,
) -> Listener:
    """Listen on *address*.

    Args:
        address: See ``Address``; ``("", port)`` is every address, IPv4 and IPv6 on one socket. A
            name is looked up under *timeout* and *token* and its first address is used. A
            listening ``socket.socket`` or descriptor is adopted.
        options: Settings for accepted connections, which inherit them; verified on the first one.
        backlog: Connections that may wait to be accepted. net.core.somaxconn silently caps it: what
            the kernel granted is read back, and less than asked for is a ``SettingWarning``.
        reuse_port: SO_REUSEPORT. Closing one of several listeners resets the connections queued on
            it unless net.ipv4.tcp_migrate_req is 1: there is a ``SettingWarning`` if it is not.
        dual_stack: Whether an IPv6 listener takes IPv4 too. ``None``: yes for ``""``, else as
            net.ipv6.bindv6only says.
        defer_accept: Seconds of TCP_DEFER_ACCEPT. It hides silent clients, also from your limits.
        fastopen: Queue length of TCP_FASTOPEN.
        unix_mode: Permission bits of a unix path, set before anybody can connect.
        unlink_stale: Replace a unix path on which nobody listens. Of several processes that do so
            at once one gets it, and the others EADDRINUSE: its folder is locked with flock(2)
            meanwhile. Without the lock (the folder cannot be read, or another program keeps it
            locked for 0.25 s), and beside programs that do not lock, they can still
            remove each other's new path.
        tls: A ``TLSConfig`` of role ``"server"``: accepting returns connections whose handshake is
            done. Silent and slow clients take none of the acceptor's time and are cut at the
            config's ``handshake_timeout``; failures are counted by kind (``stats()``).
        max_handshakes: Handshakes at the same time; further clients wait in the backlog.
        handshake_rate: Handshakes that may begin per second (a full one costs a core 0.1 to 1 ms);
            further clients wait in the backlog.
        tls_fallback: What handshakes use while *tls_breaker* is open: after failures that may be
            the fault of *tls*, such as clients that refuse an expired certificate. Clients can
            refuse as they like: what this allows, five of them can bring about.
        tls_breaker: By default ``Breaker()``: five failures in a row open it for 30 seconds. Its
            key is ``"listener ADDRESS"``. A client that leaves, is no TLS, or shows a bad
            certificate is not counted, and one address (IPv6: one /64) not twice in ten minutes.
        insecure_allow_weaker_fallback: Take a *tls_fallback* that is weaker than *tls*: a lower
            version, other ciphers, client certificates less strictly, or another ``insecure_``
            setting.
        proxy_protocol: From which proxies a PROXY header is expected, and believed. While it is
            awaited a connection takes one of *max_handshakes* places.
        peer_limits: What one peer may take.

    Raises:
        HardsockError: With ``errno`` and a ``hint``, for example EADDRINUSE.
        ValueError, TypeError: A parameter is wrong; the message names it.
    """
    fallback = check_settings(
        tls=tls,
        max_handshakes=max_handshakes,
        handshake_rate=handshake_rate,
        tls_fallback=tls_fallback,
        tls_breaker=tls_breaker,
        insecure_allow_weaker_fallback=insecure_allow_weaker_fallback,
        proxy_protocol=proxy_protocol,
        peer_limits=peer_limits,
    )
    name = None if isinstance(address, (socket.socket, int)) else name_in(address)
    if name is not None:
        address = first_of(_core.resolve((name[0], 1), timeout=timeout, token=token), name[1])
    kernel = dict(kernel_settings(options))
    extras = {
        "reuse_port": 1 if reuse_port else None,
        "v6only": None if dual_stack is None else int(not dual_stack),
        "defer_accept_s": defer_accept,
        "fastopen_queue": fastopen,
    }
    kernel.update({name: value for name, value in extras.items() if value is not None})
    warn_of_greenlets()
    listener = Listener(
        address.fileno() if isinstance(address, socket.socket) else address,
        sockopts=kernel,
        backlog=backlog,
        unix_mode=unix_mode,
        unlink_stale=unlink_stale,
        tls=server_context(tls),
        max_handshakes=max_handshakes,
        handshake_rate=handshake_rate,
        proxy_from=None if proxy_protocol is None else proxy_protocol._networks,
        proxy_timeout=5.0 if proxy_protocol is None else proxy_protocol.timeout,
        peer_limits=None if peer_limits is None else peer_limits._kernel(),
        peers_exempt=None if peer_limits is None else peer_limits._exempt,
        **fallback,
    )
    if isinstance(address, socket.socket):
        address.detach()
    _warn(listener, reuse_port)
    return listener


def check_settings(
    *,
    tls: TLSConfig | None = None,
    max_handshakes: int = _MAX_HANDSHAKES,
    handshake_rate: int | None = None,
    tls_fallback: TLSConfig | None = None,
    tls_breaker: Breaker | None = None,
    insecure_allow_weaker_fallback: bool = False,
    proxy_protocol: ProxyProtocol | None = None,
    peer_limits: PeerLimits | None = None,
) -> dict[str, Any]:
    """Refuse what contradicts itself before anything listens; returns what the fallback needs."""
    if tls is None and handshake_rate is not None:
        raise ValueError("handshake_rate has no use without tls")
    if tls is None and proxy_protocol is None and max_handshakes != _MAX_HANDSHAKES:
        raise ValueError("max_handshakes has no use without tls or proxy_protocol")
    if not isinstance(proxy_protocol, (ProxyProtocol, type(None))):
        raise TypeError(
            f"proxy_protocol must be a ProxyProtocol or None, not {type(proxy_protocol).__name__}"
        )
    if not isinstance(peer_limits, (PeerLimits, type(None))):
        raise TypeError(
            f"peer_limits must be a PeerLimits or None, not {type(peer_limits).__name__}"
        )
    server_context(tls)
    return fallback_settings(tls, tls_fallback, tls_breaker, insecure_allow_weaker_fallback)


def first_of(resolution: Resolution, port: int) -> str:
    """The address to listen on; port 0, which only a listener may ask for, is put back."""
    return resolution.plan[0].rpartition(":")[0] + f":{port}"


def _warn(listener: Listener, reuse_port: bool) -> None:
    warn_of_changes(listener.audit(), stacklevel=caller())
    stats = listener.stats()
    asked, effective = stats.backlog_asked, stats.backlog_effective
    if asked is not None and effective is not None and effective < asked:
        warnings.warn(
            f"asked for backlog={asked}, the kernel made it {effective}; "
            "run `hardsock-tune explain net.core.somaxconn`",
            SettingWarning,
            stacklevel=caller(),
        )
    if reuse_port and _read("/proc/sys/net/ipv4/tcp_migrate_req") == "0":
        warnings.warn(
            "reuse_port: closing one of several listeners resets the connections queued on it while "
            "net.ipv4.tcp_migrate_req is 0; run `hardsock-tune explain net.ipv4.tcp_migrate_req`",
            SettingWarning,
            stacklevel=caller(),
        )


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def listen_fds(
    *, options: SocketOptions | None = None, unset_environment: bool = True
) -> list[Listener]:
    """Adopt the listening sockets that systemd passed, as sd_listen_fds(3) does.

    Empty when LISTEN_PID is not this process. The variables are removed from the environment, so
    that children do not believe in descriptors which they do not have.
    """
    first = 3
    pid = os.environ.get("LISTEN_PID", "")
    count = os.environ.get("LISTEN_FDS", "")
    if unset_environment:
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            os.environ.pop(name, None)
    if not pid.isdigit() or int(pid) != os.getpid() or not count.isdigit():
        return []
    return [listen(fd, options=options) for fd in range(first, first + int(count))]
