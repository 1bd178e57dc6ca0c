"""Network backends of httpcore and httpcore2 over hardsock's connections.

The two libraries have the same interfaces under two names; `backends` makes the classes for one.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import hardsock as hs
from hardsock import aio
from hardsock.adapters._dial import checked_limits
from hardsock.adapters._tls_bio import AsyncTLSOverBio, TLSOverBio
from hardsock.adapters._total import scope_has_ended
from hardsock.connecting.proxies import parse_via

__all__ = ["Backends", "backends"]


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


def _extra(conn: Any, name: str, tls: Any) -> Any:
    if name == "ssl_object":
        return tls
    if name == "client_addr":
        return conn.getsockname()
    if name == "server_addr":
        return conn.getpeername()
    if name == "socket":
        return conn
    return None


@functools.cache
def _for_proxies() -> hs.TLSConfig:
    """For a proxy of which nothing was said: whom the system trusts, and no certificate of ours."""
    return hs.TLSConfig(alpn=("http/1.1",))


def _made_by(context: Any) -> hs.TLSConfig | None:
    """The settings of a context of ``hardsock.ssl_context``; None: it is another."""
    make = getattr(context, "tls_config", None)
    made: hs.TLSConfig | None = make(False) if callable(make) else None
    return made


@dataclass(frozen=True)
class _Settings:
    """What a backend was told about TLS."""

    tls: hs.TLSConfig | None
    proxy: tuple[str, int] | None
    proxy_tls: hs.TLSConfig | None

    def of_proxy(self, context: Any) -> hs.TLSConfig | None:
        """For the handshake with the proxy; None: by the ``ssl`` module and *context*."""
        if self.proxy_tls is not None:
            return self.proxy_tls
        return _made_by(context) or (None if self.tls is None else _for_proxies())

    def of_target(self, context: Any) -> hs.TLSConfig | None:
        """The same for the target's."""
        return self.tls if self.tls is not None else _made_by(context)


class _Stream:
    """What the streams of both kinds have in common: which settings a handshake takes."""

    def __init__(self, conn: Any, settings: _Settings, to_proxy: bool, tls: Any = None) -> None:
        self._conn, self._settings, self._to_proxy, self._tls = conn, settings, to_proxy, tls

    def _plan(self, context: Any) -> hs.TLSConfig | None:
        """The settings of hardsock's next handshake; None: by the ``ssl`` module and *context*."""
        if self._to_proxy and self._tls is None:
            return self._settings.of_proxy(context)
        config = self._settings.of_target(context)
        if self._tls is None or config is None:
            return config
        if not self._to_proxy and config.certificates:
            raise ssl.SSLError(
                "the first handshake was with a proxy, of which the backend was not told: say "
                "proxy='https://...'"
            )
        # Over a layer of the ssl module hardsock's own cannot go.
        return None if isinstance(self._conn, (TLSOverBio, AsyncTLSOverBio)) else config

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # The pool asks twice for each request.
            return not self._conn._is_quiet()
        return _extra(self._conn, info, self._tls)


