"""hs.serve: its handlers in 64 threads at a time, and a thread for each connection."""

from __future__ import annotations

import contextlib

import hardsock as hs

from . import _common, _http, hardsock
from ._crowd import Announce

version = hardsock.version
WORKERS = 64


def _raw(conn: hs.Connection) -> None:
    with contextlib.suppress(hs.Reset, hs.EndOfStream):
        while True:
            conn.recv_until(_http.END, token=hs.draining())
            conn.sendall(_http.ANSWER)


def _parsed(conn: hs.Connection) -> None:
    request = _http.Request()
    with contextlib.suppress(hs.Reset):
        while data := conn.recv(_http.RECEIVE_SIZE, token=hs.draining()):
            if request.feed(data):
                conn.sendall(_http.ANSWER)


def _serve(handler: hs.Handler, announce: Announce) -> None:
    with hs.serve(
        handler,
        ("127.0.0.1", 0),
        drain_timeout=5,
        workers=WORKERS,
        max_connections=_http.MOST_CONNECTIONS,
        backlog=_common.BACKLOG,
    ) as server:
        announce(server.address[1])
        server.wait()


_works = _http.Works(raw=lambda say: _serve(_raw, say), parsed=lambda say: _serve(_parsed, say))
http_raw = _works.http_raw
http_raw_churn = _works.http_raw_churn
http_raw_paced = _works.http_raw_paced
http_parsed = _works.http_parsed
http_parsed_churn = _works.http_parsed_churn
http_idle_memory = _works.http_idle_memory
