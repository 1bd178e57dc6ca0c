"""A hundred thousand awaited calls, interrupted at random: no byte, connection or descriptor is lost.

What a sender's kernel took (``bytes_sent``) must have been returned by some receive, in order, once;
what a listener counted as accepted must have been returned by some accept. A seed makes the choices;
the interleaving with threads is the machine's.
"""

from __future__ import annotations

import asyncio
import queue
import random
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import trio

import hardsock as hs
from hardsock import aio
from hardsock._core import _live
from support.require import need_module

Make = Callable[..., Coroutine[Any, Any, Any]]

STREAM = random.Random(1).randbytes(1 << 20) * 2
"""What is sent, by position modulo its half."""

ENDED = (hs.DeadlineExceeded, hs.Cancelled)


class Canceller:
    """A thread that cancels the tokens it is given."""

    def __init__(self) -> None:
        self.tokens: queue.SimpleQueue[hs.CancelToken | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main)
        self._thread.start()

    def _main(self) -> None:
        while (token := self.tokens.get()) is not None:
            token.cancel("from a thread")

    def close(self) -> None:
        self.tokens.put(None)
        self._thread.join()


class AsyncioHost:
    """Interrupting by the means of asyncio."""

    async def both(self, *functions: Callable[[], Awaitable[None]]) -> None:
        await asyncio.gather(*(function() for function in functions))

    async def cancelled(self, make: Make, turns: int) -> Any:
        task = asyncio.ensure_future(make())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            return None

    async def timed(self, make: Make, seconds: float) -> Any:
        try:
            return await asyncio.wait_for(make(), seconds)
        except (asyncio.TimeoutError, TimeoutError):
            return None


class TrioHost:
    """Interrupting by the means of trio."""

    async def both(self, *functions: Callable[[], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(function)

    async def cancelled(self, make: Make, turns: int) -> Any:
        result = None

        async def call() -> None:
            nonlocal result
            result = await make()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        return result

    async def timed(self, make: Make, seconds: float) -> Any:
        with trio.move_on_after(seconds):
            return await make()
        return None


class Storm:
    def __init__(self, host: Any, seed: int, operations: int, canceller: Canceller) -> None:
        self.host = host
        self.random = random.Random(seed)
        self.left = operations
        self.done = 0
        self.canceller = canceller

    async def interrupted(self, make: Make) -> Any:
        """One operation, ended in one of many ways; None if it was interrupted."""
        self.left -= 1
        self.done += 1
        choice = self.random.randrange(6)
        try:
            if choice == 0:
                return await self.host.cancelled(make, self.random.randrange(4))
            if choice == 1:
                return await self.host.timed(make, self.random.random() / 1000)
            if choice == 2:
                token = hs.CancelToken()
                self.canceller.tokens.put(token)
                return await make(token=token, timeout=60)
            if choice == 3:
                with hs.timeout(self.random.random() / 1000):
                    return await make()
            return await make(timeout=self.random.choice((0, 0.0001, 0.0005)))
        except ENDED:
            return None

    async def pair(self) -> None:
        """One pair of connections, until sending is poisoned or the storm is over."""
        left, right = socket.socketpair()
        sender, receiver = aio.adopt(left), aio.adopt(right)
        received = 0
        stop = False

        def check(data: bytes | None) -> None:
            nonlocal received
            if data:
                at = received % (1 << 20)
                assert data == STREAM[at : at + len(data)], received
                received += len(data)

        async def send() -> None:
            nonlocal stop
            while self.left > 0 and not sender.poisoned:
                at = sender.bytes_sent % (1 << 20)
                size = self.random.choice((1, 10, 1000, 1000, 60_000, 400_000))
                data = memoryview(STREAM)[at : at + size]
                await self.interrupted(lambda data=data, **kw: sender.sendall(data, **kw))
            stop = True

        async def receive() -> None:
            while not stop:
                size = self.random.choice((1, 100, 5000, 100_000))
                if self.random.random() < 0.5:
                    check(await self.interrupted(lambda size=size, **kw: receiver.recv(size, **kw)))
                else:
                    check(
                        await self.interrupted(
                            lambda size=size, **kw: receiver.recv_exactly(size, **kw)
                        )
                    )

        await self.host.both(send, receive)
        await sender.close_write()
        while data := await receiver.recv(1 << 20, timeout=60):
            check(data)
        assert received == sender.bytes_sent == receiver.bytes_received
        sender.close()
        receiver.close()

    async def pairs(self) -> None:
        while self.left > 0:
            await self.pair()

    async def doors(self) -> None:
        """Connecting and accepting."""
        accepted = 0
        stop = False
        async with await aio.listen(("127.0.0.1", 0)) as listener:

            async def accept() -> None:
                nonlocal accepted
                while not stop:
                    if conn := await self.interrupted(listener.accept):
                        accepted += 1
                        conn.abort()

            async def connect() -> None:
                nonlocal stop
                while self.left > 0:
                    try:
                        conn = await self.interrupted(
                            lambda **kw: aio.connect(listener.address, **kw)
                        )
                    except (hs.Reset, hs.ConnectError):
                        continue  # accepted, and reset already
                    if conn:
                        conn.abort()
                stop = True

            await self.host.both(accept, connect)
            while True:
                try:
                    (await listener.accept(timeout=0)).close()
                    accepted += 1
                except hs.DeadlineExceeded:
                    break
            assert listener.stats().accepted == accepted

    async def main(self) -> None:
        await self.host.both(*[self.pairs] * 6, self.doors)


def blow(run: Callable[[Any], Any], host: Any, operations: int) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    live = dict(_live())
    canceller = Canceller()
    storm = Storm(host, seed, operations, canceller)
    try:
        run(storm.main)
    finally:
        canceller.close()
    assert storm.done >= operations
    del storm
    assert dict(_live()) == live


@pytest.mark.parametrize("operations", [20_000, pytest.param(100_000, marks=pytest.mark.nightly)])
def test_tens_of_thousands_on_asyncio(event_loops: None, operations: int) -> None:
    blow(lambda main: asyncio.run(main()), AsyncioHost(), operations)


def test_twenty_thousand_on_uvloop(event_loops: None) -> None:
    need_module("uvloop")
    import uvloop

    blow(lambda main: uvloop.run(main()), AsyncioHost(), 20_000)


def test_twenty_thousand_on_trio(event_loops: None) -> None:
    blow(trio.run, TrioHost(), 20_000)