class _Backend:
    """What the backends of both kinds have in common; see `NetworkBackend`."""

    def __init__(
        self,
        *,
        tls: hs.TLSConfig | None = None,
        options: hs.SocketOptions | None = None,
        proxy: str | Literal[False] | None = None,
        proxy_tls: hs.TLSConfig | None = None,
        dial_limits: hs.DialLimits | None = None,
    ) -> None:
        if proxy_tls is not None and not proxy:
            raise ValueError("proxy_tls has no use without proxy")
        if proxy is None and tls is not None and tls.certificates:
            raise ValueError(
                "proxy must be given with a certificate in tls, which no proxy may be shown: the URL "
                "of the pool's https:// proxy, or False if it has none"
            )
        found = parse_via(proxy) if proxy else None
        if found is not None and found.scheme != "https":
            if proxy_tls is not None:
                raise ValueError(f"proxy_tls is for an https:// proxy, and proxy is {found}")
            found = None
        self._options, self._limits = options, checked_limits(dial_limits)
        self._settings = _Settings(
            tls, None if found is None else (found.host, found.port), proxy_tls
        )

    def _opened(self, stream: Any, conn: Any, address: Any, socket_options: Any) -> Any:
        try:
            for option in socket_options or ():
                conn.setsockopt(*option)
        except BaseException:
            conn.close()
            raise
        return stream(conn, self._settings, address == self._settings.proxy)


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

    class Stream(_Stream, core.NetworkStream):
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
            config = self._plan(context)
            if config is None:
                inner = TLSOverBio(self._conn, context, name)
                inner.handshake(timeout)
                return Stream(inner, self._settings, self._to_proxy, inner.ssl_object)
            self._conn.upgrade_to_tls(config, server_name=name, timeout=timeout)
            face = TLSFace(self._conn.tls)
            return Stream(self._conn, self._settings, self._to_proxy, face)

    class Backend(_Backend, core.NetworkBackend):
        """A network backend: ``ConnectionPool(network_backend=NetworkBackend())``.

        Args:
            tls: For connections to https servers. ``None``: the ``ssl_context`` of the pool, by the
                ``ssl`` module, over a connection of hardsock. It replaces the pool's context as a
                whole; its ``alpn`` must have what the pool speaks.
            proxy: The ``https://`` proxy of the pool, which a backend cannot see; ``False``: it has
                none. With a certificate in *tls* one of them must be said; else the handshake
                with the proxy takes *tls*.
            proxy_tls: For the handshake with *proxy*; ``None``: the pool's ``proxy_ssl_context`` if
                it is of ``hardsock.ssl_context()``, else whom the system trusts.
            options: For the sockets.
            dial_limits: As ``hardsock.connect(limits=)``.
        """

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
                    limits=self._limits,
                    source=None if local_address is None else (local_address, 0),
                )
            return self._opened(Stream, conn, _address(host, port), socket_options)

        def connect_unix_socket(
            self, path: str, timeout: float | None = None, socket_options: Any = None
        ) -> Any:
            with connecting():
                conn = hs.connect(
                    f"unix:{path}", timeout=timeout, options=self._options, limits=self._limits
                )
            return self._opened(Stream, conn, None, socket_options)

        def sleep(self, seconds: float) -> None:
            hs.sleep(seconds)

    class AsyncStream(_Stream, core.AsyncNetworkStream):
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
            config = self._plan(context)
            if config is None:
                inner = AsyncTLSOverBio(self._conn, context, name)
                await inner.handshake(timeout)
                return AsyncStream(inner, self._settings, self._to_proxy, inner.ssl_object)
            await self._conn.upgrade_to_tls(config, server_name=name, timeout=timeout)
            face = TLSFace(self._conn.tls)
            return AsyncStream(self._conn, self._settings, self._to_proxy, face)

    class AsyncBackend(_Backend, core.AsyncNetworkBackend):
        """The awaited twin of `NetworkBackend`, on asyncio, uvloop and trio."""

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
                    limits=self._limits,
                    source=None if local_address is None else (local_address, 0),
                )
            return self._opened(AsyncStream, conn, _address(host, port), socket_options)

        async def connect_unix_socket(
            self, path: str, timeout: float | None = None, socket_options: Any = None
        ) -> Any:
            with connecting():
                conn = await aio.connect(
                    f"unix:{path}", timeout=timeout, options=self._options, limits=self._limits
                )
            return self._opened(AsyncStream, conn, None, socket_options)

        async def sleep(self, seconds: float) -> None:
            await aio.sleep(seconds)

    Backend.__name__ = Backend.__qualname__ = "NetworkBackend"
    AsyncBackend.__name__ = AsyncBackend.__qualname__ = "AsyncNetworkBackend"
    return Backends(Backend, AsyncBackend)


def _with(error: Exception, cause: OSError) -> Exception:
    """httpcore drops ``__cause__`` on the way: keep hardsock's error in an attribute, too."""
    error.hardsock_error = cause  # type: ignore[attr-defined]
    return error
