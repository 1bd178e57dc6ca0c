"""A small web server whose answers misbehave by path, over plain sockets and the ssl module.

    with Web() as web, ...: get(web.url("/drip"))

/hello          answers with the number of the connection, and keeps it open
/echo/TEXT      answers TEXT
/silent         reads the request and says nothing
/busy           says that it is overloaded, and to come again in half a minute
/drip           one byte of the body every few milliseconds, for ever
/begun          a first piece of the body, then nothing
/redirect/PATH  sends elsewhere
/truncated      ends in the middle of the body;  /reset  ends with a reset
/events/...     server-sent events, as two well known APIs send them; see `EVENTS`
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any

_PACE = 0.005  # Between the pieces of what drips; what waits for it waits on an event as well.


def _openai_events() -> list[str]:
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    words = ["Hello", " from", " a", " stream"]
    return [
        "data: "
        + json.dumps({**chunk, "choices": [{"index": 0, "delta": {"content": word}}]})
        + "\n\n"
        for word in words
    ]


def _anthropic_events() -> list[str]:
    message = {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "m",
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    events += [
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": word},
        }
        for word in ["Hello", " from", " a", " stream"]
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]


EVENTS = {"/chat/completions": _openai_events(), "/v1/messages": _anthropic_events()}


class Web:
    """The server; each connection has a thread.

    Attributes:
        arrived: One release for each request that was read.
        connections: How many were accepted.
        requests: The heads of the requests, as text.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self.arrived = threading.Semaphore(0)
        self.connections = 0
        self.requests: list[str] = []

    def __enter__(self) -> Web:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(self, *_details: object) -> None:
        self._stopping.set()
        for sock in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in [self._listener, *self._sockets]:
            sock.close()

    def url(self, path: str) -> str:
        """The address of a page."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}{path}"

    def _start(self, function: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=function, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._stopping.is_set():
                sock, _ = self._listener.accept()
                self.connections += 1
                self._sockets.append(sock)
                self._start(self._serve, sock, self.connections)

    def _serve(self, plain: socket.socket, number: int) -> None:
        sock = plain
        try:
            with contextlib.suppress(OSError, EOFError):
                if self._tls is not None:
                    sock = self._tls.wrap_socket(
                        plain, server_side=True, do_handshake_on_connect=False
                    )
                    self._sockets.append(sock)
                    sock.do_handshake()
                while self._answer(sock, number):
                    pass
        finally:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _read(self, sock: socket.socket) -> tuple[str, str]:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = sock.recv(65536)
            if not piece:
                raise EOFError
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        text = head.decode("latin-1")
        for line in text.lower().split("\r\n"):
            if line.startswith("content-length:"):
                missing = int(line.split(":")[1]) - len(body)
                while missing > 0:
                    missing -= len(sock.recv(min(missing, 65536)) or b"x" * missing)
        self.requests.append(text)
        self.arrived.release()
        return text.split(" ")[1], text

    def _answer(self, sock: socket.socket, number: int) -> bool:
        path, _ = self._read(sock)
        name = path.split("/")[1]
        handler = getattr(self, f"_on_{name}", None)
        if path in EVENTS:
            self._send_events(sock, EVENTS[path])
            return False
        if handler is None:
            _respond(sock, "404 Not Found", b"")
            return True
        return bool(handler(sock, path, number))

    def _on_hello(self, sock: socket.socket, _path: str, number: int) -> bool:
        _respond(sock, "200 OK", str(number).encode())
        return True

    def _on_echo(self, sock: socket.socket, path: str, _number: int) -> bool:
        _respond(sock, "200 OK", path.split("/", 2)[2].encode())
        return True

    def _on_silent(self, _sock: socket.socket, _path: str, _number: int) -> bool:
        self._stopping.wait()
        return False

    def _on_busy(self, sock: socket.socket, _path: str, _number: int) -> bool:
        _respond(sock, "503 Service Unavailable", b"", "Retry-After: 30\r\n")
        return True

    def _on_drip(self, sock: socket.socket, _path: str, _number: int) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not self._stopping.wait(_PACE):
            sock.sendall(b".")
        return False

    def _on_begun(self, sock: socket.socket, _path: str, _number: int) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegun")
        self._stopping.wait()
        return False

    def _on_redirect(self, sock: socket.socket, path: str, _number: int) -> bool:
        target = "/" + path.split("/", 2)[2]
        _respond(sock, "302 Found", b"", f"Location: {target}\r\n")
        return True

    def _on_truncated(self, sock: socket.socket, _path: str, _number: int) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
        return False

    def _on_reset(self, sock: socket.socket, _path: str, _number: int) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        return False

    def _send_events(self, sock: socket.socket, events: list[str]) -> None:
        """A few, then silence: the stream of a model that thinks."""
        sock.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for event in events:
            data = event.encode()
            sock.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self._stopping.wait()


def _respond(sock: socket.socket, status: str, body: bytes, headers: str = "") -> None:
    head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    sock.sendall(head.encode() + body)
