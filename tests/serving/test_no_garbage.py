"""A connection goes when its handler has ended, however that ended: no cycle keeps it.

A handler's exception has a traceback, whose frames lead to those that called the handler. Where one
of these has the exception in a variable, the connection, its buffers and all that the handler had stay
until the garbage collector comes, which may be late in a server that makes little garbage.
"""

from __future__ import annotations

import gc
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hardsock as hs
from hardsock import _core
from hardsock.aio._tasks import AsyncioTasks
from hardsock.lab.endpoint import connect_to
from hardsock.lab.waits import poll_until
from support.conversation import Handlers
from support.require import free_threaded
from support.serving import serving

PATIENCE = 30.0
CLIENTS = 4
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
WORDS: dict[bytes, Callable[[], BaseException]] = {
    b"raise": lambda: ValueError("the handler's own"),
    b"exit": lambda: SystemExit(3),
    b"memory": MemoryError,
}


def answer_to(line: bytes) -> bytes:
    if line in WORDS:
        raise WORDS[line]()
    return line + b"\n"


def blocking(conn: hs.Connection) -> None:
    for line in conn.lines():
        conn.sendall(answer_to(bytes(line)))


def per_message(conn: hs.Connection) -> None:
    conn.sendall(answer_to(bytes(conn.recv_line())))


async def awaited(conn: Any) -> None:
    async for line in conn.lines():
        await conn.sendall(answer_to(bytes(line)))


async def awaited_message(conn: Any) -> None:
    await conn.sendall(answer_to(bytes(await conn.recv_line())))


HANDLERS = Handlers(blocking, awaited, per_message, awaited_message)


def ask(sock: socket.socket) -> None:
    sock.sendall(b"hello\n")
    assert sock.recv(100) == b"hello\n"


def says(word: bytes) -> Callable[[socket.socket], None]:
    return lambda sock: sock.sendall(word + b"\n")


def closes(sock: socket.socket) -> None:
    ask(sock)
    sock.close()


def resets(sock: socket.socket) -> None:
    ask(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()


def stops_in_the_middle(sock: socket.socket) -> None:
    ask(sock)
    sock.sendall(b"half")
    sock.shutdown(socket.SHUT_WR)


ENDINGS = {
    "closes": closes,
    "resets": resets,
    "truncates": stops_in_the_middle,
    **{word.decode(): says(word) for word in WORDS},
}


@pytest.fixture
def no_collector(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The garbage collector does not come by itself; and the log, which pytest keeps, is silent."""
    gc.collect()
    gc.disable()
    with caplog.at_level(logging.CRITICAL + 1, logger="hardsock.serve"):
        yield
    gc.enable()


def live() -> int:
    return int(_core._live()["conns"])


def gone(before: int, spare: int = 0) -> bool:
    return poll_until(lambda: live() <= before + spare, PATIENCE)


def gone_while_it_serves(server: Any, before: int, spare: int) -> bool:
    """Free-threaded interpreters free what one thread made and another one lets go of last in the
    first one, when that runs again. Here that is the one that accepts: each look wakes it by a
    client more, of which it may keep itself what belongs to the last two."""
    if not free_threaded():
        return gone(before, spare)

    def woken() -> bool:
        with connect_to(server.address, PATIENCE) as sock:
            closes(sock)
        assert poll_until(lambda: server.stats().active == 0, PATIENCE)
        return live() <= before + spare + 2

    return poll_until(woken, PATIENCE)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_connection_goes_with_its_handler(driver: str, ending: str) -> None:
    before = live()
    # A worker that waits for messages may have the last one's in its hands.
    settings, spare = ({"workers": 1}, 1) if driver == "messages" else ({}, 0)
    with serving(driver, HANDLERS, read_timeout=PATIENCE, **settings) as server:
        for _ in range(CLIENTS):
            with connect_to(server.address, PATIENCE) as sock:
                ENDINGS[ending](sock)
                assert poll_until(lambda: server.stats().active == 0, PATIENCE)
        assert gone_while_it_serves(server, before, spare), f"{live() - before} are kept"
    assert gone(before), f"{live() - before} connections are kept"


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("seconds", [0.2, 0.0], ids=["cut", "no time"])
@pytest.mark.parametrize("begun", [b"", b"half"], ids=["quiet", "begun"])
def test_nothing_is_kept_of_a_server_that_drained(
    driver: str, begun: bytes, seconds: float
) -> None:
    """With no time for it handlers are still there when it is over, and end with their loop."""
    before = live()
    with serving(driver, HANDLERS, drain_timeout=seconds) as server:
        clients = [connect_to(server.address, PATIENCE) for _ in range(4)]
        for sock in clients:
            ask(sock)  # So it is accepted.
            sock.sendall(begun)
    for sock in clients:
        sock.close()
    assert gone(before), f"{live() - before} connections are kept"


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("per", ["asyncio", "aio-messages"])
def test_nothing_is_kept_of_a_task_that_was_cancelled_before_its_first_step(
    per: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = AsyncioTasks.start

    def start_and_cancel(
        self: AsyncioTasks, context: Any, function: Any, *args: Any, name: str
    ) -> Any:
        task = start(self, context, function, *args, name=name)
        if args:  # Else it is one of the server's own.
            task.cancel()
        return task

    before = live()
    monkeypatch.setattr(AsyncioTasks, "start", start_and_cancel)
    with serving(per, HANDLERS) as server:
        for _ in range(4):
            # It may be reset before its connect is over.
            with pytest.raises(ConnectionError), connect_to(server.address, PATIENCE) as sock:
                ask(sock)
        assert gone(before), f"{live() - before} connections are kept"
