"""asyncio's event loop, with its connections on hardsock: for libraries that want protocols.

    from hardsock.aio.loop import EventLoop, run

    run(main())                                          # in the place of asyncio.run
    asyncio.Runner(loop_factory=EventLoop)               # Python 3.11
    uvicorn.run(app, loop="hardsock.aio.loop:EventLoop")

aiohttp, asyncpg, uvicorn and whatever else calls ``create_connection``, ``create_server``,
``start_tls`` or ``getaddrinfo`` run on it unchanged: lookups that no thread outlives, connections
that race and show in the ledger, accepted connections in hardsock's listeners, writes that are bounded
when a transport is closed. A scope (``hs.timeout``) in a task ends whatever the task waits for.

It is asyncio's selector loop, whose hooks for making transports and for accepting are not public
(`_HOOKS`); a Python that lacks them is refused on import. ``ssl=`` takes an ``ssl.SSLContext``,
which runs over hardsock's connections, or a ``hardsock.TLSConfig``, whose TLS is hardsock's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import socket
import ssl as _ssl
import sys
from asyncio import sslproto
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import hardsock as hs
from hardsock import _core
from hardsock._core import Operation
from hardsock.aio._factories import connect, resolve
from hardsock.aio._host import current_hub, hub_for, hub_of
from hardsock.aio._host_scope import without_scopes
from hardsock.aio._transport import Transport, Unsent, end_with_loop

__all__ = ["EventLoop", "new_event_loop", "run"]

T = TypeVar("T")

_HOOKS = ("_make_socket_transport", "_make_ssl_transport", "_start_serving", "_stop_serving")
_ACCEPT = 64
_NO_MEMORY_PAUSE = 0.05
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
"""What a library says of an address that it has looked up itself."""

for _name in _HOOKS:
    if not hasattr(asyncio.SelectorEventLoop, _name):
        raise ImportError(f"asyncio of Python {sys.version.split()[0]} has no {_name}")


class TLSFace:
    """What ``get_extra_info("ssl_object")`` gives over hardsock's own TLS."""

    def __init__(self, info: hs.TLSInfo) -> None:
        self._info = info
        self.server_side = info.role == "server"
        self.server_hostname = info.server_name

    def selected_alpn_protocol(self) -> str | None:
        """The application protocol that was agreed on."""
        return self._info.alpn

    def version(self) -> str:
        """Of TLS: ``"TLSv1.3"``."""
        return self._info.version

    def cipher(self) -> tuple[str, str, int | None]:
        """As ``ssl.SSLObject.cipher``; the number of secret bits is not known."""
        return (self._info.cipher, self._info.version, None)

    def compression(self) -> None:
        """Never."""

    def getpeercert(self, binary_form: bool = False) -> bytes | None:
        """The peer's certificate in DER.

        Raises:
            NotImplementedError: Without *binary_form*: see ``info.peer_certificate``.
        """
        if not binary_form:
            raise NotImplementedError("getpeercert() needs binary_form=True over hardsock's TLS")
        return self._info.peer_chain[0] if self._info.peer_chain else None


class _Accepting:
    """A listener of a server, and what is done with what it accepts."""

    def __init__(self, loop: EventLoop, listener: _core.Listener, made: Callable[..., Any]) -> None:
        self._loop, self._listener, self._made = loop, listener, made
        self._operation: Operation | None = None
        self._context = contextvars.copy_context()
        self._context.run(without_scopes)

    def begin(self) -> None:
        self._context.run(self._accept)

    def _accept(self, operation: Operation | None = None) -> None:
        try:
            if operation is None:
                operation = self._listener._op_accept_many(hub_for(self._loop), _ACCEPT)
            ended = operation.step()
            if ended is False:
                operation.add_done_callback(self._accept, context=self._context)
                self._operation = operation
                return
            if ended:
                self._operation = None
                accepted = operation.value()
                operation = None
                self._make_all(accepted)
        except hs.Closed:
            return
        except OSError as exc:
            # Of one connection, or of a machine that is short of something: the listener knows how
            # long to wait, so it is asked again.
            operation = None
            self._loop.call_exception_handler(
                {"message": "a connection could not be accepted", "exception": exc}
            )
        except MemoryError as exc:
            operation = None
            self._loop.call_exception_handler(
                {"message": "no memory to accept a connection", "exception": exc}
            )
            self._loop.call_later(_NO_MEMORY_PAUSE, self._go_on, None, context=self._context)
            return
        self._loop.call_soon(self._go_on, operation, context=self._context)

    def _make_all(self, accepted: list[_core.Connection]) -> None:
        """A protocol for each; a factory that fails costs its own connection, and no other."""
        left = iter(accepted)
        try:
            for conn in left:
                try:
                    self._made(conn)
                except BaseException as exc:
                    conn.close()
                    if isinstance(exc, (SystemExit, KeyboardInterrupt)):
                        raise
                    self._loop.call_exception_handler(
                        {"message": "a protocol could not be made", "exception": exc}
                    )
        finally:
            for conn in left:
                conn.close()

    def _go_on(self, operation: Operation | None) -> None:
        if not self._listener.closed:
            self._accept(operation)

    def close(self) -> None:
        operation, self._operation = self._operation, None
        if operation is not None:
            operation.close()
        self._listener.close()


