"""Network backends of httpcore and httpcore2 over hardsock's connections.

The two libraries have the same interfaces under two names; `backends` makes the classes for one.
"""

from __future__ import annotations

import select
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import hardsock as hs
from hardsock import aio
from hardsock.adapters._tls_bio import AsyncTLSOverBio, TLSOverBio
from hardsock.adapters._total import scope_has_ended

__all__ = ["NO_TLS_WITHIN_TLS", "Backends", "backends"]

NO_TLS_WITHIN_TLS = (
    "TLS within TLS is not supported with tls=, whose settings an inner handshake would not heed: "
    "take a proxy by http://, or leave tls= out"
)


class Backends(NamedTuple):
    """The classes for one library."""

    sync: Any
    asynchronous: Any


class TLSFace:
    """What a library asks of an ``SSLObject`` after the handshake."""

    def __init__(self, info: hs.TLSInfo) -> None:
        self._info = info

    def selected_alpn_protocol(self) -> str | None:
        """The application protocol that was agreed on."""
        return self._info.alpn

    def version(self) -> str:
        """Of TLS: ``"TLSv1.3"``."""
        return self._info.version

    def cipher(self) -> tuple[str, str, int | None]:
        """As ``ssl.SSLObject.cipher``; the number of secret bits is not known."""
        return (self._info.cipher, self._info.version, None)


def is_readable(conn: Any) -> bool:
    """Whether an idle connection has ended, or has something that nobody asked for."""
    fd = conn.fileno()
    if fd < 0 or conn.buffered:
        return True
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _extra(conn: Any, name: str, tls: Any) -> Any:
    if name == "ssl_object":
        return tls
    if name == "client_addr":
        return conn.getsockname()
    if name == "server_addr":
        return conn.getpeername()
    if name == "socket":
        return conn
    if name == "is_readable":
        return is_readable(conn)
    return None


def _config_for(config: hs.TLSConfig | None, context: Any) -> hs.TLSConfig | None:
    """The settings of hardsock's TLS: given, or of a context of ``hardsock.ssl_context``."""
    make = getattr(context, "tls_config", None)
    if config is not None or not callable(make):
        return config
    made: hs.TLSConfig = make(False)
    return made


def _address(host: str, port: int) -> tuple[str, int]:
    return (host.strip("[]"), port)


