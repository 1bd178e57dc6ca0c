"""What runs in each process of a ``ProcessServer``: one server, told what to do through a pipe."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hardsock._core import Listener
from hardsock.listening.listen import listen
from hardsock.tls.config import TLSConfig

if TYPE_CHECKING:
    from hardsock.serving.processes import Plan

__all__ = ["run_child"]

_INTERVAL = 1.0


def run_child(plan: Plan, sock: socket.socket, pipe: Any) -> None:
    """Serve until told to leave, or until the parent is gone."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # They go to a whole group, and are the parent's.
    for end in (pipe, sock):  # They came so. Programs that the handler starts must not hold them.
        os.set_inheritable(end.fileno(), False)
    listener = listen(sock, **plan.listening)
    if inspect.iscoroutinefunction(plan.handler):
        asyncio.run(_serve_awaited(plan, listener, pipe))
    else:
        _serve(plan, listener, pipe)


def _serve(plan: Plan, listener: Listener, pipe: Any) -> None:
    from hardsock.serving.serve import serve

    with serve(plan.handler, listener, drain_timeout=plan.drain_timeout, **plan.serving) as server:
        talk = _Talk(plan, server, listener, pipe, server.drain)
        server.wait()
    talk.finish()


async def _serve_awaited(plan: Plan, listener: Listener, pipe: Any) -> None:
    from hardsock import aio

    handler: Any = plan.handler
    async with aio.serve(
        handler, listener, drain_timeout=plan.drain_timeout, **plan.serving
    ) as server:
        loop = asyncio.get_running_loop()

        def drain(seconds: float) -> None:
            asyncio.run_coroutine_threadsafe(server.drain(seconds), loop)

        talk = _Talk(plan, server, listener, pipe, drain)
        await server.wait()
    talk.finish()


class _Talk:
    """The thread that talks to the parent."""

    def __init__(
        self,
        plan: Plan,
        server: Any,
        listener: Listener,
        pipe: Any,
        drain: Callable[[float], object],
    ) -> None:
        self._plan = plan
        self._server = server
        self._listener = listener
        self._pipe = pipe
        self._drain = drain
        self._lock = threading.Lock()
        self._over = threading.Event()
        pipe.send(("ready", None))
        self._thread = threading.Thread(target=self._main, name="hardsock-parent", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        try:
            while not self._over.is_set():
                if self._pipe.poll(_INTERVAL):
                    self._obey(*self._pipe.recv())
                self._say_stats()
        except (EOFError, OSError):
            if not self._over.is_set():
                self._server.stop("the parent is gone")

    def _obey(self, what: str, *details: Any) -> None:
        if what == "leave":
            why, seconds = details
            if why == "replaced":
                self._listener._hand_over()  # The others have the same socket.
            self._server.stop(why)
            if seconds < self._plan.drain_timeout:
                threading.Thread(target=self._drain, args=(seconds,), daemon=True).start()
        elif what == "keys":
            tls = self._plan.listening["tls"]
            assert isinstance(tls, TLSConfig)
            tls.replace_ticket_keys(details[0])

    def _say_stats(self) -> None:
        """Taken within the lock: later ones, above all the final ones, are also said later."""
        with self._lock:
            if not self._over.is_set():
                self._pipe.send(("stats", self._server.stats()._asdict()))

    def finish(self) -> None:
        """Say how it went; the parent sees the end by itself."""
        self._over.set()
        with self._lock, suppress(OSError, ValueError):
            self._pipe.send(("stats", self._server.stats()._asdict()))
            self._pipe.send(("report", self._server.report))
