"""The standard library's servers on hardsock.serve."""

from __future__ import annotations

import contextlib
import http.client
import socket
import socketserver
import threading
import time
import wsgiref.simple_server
import xmlrpc.client
import xmlrpc.server
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock.adapters.socketserver import Mixin
from hardsock.lab.threads import Call
from hardsock.lab.waits import poll_until
from support.tls import Identities

_TIMEOUT = 60.0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    gate = threading.Event()
    entered = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/wait":
            self.entered.set()
            assert self.gate.wait(_TIMEOUT)
        if self.path == "/raise":
            raise ValueError("the handler's own")
        body = f"{self.path} {type(self.connection).__name__}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Web(Mixin, HTTPServer):
    def __init__(self, handler: Any = Handler, **settings: Any) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.errors: list[Any] = []
        self.actions = 0
        for name, value in settings.items():
            setattr(self, name, value)

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.errors.append(client_address)

    def service_actions(self) -> None:
        self.actions += 1


@contextlib.contextmanager
def serving(server: Any) -> Iterator[Any]:
    with server, Call(server.serve_forever, 0.01) as running:
        try:
            yield server
        finally:
            server.shutdown()
            running.result(_TIMEOUT)


def get(server: Any, path: str) -> bytes:
    conn = http.client.HTTPConnection(*server.server_address, timeout=_TIMEOUT)
    with contextlib.closing(conn):
        conn.request("GET", path)
        return conn.getresponse().read()


def test_http_server_serves_over_hardsock() -> None:
    with serving(Web()) as server:
        conn = http.client.HTTPConnection(*server.server_address, timeout=_TIMEOUT)
        with contextlib.closing(conn):
            for _ in range(3):
                conn.request("GET", "/x")
                assert conn.getresponse().read() == b"/x Connection"
        assert poll_until(lambda: server.actions > 0, _TIMEOUT)
    assert server.report.clean


def test_tls(tmp_path: Path) -> None:
    ids = Identities(tmp_path)
    tls = hs.TLSConfig(role="server", certificates=ids.server_identity)
    with serving(Web(tls=tls)) as server:
        with hs.connect(
            server.server_address, tls=hs.TLSConfig(ca=ids.ca), timeout=_TIMEOUT
        ) as conn:
            conn.sendall(b"GET /x HTTP/1.0\r\n\r\n", timeout=_TIMEOUT)
            assert conn.recv_until(b"\r\n", timeout=_TIMEOUT).endswith(b"200 OK")


def test_handlers_are_bounded_and_slow_clients_are_cut() -> None:
    with serving(Web(workers=2, max_connections=4, read_timeout=0.2)) as server:
        with contextlib.ExitStack() as opened:
            for _ in range(4):
                slow = opened.enter_context(
                    socket.create_connection(server.server_address, timeout=_TIMEOUT)
                )
                slow.sendall(b"GET /x HTT")
            assert get(server, "/x") == b"/x Connection"


def test_what_a_handler_raises_is_told() -> None:
    with serving(Web()) as server:
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            get(server, "/raise")
        assert len(server.errors) == 1
        assert get(server, "/x") == b"/x Connection"


def test_shutdown_lets_what_has_begun_end() -> None:
    Handler.gate.clear()
    Handler.entered.clear()
    with serving(Web()) as server:
        with Call(get, server, "/wait") as asking:
            assert Handler.entered.wait(_TIMEOUT)
            with Call(server.shutdown) as ending:
                assert poll_until(lambda: server._server is None or server._told, _TIMEOUT)
                Handler.gate.set()
                assert asking.result(_TIMEOUT) == b"/wait Connection"
                ending.result(_TIMEOUT)
    assert server.report.clean


def test_a_shutdown_before_it_serves_is_not_lost() -> None:
    server = Web()
    with server:
        server.shutdown()
        with Call(server.serve_forever) as running:
            running.result(_TIMEOUT)