class _Handle(asyncio.Handle):
    """asyncio's, made in one call and not in four: a request of a server takes several."""

    __slots__ = ()

    def __init__(
        self, callback: Any, args: Any, loop: Any, context: contextvars.Context | None
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = self._source_traceback = None


class EventLoop(asyncio.SelectorEventLoop):
    """An event loop of asyncio over hardsock: what runs in it has its deadlines and its books."""

    _closed: bool
    _debug: bool
    _ready: Any

    def __init__(self, selector: Any = None) -> None:
        """*selector*: in place of the loop's own, which gathers what protocols write."""
        self.unsent = Unsent() if selector is None else None
        super().__init__(self.unsent if selector is None else selector)
        self._accepting: dict[int, _Accepting] = {}

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """See ``asyncio.loop.call_soon``."""
        if self._debug or self._closed:
            return super().call_soon(callback, *args, context=context)
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def run_forever(self) -> None:
        """See ``asyncio.loop.run_forever``."""
        try:
            super().run_forever()
        finally:
            if self.unsent is not None:
                self.unsent.send_all()

    def close(self) -> None:
        """See ``asyncio.loop.close``; connections that their owners have closed are closed with it."""
        hub = hub_of(self)
        try:
            if hub is not None and not self.is_running():
                end_with_loop(hub)
        finally:
            super().close()

    # ---- names

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """As ``socket.getaddrinfo``, by hardsock's lookups: none of them holds up the loop's end."""
        name = host.decode() if isinstance(host, bytes) else host
        # What needs no lookup is answered at once.
        numeric = flags | socket.AI_NUMERICHOST
        try:
            return socket.getaddrinfo(host, port, family, type, proto, numeric)
        except socket.gaierror:
            if not name or flags & socket.AI_NUMERICHOST:
                raise
        number = _port(port)
        with _living_scope():
            found = await resolve((name, number or 1), family=family)
        answers: list[Any] = []
        for text in found.plan:
            address = text.rpartition(":")[0].strip("[]")
            answers += socket.getaddrinfo(address, number, family, type, proto, numeric)
        return answers

    # ---- clients

    async def create_connection(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: Any = None,
        port: Any = None,
        *,
        ssl: Any = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        sock: Any = None,
        local_addr: Any = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        **settings: Any,
    ) -> tuple[Any, Any]:
        """As ``asyncio.loop.create_connection``; *ssl* may be a ``hardsock.TLSConfig``."""
        ssl = _own_tls(ssl)
        _check_tls(ssl, server_hostname, sock is None and bool(host))
        own = isinstance(ssl, hs.TLSConfig)
        named = sock is None and host is not None
        if named and (own or (not flags & ~_NUMERIC and str(port).isdigit())):
            name = host.decode() if isinstance(host, bytes) else host
            with _living_scope():
                opened = await connect((name, _port(port)), family=family, source=local_addr)
            conn = opened.blocking
            if server_hostname is None:
                server_hostname = name
        elif own and sock is not None:
            conn = hs.adopt(sock)
        else:  # Also for its errors.
            return await super().create_connection(
                protocol_factory,
                host,
                port,
                ssl=None if own else ssl,
                family=family,
                proto=proto,
                flags=flags,
                sock=sock,
                local_addr=local_addr,
                server_hostname=None if own else server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                **settings,
            )
        return await self._dress(
            conn, protocol_factory, ssl, server_hostname, ssl_handshake_timeout, settings
        )

    async def create_unix_connection(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        path: Any = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        **settings: Any,
    ) -> tuple[Any, Any]:
        """As ``asyncio.loop.create_unix_connection``."""
        ssl = _own_tls(ssl)
        if (path is None) == (sock is None):
            raise ValueError(
                "path and sock can not be specified at the same time, and one is needed"
            )
        if ssl and server_hostname is None:
            raise ValueError("you have to pass server_hostname when using ssl")
        if path is None:
            conn = hs.adopt(sock)
        else:
            with _living_scope():
                conn = (await connect(_unix(path))).blocking
        return await self._dress(
            conn, protocol_factory, ssl, server_hostname, ssl_handshake_timeout, settings
        )

    async def _dress(
        self,
        conn: _core.Connection,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        tls: Any,
        server_hostname: str | None,
        handshake_timeout: float | None,
        settings: dict[str, Any],
    ) -> tuple[Any, Any]:
        """A protocol and a transport for a connection that is there."""
        transport: Any = None
        try:
            if isinstance(tls, hs.TLSConfig):
                await conn._op_upgrade_to_tls(
                    current_hub(), tls, server_name=server_hostname, timeout=handshake_timeout
                )
            protocol = protocol_factory()
            waiter = self.create_future()
            if tls and not isinstance(tls, hs.TLSConfig):
                context = None if isinstance(tls, bool) else tls
                transport = self._wrap(
                    conn,
                    protocol,
                    context,
                    waiter,
                    server_hostname=server_hostname,
                    ssl_handshake_timeout=handshake_timeout,
                    **_known(settings),
                )
            else:
                transport = self._plain(conn, protocol, waiter)
            await waiter
        except BaseException:
            if transport is not None:
                transport.close()
            else:
                conn.close()
            raise
        return transport, protocol

    # ---- making transports

    def _plain(
        self,
        conn: _core.Connection,
        protocol: asyncio.BaseProtocol,
        waiter: Any = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
    ) -> Transport:
        extra = dict(extra or {})
        if conn.tls is not None:
            face = TLSFace(conn.tls)
            extra.update(
                ssl_object=face,
                sslcontext=conn.tls,
                cipher=face.cipher(),
                compression=None,
                peercert={},
            )
        transport = Transport(self, hub_for(self), conn, protocol, extra=extra, server=server)
        transport.begin(waiter)
        return transport

    def _wrap(
        self,
        conn: _core.Connection,
        protocol: asyncio.BaseProtocol,
        context: Any,
        waiter: Any,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        **settings: Any,
    ) -> Any:
        """TLS by the ssl module, over a connection."""
        settings.pop("context", None)  # of a later Python: ours is made with the transport
        inner: Any = sslproto.SSLProtocol(
            self,
            protocol,
            context,
            waiter,
            server_side,
            server_hostname,
            **settings,
        )
        self._plain(conn, inner, extra=extra, server=server)
        return inner._app_transport

    def _make_socket_transport(
        self,
        sock: Any,
        protocol: Any,
        waiter: Any = None,
        *,
        extra: Any = None,
        server: Any = None,
        **_later: Any,
    ) -> Any:
        conn = hs.adopt(sock)
        try:
            return self._plain(conn, protocol, waiter, extra=extra, server=server)
        except BaseException:
            conn.close()
            raise

    def _make_ssl_transport(
        self,
        rawsock: Any,
        protocol: Any,
        sslcontext: Any,
        waiter: Any = None,
        **settings: Any,
    ) -> Any:
        conn = hs.adopt(rawsock)
        try:
            return self._wrap(conn, protocol, sslcontext, waiter, **settings)
        except BaseException:
            conn.close()
            raise

    async def start_tls(
        self, transport: Any, protocol: Any, sslcontext: Any, **settings: Any
    ) -> Any:
        """As ``asyncio.loop.start_tls``; *sslcontext* may be a ``hardsock.TLSConfig``."""
        if not settings.get("server_side"):  # There, hardsock's TLS begins with a listener.
            sslcontext = _own_tls(sslcontext)
        if not isinstance(sslcontext, hs.TLSConfig):
            return await super().start_tls(transport, protocol, sslcontext, **settings)
        if not isinstance(transport, Transport):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        conn, server = transport.leave()
        # It takes the server's place for this connection now, and ends it if there will be no TLS.
        after = Transport(self, current_hub(), conn, protocol)
        after.take_place(transport, server)
        try:
            with _living_scope():
                await conn._op_upgrade_to_tls(
                    current_hub(),
                    sslcontext,
                    server_name=settings.get("server_hostname"),
                    timeout=settings.get("ssl_handshake_timeout"),
                )
            face = TLSFace(conn.tls)  # type: ignore[arg-type]
        except BaseException as exc:
            after.give_up(exc if isinstance(exc, Exception) else None)
            raise
        after.add_info(ssl_object=face, sslcontext=conn.tls, cipher=face.cipher())
        after.go_on()
        return after

    async def sendfile(
        self,
        transport: Any,
        file: Any,
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool = True,
    ) -> int:
        """As ``asyncio.loop.sendfile``; over TLS, too."""
        if not isinstance(transport, Transport):
            return await super().sendfile(transport, file, offset, count, fallback=fallback)
        return await transport.sendfile(file, offset, count)

    # ---- servers

    def _start_serving(
        self,
        protocol_factory: Any,
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        *timeouts: Any,
        **named: Any,
    ) -> None:
        """Accept with a listener of hardsock; asyncio's Server keeps the socket for its owner."""
        given = [*timeouts, *named.values()]
        sslcontext = _own_tls(sslcontext, server_side=True)
        config = sslcontext if isinstance(sslcontext, hs.TLSConfig) else None
        listener = hs.listen(sock.dup(), tls=config)

        def made(conn: _core.Connection) -> None:
            protocol = protocol_factory()
            if sslcontext is None or config is not None:
                self._plain(conn, protocol, server=server)
            else:
                names = ("ssl_handshake_timeout", "ssl_shutdown_timeout")
                self._wrap(
                    conn,
                    protocol,
                    sslcontext,
                    None,
                    server_side=True,
                    server=server,
                    **_known(dict(zip(names, given, strict=False))),
                )

        accepting = _Accepting(self, listener, made)
        self._accepting[sock.fileno()] = accepting
        accepting.begin()

    def _stop_serving(self, sock: socket.socket) -> None:
        accepting = self._accepting.pop(sock.fileno(), None)
        if accepting is not None:
            accepting.close()
        sock.close()


def _living_scope() -> contextlib.AbstractContextManager[object]:
    """Obey the ambient scope, unless that has ended before.

    A library tidies up in tasks of its own, which inherit the scope whose end is the reason: asyncpg
    connects anew to cancel a query. A task that stands in the scope itself is cancelled anyway.
    """
    token = _core.scope.get()
    if token is not None:
        try:
            token.check()
        except hs.HardsockError:
            return _core.ContextValue(_core.scope, None)
    return contextlib.nullcontext()


def _own_tls(tls: Any, server_side: bool = False) -> Any:
    """A ``TLSConfig`` for what stands for one: itself, or a context of ``hardsock.ssl_context``."""
    make = getattr(tls, "tls_config", None)
    return make(server_side) if callable(make) else tls


def _port(port: Any) -> int:
    """The number of a port, or of a service that the system knows."""
    text = port.decode() if isinstance(port, bytes) else str(port or 0)
    return int(text) if text.isdigit() else socket.getservbyname(text)


def _unix(path: Any) -> str:
    text = path.decode() if isinstance(path, bytes) else str(path)
    return f"unix:@{text[1:]}" if text.startswith("\0") else f"unix:{text}"


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    """Of the settings, those that this Python's TLS has."""
    names = ["ssl_handshake_timeout"]
    if sys.version_info >= (3, 11):
        names.append("ssl_shutdown_timeout")
    return {name: settings[name] for name in names if settings.get(name) is not None}


def _check_tls(tls: Any, server_hostname: str | None, has_host: bool) -> None:
    if server_hostname is not None and not tls:
        raise ValueError("server_hostname is only meaningful with ssl")
    if server_hostname is None and tls and not has_host:
        raise ValueError("You must set server_hostname when using ssl without a host")
    if tls and not isinstance(tls, (bool, _ssl.SSLContext, hs.TLSConfig)):
        raise TypeError(
            "ssl must be a bool, an ssl.SSLContext or a hardsock.TLSConfig, not "
            f"{type(tls).__name__}"
        )


def __getattr__(name: str) -> Any:
    """``EventLoopPolicy``, made when it is asked for: Python 3.14 warns about policies."""
    if name != "EventLoopPolicy":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    class EventLoopPolicy(asyncio.DefaultEventLoopPolicy):
        """``asyncio.set_event_loop_policy(EventLoopPolicy())``: for programs that make loops themselves."""

        _loop_factory = EventLoop

        def new_event_loop(self) -> EventLoop:
            return EventLoop()

    globals()[name] = EventLoopPolicy
    return EventLoopPolicy


def new_event_loop() -> EventLoop:
    """Return a new loop; for what wants a factory."""
    return EventLoop()


async def _under(token: hs.CancelToken, main: Coroutine[Any, Any, T]) -> T:
    with hs.scope(token):
        return await main


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """As ``asyncio.run``, on an `EventLoop`.

    A scope around it ends whatever *main* awaits, as one within *main*. Under ``asyncio.run`` and
    ``asyncio.Runner``, which begin tasks of their own, too, it ends the calls of hardsock alone.
    """
    token = hs.current()
    if token is not None and asyncio.iscoroutine(main):
        main = _under(token, main)
    if sys.version_info >= (3, 11):
        with asyncio.Runner(debug=debug, loop_factory=EventLoop) as runner:
            return runner.run(main)
    loop = EventLoop()
    try:
        asyncio.set_event_loop(loop)
        if debug is not None:
            loop.set_debug(debug)
        return loop.run_until_complete(main)
    finally:
        try:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
