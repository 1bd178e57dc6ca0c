"""Servers under test, on threads and in event loops, and the honest clients they have meanwhile.

with serving("threads", http1.blocking()) as server, Honest(server) as honest:
    ...                      # abuse
honest.check()               # each of them was answered, all the time
report = server.report       # and the sums of server.check() add up
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import hardsock as hs
from hardsock import aio
from hardsock.lab.threads import Call
from hardsock.lab.waits import poll_until
from support import http1
from support.conversation import Handlers
from support.loops import RUNS

if TYPE_CHECKING:
    from support.tls import Identities

__all__ = ["DRIVERS", "Honest", "Server", "abused", "check_sums", "few_workers", "serving"]

DRIVERS = ("threads", "asyncio", "messages", "aio-messages")
"""In threads and in an event loop, with a handler for each connection, or for each message."""
_PATIENCE = 60.0
_PACE = 0.02

T = TypeVar("T")


def few_workers(driver: str, slow: int, **settings: Any) -> dict[str, Any]:
    """Settings with fewer workers than connections, where there are workers.

    Args:
        slow: Clients that are slow in the middle of a message: if the handler is called for each
            message they hold a worker each, so that there have to be more.
    """
    if driver == "threads":
        return {"workers": 2, **settings}
    return {"workers": 2 + slow, **settings} if driver == "messages" else settings


class Server:
    """A running server of either kind; its methods may be called from the test's thread."""

    def __init__(self, server: Any, loop: asyncio.AbstractEventLoop | None) -> None:
        self._server = server
        self._loop = loop

    @property
    def address(self) -> Any:
        """Where it listens."""
        return self._server.address

    @property
    def listener(self) -> Any:
        """Its listener."""
        return self._server.listener

    @property
    def report(self) -> hs.DrainReport:
        """How its drain went."""
        report = self._server.report
        assert report is not None
        return report  # type: ignore[no-any-return]

    def stats(self) -> hs.ServerStats:
        """Its counters, from where they may be asked."""
        if self._loop is None or self._server.closed:
            return self._server.stats()  # type: ignore[no-any-return]

        async def ask() -> hs.ServerStats:
            return self._server.stats()  # type: ignore[no-any-return]

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result(_PATIENCE)

    def drain(self, timeout: float | None = None, grace: float | None = None) -> hs.DrainReport:
        """Drain it."""
        draining = self._server.drain(timeout, grace=grace)
        if self._loop is None:
            return draining  # type: ignore[no-any-return]
        return asyncio.run_coroutine_threadsafe(draining, self._loop).result(_PATIENCE)

    @property
    def draining(self) -> bool:
        """Whether the drain has begun."""
        return bool(self._server.draining.cancelled)

    def stop(self) -> None:
        """Begin to drain it."""
        self._server.stop()

    def settled(self) -> hs.ServerStats:
        """Its counters once no connection is active."""

        def quiet() -> bool:
            with contextlib.suppress(AssertionError):  # One may be on its way to the server.
                check_sums(self)
                return self.stats().active == 0
            return False

        poll_until(quiet, _PATIENCE)
        check_sums(self)
        assert self.stats().active == 0
        return self.stats()


def check_sums(server: Server) -> None:
    """Every connection that was ever accepted is in exactly one line; nobody may be coming now."""
    stats = server.stats()
    assert stats.accepted == stats.active + stats.handled + stats.failed + stats.cut, stats
    assert stats.failed == sum(stats.errors.values()), stats
    assert stats.accepted - stats.active == sum(stats.endings.values()), stats
    outside = server.listener.stats()
    shakes = outside.handshakes
    if outside.proxy is not None or outside.peers is not None:
        return  # What these turn away is theirs to tell.
    if shakes is None:
        assert outside.accepted == stats.accepted, (outside, stats)
    else:
        failed = sum(shakes.failed.values())
        assert outside.accepted == shakes.started
        assert shakes.started == stats.accepted + failed + shakes.in_progress, (shakes, stats)


@contextlib.contextmanager
def serving(
    driver: str, times: http1.Times | Handlers = http1.GENEROUS, **settings: Any
) -> Iterator[Server]:
    """An HTTP server with these times, or one with other handlers.

    The end of the block drains it, and checks its sums.
    """
    handlers = http1.http_handlers(times) if isinstance(times, http1.Times) else times
    settings = {"drain_timeout": 10.0, **settings}
    address = settings.pop("address", ("127.0.0.1", 0))
    per_message = driver.endswith("messages")
    if per_message:
        settings["per"] = "message"
    if driver in ("threads", "messages"):
        handler = handlers.per_message if per_message else handlers.blocking
        assert handler is not None
        with hs.serve(handler, address, **settings) as started:
            server = Server(started, None)
            yield server
    else:
        awaited = handlers.awaited_message if per_message else handlers.awaited
        loop = "asyncio" if per_message else driver
        with _awaited_server(loop, awaited, address, settings) as server:
            yield server
    assert server.stats().active == 0
    check_sums(server)


