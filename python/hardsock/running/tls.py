"""``ssl.SSLContext`` of a program that runs under hardsock.

What is loaded into a context cannot be read from it later, so its calls are remembered from the
beginning. When a connection of hardsock is wrapped, they are made again on a context of hardsock's.
What that cannot take over is left to ``ssl``, and told in the report.
"""

from __future__ import annotations

import functools
import os
import ssl
from typing import Any
from weakref import WeakKeyDictionary

from hardsock._core import Connection
from hardsock._errors import Truncated
from hardsock.running import report, routes
from hardsock.tls.config import TLSConfig
from hardsock.tls.ssl_context import SSLContext, _version_of
from hardsock.tls.tls_socket import TLSSocket

__all__ = ["RoutedTLS", "install"]

_REMEMBERED = (
    *("load_verify_locations", "load_default_certs", "set_default_verify_paths"),
    *("load_cert_chain", "set_alpn_protocols", "set_ciphers"),
    *("load_dh_params", "set_ecdh_curve", "set_psk_client_callback", "set_psk_server_callback"),
)
_READ = (
    *("verify_mode", "check_hostname", "minimum_version", "maximum_version", "options"),
    *("verify_flags", "keylog_filename", "sni_callback"),
)
_FILES = {
    "load_verify_locations": ("cafile", "capath", "cadata"),
    "load_cert_chain": ("certfile", "keyfile", "password"),
}
"""Parameters of what reads files; the last of each is none."""
_Files = tuple[tuple[Any, tuple[int, ...]], ...]
_Call = tuple[str, tuple[Any, ...], dict[str, Any], _Files]
"""The files are those that it read, each with what changes when it is written."""
_calls: WeakKeyDictionary[ssl.SSLContext, tuple[_Call, ...]] = WeakKeyDictionary()
"""Never changed in place: what has the same tuple has the same settings."""
_configs: WeakKeyDictionary[ssl.SSLContext, tuple[Any, TLSConfig]] = WeakKeyDictionary()
_wrap = ssl.SSLContext.wrap_socket


class RoutedTLS(TLSSocket):
    """Passes for an ``ssl.SSLSocket``, since the program may ask; with the limits of its socket."""

    _limits: routes.Limits
    _suppress_ragged_eofs: bool

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return ssl.SSLSocket

    def settimeout(self, value: float | None, /) -> None:
        """As ``socket.settimeout``; a call may take less."""
        self._limits.settimeout(self.connection, value)

    def gettimeout(self) -> float | None:
        """What the program set."""
        return self._limits.asked

    timeout = property(gettimeout)

    def setblocking(self, flag: bool, /) -> None:
        """True is ``settimeout(None)``, False is ``settimeout(0)``."""
        self.settimeout(None if flag else 0.0)

    @property
    def _sslobj(self) -> RoutedTLS | None:
        """What libraries (httpcore) take from an SSLSocket to ask about the TLS of it."""
        return None if self.connection.tls is None else self

    def _bind_hot(self) -> None:
        """Those below are in the way of the connection's own."""

    def _ready(self) -> Connection:
        if self.connection.tls is None:
            self.do_handshake()
        return self.connection

    def send(self, data: Any, flags: int = 0) -> int:
        """As ``ssl.SSLSocket.send``."""
        conn = self._ready()
        if len(data):
            self._limits.before_send(conn)
        return conn.send(data, flags)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As ``ssl.SSLSocket.sendall``."""
        conn = self._ready()
        if len(data):  # urllib3 says what its inner TLS has to say, which is mostly nothing.
            self._limits.before_send(conn)
        conn.sendall(data, flags)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As ``ssl.SSLSocket.recv``: an end without close_notify is an end, if it is to be."""
        try:
            return self._ready().recv(buflen, flags)
        except Truncated:
            if not self._suppress_ragged_eofs:
                raise
            return b""

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """As ``ssl.SSLSocket.recv_into``; see ``recv``."""
        try:
            return self._ready().recv_into(buffer, nbytes or 0, flags)
        except Truncated:
            if not self._suppress_ragged_eofs:
                raise
            return 0

    def makefile(self, *args: Any, **kwargs: Any) -> Any:
        """As ``socket.makefile``: the standard library's file, which calls ``recv_into``."""
        make: Any = routes._plain.makefile
        return make(self, *args, **kwargs)


def _remember(context: ssl.SSLContext, call: _Call) -> None:
    """Libraries repeat themselves for each connection, and what is set again replaces itself."""
    kept = _calls.get(context, ())
    if call[0].startswith("set_"):
        others = tuple(one for one in kept if one[0] != call[0])
        if (*others, call) != kept:
            _calls[context] = (*others, call)
    elif call not in kept:  # A file that is loaded again has been written since.
        _calls[context] = (*(one for one in kept if one[:3] != call[:3]), call)


