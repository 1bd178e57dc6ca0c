"""Sockets that cannot hang, cannot leak unseen, and say why they failed.

Every call that can wait takes ``timeout=`` (seconds from now, for the whole call) and ``token=``;
the earliest of timeout, token, ambient scope (``with hardsock.timeout(5):``) and the connection's
own deadlines wins.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from os import environ as _environ

from hardsock._core import (
    Breaker,
    Callback,
    CancelToken,
    Connection,
    Decoder,
    Listener,
    Permit,
    fd_inventory,
    openssl_version,
    reset_counts,
    resolver_stats,
    tcp_counts,
)
from hardsock._core import version as __version__
from hardsock._errors import (
    BadFrame,
    BreakerOpen,
    BrokenPipe,
    Busy,
    Cancelled,
    CertificateError,
    Closed,
    ConnectError,
    ConnectionRefused,
    DeadlineExceeded,
    DeadPeer,
    DescriptorWarning,
    EndOfStream,
    EscapeWarning,
    FrameError,
    FrameTooLarge,
    HardsockError,
    LeakWarning,
    Poisoned,
    PoolRefused,
    PoolTimeout,
    PoolWarning,
    ProxyError,
    Reset,
    ResolveError,
    SettingWarning,
    SocketError,
    TLSError,
    Truncated,
    WrongProcess,
)
from hardsock._typing import TYPE_CHECKING
from hardsock.leaks.sites import skip_sites  # which also tells the core of known libraries
from hardsock.metrics import metrics  # here: a folder of that name would hide it

if TYPE_CHECKING:
    from hardsock import deadline, guard
    from hardsock._defaults import Defaults, defaults
    from hardsock._dial_limits import DialLimits, DialPlace, DialStats
    from hardsock._escapes import warn_of_foreign_sockets
    from hardsock._faults import Faults, faults
    from hardsock._framing import Delimiter, LengthPrefix, Line
    from hardsock._inspect import inspect
    from hardsock._observe import Event, dump, dump_at_fatal_signals, events, report
    from hardsock._options import SocketOptions
    from hardsock._records import (
        Answer,
        Attempt,
        BreakerState,
        BreakerStats,
        CloseReport,
        HandshakeStats,
        ListenerStats,
        PeerCertificate,
        PeerStats,
        ProxyStats,
        Resolution,
        Setting,
        TLSInfo,
    )
    from hardsock._scope import current, remaining, scope, shield, sleep, timeout
    from hardsock.connecting.adopt import adopt
    from hardsock.connecting.connect import Address, connect, resolve
    from hardsock.connecting.create_connection import create_connection
    from hardsock.guard import Guard
    from hardsock.lab.scan import SynWatch
    from hardsock.leaks.descriptors import (
        Descriptor,
        FdAlarm,
        FdGrowth,
        FdSnapshot,
        FdWatch,
        OpenConnection,
        fd_snapshot,
        fd_watch,
        open_connections,
    )
    from hardsock.leaks.foreign import ForeignSocket
    from hardsock.leaks.notes import Note, note
    from hardsock.listening.listen import listen, listen_fds
    from hardsock.listening.listener_socket import ListenerSocket
    from hardsock.listening.peer_limits import PeerLimits
    from hardsock.listening.proxy_protocol import ProxyProtocol
    from hardsock.pool.options import PoolOptions
    from hardsock.pool.pool import Pool, PoolManager
    from hardsock.pool.records import Histogram, Lent, PoolAudit, PoolCloseReport, PoolStats, Site
    from hardsock.serving.ambient import draining
    from hardsock.serving.handover import TakenOver, hand_over, take_over
    from hardsock.serving.inherited import InheritedSockets, systemd_sockets
    from hardsock.serving.processes import ProcessesReport, ProcessInfo, ProcessServer
    from hardsock.serving.records import CutConnection, DelayCounts, DrainReport, ServerStats
    from hardsock.serving.serve import serve
    from hardsock.serving.serve_processes import serve_processes
    from hardsock.serving.server import Server
    from hardsock.serving.systemd import systemd_notify
    from hardsock.tls.config import Certificate, TLSConfig
    from hardsock.tls.ssl_context import SSLContext, ssl_context
    from hardsock.tls.tls_socket import TLSSocket

__all__ = [
    "Address",
    "Answer",
    "Attempt",
    "BadFrame",
    "Breaker",
    "BreakerOpen",
    "BreakerState",
    "BreakerStats",
    "BrokenPipe",
    "Busy",
    "Callback",
    "CancelToken",
    "Cancelled",
    "Certificate",
    "CertificateError",
    "CloseReport",
    "Closed",
    "ConnectError",
    "ConnectionRefused",
    "Connection",
    "CutConnection",
    "DeadPeer",
    "DeadlineExceeded",
    "Decoder",
    "Defaults",
    "Delimiter",
    "Descriptor",
    "DescriptorWarning",
    "DelayCounts",
    "DrainReport",
    "EndOfStream",
    "EscapeWarning",
    "Event",
    "Faults",
    "FdAlarm",
    "FdGrowth",
    "FdSnapshot",
    "FdWatch",
    "ForeignSocket",
    "FrameError",
    "FrameTooLarge",
    "Guard",
    "HandshakeStats",
    "PeerLimits",
    "PeerStats",
    "ProcessInfo",
    "ProcessServer",
    "ProcessesReport",
    "ProxyError",
    "ProxyProtocol",
    "ProxyStats",
    "HardsockError",
    "Histogram",
    "InheritedSockets",
    "LeakWarning",
    "LengthPrefix",
    "Lent",
    "Line",
    "Listener",
    "ListenerSocket",
    "ListenerStats",
    "Note",
    "OpenConnection",
    "PeerCertificate",
    "Permit",
    "Poisoned",
    "Pool",
    "PoolAudit",
    "PoolCloseReport",
    "PoolManager",
    "DialLimits",
    "DialPlace",
    "DialStats",
    "PoolOptions",
    "PoolRefused",
    "PoolStats",
    "PoolTimeout",
    "PoolWarning",
    "Reset",
    "Resolution",
    "ResolveError",
    "SSLContext",
    "Server",
    "ServerStats",
    "Setting",
    "SettingWarning",
    "Site",
    "SocketError",
    "SocketOptions",
    "SynWatch",
    "TLSConfig",
    "TLSError",
    "TLSInfo",
    "TLSSocket",
    "TakenOver",
    "Truncated",
    "WrongProcess",
    "__version__",
    "adopt",
    "connect",
    "create_connection",
    "current",
    "deadline",
    "defaults",
    "draining",
    "dump",
    "dump_at_fatal_signals",
    "events",
    "faults",
    "fd_inventory",
    "fd_snapshot",
    "fd_watch",
    "guard",
    "hand_over",
    "inspect",
    "listen",
    "listen_fds",
    "metrics",
    "note",
    "open_connections",
    "openssl_version",
    "remaining",
    "report",
    "reset_counts",
    "resolve",
    "resolver_stats",
    "scope",
    "serve",
    "serve_processes",
    "shield",
    "skip_sites",
    "sleep",
    "ssl_context",
    "systemd_notify",
    "systemd_sockets",
    "take_over",
    "tcp_counts",
    "timeout",
    "warn_of_foreign_sockets",
]

# Where the rest is found: imported when it is used, so that a program pays for what it uses.
# tools/check_names.py holds this against the imports above.
_HOMES = {
    "hardsock._defaults": ("Defaults", "defaults"),
    "hardsock._dial_limits": ("DialLimits", "DialPlace", "DialStats"),
    "hardsock._escapes": ("warn_of_foreign_sockets",),
    "hardsock._faults": ("Faults", "faults"),
    "hardsock._framing": ("Delimiter", "LengthPrefix", "Line"),
    "hardsock._inspect": ("inspect",),
    "hardsock._observe": ("Event", "dump", "dump_at_fatal_signals", "events", "report"),
    "hardsock._options": ("SocketOptions",),
    "hardsock._records": (
        "Answer",
        "Attempt",
        "BreakerState",
        "BreakerStats",
        "CloseReport",
        "HandshakeStats",
        "ListenerStats",
        "PeerCertificate",
        "PeerStats",
        "ProxyStats",
        "Resolution",
        "Setting",
        "TLSInfo",
    ),
    "hardsock._scope": ("current", "remaining", "scope", "shield", "sleep", "timeout"),
    "hardsock.connecting.adopt": ("adopt",),
    "hardsock.connecting.connect": ("Address", "connect", "resolve"),
    "hardsock.connecting.create_connection": ("create_connection",),
    "hardsock.guard": ("Guard",),
    "hardsock.lab.scan": ("SynWatch",),
    "hardsock.leaks.descriptors": (
        "Descriptor",
        "FdAlarm",
        "FdGrowth",
        "FdSnapshot",
        "FdWatch",
        "OpenConnection",
        "fd_snapshot",
        "fd_watch",
        "open_connections",
    ),
    "hardsock.leaks.foreign": ("ForeignSocket",),
    "hardsock.leaks.notes": ("Note", "note"),
    "hardsock.listening.listen": ("listen", "listen_fds"),
    "hardsock.listening.listener_socket": ("ListenerSocket",),
    "hardsock.listening.peer_limits": ("PeerLimits",),
    "hardsock.listening.proxy_protocol": ("ProxyProtocol",),
    "hardsock.pool.options": ("PoolOptions",),
    "hardsock.pool.pool": ("Pool", "PoolManager"),
    "hardsock.pool.records": (
        "Histogram",
        "Lent",
        "PoolAudit",
        "PoolCloseReport",
        "PoolStats",
        "Site",
    ),
    "hardsock.serving.ambient": ("draining",),
    "hardsock.serving.handover": ("TakenOver", "hand_over", "take_over"),
    "hardsock.serving.inherited": ("InheritedSockets", "systemd_sockets"),
    "hardsock.serving.processes": ("ProcessesReport", "ProcessInfo", "ProcessServer"),
    "hardsock.serving.records": ("CutConnection", "DelayCounts", "DrainReport", "ServerStats"),
    "hardsock.serving.serve": ("serve",),
    "hardsock.serving.serve_processes": ("serve_processes",),
    "hardsock.serving.server": ("Server",),
    "hardsock.serving.systemd": ("systemd_notify",),
    "hardsock.tls.config": ("Certificate", "TLSConfig"),
    "hardsock.tls.ssl_context": ("SSLContext", "ssl_context"),
    "hardsock.tls.tls_socket": ("TLSSocket",),
}
_MODULES = ("deadline", "guard")
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # A checker that saw it would take every misspelt name for one of ours.

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return _import_module(f"hardsock.{name}")
        if name not in _HOME_OF:
            raise AttributeError(f"module 'hardsock' has no attribute {name!r}")
        value = getattr(_import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


if "HARDSOCK_FAULTS" in _environ:
    from hardsock._faults import by_environment as _faults_by_environment

    _faults_by_environment()
if _environ.get("HARDSOCK_INSPECT", "0") not in ("", "0"):
    from hardsock._inspect import by_environment as _inspect_by_environment

    _inspect_by_environment()
if _environ.get("HARDSOCK_TRACE") == "1":
    from hardsock.leaks.descriptors import fd_watch as _fd_watch

    _fd_watch(growth=2, trace=True)
if "HARDSOCK" in _environ:
    from hardsock.running import begin_by_environment as _begin

    _begin(_environ["HARDSOCK"])
