"""The standard library's servers (socketserver, http.server, wsgiref, xmlrpc) on hardsock.serve.

    from http.server import HTTPServer
    from hardsock.adapters.socketserver import Mixin

    class Server(Mixin, HTTPServer):
        workers = 16
        read_timeout = 10.0

    with Server(("127.0.0.1", 8080), Handler) as server:
        server.serve_forever()      # until Ctrl-C, SIGTERM, or shutdown() in another thread

Handlers get hardsock's connections, in a bounded number of threads; a client that drips is cut; a lack of
descriptors ends nothing; ``shutdown()`` drains: what has arrived is answered, quiet connections are
closed. ``arrived()`` tells when a
request came, which WSGI applications find as ``environ["hardsock.arrived"]``: its deadline counts the wait
for a thread. ``ThreadingMixIn`` is not needed; with ``ForkingMixIn`` it cannot be, since no connection
outlives a fork.

All methods that are overridden are public, but for ``get_app()`` of ``wsgiref.simple_server``. Lost: ``handle_request()`` and ``get_request()``, which are
not called, and ``process_request()``.
"""

from __future__ import annotations

import os
import socketserver
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from hardsock._errors import HardsockError
from hardsock.adapters._arrival import arrived
from hardsock.serving.serve import serve
from hardsock.tls.config import TLSConfig

if TYPE_CHECKING:
    from hardsock._core import Connection
    from hardsock.serving.records import DrainReport
    from hardsock.serving.server import Server

__all__ = ["Mixin"]

_served: ContextVar[Connection] = ContextVar("hardsock_socketserver_served")
"""Whose handler this is."""


class Mixin:
    """Put it before the class of the server; threads are those of that class."""

    workers: int = 64
    """Handlers that run at the same time. This and the next ones are those of ``hardsock.serve``."""
    max_connections: int | None = None
    idle_timeout: float | None = None
    read_timeout: float | None = None
    write_timeout: float | None = None
    drain_timeout: float = 10.0
    tls: TLSConfig | None = None
    limits: Mapping[str, Any] = {}
    """Further parameters of ``hardsock.serve``."""
    report: DrainReport | None = None
    """How the last run ended."""

    _server: Server | None = None
    _told = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        forking = getattr(socketserver, "ForkingMixIn", None)
        if forking is not None and issubclass(cls, forking):
            raise TypeError(
                f"{cls.__name__}: no connection of hardsock outlives ForkingMixIn's fork"
            )

    def serve_forever(self: Any, poll_interval: float = 0.5) -> None:
        """Serve until ``shutdown()``, and drain; ``report`` tells how that went.

        Args:
            poll_interval: Seconds between two calls of ``service_actions()``.
        """
        server = serve(
            self._serve_one,
            os.dup(self.fileno()),
            workers=self.workers,
            max_connections=self.max_connections,
            idle_timeout=self.idle_timeout,
            read_timeout=self.read_timeout,
            write_timeout=self.write_timeout,
            drain_timeout=self.drain_timeout,
            tls=self.tls,
            **self.limits,
        )
        self._server = server
        try:
            while not self._told and not server.wait(poll_interval):
                self.service_actions()
        finally:
            self.report = server.drain()
            self._server, self._told = None, False

    def shutdown(self) -> None:
        """End ``serve_forever()``, from another thread; returns when it has drained.

        Before it has begun, or while it begins, it makes it end at once.
        """
        self._told = True
        server = self._server
        if server is not None:
            server.drain()

    def arrived(self) -> float:
        """When the request of the handler that calls this arrived, as ``time.monotonic()`` has it.

        It is when the last was received that its client has sent: ask before more is awaited. For
        ``hardsock.deadline.from_header(arrived=)``. LookupError: no handler has called.
        """
        return arrived(_served.get())

    def get_app(self: Any) -> Any:
        """As ``wsgiref.simple_server`` has it; the application is told when its request arrived."""
        application, came = super().get_app(), self.arrived()  # type: ignore[misc]

        def told(environ: dict[str, Any], start_response: Any) -> Any:
            environ["hardsock.arrived"] = came
            return application(environ, start_response)

        return told

    def _serve_one(self: Any, conn: Connection) -> None:
        _served.set(conn)
        address = conn.getpeername()
        if not self.verify_request(conn, address):
            conn.close()
            return
        try:
            self.finish_request(conn, address)
        except HardsockError:
            raise  # hardsock.serve counts it, and knows what its client gets.
        except Exception:
            self.handle_error(conn, address)
            conn.abort()
