"""Connections, pools and the client of redis-py that blocks; see the package."""

from __future__ import annotations

import copy
import ssl
from typing import Any

import redis
import redis.backoff
import redis.connection
from redis.exceptions import TimeoutError as RedisTimeout

from hardsock._core import Scope
from hardsock._errors import Closed, DeadlineExceeded, HardsockError
from hardsock._scope import current, remaining, sleep, timeout
from hardsock.adapters._causes import handled, raise_if_cancelled
from hardsock.adapters._dial import Dials
from hardsock.adapters._queue import ScopedQueue
from hardsock.adapters._tls import Contexts
from hardsock.connecting.connect import connect
from hardsock.tls.ssl_context import SSLContext

__all__ = [
    "BlockingConnectionPool",
    "Connection",
    "Redis",
    "SSLConnection",
    "ScopedQueue",
    "UnixConnection",
    "client",
    "context_of",
    "raise_if_ended",
]

_contexts = Contexts()


class ScopeEnded(RedisTimeout):
    """The time-out of the scope. The cluster's client tries again after a ``TimeoutError`` alone."""


def raise_if_ended(what: str, exc: BaseException) -> None:
    """Raise what the scope ended with, if it has: redis-py may have made an outage of it."""
    token = current()
    if token is None:
        return
    try:
        token.check()
    except DeadlineExceeded as late:
        raise ScopeEnded(f"no time left to {what}: {exc}") from late


class Patient(redis.backoff.AbstractBackoff):
    """A backoff whose pauses end with the scope: it makes them itself, and asks for none."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.reset = inner.reset  # type: ignore[method-assign] # two calls of each command less

    def reset(self) -> None:
        self._inner.reset()

    def compute(self, failures: int) -> float:
        try:
            sleep(max(0.0, self._inner.compute(failures)))
        except DeadlineExceeded as exc:
            raise ScopeEnded(f"no time left for another try: {exc}") from exc
        return 0.0


class _Over(Dials):
    """What all kinds of connections do differently from redis-py's."""

    retry: Any
    socket_timeout: float | None
    _sock: Any
    _parser: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.retry._backoff, Patient):
            self.retry = copy.copy(self.retry)
            self.retry._backoff = Patient(self.retry._backoff)

    def can_read(self, timeout: float = 0) -> bool:
        """As redis-py has it, which asks before each command: of a quiet connection, by one look.

        A wait of *timeout* ends with the scope, too. Raises redis-py's ``ConnectionError`` when the
        peer has ended its stream.
        """
        unread = getattr(
            getattr(self._parser, "_buffer", None), "unread_bytes", None
        )  # not hiredis's
        if unread is None or timeout != 0 or self._sock is None or not self._sock._is_quiet():
            return super().can_read(timeout)  # type: ignore[misc,no-any-return]
        return bool(unread())

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """As redis-py has it; the time-out is a total for the whole reply."""
        seconds = kwargs.get("timeout", self.socket_timeout)
        if not isinstance(seconds, (int, float)) or not seconds:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        conn = self._sock
        if conn is None:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        try:
            conn.set_read_deadline(seconds)
        except Closed:  # Another thread has closed it: the read says so, as redis-py has it.
            pass
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        finally:
            try:  # suppress() costs three calls of each reply
                conn.set_read_deadline(None)
            except Closed:  # redis-py closes it where it has no answer.
                pass


class Connection(_Over, redis.Connection):
    """``redis.Connection`` over a ``hardsock.Connection``."""

    def _connect(self) -> Any:
        conn = self._dial((self.host, self.port), self.socket_connect_timeout)
        conn.settimeout(self.socket_timeout)
        return conn


class UnixConnection(_Over, redis.UnixDomainSocketConnection):
    """``redis.UnixDomainSocketConnection`` over a ``hardsock.Connection``."""

    def _connect(self) -> Any:
        conn = connect(
            f"unix:{self.path}", timeout=self.socket_connect_timeout, limits=self.dial_limits
        )
        conn.settimeout(self.socket_timeout)
        return conn


class SSLConnection(_Over, redis.SSLConnection):
    """``redis.SSLConnection`` over hardsock's TLS."""

    def _connect(self) -> Any:
        with timeout(self.socket_connect_timeout, name="socket_connect_timeout"):
            conn = self._dial((self.host, self.port), None)
            try:
                sock = context_of(self).wrap_socket(conn, server_hostname=self.host)
            except BaseException:
                conn.close()
                raise
        conn.settimeout(self.socket_timeout)
        return sock


