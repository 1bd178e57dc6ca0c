"""A small HTTP/1.1 server for tests of serving.

It answers from its head alone, keeps connections alive, takes bodies with a length, and gives each
part of a message a total time. What it does not know it refuses (RFC 9112): a test is to see what
the server under it does, not what HTTP can do.

    GET, HEAD /            a short text
    GET /bytes/1000        so many bytes
    GET /raise/MemoryError the handler raises it
    POST /                 the length of the body
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

import hardsock as hs
from support.conversation import Handlers, Step, Steps, handlers

__all__ = ["GENEROUS", "GREETING", "LONG_BODY", "Times", "http_handlers", "request"]

GREETING = b"hello, world\n"
LONG_BODY = b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n"
"""The head of a request with a long body."""
_MOST_HEAD = 32768
_MOST_BODY = 1 << 20
_PIECE = 65536
_RAISED: dict[str, type[BaseException]] = {
    "SystemExit": SystemExit,
    "CancelledError": asyncio.CancelledError,
    "MemoryError": MemoryError,
    "ValueError": ValueError,
}


@dataclass(frozen=True)
class Times:
    """Seconds for each part of a message, each a total; between messages nothing is due."""

    head: float = 10.0
    body: float = 10.0
    answer: float = 10.0


GENEROUS = Times()


class _Refused(Exception):
    """A request that is answered with an error, and ends its connection."""


class _Request(NamedTuple):
    method: str
    path: str
    fields: dict[str, str]
    keep: bool

    @property
    def length(self) -> int:
        """The size of its body."""
        if "transfer-encoding" in self.fields:
            raise _Refused("501 Not Implemented")
        text = self.fields.get("content-length", "0")
        if not text.isdigit() or int(text) > _MOST_BODY:
            raise _Refused("413 Content Too Large")
        return int(text)


def _parse(head: bytes) -> _Request:
    try:
        first, *lines = head.decode("ascii").rstrip("\r\n").split("\r\n")
        method, path, version = first.split(" ")
        fields = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or name != name.strip():
                raise _Refused("400 Bad Request")
            fields[name.lower()] = value.strip()
    except ValueError:  # Of a decoder, too.
        raise _Refused("400 Bad Request") from None
    wish = fields.get("connection", "").lower()
    keep = wish != "close" if version == "HTTP/1.1" else wish == "keep-alive"
    return _Request(method, path, fields, keep)


def _head_of_answer(status: str, length: int, keep: bool) -> bytes:
    connection = "keep-alive" if keep else "close"
    return (
        f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n"
    ).encode()


def _message(times: Times) -> Steps:
    """One request and its answer; returns whether the connection is kept."""
    yield Step("peek", 1, {"token": hs.draining()})  # Between messages it may be told to go.
    head = yield Step("recv_until", b"\r\n\r\n", {"max_size": _MOST_HEAD, "timeout": times.head})
    try:
        asked = _parse(head)
        yield from _read_body(asked, times)
        body = _body_of_answer(asked)
    except _Refused as exc:
        yield Step("sendall", _head_of_answer(str(exc), 0, False), {"timeout": times.answer})
        return False
    with_body = b"" if asked.method == "HEAD" else body
    answer = _head_of_answer("200 OK", len(body), asked.keep) + with_body
    yield Step("sendall", answer, {"timeout": times.answer})
    return asked.keep


def _read_body(asked: _Request, times: Times) -> Generator[Step, Any, None]:
    if asked.fields.get("expect", "").lower() == "100-continue":
        yield Step("sendall", b"HTTP/1.1 100 Continue\r\n\r\n", {"timeout": times.answer})
    if asked.length:
        yield Step("recv_exactly", asked.length, {"timeout": times.body})


def _body_of_answer(asked: _Request) -> bytes:
    if asked.method == "POST":
        return b"%d\n" % asked.length
    if asked.method not in ("GET", "HEAD"):
        raise _Refused("501 Not Implemented")
    kind, _, value = asked.path[1:].partition("/")
    if kind == "raise" and value in _RAISED:
        raise _RAISED[value](f"asked for by {asked.path}")
    if kind == "bytes" and value.isdigit():
        return bytes(min(int(value), 1 << 26))
    if asked.path != "/":
        raise _Refused("404 Not Found")
    return GREETING


def http_handlers(times: Times = GENEROUS) -> Handlers:
    """The handlers of the server, for threads and for event loops."""
    return handlers(lambda: _message(times))


def request(path: str = "/", *, keep: bool = True) -> bytes:
    """A request as a client sends it."""
    connection = "keep-alive" if keep else "close"
    return f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n".encode()
