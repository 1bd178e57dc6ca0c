"""kombu and py-amqp, and so Celery, over hardsock.

    from hardsock.adapters.kombu import Connection

    with hardsock.timeout(5), Connection("amqp://broker.example.org") as broker:
        broker.SimpleQueue("work").put("hello")

A scope covers the lookup, connecting, TLS, AMQP's greeting, publishing, waiting for messages, and, within
a second, the pauses between tries to connect. ``connect_timeout`` is a total for connecting and for TLS;
``drain_events(timeout=)`` is one for each receive. A dead broker is noticed as by any connection of
hardsock's, not by amqp's times, unless ``socket_settings`` say otherwise.

At the deadline of a scope: ``kombu.exceptions.OperationalError``, caused by ``DeadlineExceeded``. Not that
itself: it is a time-out, and kombu's loops take a time-out for "no message yet", and its tries one for an
outage. After a cancel, from any thread: ``hardsock.Cancelled``. Neither is tried again.

TLS is hardsock's, set up by the ``ssl=`` dictionary. For Celery: ``broker_transport =
"hardsock.adapters.kombu:Transport"`` (``:SSLTransport``), and for the pauses ``app.amqp.Connection =
hardsock.adapters.kombu.Connection``; for one's own ``kombu.Connection``: the same as
``transport=``, without the pauses. Lost: transports other than AMQP; Redis has an adapter of its own.

Tested with kombu 5.3 to 5.7 and amqp 5.1 to 5.4. What is not public there and used here:
``_AbstractTransport._connect``, ``_init_socket``, ``_get_tcp_socket_defaults``,
``SSLTransport._wrap_socket``, ``kombu.Connection._ensure_connection`` and ``PooledConnection``.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import amqp.transport
import kombu
import kombu.connection
import kombu.transport.pyamqp as pyamqp
from kombu.exceptions import OperationalError

from hardsock._dial_limits import DialLimits
from hardsock._errors import DeadlineExceeded
from hardsock._scope import current
from hardsock.adapters._dial import Dials, checked_limits
from hardsock.adapters._versions import check
from hardsock.tls.ssl_context import SSLContext

__all__ = ["AMQPConnection", "Connection", "SSLTransport", "Transport"]

check("kombu", version("kombu"), "5.3", "5.7")
check("amqp", version("amqp"), "5.1", "5.4")


def _look(cause: BaseException | None = None) -> None:
    """Raise what ends things when the scope has ended: no time-out, and no failure of the network."""
    token = current()
    if token is None:
        return
    try:
        token.check()
    except DeadlineExceeded as exc:
        raise OperationalError(str(cause or exc)) from (cause or exc)


# ---- py-amqp


class _Over(Dials):
    """What both of amqp's transports do differently."""

    sock: Any
    connected: bool

    def _connect(self, host: str, port: Any, timeout: float | None) -> None:
        self.sock = self._dial((host, int(port)), timeout)

    def _init_socket(self, socket_settings: Any, read_timeout: Any, write_timeout: Any) -> None:
        # Not SO_RCVTIMEO and SO_SNDTIMEO, which say nothing to the one who waits in poll().
        super()._init_socket(socket_settings, None, None)  # type: ignore[misc]
        limits = [one for one in (read_timeout, write_timeout) if one is not None]
        self.sock.settimeout(min(limits) if limits else None)

    def _get_tcp_socket_defaults(self, sock: Any) -> dict[int, int]:
        # What nobody asked for stays as hardsock has it: amqp's TCP_USER_TIMEOUT of a second ends a
        # healthy connection after a second of lost packets, and its keepalive leaves a dead one idle
        # for two and a half minutes. ``socket_settings`` are set all the same.
        return {}

    def connect(self) -> None:
        """As amqp has it; whatever ends it leaves nothing open."""
        try:
            super().connect()  # type: ignore[misc]
        except BaseException as exc:
            sock, self.sock = self.sock, None
            if sock is not None:
                sock.close()
            if isinstance(exc, DeadlineExceeded):
                _look(exc)
            raise

    def close(self) -> None:
        """At once, whatever scope has ended.

        amqp's waits for the peer's end of TLS: for ever, if it is silent; and a cancelled scope, in
        which that is refused, left the connection open.
        """
        sock, self.sock, self.connected = self.sock, None, False
        if sock is not None:
            sock.close()

    def read_frame(self, *args: Any, **kwargs: Any) -> Any:
        """As amqp has it; what has come of a frame is kept."""
        try:
            return super().read_frame(*args, **kwargs)  # type: ignore[misc]
        except TimeoutError as exc:
            _look(exc)
            raise

    def write(self, s: Any) -> None:
        """As amqp has it; a frame that went out in part ends the connection."""
        try:
            super().write(s)  # type: ignore[misc]
        except TimeoutError as exc:
            self.connected = False
            _look(exc)
            raise


class _TCPTransport(_Over, amqp.transport.TCPTransport):
    pass