def backends(core: Any) -> Backends:
    """Make the classes over *core*, which is httpcore or httpcore2."""

    @contextmanager
    def mapped(timeout: type[Exception], failure: type[Exception]) -> Iterator[None]:
        """Errors of hardsock as those of the library; what the caller's scope ended stays."""
        try:
            yield
        except hs.Cancelled:
            raise
        except hs.DeadlineExceeded as exc:
            if scope_has_ended():
                raise
            raise _with(timeout(str(exc)), exc) from exc
        except OSError as exc:
            raise _with(failure(str(exc)), exc) from exc

    def connecting() -> Any:
        return mapped(core.ConnectTimeout, core.ConnectError)

    def reading() -> Any:
        return mapped(core.ReadTimeout, core.ReadError)

    def writing() -> Any:
        return mapped(core.WriteTimeout, core.WriteError)

    class Stream(core.NetworkStream):
        def __init__(
            self, conn: Any, config: hs.TLSConfig | None, tls: Any = None, strict: bool = False
        ) -> None:
            self._conn, self._config, self._tls, self._strict = conn, config, tls, strict

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            try:
                data: bytes = self._conn.recv(max_bytes, timeout=timeout)
            except OSError:
                with reading():
                    raise
            return data

        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            if not buffer:
                return
            try:
                self._conn.sendall(buffer, timeout=timeout)
            except OSError:
                with writing():
                    raise

        def close(self) -> None:
            self._conn.close()

        def start_tls(
            self,
            ssl_context: ssl.SSLContext,
            server_hostname: str | None = None,
            timeout: float | None = None,
        ) -> Any:
            try:
                with connecting():
                    return self._start_tls(ssl_context, server_hostname, timeout)
            except BaseException:
                self._conn.close()
                raise

        def _start_tls(
            self, context: ssl.SSLContext, name: str | None, timeout: float | None
        ) -> Any:
            if self._tls is not None and self._strict:
                raise core.ConnectError(NO_TLS_WITHIN_TLS)
            config = _config_for(self._config, context)
            if config is None or self._tls is not None:
                inner = TLSOverBio(self._conn, context, name)
                inner.handshake(timeout)
                return Stream(inner, None, inner.ssl_object)
            self._conn.upgrade_to_tls(config, server_name=name, timeout=timeout)
            face = TLSFace(self._conn.tls)
            return Stream(self._conn, self._config, face, self._strict)

        def get_extra_info(self, info: str) -> Any:
            return _extra(self._conn, info, self._tls)

    class Backend(core.NetworkBackend):
        """A network backend: ``ConnectionPool(network_backend=NetworkBackend())``.

        Args:
            tls: For connections to https servers. ``None``: the ``ssl_context`` of the pool, by the
                ``ssl`` module, over a connection of hardsock. It replaces the pool's context as a
                whole; its ``alpn`` must have what the pool speaks. TLS within TLS, which is what
                an ``https://`` proxy takes, raises ``ConnectError`` with it.
            options: For the sockets.
        """

        def __init__(
            self,
            *,
            tls: hs.TLSConfig | None = None,
            options: hs.SocketOptions | None = None,
            _strict: bool = True,
        ) -> None:
            self._config, self._options = tls, options
            self._strict = _strict and tls is not None

        def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,
            local_address: str | None = None,
            socket_options: Any = None,
        ) -> Any:
            with connecting():
                conn = hs.connect(
                    _address(host, port),
                    timeout=timeout,
                    options=self._options,
                    source=None if local_address is None else (local_address, 0),
                )
            return self._opened(conn, socket_options)

        def connect_unix_socket(
            self, path: str, timeout: float | None = None, socket_options: Any = None
        ) -> Any:
            with connecting():
                conn = hs.connect(f"unix:{path}", timeout=timeout, options=self._options)
            return self._opened(conn, socket_options)

        def _opened(self, conn: hs.Connection, socket_options: Any) -> Any:
            try:
                for option in socket_options or ():
                    conn.setsockopt(*option)
            except BaseException:
                conn.close()
                raise
            return Stream(conn, self._config, strict=self._strict)

        def sleep(self, seconds: float) -> None:
            hs.sleep(seconds)

    class AsyncStream(core.AsyncNetworkStream):
        def __init__(
            self, conn: Any, config: hs.TLSConfig | None, tls: Any = None, strict: bool = False
        ) -> None:
            self._conn, self._config, self._tls, self._strict = conn, config, tls, strict

        async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            try:
                data: bytes = await self._conn.recv(max_bytes, timeout=timeout)
            except OSError:
                with reading():
                    raise
            return data

        async def write(self, buffer: bytes, timeout: float | None = None) -> None:
            if not buffer:
                return
            try:
                await self._conn.sendall(buffer, timeout=timeout)
            except OSError:
                with writing():
                    raise

        async def aclose(self) -> None:
            self._conn.close()

        async def start_tls(
            self,
            ssl_context: ssl.SSLContext,
            server_hostname: str | None = None,
            timeout: float | None = None,
        ) -> Any:
            try:
                with connecting():
                    return await self._start_tls(ssl_context, server_hostname, timeout)
            except BaseException:
                self._conn.close()
                raise

        async def _start_tls(
            self, context: ssl.SSLContext, name: str | None, timeout: float | None
        ) -> Any:
            if self._tls is not None and self._strict:
                raise core.ConnectError(NO_TLS_WITHIN_TLS)
            config = _config_for(self._config, context)
            if config is None or self._tls is not None:
                inner = AsyncTLSOverBio(self._conn, context, name)
                await inner.handshake(timeout)
                return AsyncStream(inner, None, inner.ssl_object)
            await self._conn.upgrade_to_tls(config, server_name=name, timeout=timeout)
            face = TLSFace(self._conn.tls)
            return AsyncStream(self._conn, self._config, face, self._strict)

        def get_extra_info(self, info: str) -> Any:
            return _extra(self._conn, info, self._tls)

    class AsyncBackend(core.AsyncNetworkBackend):
        """The awaited twin of `NetworkBackend`, on asyncio, uvloop and trio."""

        def __init__(
            self,
            *,
            tls: hs.TLSConfig | None = None,
            options: hs.SocketOptions | None = None,
            _strict: bool = True,
        ) -> None:
            self._config, self._options = tls, options
            self._strict = _strict and tls is not None

        async def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,
            local_address: str | None = None,
            socket_options: Any = None,
        ) -> Any:
            with connecting():
                conn = await aio.connect(
                    _address(host, port),
                    timeout=timeout,
                    options=self._options,
                    source=None if local_address is None else (local_address, 0),
                )
            return self._opened(conn, socket_options)

        async def connect_unix_socket(
            self, path: str, timeout: float | None = None, socket_options: Any = None
        ) -> Any:
            with connecting():
                conn = await aio.connect(f"unix:{path}", timeout=timeout, options=self._options)
            return self._opened(conn, socket_options)

        def _opened(self, conn: aio.Connection, socket_options: Any) -> Any:
            try:
                for option in socket_options or ():
                    conn.setsockopt(*option)
            except BaseException:
                conn.close()
                raise
            return AsyncStream(conn, self._config, strict=self._strict)

        async def sleep(self, seconds: float) -> None:
            await aio.sleep(seconds)

    Backend.__name__ = Backend.__qualname__ = "NetworkBackend"
    AsyncBackend.__name__ = AsyncBackend.__qualname__ = "AsyncNetworkBackend"
    return Backends(Backend, AsyncBackend)


def _with(error: Exception, cause: OSError) -> Exception:
    """httpcore drops ``__cause__`` on the way: keep hardsock's error in an attribute, too."""
    error.hardsock_error = cause  # type: ignore[attr-defined]
    return error