def context_of(conn: Any) -> SSLContext:
    """The context for what the connection was told: made once, so that sessions are resumed."""
    for name in ("ssl_validate_ocsp", "ssl_validate_ocsp_stapled"):
        if getattr(conn, name, False):
            raise redis.RedisError(
                f"{name} is not for hardsock, which checks what is stapled itself"
            )
    key = tuple(
        getattr(conn, name, None)
        for name in (
            "cert_reqs",
            "check_hostname",
            "ca_certs",
            "ca_path",
            "ca_data",
            "certfile",
            "keyfile",
            "certificate_password",
            "ssl_min_version",
            "ssl_ciphers",
        )
    )
    return _contexts.get(key, lambda: _make_context(conn))


def _make_context(conn: Any) -> SSLContext:
    made = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = bool(conn.check_hostname)
    made.verify_mode = conn.cert_reqs
    if conn.certfile or conn.keyfile:
        made.load_cert_chain(conn.certfile, conn.keyfile, conn.certificate_password)
    if conn.ca_certs is None and conn.ca_path is None and conn.ca_data is None:
        made.load_default_certs()
    else:
        made.load_verify_locations(conn.ca_certs, conn.ca_path, conn.ca_data)
    made.minimum_version = getattr(conn, "ssl_min_version", None) or ssl.TLSVersion.TLSv1_2
    if getattr(conn, "ssl_ciphers", None):
        made.set_ciphers(conn.ssl_ciphers)
    return made


class BlockingConnectionPool(redis.BlockingConnectionPool):
    """``redis.BlockingConnectionPool`` whose wait ends with the scope."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("connection_class", Connection)
        kwargs.setdefault("queue_class", ScopedQueue)
        super().__init__(*args, **kwargs)

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """As redis-py has it; no connection by the deadline is a ``TimeoutError``."""
        before = handled()
        try:
            return super().get_connection(*args, **kwargs)
        except redis.ConnectionError as exc:
            raise_if_cancelled(exc, before)
            if remaining() == 0.0:
                raise RedisTimeout(f"no connection of the pool in time: {exc}") from exc
            raise


class _Pipeline(redis.client.Pipeline):
    total: float | None = None
    watching: bool

    def reset(self) -> None:
        """As redis-py has it; the pool gets no connection back that still watches, and gets each back.

        Under a scope that has ended nobody can be told UNWATCH, so that connection is closed.
        """
        connection: Any = self.connection
        try:
            if self.watching and connection is not None:
                self.watching = False
                try:
                    connection.send_command("UNWATCH")
                    connection.read_response()
                except BaseException as exc:
                    connection.disconnect()
                    if not isinstance(exc, (redis.RedisError, HardsockError)):
                        raise
        finally:
            super().reset()

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        with Scope(None, self.total, "total of the pipeline"):
            return super().execute(*args, **kwargs)


class Redis(redis.Redis):
    """``redis.Redis`` each of whose commands takes ``total`` seconds at most; see ``client``."""

    total: float | None = None

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """As redis-py has it, within ``total``."""
        if self.total is None:
            return super().execute_command(*args, **kwargs)
        with Scope(None, self.total, "total of the command"):
            return super().execute_command(*args, **kwargs)

    def pipeline(self, *args: Any, **kwargs: Any) -> Any:
        """As redis-py has it; ``execute()`` takes ``total`` seconds at most."""
        made = super().pipeline(*args, **kwargs)
        if type(made) is redis.client.Pipeline:
            made.__class__ = _Pipeline
            made.total = self.total
        return made


def _class_of(url: str) -> Any:
    scheme = url.partition(":")[0].lower()
    classes = {"redis": Connection, "rediss": SSLConnection, "unix": UnixConnection}
    if scheme not in classes:
        raise ValueError(f"url must begin with redis://, rediss:// or unix://, got {url!r}")
    return classes[scheme]


def client(
    url: str, *, total: float | None = None, size: int | None = None, **settings: Any
) -> Redis:
    """Make a ``redis.Redis`` each of whose commands takes *total* seconds at most.

    Args:
        url: As ``redis.from_url`` takes it.
        total: Seconds for a command, or a pipeline, as a whole; ``None``: the ambient scope alone
            decides. Blocking commands (BLPOP) need one that is longer than they may block.
        size: Connections at most; who comes when all are in use waits, within *total*. ``None``: no
            limit, as redis-py has it.
        settings: Further ones of redis-py's connections and pools; and ``dial_limits``, as
            ``hardsock.connect(limits=)``.
    """
    kind = _class_of(url)
    pool: Any
    if size is None:
        pool = redis.ConnectionPool.from_url(url, connection_class=kind, **settings)
    else:
        settings.setdefault("timeout", None)
        pool = BlockingConnectionPool.from_url(
            url, connection_class=kind, max_connections=size, **settings
        )
    made = Redis(connection_pool=pool)
    made.auto_close_connection_pool = True
    made.total = total
    return made
