"""hs.serve with a handler for each message: quiet connections are parked, without a thread."""

from __future__ import annotations

import inspect
from typing import Any

import hardsock as hs

from ..model import SkipWork, Target
from . import _common, _crowd, _http, hardsock
from ._crowd import Announce
from .hardsock_threads import WORKERS


def version() -> str:
    if "per" not in inspect.signature(hs.serve).parameters:
        raise SkipWork("hs.serve has no per=")
    return hardsock.version()


def _raw(conn: hs.Connection) -> None:
    conn.recv_until(_http.END)
    conn.sendall(_http.ANSWER)


def _parsed(conn: hs.Connection) -> None:
    state: Any = conn  # Of a connection that is served per message.
    request = state.state
    if request is None:
        request = state.state = _http.Request()
    if request.feed(conn.recv(_http.RECEIVE_SIZE)):
        conn.sendall(_http.ANSWER)


def _serve(handler: hs.Handler, announce: Announce, workers: int) -> None:
    settings: dict[str, Any] = {"per": "message", "workers": workers}
    settings |= {"max_connections": _http.MOST_CONNECTIONS, "backlog": _common.BACKLOG}
    with hs.serve(handler, ("127.0.0.1", 0), drain_timeout=5, **settings) as server:
        announce(server.address[1])
        server.wait()


def works_with(workers: int) -> _http.Works:
    return _http.Works(
        raw=lambda say: _serve(_raw, say, workers),
        parsed=lambda say: _serve(_parsed, say, workers),
    )


_works = works_with(WORKERS)
http_raw = _works.http_raw
http_raw_churn = _works.http_raw_churn
http_raw_paced = _works.http_raw_paced
http_parsed = _works.http_parsed
http_parsed_churn = _works.http_parsed_churn
http_idle_memory = _works.http_idle_memory


def _echo(conn: hs.Connection) -> None:
    conn.sendall(conn.recv(_common.RECEIVE_SIZE))


def idle_memory_served(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _crowd.hold(target, count, lambda announce: _serve(_echo, announce, WORKERS))
