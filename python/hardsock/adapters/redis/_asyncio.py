"""The client of asyncio; see the package."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import redis.asyncio
import redis.asyncio.client
import redis.asyncio.connection
import redis.backoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from hardsock._core import Scope
from hardsock._core import scope as _ambient
from hardsock._errors import DeadlineExceeded, HardsockError
from hardsock._scope import current, remaining
from hardsock.adapters._causes import handled, raise_if_cancelled
from hardsock.adapters._dial import Dials
from hardsock.adapters.redis._sync import ScopeEnded, context_of
from hardsock.aio import streams
from hardsock.aio._factories import connect

__all__ = [
    "AsyncConnection",
    "AsyncRedis",
    "AsyncSSLConnection",
    "AsyncUnixConnection",
    "async_client",
]


_AT_ONCE = 65536
"""Bytes that a stream holds for the kernel before ``drain()`` waits: asyncio's own default."""


_EARLY = 0.002
"""Seconds by which a timer may come early: uvloop's clock and its delays are whole milliseconds."""


class _Patient(redis.backoff.AbstractBackoff):
    """A backoff that asks for no pause when the scope has ended, and for none that goes on for long.

    A pause that the scope cuts short ends behind it: one that ended before would be followed by
    another try, and that by as many as there are, each with a shorter pause.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.reset = inner.reset  # type: ignore[method-assign] # two calls of each command less

    def reset(self) -> None:
        self._inner.reset()

    def compute(self, failures: int) -> float:
        token = current()
        if token is not None:
            try:
                token.check()
            except DeadlineExceeded as exc:
                raise ScopeEnded(f"no time left for another try: {exc}") from exc
        seconds: float = self._inner.compute(failures)
        left = remaining()
        return seconds if left is None else min(seconds, left + _EARLY)


class _Over(Dials):
    """What all kinds of connections do differently from redis-py's."""

    retry: Any
    socket_timeout: float | None
    socket_connect_timeout: float | None
    health_check_interval: float
    _reader: Any
    _writer: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.retry._backoff, _Patient):
            self.retry = copy.copy(self.retry)
            self.retry._backoff = _Patient(self.retry._backoff)

    def _target(self) -> tuple[Any, dict[str, Any]]:
        """The address, and the settings of TLS."""
        raise NotImplementedError

    async def _connect(self) -> None:
        address, settings = self._target()
        conn = await connect(
            address, timeout=self.socket_connect_timeout, limits=self.dial_limits, **settings
        )
        self._reader, self._writer = streams.asking(conn)

    def _socket_is_empty(self) -> bool:
        return bool(self._reader.is_quiet())

    async def can_read(self) -> bool:
        """As redis-py has it: whether something came that nobody asked for, or the end."""
        if self._reader is not None and not self._reader.is_quiet():
            return True
        return await super().can_read()  # type: ignore[misc,no-any-return]

    async def can_read_destructive(self) -> bool:
        """As redis-py had it before 8.0."""
        if self._reader is not None and not self._reader.is_quiet():
            return True
        return await super().can_read_destructive()  # type: ignore[misc,no-any-return]

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """As redis-py has it; with no task, and no clock, for what the kernel takes at once."""
        token = _ambient.get()
        if token is not None:  # What is written waits for nothing that would end with it.
            token.check()
        if self._writer is None or isinstance(command, (str, bytes)):
            await super().send_packed_command(command, check_health)  # type: ignore[misc]
            return
        if check_health and self.health_check_interval:
            await self.check_health()  # type: ignore[attr-defined]
        transport = None if self._writer is None else self._writer.transport
        if transport is not None and not transport.is_closing():
            transport.writelines(command)
            if transport.get_write_buffer_size() <= _AT_ONCE and not transport.is_closing():
                return
            command = ()
        await super().send_packed_command(command, False)  # type: ignore[misc]

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        """As redis-py has it; a cancel is no failure to connect."""
        if self._reader is not None:  # Of each command.
            return await super().connect(*args, **kwargs)  # type: ignore[misc]
        before = handled()
        try:
            return await super().connect(*args, **kwargs)  # type: ignore[misc]
        except RedisConnectionError as exc:
            raise_if_cancelled(exc, before)
            raise

    async def connect_check_health(self, *args: Any, **kwargs: Any) -> Any:
        """As redis-py has it; a cancel is no failure to connect."""
        if self._reader is not None:
            return await super().connect_check_health(*args, **kwargs)  # type: ignore[misc]
        before = handled()
        try:
            return await super().connect_check_health(*args, **kwargs)  # type: ignore[misc]
        except RedisConnectionError as exc:
            raise_if_cancelled(exc, before)
            raise