def _call_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
    """To be made before the call: paths may lead elsewhere later, and files may be others."""
    if name not in _FILES:
        return name, args, kwargs, ()
    given = {**dict(zip(_FILES[name], args, strict=False)), **kwargs}
    files: list[tuple[Any, tuple[int, ...]]] = []
    for each in _FILES[name][:-1]:
        if isinstance(given.get(each), (str, bytes, os.PathLike)):
            path = given[each] = os.path.abspath(os.fsdecode(given[each]))
            if os.path.isfile(path):  # OpenSSL looks into a folder when it needs to.
                files.append((path, _version_of(path)))
    return name, (), given, tuple(files)


def _remembering(name: str) -> Any:
    original = getattr(ssl.SSLContext, name)

    @functools.wraps(original)
    def call(self: ssl.SSLContext, *args: Any, **kwargs: Any) -> Any:
        made = None if isinstance(self, SSLContext) else _call_of(name, args, kwargs)
        result = original(self, *args, **kwargs)
        if made is not None:
            _remember(self, made)
        return result

    return call


def _load_cert_chain(original: Any) -> Any:
    """A password is asked for once."""

    @functools.wraps(original)
    def call(
        self: ssl.SSLContext, certfile: Any, keyfile: Any = None, password: Any = None
    ) -> None:
        secret = password() if callable(password) else password
        original(self, certfile, keyfile, secret)

    return call


def _config_of(context: ssl.SSLContext) -> TLSConfig:
    """The same for hardsock; ValueError, OSError: something of it cannot be had, or not any more."""
    calls = _calls.get(context, ())
    state = (calls, *(getattr(context, name) for name in _READ))
    kept = _configs.get(context)
    if kept is None or kept[0] != state:
        kept = _configs[context] = (state, _make_config(context, calls))
    return kept[1]


def _make_config(context: ssl.SSLContext, calls: tuple[_Call, ...]) -> TLSConfig:
    made = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = context.verify_mode
    made.check_hostname = context.check_hostname
    made.minimum_version, made.maximum_version = context.minimum_version, context.maximum_version
    made.options, made.verify_flags = context.options, context.verify_flags
    if context.keylog_filename is not None:
        made.keylog_filename = context.keylog_filename
    if context.sni_callback is not None:
        raise ValueError("hardsock's TLS cannot take over from the SSLContext: sni_callback")
    for name, args, kwargs, files in calls:
        for path, version in files:
            if _version_of(path) != version:
                raise ValueError(f"hardsock's TLS cannot load what has changed since: {path}")
        getattr(made, name)(*args, **kwargs)
    return made.tls_config(False)


def _wrap_socket(
    self: ssl.SSLContext,
    sock: Any,
    server_side: bool = False,
    do_handshake_on_connect: bool = True,
    suppress_ragged_eofs: bool = True,
    server_hostname: Any = None,
    session: Any = None,
) -> Any:
    rest = (server_side, do_handshake_on_connect, suppress_ragged_eofs, server_hostname, session)
    conn = getattr(sock, "_conn", None) if type.__instancecheck__(routes.socket, sock) else None
    if conn is None or server_side or isinstance(self, SSLContext):
        return _wrap(self, sock, *rest)
    if sock.gettimeout() == 0:  # Who waits with select(2) needs SSLWantReadError from each call.
        report.tls_escaped("the socket does not block")
        return _wrap(self, _without_hardsock(sock), *rest)
    try:
        config = _config_of(self)
    except (ValueError, OSError) as exc:
        report.tls_escaped(str(exc))
        return _wrap(self, _without_hardsock(sock), *rest)
    if self.check_hostname and not server_hostname:
        raise ValueError("check_hostname requires server_hostname")
    name = server_hostname.decode() if isinstance(server_hostname, bytes) else server_hostname
    made = _routed(self, sock, config, name or None)
    made._suppress_ragged_eofs = suppress_ragged_eofs
    if do_handshake_on_connect:
        try:
            made.do_handshake()
        except BaseException:
            made.close()
            raise
    return made


def _routed(context: ssl.SSLContext, sock: Any, config: TLSConfig, name: str | None) -> RoutedTLS:
    limits, conn = sock._limits, sock._give()
    made = RoutedTLS(conn, context, config, False, name)
    made._limits = limits
    return made


def _without_hardsock(sock: Any) -> Any:
    timeout = sock.gettimeout()
    plain = routes._plain(fileno=sock.detach())
    plain.settimeout(timeout)
    return plain


def install() -> None:
    """Remember what contexts are told from now on, and wrap connections of hardsock."""
    for name in _REMEMBERED:
        if hasattr(ssl.SSLContext, name):
            setattr(ssl.SSLContext, name, _remembering(name))
    # Outside of what remembers: it is the password that is remembered, not who knows it.
    ssl.SSLContext.load_cert_chain = _load_cert_chain(ssl.SSLContext.load_cert_chain)  # type: ignore[method-assign]
    ssl.SSLContext.wrap_socket = functools.wraps(_wrap)(_wrap_socket)  # type: ignore[method-assign]