@contextlib.contextmanager
def _awaited_server(
    driver: str, handler: Any, address: Any, settings: dict[str, Any]
) -> Iterator[Server]:
    started: queue.SimpleQueue[Server] = queue.SimpleQueue()
    leave = hs.CancelToken()

    async def main() -> None:
        async with aio.serve(handler, address, **settings) as server:
            started.put(Server(server, asyncio.get_running_loop()))
            await server.wait()
        await aio.wait(leave)  # The loop answers questions until the end of the block.

    with Call(lambda: RUNS[driver](main())) as running:
        try:
            server = started.get(timeout=_PATIENCE)
        except queue.Empty:
            running.result()
            raise
        try:
            yield server
        finally:
            server.stop()
            leave.cancel()
            running.join(_PATIENCE)


class Honest:
    """Clients that ask, read the whole answer, and ask again, until the end of the block.

    Half of them stay, half of them connect for each request. Any answer that is not whole, and any
    that does not come, is an error.

    Args:
        server: Anything with an address.
        ca: Speak TLS, and trust this authority.
        source: The address they come from.
        retries: Ask again on a new connection where one that was used before has ended without a
            byte of the answer (RFC 9112 section 9.3.1).
    """

    def __init__(
        self,
        server: Any,
        *,
        count: int = 4,
        ca: Path | None = None,
        source: str = "127.0.0.1",
        retries: bool = False,
    ) -> None:
        self._retries = retries
        self._address = server.address
        self._source = source
        self._context = None if ca is None else ssl.create_default_context(cafile=str(ca))
        self._stop = threading.Event()
        self._answers = [0] * count
        self._calls: list[Call[None]] = []

    def __enter__(self) -> Honest:
        for index in range(len(self._answers)):
            self._calls.append(Call(self._run, index))
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_details: object) -> None:
        self._stop.set()
        for call in self._calls:
            if exc_type is None:
                call.result(_PATIENCE)
            else:
                with contextlib.suppress(AssertionError):
                    call.join(_PATIENCE)

    @property
    def answers(self) -> list[int]:
        """How many answers each of them has had."""
        return list(self._answers)

    def wait_for_more(self, count: int = 3) -> None:
        """Return when each of them was answered so many more times."""
        before = self.answers

        def all_served() -> bool:
            failed = not all(call.running for call in self._calls)
            return failed or all(n >= b + count for n, b in zip(self._answers, before, strict=True))

        assert poll_until(all_served, _PATIENCE), f"{before} answers, and then {self.answers}"
        for call in self._calls:
            if not call.running:
                call.result()

    def _run(self, index: int) -> None:
        keep = index % 2 == 0
        while not self._stop.is_set():
            with self._connect() as sock:
                asked = 0
                while asked == 0 or (keep and not self._stop.is_set()):
                    kept = self._ask(sock, keep, may_end=self._retries and asked > 0)
                    if kept is None:
                        break
                    self._answers[index] += 1
                    asked += 1
                    self._stop.wait(_PACE)
                    if not kept:
                        break

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(self._address, _PATIENCE, (self._source, 0))
        if self._context is None:
            return sock
        return self._context.wrap_socket(sock, server_hostname="localhost")

    def _ask(self, sock: socket.socket, keep: bool, *, may_end: bool) -> bool | None:
        """Whether the connection stays after the answer; None: it has ended, and may."""
        got = b""
        try:
            sock.sendall(http1.request(keep=keep))
            while not got.endswith(http1.GREETING):
                piece = sock.recv(4096)
                if not piece and not got and may_end:
                    return None
                assert piece, f"the answer ended after {got!r}"
                got += piece
        except ConnectionError:
            if got or not may_end:
                raise
            return None
        assert got.startswith(b"HTTP/1.1 200 OK\r\n"), got
        return keep and b"connection: close" not in got.lower()


@contextlib.contextmanager
def abused(
    driver: str, ids: Identities | None, times: http1.Times = http1.GENEROUS, **settings: Any
) -> Iterator[tuple[Server, Honest]]:
    """A server with honest clients, who must be answered before, during and after the block.

    Args:
        ids: Speak TLS, with the server's identity of these.
    """
    if ids is not None:
        settings.setdefault("tls", ids.server())
    with serving(driver, times, **settings) as server:
        with Honest(server, ca=None if ids is None else ids.ca) as honest:
            honest.wait_for_more()
            yield server, honest
            honest.wait_for_more()
        server.settled()
    assert server.report.clean
