"""A worker class for gunicorn whose connections are hardsock's.

    gunicorn -k hardsock.adapters.gunicorn.Worker --threads 16 app:application

As gunicorn's ``gthread``: ``threads`` requests at a time in each worker, and keep-alive connections
that cost no thread; on ``hardsock.serve``, so that

- a client that sends its request slowly holds no thread until the head is there, and has *timeout*
  seconds (``--timeout``) for all of it, however it drips; each of the application's writes has as long;
- a body that the application leaves unread is discarded, up to a megabyte within a second; else the
  connection is closed after the answer;
- a client that leaves cancels hardsock's calls of the application, also those to other servers through
  adapters: nothing works for nobody;
- ``worker_connections`` are bounded, strangers in the kernel's queue cost nothing, and a lack of
  descriptors ends nothing;
- ``environ["hardsock.arrived"]`` says when a request arrived, so that its deadline (``hardsock.deadline.wsgi``)
  counts the wait for a thread;
- SIGTERM, SIGHUP and ``max_requests`` drain for ``graceful_timeout``: what has arrived is answered, quiet
  connections are closed, and the log says what was cut;
- TLS is hardsock's: handshakes happen beside accepting and hold no thread.

``keepalive`` is the time that a quiet connection is kept. For other limits write a class:

    class Mine(hardsock.adapters.gunicorn.Worker):
        limits = {"write_timeout": 60, "peer_limits": hardsock.PeerLimits(connections=50)}

Lost: HTTP/2, the ``ssl_context`` hook, ``do_handshake_on_connect``, ``suppress_ragged_eofs``,
``reload`` in the middle of a request. ``timeout`` kills a worker that hangs as a whole, never one whose
request takes long; bound those by ``limits = {"handler_timeout": 30}``.

Tested with gunicorn 21.2 to 27.0. What is not public there and used here: ``AsyncWorker.handle_request``,
``Worker.load_wsgi``, ``Worker.wsgi``, ``environ["gunicorn.socket"]``, ``Worker.PIPE``, ``Parser.unreader``, ``Request.body``.
"""

from __future__ import annotations

import functools
import os
import select
import ssl
import threading
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

import gunicorn.http
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.util import write_error
from gunicorn.workers.base_async import AsyncWorker

from hardsock._core import Connection
from hardsock._errors import DeadlineExceeded, FrameTooLarge, HardsockError
from hardsock._scope import timeout
from hardsock.adapters._arrival import arrived
from hardsock.adapters._versions import check
from hardsock.serving.serve import serve
from hardsock.tls.config import Certificate, TLSConfig

if TYPE_CHECKING:
    from hardsock.serving.server import Server

__all__ = ["Worker"]

check("gunicorn", version("gunicorn"), "21.2", "27.0")

_HEAD_END = b"\r\n\r\n"
_MOST_HEAD = 1 << 20
_SILENT = 5.0
"""Seconds for the first byte of a connection when keep-alive is off; gthread has the same."""
_DISCARD_MOST = 1 << 20
_DISCARD_SECONDS = 1.0
"""For what the application has left unread of a body. It has to be off the connection before that is
parked: its bytes would be taken for a request that begins to arrive."""


class _Progress:
    """What the worker knows of a connection: ``conn.state``."""

    __slots__ = ("arrived", "parser", "proxied")

    def __init__(self, parser: Any) -> None:
        self.parser = parser
        self.proxied: Any = {}
        self.arrived: float | None = None
        """When the request that is read or served arrived."""

    def note_arrival(self, conn: Connection) -> None:
        """Called before more of a request is awaited: that would be a later arrival."""
        if self.arrived is None:
            self.arrived = arrived(conn)

    def has_more(self) -> bool:
        """Whether the parser has read beyond the last request."""
        return bool(self.parser.unreader.buf.getbuffer().nbytes)


def _discarded(body: Any) -> bool:
    """Read what is left of a body; False: where the next request begins is not known."""
    left = _DISCARD_MOST
    try:
        with timeout(_DISCARD_SECONDS, name="discarding the rest of a body"):
            while left > 0 and (data := body.read(min(left, 65536))):
                left -= len(data)
    except (DeadlineExceeded, NoMoreData, ParseException):
        return False
    # gunicorn's own mark: reading it has failed, which the application may have caught.
    return left > 0 and not getattr(body, "failed", False)


def _arriving(application: Any) -> Any:
    """The same application, which is told when its request arrived."""

    @functools.wraps(application, updated=())
    def told(environ: dict[str, Any], start_response: Any) -> Any:
        environ["hardsock.arrived"] = environ["gunicorn.socket"].state.arrived
        return application(environ, start_response)

    return told


def _tls_of(cfg: Any) -> TLSConfig | None:
    if not cfg.is_ssl:
        return None
    hook = cfg.settings.get("ssl_context")
    if hook is not None and hook.get() is not hook.default:
        raise ValueError(
            "ssl_context: hardsock's worker takes no hook; write limits = {'tls': ...}"
        )
    wanted = {ssl.CERT_NONE: "none", ssl.CERT_OPTIONAL: "optional", ssl.CERT_REQUIRED: "required"}
    settings: dict[str, Any] = {"ciphers": cfg.ciphers} if cfg.ciphers else {}
    return TLSConfig(
        role="server",
        certificates=Certificate(chain=cfg.certfile, key=cfg.keyfile or None),
        ca=cfg.ca_certs,
        client_certificates=wanted[ssl.VerifyMode(int(cfg.cert_reqs))],  # type: ignore[arg-type]
        alpn=("http/1.1",),
        **settings,
    )


