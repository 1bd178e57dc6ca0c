"""Being the server of peers/crowd.c, which is ten thousand clients, or of peers/tls_crowd.c.

The server runs in a thread of its own for as long as the process lives, and keeps its connections
between the slices, asleep. The main thread tells the crowd what to do and sleeps until it is done;
the crowd measures.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any

from ..model import Target
from . import _common

GIVE_UP_AFTER = 60.0

Announce = Callable[[int], None]  # what a server calls with its port
Serve = Callable[[Announce], object]  # runs a server for ever


class Crowd:
    """The other process, and the server for it."""

    def __init__(self, target: Target, serve: Serve) -> None:
        self._port: queue.SimpleQueue[int | BaseException] = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(serve,), daemon=True).start()
        port = self._port.get(timeout=GIVE_UP_AFTER)
        if isinstance(port, BaseException):
            raise RuntimeError(f"the server failed: {port!r}") from port
        sock = socket.create_connection((target.host, target.port))
        sock.settimeout(GIVE_UP_AFTER)
        self._control = sock.makefile("rwb")
        self.port = port

    def _run(self, serve: Serve) -> None:
        try:
            serve(self._port.put)
        except BaseException as error:  # told by the other thread
            self._port.put(error)
            raise

    def command(self, text: str) -> dict[str, Any]:
        self._control.write(text.encode() + b"\n")
        self._control.flush()
        answer: dict[str, Any] = json.loads(self._control.readline())
        return answer

    def echo(self, seconds: float) -> dict[str, Any]:
        """64 bytes there and back, on any of the connections."""
        return self.command(f"echo {seconds}")

    def churn(self, seconds: float) -> dict[str, Any]:
        """Accept a further connection, 64 bytes there and back, its end."""
        return self.command(f"churn {seconds}")


_crowds: list[Crowd] = []


def only(target: Target, serve: Serve) -> Crowd:
    """This process's crowd, with nothing open when it is made."""
    if not _crowds:
        _common.allowed_connections(0)
        _crowds.append(Crowd(target, serve))
    return _crowds[0]


def hold(
    target: Target,
    count: int,
    serve: Serve,
    memory: Callable[[], int] = _common.anonymous_bytes,
) -> dict[str, Any]:
    """Memory of a server whose clients stay, after a message each."""
    crowd = only(target, serve)
    more = _common.allowed_connections(count) - _common.MEMORY_WARM_UP
    crowd.command(f"open {crowd.port} {_common.MEMORY_WARM_UP}")
    before = memory()
    crowd.command(f"open {crowd.port} {more}")
    return {"connections": more, "bytes": memory() - before}


def of(target: Target, count: int, serve: Serve) -> Crowd:
    """This process's crowd, with count connections open."""
    is_new = not _crowds
    crowd = only(target, serve)
    if is_new:
        crowd.command(f"open {crowd.port} {_common.allowed_connections(count)}")
    return crowd