class _TLSTransport(_Over, amqp.transport.SSLTransport):
    def _wrap_socket(self, sock: Any, context: Any = None, **sslopts: Any) -> Any:
        if context:
            made = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            trusted = {key: context.get(key) for key in ("cafile", "capath", "cadata")}
            made.check_hostname = bool(context.get("check_hostname"))
            if any(trusted.values()):
                made.load_verify_locations(**trusted)
            else:
                made.load_default_certs()
            return made.wrap_socket(sock, **sslopts, do_handshake_on_connect=False)
        return self._wrap_told(sock, **sslopts)

    @staticmethod
    def _wrap_told(
        sock: Any,
        *,
        keyfile: Any = None,
        certfile: Any = None,
        cert_reqs: Any = None,
        ca_certs: Any = None,
        server_hostname: str | None = None,
        ciphers: str | None = None,
        tls_minimum_version: Any = None,
        tls_maximum_version: Any = None,
        **_: Any,
    ) -> Any:
        """The parameters are those of amqp, with its defaults: no name is checked that is not given."""
        made = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.minimum_version = tls_minimum_version or ssl.TLSVersion.TLSv1_2
        if tls_maximum_version is not None:
            made.maximum_version = tls_maximum_version
        if certfile is not None:
            made.load_cert_chain(certfile, keyfile)
        if ca_certs is not None:
            made.load_verify_locations(ca_certs)
        if ciphers is not None:
            made.set_ciphers(ciphers)
        made.check_hostname = server_hostname is not None
        if cert_reqs is not None:
            made.verify_mode = cert_reqs
        if ca_certs is None and made.verify_mode != ssl.CERT_NONE:
            made.load_default_certs()
        return made.wrap_socket(
            sock, server_hostname=server_hostname, do_handshake_on_connect=False
        )


class AMQPConnection(Dials, pyamqp.Connection):
    """kombu's ``amqp.Connection``, over hardsock; *dial_limits* as of ``hardsock.connect(limits=)``."""

    def Transport(  # amqp's name
        self,
        host: Any,
        connect_timeout: Any,
        ssl: Any = False,
        read_timeout: Any = None,
        write_timeout: Any = None,
        **kwargs: Any,
    ) -> Any:
        """The transport for a connection; called by amqp."""
        kwargs |= {"read_timeout": read_timeout, "write_timeout": write_timeout}
        kwargs["dial_limits"] = self.dial_limits
        if ssl:
            return _TLSTransport(host, connect_timeout=connect_timeout, ssl=ssl, **kwargs)
        return _TCPTransport(host, connect_timeout=connect_timeout, **kwargs)

    def connect(self, callback: Any = None) -> Any:
        """As amqp has it; a greeting that was given up leaves nothing open."""
        try:
            return super().connect(callback)
        except BaseException as exc:
            self.collect()
            if isinstance(exc, TimeoutError):
                _look(exc)
            raise


# ---- kombu


class Transport(pyamqp.Transport):
    """``kombu.transport.pyamqp.Transport`` over hardsock: for ``transport=`` and Celery."""

    Connection = AMQPConnection


class SSLTransport(pyamqp.SSLTransport):
    """``kombu.transport.pyamqp.SSLTransport`` over hardsock's TLS."""

    Connection = AMQPConnection


class _Pauses:
    """What ends the pauses between tries; for the connections of pools, too, which are of another class."""

    def _ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        given: Callable[[], Any] | None = kwargs.get("callback")

        def look() -> None:  # Called after each try, and once a second in the pauses.
            _look()
            if given is not None:
                given()

        if len(args) < 6:  # Where the callback is, if it is given by its place.
            kwargs["callback"] = look
        return super()._ensure_connection(*args, **kwargs)  # type: ignore[misc]


class _PooledConnection(_Pauses, getattr(kombu.connection, "PooledConnection", kombu.Connection)):  # type: ignore[misc]
    """Of kombu's own class, where it has one; else its pools clone the connection, which is ours."""


class _Pool(kombu.connection.ConnectionPool):
    def new(self) -> Any:
        """As kombu has it; its pauses end, too."""
        made = super().new()
        if not isinstance(made, _Pauses):
            made.__class__ = _PooledConnection
        return made


class Connection(_Pauses, kombu.Connection):
    """``kombu.Connection`` over hardsock, for ``amqp://`` and ``amqps://``.

    *dial_limits*: as of ``hardsock.connect(limits=)``; of Celery, in ``broker_transport_options``.
    """

    def __init__(self, *args: Any, dial_limits: DialLimits | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("transport", Transport)
        if checked_limits(dial_limits) is not None:
            options = kwargs.get("transport_options") or {}
            kwargs["transport_options"] = {**options, "dial_limits": dial_limits}
        super().__init__(*args, **kwargs)

    def Pool(self, limit: int | None = None, **kwargs: Any) -> Any:  # kombu's name
        """As kombu has it, of connections whose pauses end."""
        return _Pool(self, limit, **kwargs)
