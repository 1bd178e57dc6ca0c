"""grpcio: calls carry what is left of the scope, and handlers run under what their caller has left.

    channel = grpc.intercept_channel(channel, *hardsock.deadline.grpc.client_interceptors())
    server = grpc.server(executor, interceptors=[hardsock.deadline.grpc.ServerInterceptor(cap=30)])
    channel = grpc.aio.insecure_channel(target, interceptors=aio_client_interceptors())
    server = grpc.aio.server(interceptors=[AioServerInterceptor(cap=30)])

gRPC sends ``grpc-timeout`` itself (rounded up a little), from the ``timeout`` of a call: the interceptors
set that to what is left. A cancel of the scope's token cancels streams, futures and awaited calls; a
blocking call for one answer ends by its deadline alone. Public hooks; tested with grpcio 1.85.
The sockets are gRPC's own: hardsock does not see them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import grpc

from hardsock._core import CancelToken
from hardsock._errors import Cancelled, DeadlineExceeded, HardsockError
from hardsock._scope import current, scope, timeout
from hardsock.deadline._headers import _too_late, remaining

__all__ = [
    "AioServerInterceptor",
    "ServerInterceptor",
    "aio_client_interceptors",
    "client_interceptors",
]


class _Details(NamedTuple):
    method: Any
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


def _shortened(details: Any, spend: float, floor: float) -> Any:
    """The details of a call, with what is left as its timeout."""
    left = remaining()
    if left is None:
        return details
    if left < spend + floor or left <= spend:
        raise _too_late(left, spend + floor)
    left -= spend
    return _Details(
        details.method,
        left if details.timeout is None else min(left, details.timeout),
        details.metadata,
        details.credentials,
        details.wait_for_ready,
        getattr(details, "compression", None),
    )


def _ends_with(token: CancelToken | None, call: Any) -> Any:
    """Let a cancel of *token* cancel *call*, as long as that runs."""
    if token is None or not hasattr(call, "add_callback") or call.done():
        return call

    def stop() -> None:
        try:
            token.check()
        except Cancelled:
            call.cancel()
        except DeadlineExceeded:
            pass  # gRPC's own timeout, with the status that says so.

    try:
        registered = token.on_cancel(stop)
    except HardsockError:
        stop()
        return call
    if not call.add_callback(registered.remove):
        registered.remove()
    return call


class _Client(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self, spend: float, floor: float) -> None:
        self._spend, self._floor = spend, floor

    def _call(self, continuation: Any, details: Any, request: Any) -> Any:
        call = continuation(_shortened(details, self._spend, self._floor), request)
        return _ends_with(current(), call)

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return self._call(continuation, details, request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return self._call(continuation, details, request)

    def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return self._call(continuation, details, requests)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return self._call(continuation, details, requests)


def client_interceptors(*, spend: float = 0.0, floor: float = 0.001) -> tuple[Any, ...]:
    """Interceptors for ``grpc.intercept_channel``.

    Args:
        spend: Seconds that the way there takes.
        floor: Seconds below which a call raises DeadlineExceeded rather than ask in vain.
    """
    return (_Client(spend, floor),)


def _answer(exc: HardsockError, token: CancelToken) -> tuple[Any, str] | None:
    """The status for an error that this token's end has caused; None: it is the handler's own."""
    try:
        token.check()
    except DeadlineExceeded:
        return grpc.StatusCode.DEADLINE_EXCEEDED, str(exc)
    except Cancelled:
        return grpc.StatusCode.CANCELLED, str(exc)
    return None


_NEVER = 1e8
"""Seconds: a server of grpcio says some hundred years where the caller set no timeout."""


def _bounded(left: float | None, cap: float | None, default: float | None) -> float | None:
    found = default if left is None or left > _NEVER else left
    if found is None:
        return None
    return max(0.0, found if cap is None else min(found, cap))


def _wrapped(handler: Any, unary: Callable[[Any], Any], streaming: Callable[[Any], Any]) -> Any:
    """A method's handler of the same kind, whose function *unary* or *streaming* has made."""
    requests = "stream" if handler.request_streaming else "unary"
    answers = "stream" if handler.response_streaming else "unary"
    function = getattr(handler, f"{requests}_{answers}")
    make: Callable[..., Any] = getattr(grpc, f"{requests}_{answers}_rpc_method_handler")
    return make(
        streaming(function) if handler.response_streaming else unary(function),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


class ServerInterceptor(grpc.ServerInterceptor):
    """Handlers run in a scope that ends with their caller's deadline, or when the caller leaves.

    Args:
        cap: The most seconds that a caller's deadline is believed.
        default: Seconds for calls without one; ``None``: no deadline.
    """

    def __init__(self, *, cap: float | None = 60.0, default: float | None = None) -> None:
        self._cap, self._default = cap, default

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        """See ``grpc.ServerInterceptor``."""
        handler = continuation(details)
        return None if handler is None else _wrapped(handler, self._unary, self._streaming)

    def _token(self, context: Any) -> CancelToken:
        left = context.time_remaining()
        token = CancelToken(
            _bounded(left, self._cap, self._default), name="the deadline of the call"
        )

        def gone() -> None:
            token.cancel("the caller has left")

        if not context.add_callback(gone):
            gone()
        return token

    def _unary(self, function: Any) -> Any:
        def handle(request: Any, context: Any) -> Any:
            token = self._token(context)
            try:
                with scope(token):
                    return function(request, context)
            except HardsockError as exc:
                _abort(exc, token, context)
                raise

        return handle

    def _streaming(self, function: Any) -> Any:
        def handle(request: Any, context: Any) -> Iterator[Any]:
            token = self._token(context)
            try:
                with scope(token):
                    answers = iter(function(request, context))
                while True:
                    with scope(token):
                        try:
                            answer = next(answers)
                        except StopIteration:
                            return
                    yield answer
            except HardsockError as exc:
                _abort(exc, token, context)
                raise

        return handle


def _abort(exc: HardsockError, token: CancelToken, context: Any) -> None:
    answer = _answer(exc, token)
    if answer is not None:
        context.abort(*answer)


# ---- grpc.aio


def _aio_shortened(details: Any, spend: float, floor: float) -> Any:
    short = _shortened(details, spend, floor)
    if short is details:
        return details
    return grpc.aio.ClientCallDetails(*short[:5])


class _Aio:
    """What the four kinds of calls have in common; grpc.aio wants a class of its own for each."""

    def __init__(self, spend: float, floor: float) -> None:
        self._settings = (spend, floor)

    async def _intercept(self, continuation: Any, details: Any, sent: Any) -> Any:
        return await continuation(_aio_shortened(details, *self._settings), sent)


class _AioUnaryUnary(_Aio, grpc.aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary = _Aio._intercept


class _AioUnaryStream(_Aio, grpc.aio.UnaryStreamClientInterceptor):
    intercept_unary_stream = _Aio._intercept


class _AioStreamUnary(_Aio, grpc.aio.StreamUnaryClientInterceptor):
    intercept_stream_unary = _Aio._intercept


class _AioStreamStream(_Aio, grpc.aio.StreamStreamClientInterceptor):
    intercept_stream_stream = _Aio._intercept


def aio_client_interceptors(*, spend: float = 0.0, floor: float = 0.001) -> list[Any]:
    """Interceptors for a channel of ``grpc.aio``; the parameters are those of `client_interceptors`.

    The scope in a task ends what the task waits for itself, which cancels the call.
    """
    kinds = (_AioUnaryUnary, _AioUnaryStream, _AioStreamUnary, _AioStreamStream)
    return [kind(spend, floor) for kind in kinds]


class AioServerInterceptor(grpc.aio.ServerInterceptor):
    """`ServerInterceptor` for ``grpc.aio``; it also ends what the handler's task waits for.

    A caller that leaves cancels the handler's task, as ever.
    """

    def __init__(self, *, cap: float | None = 60.0, default: float | None = None) -> None:
        self._cap, self._default = cap, default

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """See ``grpc.aio.ServerInterceptor``."""
        handler = await continuation(details)
        return None if handler is None else _wrapped(handler, self._unary, self._streaming)

    @contextlib.asynccontextmanager
    async def _scope(self, context: Any) -> AsyncIterator[None]:
        seconds = _bounded(context.time_remaining(), self._cap, self._default)
        token: CancelToken | None = None
        try:
            with timeout(seconds, name="the deadline of the call") as token:
                yield
        except HardsockError as exc:
            answer = None if token is None else _answer(exc, token)
            if answer is not None:
                await context.abort(*answer)
            raise

    def _unary(self, function: Any) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            async with self._scope(context):
                return await function(request, context)

        return handle

    def _streaming(self, function: Any) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            async with self._scope(context):
                answers = function(request, context)
                if hasattr(answers, "__aiter__"):
                    async for answer in answers:
                        await context.write(answer)
                else:
                    await answers  # It writes by itself.

        return handle
