"""Making listeners."""

from __future__ import annotations

import os
import socket
import warnings
from pathlib import Path

from hardsock import _core
from hardsock._connect import Address, warn_of_changes
from hardsock._core import CancelToken, Listener
from hardsock._errors import SettingWarning
from hardsock._options import SocketOptions, kernel_settings

__all__ = ["listen", "listen_fds"]


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
        unlink_stale: Replace a unix path on which nobody listens.

    Raises:
        HardsockError: With ``errno`` and a ``hint``, for example EADDRINUSE.
        ValueError, TypeError: A parameter is wrong; the message names it.
    """
    kernel = dict(kernel_settings(options))
    extras = {
        "reuse_port": 1 if reuse_port else None,
        "v6only": None if dual_stack is None else int(not dual_stack),
        "defer_accept_s": defer_accept,
        "fastopen_queue": fastopen,
    }
    kernel.update({name: value for name, value in extras.items() if value is not None})
    listener = Listener(
        _literal(address, timeout, token) if isinstance(address, (str, tuple)) else _fd(address),
        sockopts=kernel,
        backlog=backlog,
        unix_mode=unix_mode,
        unlink_stale=unlink_stale,
    )
    if isinstance(address, socket.socket):
        address.detach()
    _warn(listener, reuse_port)
    return listener


def _fd(address: socket.socket | int) -> int:
    return address.fileno() if isinstance(address, socket.socket) else address


def _literal(address: Address, timeout: float | None, token: CancelToken | None) -> Address:
    """Look a name up; port 0, which only a listener may ask for, is put back afterwards."""
    _core.parse_address(address)
    if isinstance(address, tuple):
        host, port = address[0], address[1]
    elif address.startswith(("unix:", "[")):
        return address
    else:
        host, _, text = address.rpartition(":")
        port = int(text)
    if not host or host.replace(".", "").isdigit() or ":" in host:
        return (host, port) if isinstance(address, str) else address
    plan = _core.resolve((host, 1), timeout=timeout, token=token).plan
    return plan[0].rpartition(":")[0] + f":{port}"


def _warn(listener: Listener, reuse_port: bool) -> None:
    warn_of_changes(listener.audit(), stacklevel=3)
    stats = listener.stats()
    asked, effective = stats.backlog_asked, stats.backlog_effective
    if asked is not None and effective is not None and effective < asked:
        warnings.warn(
            f"asked for backlog={asked}, the kernel made it {effective}; "
            "run `hardsock-tune explain net.core.somaxconn`",
            SettingWarning,
            stacklevel=3,
        )
    if reuse_port and _read("/proc/sys/net/ipv4/tcp_migrate_req") == "0":
        warnings.warn(
            "reuse_port: closing one of several listeners resets the connections queued on it while "
            "net.ipv4.tcp_migrate_req is 0; run `hardsock-tune explain net.ipv4.tcp_migrate_req`",
            SettingWarning,
            stacklevel=3,
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
