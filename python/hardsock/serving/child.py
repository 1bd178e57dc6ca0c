"""What runs in each process of a ``ProcessServer``: one server, told what to do through a channel."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hardsock._core import CancelToken, Listener
from hardsock.listening.listen import listen
from hardsock.serving.channel import Channel
from hardsock.tls.config import TLSConfig

if TYPE_CHECKING:
    from hardsock.serving.processes import Plan

__all__ = ["run_child"]

logger = logging.getLogger("hardsock.serve")

_INTERVAL = 1.0
_LAST_WORDS = 5.0
"""Seconds that the parent has to read them: it may be stopped."""


def run_child(plan: Plan, sock: socket.socket, parent: socket.socket) -> None:
    """Serve until told to leave, or until the parent is gone."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # They go to a whole group, and are the parent's.
    for end in (parent, sock):  # They came so. Programs that the handler starts must not hold them.
        os.set_inheritable(end.fileno(), False)
    listening = dict(plan.listening)
    if (make_breaker := listening.get("tls_breaker")) is not None:
        listening["tls_breaker"] = make_breaker()
    listener = listen(sock, **listening)
    if inspect.iscoroutinefunction(plan.handler):
        asyncio.run(_serve_awaited(plan, listener, Channel(parent)))
    else:
        _serve(plan, listener, Channel(parent))


def _settings(plan: Plan, token: CancelToken) -> dict[str, Any]:
    return {"drain_timeout": plan.drain_timeout, "token": token, **plan.serving}


def _serve(plan: Plan, listener: Listener, channel: Channel) -> None:
    from hardsock.serving.serve import serve

    token = CancelToken(name="parent")
    with serve(plan.handler, listener, **_settings(plan, token)) as server:
        talk = _Talk(plan, server, listener, channel, server.drain, token)
        server.wait()
    talk.finish()


async def _serve_awaited(plan: Plan, listener: Listener, channel: Channel) -> None:
    from hardsock import aio

    handler: Any = plan.handler
    token = CancelToken(name="parent")
    async with aio.serve(handler, listener, **_settings(plan, token)) as server:
        loop = asyncio.get_running_loop()

        def drain(seconds: float) -> None:
            asyncio.run_coroutine_threadsafe(server.drain(seconds), loop)

        talk = _Talk(plan, server, listener, channel, drain, token)
        await server.wait()
    talk.finish()


class _Talk:
    """The thread that talks to the parent, which may be stopped for as long as it likes."""

    def __init__(
        self,
        plan: Plan,
        server: Any,
        listener: Listener,
        channel: Channel,
        drain: Callable[[float], object],
        token: CancelToken,
    ) -> None:
        self._plan = plan
        self._server = server
        self._listener = listener
        self._channel = channel
        self._drain = drain
        self._token = token
        self._lock = threading.Lock()
        self._over = threading.Event()
        channel.send("ready", None)
        self._thread = threading.Thread(target=self._main, name="hardsock-parent", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        why = "the parent is gone"
        try:
            while not self._over.is_set():
                if self._channel.wait(_INTERVAL):
                    for message in self._channel.receive():
                        self._try_to_obey(*message)
                self._say_stats()
        except (EOFError, OSError):
            pass
        except BaseException:  # A process that cannot be told anything is one to be replaced.
            why = "talking to the parent failed"
            logger.critical("%s", why, exc_info=True)
        if not self._over.is_set():
            self._server.stop(why)

    def _try_to_obey(self, what: str, *details: Any) -> None:
        try:
            self._obey(what, *details)
        except Exception:  # What comes next can be obeyed all the same.
            logger.exception("could not do what the parent said: %s", what)

    def _obey(self, what: str, *details: Any) -> None:
        if what == "leave":
            why, seconds = details
            if why == "replaced":
                self._listener._hand_over()  # The others have the same socket.
            self._server.stop(why)
            if seconds < self._plan.drain_timeout:
                threading.Thread(target=self._drain, args=(seconds,), daemon=True).start()
        elif what == "cancel":
            self._token.cancel(details[0])
        elif what == "keys":
            name, keys = details
            tls = self._plan.listening[name]
            assert isinstance(tls, TLSConfig)
            tls.replace_ticket_keys(keys)

    def _say_stats(self) -> None:
        """Taken within the lock: later ones, above all the final ones, are also said later."""
        with self._lock:
            if not self._over.is_set() and self._channel.flush():  # Else it has older ones to read.
                self._channel.send("stats", self._server.stats())

    def finish(self) -> None:
        """Say how it went; the parent sees the end by itself."""
        self._over.set()
        with self._lock, suppress(OSError):
            self._channel.send("stats", self._server.stats())
            self._channel.send("report", self._server.report)
            self._channel.flush(_LAST_WORDS)
