"""Being the server of peers/crowd.c, which is ten thousand clients.

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


class Crowd:
    """The other process, and the server for it."""

    def __init__(self, target: Target, count: int, serve: Callable[[Announce], object]) -> None:
        self._port: queue.SimpleQueue[int | BaseException] = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(serve,), daemon=True).start()
        port = self._port.get(timeout=GIVE_UP_AFTER)
        if isinstance(port, BaseException):
            raise RuntimeError(f"the server failed: {port!r}") from port
        sock = socket.create_connection((target.host, target.port))
        sock.settimeout(GIVE_UP_AFTER)
        self._control = sock.makefile("rwb")
        self._command(f"open {port} {_common.allowed_connections(count)}")

    def _run(self, serve: Callable[[Announce], object]) -> None:
        try:
            serve(self._port.put)
        except BaseException as error:  # told by the other thread
            self._port.put(error)
            raise

    def _command(self, text: str) -> dict[str, Any]:
        self._control.write(text.encode() + b"\n")
        self._control.flush()
        answer: dict[str, Any] = json.loads(self._control.readline())
        return answer

    def echo(self, seconds: float) -> dict[str, Any]:
        """64 bytes there and back, on any of the connections."""
        return self._command(f"echo {seconds}")

    def churn(self, seconds: float) -> dict[str, Any]:
        """Accept a further connection, 64 bytes there and back, its end."""
        return self._command(f"churn {seconds}")


_crowds: list[Crowd] = []


def of(target: Target, count: int, serve: Callable[[Announce], object]) -> Crowd:
    """This process's crowd; serve runs a server that calls what it is given with its port."""
    if not _crowds:
        _common.allowed_connections(count)
        _crowds.append(Crowd(target, count, serve))
    return _crowds[0]
