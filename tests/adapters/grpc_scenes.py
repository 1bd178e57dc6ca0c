"""Scenes with a real gRPC server and client, for test_deadline_hooks.py: ``grpc_scenes.py NAME``."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

import hardsock as hs
from hardsock import aio, deadline
from hardsock.deadline.grpc import (
    AioServerInterceptor,
    ServerInterceptor,
    aio_client_interceptors,
    client_interceptors,
)

SOON = 0.3
LATE = 60.0
AT_ONCE = 20.0
# gRPC rounds its timeouts up on the wire, by a hundredth or so.
ROUNDED = 1.02


@contextlib.contextmanager
def fails(*kinds: type[BaseException]) -> Iterator[list[Any]]:
    """The block must raise one of *kinds*; it is appended to the list."""
    caught: list[Any] = []
    try:
        yield caught
    except kinds as exc:
        caught.append(exc)
    else:
        raise AssertionError(f"nothing was raised: {kinds}")


class Service:
    """Handlers that wait, and say how they ended."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.done = threading.Semaphore(0)
        self.begun = threading.Event()

    def left(self, _request: bytes, _context: Any) -> bytes:
        return repr(deadline.remaining()).encode()

    def wait(self, _request: bytes, _context: Any) -> bytes:
        token = hs.current()
        assert token is not None
        self.begun.set()
        try:
            token.wait(LATE)
            token.check()
        except hs.HardsockError as exc:
            self.ended.append(type(exc).__name__)
            self.done.release()
            raise
        raise AssertionError

    def drip(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield b"one"
        yield self.wait(request, context)


def generic(handlers: dict[str, Any]) -> Any:
    made = {
        name: grpc.unary_stream_rpc_method_handler(function)
        if name == "Drip"
        else grpc.unary_unary_rpc_method_handler(function)
        for name, function in handlers.items()
    }
    return grpc.method_handlers_generic_handler("test.Service", made)


@contextlib.contextmanager
def serving(service: Service, **settings: Any) -> Iterator[Any]:
    """A channel to a server of *service*."""
    with ThreadPoolExecutor(4) as executor:
        server = grpc.server(executor, interceptors=[ServerInterceptor(**settings)])
        handlers = {"Left": service.left, "Wait": service.wait, "Drip": service.drip}
        server.add_generic_rpc_handlers((generic(handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as plain:
                yield grpc.intercept_channel(plain, *client_interceptors())
        finally:
            server.stop(0).wait()


def calls() -> None:
    service = Service()
    with serving(service, cap=50) as channel:
        left = channel.unary_unary("/test.Service/Left")
        assert left(b"") == b"None"
        with hs.timeout(20):
            assert 10 < float(left(b"")) <= 20 * ROUNDED
            assert float(left(b"", timeout=5)) <= 5 * ROUNDED
        with hs.timeout(5000):
            assert float(left(b"")) <= 50
        with fails(hs.DeadlineExceeded), hs.timeout(0):
            left(b"")
        began = time.monotonic()
        with fails(grpc.RpcError) as caught, hs.timeout(SOON):
            channel.unary_unary("/test.Service/Wait")(b"")
        assert caught[0].code() == grpc.StatusCode.DEADLINE_EXCEEDED, caught
        assert service.done.acquire(timeout=AT_ONCE)
        with fails(grpc.RpcError) as caught, hs.timeout(SOON):
            list(channel.unary_stream("/test.Service/Drip")(b""))
        assert caught[0].code() == grpc.StatusCode.DEADLINE_EXCEEDED, caught
        assert service.done.acquire(timeout=AT_ONCE)
        assert time.monotonic() - began < AT_ONCE
    assert set(service.ended) <= {"DeadlineExceeded", "Cancelled"}


def stream() -> None:
    service = Service()
    token = hs.CancelToken()

    def stop() -> None:
        service.begun.wait()
        token.cancel("stop")

    thread = threading.Thread(target=stop)
    thread.start()
    with serving(service) as channel, hs.scope(token):
        with fails(grpc.RpcError) as caught:
            list(channel.unary_stream("/test.Service/Drip")(b""))
        assert caught[0].code() == grpc.StatusCode.CANCELLED
        assert service.done.acquire(timeout=AT_ONCE)
    thread.join()
    assert service.ended == ["Cancelled"]


async def _awaited(ended: list[str]) -> None:
    async def left(_request: bytes, _context: Any) -> bytes:
        return repr(deadline.remaining()).encode()

    async def wait(_request: bytes, _context: Any) -> bytes:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("wait")
        raise AssertionError

    async def drip(_request: bytes, _context: Any) -> Any:
        yield b"one"
        await aio.sleep(LATE)

    server = grpc.aio.server(interceptors=[AioServerInterceptor(cap=50)])
    server.add_generic_rpc_handlers((generic({"Left": left, "Wait": wait, "Drip": drip}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    made = aio_client_interceptors()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", interceptors=made) as channel:
        call = channel.unary_unary("/test.Service/Left")
        assert await call(b"") == b"None"
        with hs.timeout(20):
            assert 10 < float(await call(b"")) <= 20 * ROUNDED
        with hs.timeout(5000):
            assert float(await call(b"")) <= 50
        with fails(grpc.RpcError, hs.DeadlineExceeded), hs.timeout(SOON):
            await channel.unary_unary("/test.Service/Wait")(b"")
        with fails(grpc.RpcError, hs.DeadlineExceeded), hs.timeout(SOON):
            async for _ in channel.unary_stream("/test.Service/Drip")(b""):
                pass
    await server.stop(None)
    del server
    gc.collect()  # Its finalizer wants the loop.


def awaited() -> None:
    began = time.monotonic()
    ended: list[str] = []
    asyncio.run(_awaited(ended))
    assert time.monotonic() - began < AT_ONCE
    assert ended == ["wait"]


SCENES: dict[str, Callable[[], None]] = {"calls": calls, "stream": stream, "awaited": awaited}

if __name__ == "__main__":
    SCENES[sys.argv[1]]()
    print("as it should be")