class AsyncConnection(_Over, redis.asyncio.Connection):
    """``redis.asyncio.Connection`` over a connection of hardsock."""

    def _target(self) -> tuple[Any, dict[str, Any]]:
        return (self.host, self.port), {}


class AsyncUnixConnection(_Over, redis.asyncio.UnixDomainSocketConnection):
    """``redis.asyncio.UnixDomainSocketConnection`` over a connection of hardsock."""

    def _target(self) -> tuple[Any, dict[str, Any]]:
        return f"unix:{self.path}", {}


class AsyncSSLConnection(_Over, redis.asyncio.SSLConnection):
    """``redis.asyncio.SSLConnection`` over hardsock's TLS."""

    def _target(self) -> tuple[Any, dict[str, Any]]:
        told: Any = self.ssl_context
        names = ("keyfile", "certfile", "cert_reqs", "ca_certs", "ca_data", "check_hostname")
        settings = SimpleNamespace(
            **{name: getattr(told, name) for name in names},
            ca_path=getattr(told, "ca_path", None),
            ssl_min_version=told.min_version,
            ssl_ciphers=getattr(told, "ciphers", None),
            certificate_password=getattr(told, "password", None),
        )
        config = context_of(settings).tls_config()
        return (self.host, self.port), {"tls": config, "server_name": self.host}


class _Pipeline(redis.asyncio.client.Pipeline):
    total: float | None = None
    watching: bool

    async def reset(self) -> None:
        """As redis-py has it; the pool gets no connection back that still watches, and gets each back.

        Under a scope that has ended nobody can be told UNWATCH, so that connection is closed.
        """
        connection: Any = self.connection
        try:
            if self.watching and connection is not None:
                self.watching = False
                try:
                    await connection.send_command("UNWATCH")
                    await connection.read_response()
                except BaseException as exc:
                    await connection.disconnect(nowait=True)
                    if not isinstance(exc, (RedisError, HardsockError)):
                        raise
        finally:
            await super().reset()

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        if self.total is None:
            return await super().execute(*args, **kwargs)
        try:
            with Scope(None, self.total, "total of the pipeline"):
                return await super().execute(*args, **kwargs)
        except DeadlineExceeded as exc:
            raise ScopeEnded(str(exc)) from exc


class AsyncRedis(redis.asyncio.Redis):
    """``redis.asyncio.Redis`` each of whose commands takes ``total`` seconds at most."""

    total: float | None = None

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """As redis-py has it, within ``total``.

        Raises ScopeEnded, which redis-py takes for its own ``TimeoutError``.
        """
        if self.total is None:
            return await super().execute_command(*args, **kwargs)
        try:
            with Scope(None, self.total, "total of the command"):
                return await super().execute_command(*args, **kwargs)
        except DeadlineExceeded as exc:
            raise ScopeEnded(str(exc)) from exc

    def pipeline(self, *args: Any, **kwargs: Any) -> Any:
        """As redis-py has it; ``execute()`` takes ``total`` seconds at most."""
        made = super().pipeline(*args, **kwargs)
        if type(made) is redis.asyncio.client.Pipeline:
            made.__class__ = _Pipeline
            made.total = self.total
        return made


_CLASSES: dict[str, Any] = {
    "redis": AsyncConnection,
    "rediss": AsyncSSLConnection,
    "unix": AsyncUnixConnection,
}


def async_client(
    url: str, *, total: float | None = None, size: int | None = None, **settings: Any
) -> AsyncRedis:
    """Make a ``redis.asyncio.Redis`` each of whose commands takes *total* seconds at most.

    For asyncio and uvloop. ``await client.aclose()`` closes its connections.

    Args:
        url: As ``redis.asyncio.from_url`` takes it.
        total: Seconds for a command, or a pipeline, as a whole; ``None``: the ambient scope alone
            decides. Blocking commands (BLPOP) need one that is longer than they may block.
        size: Connections at most; who comes when all are in use waits, within *total*. ``None``: no
            limit, as redis-py has it.
        settings: Further ones of redis-py's connections and pools; and ``dial_limits``, as
            ``hardsock.connect(limits=)``.
    """
    scheme = url.partition(":")[0].lower()
    if scheme not in _CLASSES:
        raise ValueError(f"url must begin with redis://, rediss:// or unix://, got {url!r}")
    # Not by from_url(): a class that the URL stands for goes before one that is given there.
    settings.update(redis.asyncio.connection.parse_url(url))
    settings["connection_class"] = _CLASSES[scheme]
    pool: Any
    if size is None:
        pool = redis.asyncio.ConnectionPool(**settings)
    else:
        settings.setdefault("timeout", None)
        pool = redis.asyncio.BlockingConnectionPool(max_connections=size, **settings)
    made = AsyncRedis(connection_pool=pool)
    made.auto_close_connection_pool = True
    made.total = total
    return made
