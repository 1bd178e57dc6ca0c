"""The standard library's ThreadingTCPServer: a thread for each connection."""

from __future__ import annotations

import contextlib
import platform
import socketserver

from . import _common, _http
from ._crowd import Announce


def version() -> str:
    return f"Python {platform.python_version()}"


class _Raw(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        read = b""
        with contextlib.suppress(ConnectionResetError):
            while data := self.request.recv(_http.RECEIVE_SIZE):
                read += data
                if (end := read.find(_http.END)) >= 0:
                    read = read[end + len(_http.END) :]
                    self.request.sendall(_http.ANSWER)


class _Parsed(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        request = _http.Request()
        with contextlib.suppress(ConnectionResetError):
            while data := self.request.recv(_http.RECEIVE_SIZE):
                if request.feed(data):
                    self.request.sendall(_http.ANSWER)


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = _common.BACKLOG
    daemon_threads = True
    block_on_close = False


def _serve(handler: type[socketserver.BaseRequestHandler], announce: Announce) -> None:
    with _Server(("127.0.0.1", 0), handler) as server:
        announce(server.server_address[1])
        server.serve_forever()


_works = _http.Works(raw=lambda say: _serve(_Raw, say), parsed=lambda say: _serve(_Parsed, say))
http_raw = _works.http_raw
http_raw_churn = _works.http_raw_churn
http_parsed = _works.http_parsed
http_parsed_churn = _works.http_parsed_churn
http_idle_memory = _works.http_idle_memory
