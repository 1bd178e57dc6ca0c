"""Servers that nobody here wrote: http.server, nginx, Redis."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import hardsock as hs
from hardsock.demo.measure import timed
from hardsock.demo.scene import Bound, Outcome, Scene
from hardsock.lab.servers import Server, http_server, nginx, redis_server
from hardsock.lab.servers.web import DEFAULT_FILES

_TIMEOUT = 5.0
_FILE = "big.bin"
_CONTENT = DEFAULT_FILES[_FILE]
_PINGS = 1000

_ServerContext = Callable[[], AbstractContextManager[Server]]


class _HTTPOverHardsock(http.client.HTTPConnection):
    """The standard library's HTTP client on a hardsock connection."""

    def connect(self) -> None:
        conn = hs.connect((self.host, self.port), timeout=_TIMEOUT)
        conn.settimeout(_TIMEOUT)
        self.sock = cast(socket.socket, conn)


def _get_by_http_client(client: http.client.HTTPConnection) -> bytes:
    try:
        client.request("GET", f"/{_FILE}")
        return client.getresponse().read()
    finally:
        client.close()


def _get_by_hand(sock: Any) -> bytes:
    """A GET on a connected socket of either kind; the body."""
    sock.sendall(f"GET /{_FILE} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
    answer = b""
    while data := sock.recv(65536):
        answer += data
    return bytes(answer.partition(b"\r\n\r\n")[2])


def _http_outcome(bodies: list[bytes], seconds: float, text: str) -> Outcome:
    wrong = sum(body != _CONTENT for body in bodies)
    verdict = "same bytes" if wrong == 0 else f"{wrong} WRONG"
    return Outcome(
        f"GET of {len(_CONTENT) >> 20} MiB by hand and by http.client: {verdict}, {text}",
        {"wrong answers": wrong, "time": seconds},
    )


def _http_by_stdlib(start: _ServerContext) -> Outcome:
    with start() as server, timed() as watch:
        with socket.create_connection(server.address, timeout=_TIMEOUT) as sock:
            bodies = [_get_by_hand(sock)]
        client = http.client.HTTPConnection(server.host, server.port, timeout=_TIMEOUT)
        bodies.append(_get_by_http_client(client))
    return _http_outcome(bodies, watch.seconds, str(watch))


def _http_by_hardsock(start: _ServerContext) -> Outcome:
    with start() as server, timed() as watch, hs.timeout(_TIMEOUT):
        with hs.connect(server.address) as conn:
            bodies = [_get_by_hand(conn)]
        bodies.append(_get_by_http_client(_HTTPOverHardsock(server.host, server.port)))
    return _http_outcome(bodies, watch.seconds, f"{watch}, one deadline for all")


def _http_scene(name: str, title: str, start: _ServerContext) -> Scene:
    return Scene(
        name=name,
        title=title,
        shows="It speaks to a server as the standard library does, also underneath http.client.",
        stdlib=lambda: _http_by_stdlib(start),
        hardsock=lambda: _http_by_hardsock(start),
        bounds=(
            Bound(of="wrong answers", at_most=0),
            Bound(of="time", at_most=_TIMEOUT, unit="s"),
        ),
    )


def _redis_outcome(replies: bytes, seconds: float, text: str) -> Outcome:
    pongs = replies.count(b"+PONG\r\n")
    return Outcome(f"{pongs} PINGs in one pipeline: {text}", {"pongs": pongs, "time": seconds})


def _redis_by_stdlib() -> Outcome:
    with redis_server() as server, timed() as watch:
        with socket.create_connection(server.address, timeout=_TIMEOUT) as sock:
            sock.sendall(b"PING\r\n" * _PINGS)
            with sock.makefile("rb") as file:
                replies = file.read(7 * _PINGS)
    return _redis_outcome(replies, watch.seconds, str(watch))


def _redis_by_hardsock() -> Outcome:
    with redis_server() as server, timed() as watch:
        with hs.timeout(_TIMEOUT), hs.connect(server.address) as conn:
            conn.sendall(b"PING\r\n" * _PINGS)
            replies = conn.recv_exactly(7 * _PINGS)
    return _redis_outcome(replies, watch.seconds, f"{watch}, one deadline for all")


SCENES = (
    _http_scene("http-server", "Talk to Python's own http.server", http_server),
    _http_scene("nginx", "Talk to nginx", nginx),
    Scene(
        name="redis",
        title="Talk to Redis",
        shows="Pipelined requests; a reply of known size is read as one thing.",
        stdlib=_redis_by_stdlib,
        hardsock=_redis_by_hardsock,
        bounds=(
            Bound(of="pongs", at_least=_PINGS, at_most=_PINGS),
            Bound(of="time", at_most=_TIMEOUT, unit="s"),
        ),
    ),
)