def test_verify_request_sends_away() -> None:
    class Picky(Web):
        def verify_request(self, request: Any, client_address: Any) -> bool:
            return False

    with serving(Picky()) as server:
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            get(server, "/x")


def test_wsgiref_and_xmlrpc() -> None:
    class Wsgi(Mixin, wsgiref.simple_server.WSGIServer):
        pass

    class Quiet(wsgiref.simple_server.WSGIRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    made = Wsgi(("127.0.0.1", 0), Quiet)
    made.set_app(application)
    with serving(made):
        assert get(made, "/") == b"hello"

    class Rpc(Mixin, xmlrpc.server.SimpleXMLRPCServer):
        pass

    rpc = Rpc(("127.0.0.1", 0), logRequests=False)
    rpc.register_function(pow)
    with serving(rpc):
        with xmlrpc.client.ServerProxy("http://{}:{}".format(*rpc.server_address)) as proxy:
            assert proxy.pow(2, 5) == 32


class _Wsgi(Mixin, wsgiref.simple_server.WSGIServer):
    workers = 1


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def test_the_wait_for_a_thread_counts_in_the_deadline_of_a_request() -> None:
    gate, entered = threading.Event(), threading.Event()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/wait":
            entered.set()
            assert gate.wait(_TIMEOUT)
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    made = _Wsgi(("127.0.0.1", 0), _Quiet)
    made.set_app(hs.deadline.wsgi(application))
    asking = b"GET / HTTP/1.0\r\nX-Request-Timeout-Ms: "
    with serving(made), Call(get, made, "/wait") as slow, contextlib.ExitStack() as opened:
        assert entered.wait(_TIMEOUT)
        asked = []
        for limit in (b"500", b"60000"):
            sock = opened.enter_context(socket.create_connection(made.server_address, _TIMEOUT))
            sock.sendall(asking + limit + b"\r\n\r\n")
            asked.append(sock)
        due = time.monotonic() + 1.0
        assert poll_until(lambda: time.monotonic() > due, _TIMEOUT)
        gate.set()
        assert slow.result(_TIMEOUT) == b"hello"
        late, patient = (sock.makefile("rb").readline() for sock in asked)
    assert late == b"HTTP/1.0 504 Gateway Timeout\r\n"
    assert patient == b"HTTP/1.0 200 OK\r\n"


def test_a_handler_asks_when_its_request_arrived(tmp_path: Path) -> None:
    came: list[float] = []

    class Echo(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline())
            came.append(self.server.arrived())  # type: ignore[attr-defined]

    class Inet(Mixin, socketserver.TCPServer):
        pass

    class Unix(Mixin, socketserver.UnixStreamServer):
        pass

    servers: list[tuple[Any, Any]] = [(Inet(("127.0.0.1", 0), Echo), None)]
    servers.append((Unix(str(tmp_path / "s"), Echo), f"unix:{tmp_path / 's'}"))
    for server, address in servers:
        before = time.monotonic()
        with (
            serving(server),
            hs.connect(address or server.server_address, timeout=_TIMEOUT) as conn,
        ):
            conn.sendall(b"hello\n", timeout=_TIMEOUT)
            assert conn.recv_line(timeout=_TIMEOUT) == b"hello"
        assert before - 0.1 <= came.pop() <= time.monotonic()
        with pytest.raises(LookupError):
            server.arrived()


def test_a_unix_socket(tmp_path: Path) -> None:
    class Echo(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline().upper())

    class Unix(Mixin, socketserver.UnixStreamServer):
        pass

    with serving(Unix(str(tmp_path / "s"), Echo)):
        with hs.connect(f"unix:{tmp_path / 's'}", timeout=_TIMEOUT) as conn:
            conn.sendall(b"hello\n", timeout=_TIMEOUT)
            assert conn.recv_line(timeout=_TIMEOUT) == b"HELLO"


def test_forks_are_refused() -> None:
    with pytest.raises(TypeError, match="Forked: no connection of hardsock outlives"):

        class Forked(Mixin, socketserver.ForkingMixIn, HTTPServer):
            pass
