"""Settings as frozen values, checked in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from hardsock._names import names_checked

__all__ = ["SocketOptions"]

_MAX_INT = 2**31 - 1
# What dead_after computes, and so contradicts.
_COMPUTED = (
    "keepalive",
    "keepalive_idle",
    "keepalive_interval",
    "keepalive_count",
    "user_timeout",
)


def _check_int(name: str, value: object, low: int, high: int = _MAX_INT) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int or None, not {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be in {low}..{high}, got {value}")


def _check_bool(name: str, value: object) -> None:
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool or None, not {type(value).__name__}")


def _check_seconds(name: str, value: object, low: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {type(value).__name__}")
    if math.isnan(value) or not low <= value <= 86400:
        raise ValueError(f"{name} must be in {low:g}..86400 seconds, got {value!r}")


class _Default(float):
    """A value that gives way to what contradicts it."""


@names_checked
@dataclass(frozen=True, kw_only=True)
class SocketOptions:
    """Socket settings. ``None`` leaves the kernel's default alone.

    Every setting is read back from the kernel; ``Connection.audit()`` lists asked and effective.

    A contradiction is refused: ``dead_after`` computes keepalive and TCP_USER_TIMEOUT, so it
    cannot be given together with any of them.

    Attributes:
        nodelay: TCP_NODELAY: small writes go out at once (tcp(7)).
        dead_after: Seconds within which a peer that is gone is noticed, whether the connection is
            idle or has data in flight. 45, unless one of the settings that it computes is given, or
            ``None``.

            Sets keepalive and TCP_USER_TIMEOUT consistently: the latter overrides the probe count,
            and from 5 s on is shorter than this by one probe's interval and the lateness of its
            timer. Keepalive counts whole seconds: below 2 s an idle peer takes about 2 s.

            Times are drawn and chosen so that the probes of a crowd, opened together, do not leave
            together: what overflows the kernel's queue (``net.core.netdev_max_backlog``, 1000) is
            lost, and a peer whose probes are all lost counts as dead. 18,000 ends of one machine,
            opened within half a second, live from 12 s on, half as many from 7 s on. Below 5 s one
            or two lost probes are enough. From 5 s to about 20 s (35 s on some kernels) an idle
            connection is probed every 1 to 5 s, by the kernel's tick rate; with 45 s every 4 to 16
            s.
        keepalive: SO_KEEPALIVE: whether the kernel probes a peer that is silent.
        keepalive_idle: Seconds of silence before the first probe (TCP_KEEPIDLE).
        keepalive_interval: Seconds between probes (TCP_KEEPINTVL).
        keepalive_count: Unanswered probes after which the connection is dead (TCP_KEEPCNT).
        user_timeout: Seconds that sent data may stay unacknowledged (TCP_USER_TIMEOUT). Does
            nothing on an idle connection without keepalive.
        recv_buffer: Bytes (SO_RCVBUF). Setting it switches the kernel's own tuning off.
        send_buffer: Bytes (SO_SNDBUF). Setting it switches the kernel's own tuning off.
        notsent_lowat: Bytes that may wait unsent before the socket stops being writable
            (TCP_NOTSENT_LOWAT).
        linger: SO_LINGER: 0 makes every close a reset and destroys data in flight; never set by
            hardsock on its own. More than 0 is refused: it makes close(2) block, even on a
            non-blocking socket. So is 0 for a listener: all that it accepts would inherit it.
        priority: SO_PRIORITY, of the packets in this machine's queues: 0 to 6, and above that with
            CAP_NET_ADMIN.
        mark: SO_MARK, for policy routing and firewalls; needs CAP_NET_ADMIN.
        interface: SO_BINDTODEVICE: use only this network interface.
        mptcp: Multipath TCP; falls back to TCP where the kernel has none (the audit tells).
    """

    nodelay: bool | None = True
    dead_after: float | None = _Default(45.0)
    keepalive: bool | None = None
    keepalive_idle: int | None = None
    keepalive_interval: int | None = None
    keepalive_count: int | None = None
    user_timeout: float | None = None
    recv_buffer: int | None = None
    send_buffer: int | None = None
    notsent_lowat: int | None = None
    linger: int | None = None
    priority: int | None = None
    mark: int | None = None
    interface: str | None = None
    mptcp: bool | None = None
    _kernel: dict[str, int | str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("nodelay", "keepalive", "mptcp"):
            _check_bool(name, getattr(self, name))
        for name in ("keepalive_idle", "keepalive_interval"):
            _check_int(name, getattr(self, name), 1, 32767)
        _check_int("keepalive_count", self.keepalive_count, 1, 127)
        for name in ("recv_buffer", "send_buffer"):
            _check_int(name, getattr(self, name), 1, _MAX_INT // 2)
        for name in ("notsent_lowat", "priority", "mark"):
            _check_int(name, getattr(self, name), 0)
        if self.linger is not None and (isinstance(self.linger, bool) or self.linger != 0):
            raise ValueError(f"linger must be None or 0, got {self.linger!r}: more blocks close(2)")
        _check_seconds("dead_after", self.dead_after, 1)
        _check_seconds("user_timeout", self.user_timeout, 0.001)
        if isinstance(self.dead_after, _Default) and any(
            getattr(self, name) is not None for name in _COMPUTED
        ):
            object.__setattr__(self, "dead_after", None)
        self._check_contradictions()
        object.__setattr__(self, "_kernel", self._for_kernel())

    def _check_contradictions(self) -> None:
        if self.dead_after is not None:
            for name in _COMPUTED:
                if getattr(self, name) is not None:
                    raise ValueError(f"dead_after computes {name}: give one of the two")
        if self.keepalive is False:
            for name in ("keepalive_idle", "keepalive_interval", "keepalive_count"):
                if getattr(self, name) is not None:
                    raise ValueError(f"keepalive=False and {name} contradict each other")

    def _for_kernel(self) -> dict[str, int | str]:
        renamed = {
            "keepalive_idle": "keepalive_idle_s",
            "keepalive_interval": "keepalive_interval_s",
        }
        settings: dict[str, int | str] = {}
        for item in fields(self):
            value = getattr(self, item.name, None)
            if value is None or item.name in ("_kernel", "dead_after", "user_timeout", "linger"):
                continue
            settings[renamed.get(item.name, item.name)] = (
                int(value) if isinstance(value, bool) else value
            )
        if self.dead_after is not None:
            settings["dead_after_ms"] = max(1, round(self.dead_after * 1000))
        if self.user_timeout is not None:
            settings["user_timeout_ms"] = max(1, round(self.user_timeout * 1000))
        if self.linger is not None:
            settings["linger_s"] = self.linger
        return settings


_DEFAULT_OPTIONS = SocketOptions()


def kernel_settings(options: SocketOptions | None) -> dict[str, int | str]:
    """What the core takes; ``None`` is the default: no delay, dead peers noticed in 45 seconds."""
    if options is None:
        return _DEFAULT_OPTIONS._kernel
    if not isinstance(options, SocketOptions):
        raise TypeError(f"options must be SocketOptions or None, not {type(options).__name__}")
    return options._kernel
