"""gevent's cooperative sockets, used directly (no monkey patching)."""

from __future__ import annotations

from typing import Any

import gevent
import gevent.socket

from ..model import Target
from . import _cancel, _common
from ._common import DEADLINE, MESSAGE


def version() -> str:
    return f"gevent {gevent.__version__}"


def connect(target: Target) -> Any:
    return gevent.socket.create_connection((target.host, target.port), timeout=DEADLINE)


def exchange(sock: Any) -> None:
    sock.sendall(MESSAGE)
    reply = sock.recv(64)
    while len(reply) < 64:
        more = sock.recv(64 - len(reply))
        if not more:
            raise EOFError("the peer closed")
        reply += more


def connect_close(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _common.rate(lambda: connect(target).close(), seconds)


def request_reply(target: Target, seconds: float, count: int) -> dict[str, Any]:
    sock = connect(target)
    try:
        return _common.rate(lambda: exchange(sock), seconds)
    finally:
        sock.close()


class Stop(Exception):
    """Thrown into the blocked greenlet."""


def cancel_latency(target: Target, seconds: float, count: int) -> dict[str, Any]:
    """The other thread fires an async watcher, the only thread-safe entry into a hub."""

    def body(blocked: _cancel.Blocked) -> None:
        sock = connect(target)
        sock.settimeout(30.0)

        def receive() -> None:
            greenlet = gevent.getcurrent()
            watcher = gevent.get_hub().loop.async_()
            watcher.start(lambda: greenlet.throw(Stop))
            blocked.announce(watcher.send)
            try:
                sock.recv(64)
            except Stop:
                blocked.caught()
            finally:
                watcher.stop()
                watcher.close()

        while blocked.more():
            gevent.spawn(receive).get()
        sock.close()
        gevent.get_hub().destroy(destroy_loop=True)

    return _cancel.measure(body, seconds)


def idle_memory(target: Target, seconds: float, count: int) -> dict[str, Any]:
    def open_one() -> Any:
        sock = connect(target)
        exchange(sock)
        return sock

    return _common.hold(open_one, count)