class Worker(AsyncWorker):
    """The worker class; see the module."""

    limits: ClassVar[Mapping[str, Any]] = {}
    """Further parameters of ``hardsock.serve``, which go before those from gunicorn's settings."""

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Called by gunicorn before it starts workers."""
        if "h2" in getattr(cfg, "http_protocols", ()):
            log.warning("hardsock's worker has no HTTP/2: clients are served HTTP/1.1")

    # ---- The process

    def load_wsgi(self) -> None:
        """As gunicorn has it; the application is told of arrivals."""
        super().load_wsgi()
        self.wsgi: Any = _arriving(self.wsgi)

    def _serve(self, listener: Any) -> Server:
        cfg = self.cfg
        seconds = float(cfg.timeout) or None
        settings: dict[str, Any] = {
            "workers": cfg.threads,
            "max_connections": max(cfg.worker_connections, cfg.threads),
            "drain_timeout": float(cfg.graceful_timeout) or 0.001,
            "idle_timeout": float(cfg.keepalive) or _SILENT,
            "read_timeout": seconds,
            "name": f"gunicorn {os.getpid()}",
            "tls": _tls_of(cfg),
            **self.limits,
        }
        return serve(self._message, os.dup(listener.fileno()), per="message", **settings)

    def run(self) -> None:
        """Serve until gunicorn says otherwise, then drain."""
        most = _or(self.cfg.limit_request_fields, 100) * (
            _or(self.cfg.limit_request_field_size, 8190) + 2
        )
        self._most_head = min(_MOST_HEAD, most + _or(self.cfg.limit_request_line, 4094) + 256)
        servers = [self._serve(listener) for listener in self.sockets]
        for listener in self.sockets:
            listener.close()  # The server's duplicate alone keeps it open here.
        while self.alive and self.ppid == os.getppid():
            self.notify()
            self._nap()
        self._drain(servers)

    def _nap(self) -> None:
        """Until a signal comes, or a request has set ``alive``; a second at most."""
        if select.select([self.PIPE[0]], [], [], 1.0)[0]:
            os.read(self.PIPE[0], 4096)

    def _drain(self, servers: list[Server]) -> None:
        self.alive = False
        threads = [threading.Thread(target=self._drain_one, args=(one,)) for one in servers]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                self.notify()
                thread.join(1.0)

    def _drain_one(self, server: Server) -> None:
        report = server.drain()
        level = self.log.info if report.clean else self.log.warning
        level("Worker %s: %s", os.getpid(), report)

    # ---- A connection

    def _message(self, conn: Connection) -> None:
        """Called when a request begins to arrive, and again when more of it has."""
        progress = conn.state
        if progress is None:
            conn.settimeout(float(self.cfg.timeout) or None)
            peer = conn.getpeername() or ("", -1)
            parser = getattr(gunicorn.http, "get_parser", gunicorn.http.RequestParser)
            progress = conn.state = _Progress(parser(self.cfg, conn, peer))
        progress.note_arrival(conn)
        if progress.has_more():
            self._requests(conn, progress)
            return
        try:
            head = conn.recv_until(_HEAD_END, max_size=self._most_head, timeout=0)
        except FrameTooLarge as exc:
            self.log.warning("Invalid request from ip=%s: %s", conn.getpeername()[:1], exc)
            write_error(conn, 431, "Request Header Fields Too Large", "")
            conn.close_write()
            return
        except DeadlineExceeded as exc:
            if exc.phase == "read_timeout":
                raise
            return  # It is not whole yet, and needs no thread until more has come.
        else:
            progress.parser.unreader.unread(head + _HEAD_END)
            self._requests(conn, progress)

    def _requests(self, conn: Connection, progress: _Progress) -> None:
        """Those of which the whole head is here; for the rest no thread waits."""
        while self._has_head(conn, progress):
            if not self._request(conn, progress):
                if not conn.closed:
                    conn.close_write()
                return
            if not progress.has_more():
                return

    def _has_head(self, conn: Connection, progress: _Progress) -> bool:
        """Whether the parser can go on without a wait for the head.

        With the rest of a body it may have read the beginning of the next request.
        """
        progress.note_arrival(conn)
        buf = progress.parser.unreader.buf
        while _HEAD_END not in (got := buf.getvalue()) and len(got) <= self._most_head:
            try:
                more = conn.recv(8192, timeout=0)
            except DeadlineExceeded as exc:
                if exc.phase == "read_timeout":
                    raise
                return False
            if not more:
                break  # The parser tells what an end means.
            buf.seek(0, os.SEEK_END)
            buf.write(more)
        return True

    def _request(self, conn: Connection, progress: _Progress) -> bool:
        """Whether another one may follow."""
        request = None
        sent = conn.bytes_sent
        peer = conn.getpeername() or ("", -1)
        try:
            request = next(progress.parser)
            if getattr(request, "proxy_protocol_info", None):
                progress.proxied = request.proxy_protocol_info
            else:
                request.proxy_protocol_info = progress.proxied
            stays = bool(self.handle_request(conn.getsockname(), request, conn, peer))
            stays = stays and _discarded(request.body)
        except (StopIteration, NoMoreData):
            stays = False
        except HardsockError:
            raise  # The server knows what to do with its client.
        except Exception as exc:
            if conn.bytes_sent != sent:
                self.log.exception("Error in the middle of an answer")
                conn.abort()
            else:
                self.handle_error(request, conn, peer, exc)
            stays = False
        progress.arrived = None
        if not self.alive:
            os.write(self.PIPE[1], b"1")
        return stays


def _or(value: int, default: int) -> int:
    """gunicorn's 0 stands for no limit of its own."""
    return value or default
