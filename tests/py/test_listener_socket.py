"""Servers written for a listening ``socket`` run over a Listener."""

from __future__ import annotations

import errno
import http.client
import http.server
import selectors
import socket
import socketserver
import threading
import wsgiref.simple_server
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.threads import Call
from support.tls import Identities


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "7")])
    return [b"hello " + (body or b"!")]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"hello !")

    def log_message(self, *_args: Any) -> None:
        pass


class ServeOver:
    """A socketserver over a listener: its own socket is replaced before it binds."""

    def __init__(self, kind: type[socketserver.TCPServer], listener: hs.Listener, handler: Any):
        self.server = kind(listener.address, handler, bind_and_activate=False)
        self.server.socket.close()
        self.server.socket = listener.to_socket()  # type: ignore[assignment]
        self.server.server_name, self.server.server_port = "localhost", listener.address[1]  # type: ignore[attr-defined]

    @contextmanager
    def running(self) -> Iterator[socketserver.TCPServer]:
        thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self.server
        finally:
            self.server.shutdown()
            thread.join(60)
            self.server.server_close()
            assert not thread.is_alive()


def ask(address: Any, times: int = 3) -> None:
    client = http.client.HTTPConnection(*address, timeout=60)
    for _ in range(times):
        client.request("GET", "/")
        response = client.getresponse()
        assert (response.status, response.read()) == (200, b"hello !")
    client.close()


@pytest.mark.parametrize("kind", [http.server.HTTPServer, http.server.ThreadingHTTPServer])
def test_http_server(kind: type[socketserver.TCPServer]) -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        with ServeOver(kind, listener, Handler).running():
            ask(listener.address)
            assert listener.stats().accepted == 1
        assert listener.closed


def test_socketserver_with_threads() -> None:
    class Echo(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line.upper())

    with hs.listen(("127.0.0.1", 0)) as listener:
        with ServeOver(socketserver.ThreadingTCPServer, listener, Echo).running():
            for _ in range(5):
                with hs.connect(listener.address, timeout=60) as conn:
                    conn.sendall(b"line\n")
                    assert conn.recv_exactly(5, timeout=60) == b"LINE\n"


def test_wsgiref() -> None:
    class Quiet(wsgiref.simple_server.WSGIRequestHandler):
        def log_message(self, *_args: Any) -> None:
            pass

    with hs.listen(("127.0.0.1", 0)) as listener:
        over = ServeOver(wsgiref.simple_server.WSGIServer, listener, Quiet)
        over.server.setup_environ()  # type: ignore[attr-defined]
        over.server.set_app(app)  # type: ignore[attr-defined]
        with over.running():
            ask(listener.address, 1)


def test_http_server_over_tls_is_not_held_up_by_a_silent_client(ids: Identities) -> None:
    with hs.listen(("127.0.0.1", 0), tls=ids.server()) as listener:
        over = ServeOver(http.server.ThreadingHTTPServer, listener, Handler)
        over.server.socket.setblocking(False)
        with over.running(), hs.connect(listener.address, timeout=60):  # who says nothing
            client = http.client.HTTPConnection("localhost", listener.address[1])
            client._create_connection = (  # type: ignore[attr-defined]
                lambda address, timeout, source: hs.connect(
                    listener.address, tls=ids.client(), server_name="localhost", timeout=60
                )
            )
            client.request("GET", "/")
            assert client.getresponse().read() == b"hello !"
            client.close()


# ---- the face itself


def test_it_has_what_a_listening_socket_has() -> None:
    with hs.listen(("127.0.0.1", 0)) as listener:
        face = listener.to_socket()
        assert (face.family, face.type, face.proto) == (
            socket.AF_INET,
            socket.SOCK_STREAM,
            socket.IPPROTO_TCP,
        )
        assert face.getsockname() == listener.address
        assert face.fileno() == listener.fileno()
        assert face.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        face.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        assert face.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 131072
        assert len(face.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)) == 8
        face.listen(3)
        assert listener.stats().backlog_effective == 3
        assert not face.get_inheritable()
        with pytest.raises(OSError, match="it listens on") as caught:
            face.bind(("127.0.0.1", 0))
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(OSError, match="not connected") as caught:  # waitress 2 asks
            face.getpeername()
        assert caught.value.errno == errno.ENOTCONN
        assert face.listener is listener
        assert "ListenerSocket" in repr(face)


def test_accepting_obeys_its_timeout() -> None:
    with hs.listen(("127.0.0.1", 0)) as listener, listener.to_socket() as face:
        assert face.gettimeout() is face.timeout is None
        assert face.getblocking()
        face.settimeout(0.01)
        with pytest.raises(TimeoutError):
            face.accept()
        face.setblocking(False)
        assert (face.timeout, face.getblocking()) == (0.0, False)
        with pytest.raises(BlockingIOError):
            face.accept()
        with hs.connect(listener.address, timeout=60) as client:
            with selectors.DefaultSelector() as selector:
                selector.register(face, selectors.EVENT_READ)
                assert selector.select(10)
            conn, address = face.accept()
            with conn:
                assert address == client.getsockname()
        with pytest.raises(ValueError, match="non-negative"):
            face.settimeout(-1)


def test_a_scope_that_ends_is_no_blocking_error() -> None:
    with hs.listen(("127.0.0.1", 0)) as listener, listener.to_socket() as face:
        with hs.timeout(0.01), pytest.raises(hs.DeadlineExceeded):
            face.accept()


def test_closing_either_closes_both() -> None:
    listener = hs.listen(("127.0.0.1", 0))
    face = listener.to_socket()
    with Call(face.accept) as accepting:
        accepting.wait_until_blocked()
        listener.close()
        with pytest.raises(hs.Closed):
            accepting.result(30)
    assert face.fileno() == -1
    with pytest.raises(OSError, match="was closed") as caught:
        face.getsockopt(1, 1)
    assert caught.value.errno == errno.EBADF
    with hs.listen(("127.0.0.1", 0)) as listener:
        listener.to_socket().close()
        assert listener.closed
