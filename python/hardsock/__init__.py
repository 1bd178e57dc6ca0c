"""Sockets that cannot hang, cannot leak unseen, and say why they failed.

Every call that can wait takes ``timeout=`` (seconds from now, for the whole call) and ``token=``;
the earliest of timeout, token, ambient scope (``with hardsock.timeout(5):``) and the connection's
own deadlines wins.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from os import environ as _environ
from typing import TYPE_CHECKING as _TYPE_CHECKING

from hardsock import deadline
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
from hardsock._defaults import Defaults, defaults
from hardsock._dial_limits import DialLimits, DialPlace, DialStats
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
from hardsock._escapes import warn_of_foreign_sockets
from hardsock._framing import Delimiter, LengthPrefix, Line
from hardsock._inspect import by_environment as _inspect_by_environment
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
from hardsock.connecting.connect import Address, adopt, connect, resolve
from hardsock.connecting.create_connection import create_connection
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
from hardsock.leaks.sites import skip_sites
from hardsock.listening.listen import listen, listen_fds
from hardsock.listening.listener_socket import ListenerSocket
from hardsock.listening.peer_limits import PeerLimits
from hardsock.listening.proxy_protocol import ProxyProtocol
from hardsock.metrics import metrics
from hardsock.pool.options import PoolOptions
from hardsock.pool.pool import Pool, PoolManager
from hardsock.pool.records import (
    Histogram,
    Lent,
    PoolAudit,
    PoolCloseReport,
    PoolStats,
    Site,
)
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

if _TYPE_CHECKING:
    from hardsock import guard
    from hardsock.guard import Guard

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


def __getattr__(name: str) -> object:
    if name == "guard":  # Few have one, and each process would wait for it.
        return _import_module("hardsock.guard")
    if name == "Guard":
        return _import_module("hardsock.guard").Guard
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_inspect_by_environment()
if _environ.get("HARDSOCK_TRACE") == "1":
    fd_watch(growth=2, trace=True)
if "HARDSOCK" in _environ:
    from hardsock.running import begin_by_environment as _begin

    _begin(_environ["HARDSOCK"])
