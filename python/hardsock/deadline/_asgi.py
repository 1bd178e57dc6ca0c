"""ASGI middleware: the application runs under the deadline that came with the request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from hardsock._errors import DeadlineExceeded, HardsockError
from hardsock._scope import timeout
from hardsock.deadline._headers import DEFAULT_NAMES, answer_by, from_headers

__all__ = ["ASGI"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class ASGI:
    """``app = hs.deadline.asgi(app, cap=30)``.

    Every HTTP request runs in ``hs.timeout``: calls of hardsock in it end in time, whatever else the
    task awaits is cancelled, and requests that it makes under the hooks of this package carry what
    is left. A request that is too late, or becomes so before its answer has begun, is answered with
    504. An answer that has begun is cut: the error goes on to the server, which drops the connection.

    Args:
        app: The application.
        cap: The most seconds that a request's header is believed.
        default: Seconds for requests without a header; ``None``: no deadline.
        margin: Seconds that are kept for the way back.
        names: The headers that are read; the shortest counts.

    ``scope["hardsock.arrived"]``, if a server sets it, is ``time.monotonic()`` when the request
    arrived; else the time counts from here. Other scopes (websocket, lifespan) pass through.
    """

    def __init__(
        self,
        app: App,
        *,
        cap: float = 60.0,
        default: float | None = None,
        margin: float = 0.0,
        names: Iterable[str] = DEFAULT_NAMES,
    ) -> None:
        self._app, self._cap, self._default, self._margin = app, cap, default, margin
        self._names = tuple(names)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = from_headers(
            scope["headers"],
            cap=self._cap,
            names=self._names,
            arrived=scope.get("hardsock.arrived"),
        )
        seconds = answer_by(asked, self._default, self._margin)
        if seconds is None:
            await self._app(scope, receive, send)
        elif seconds <= 0:
            await _too_late(send)
        else:
            await self._run(seconds, scope, receive, send)

    async def _run(self, seconds: float, scope: Message, receive: Receive, send: Send) -> None:
        began = False

        async def sending(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        with_token = timeout(seconds, name="the deadline of the request")
        token = None
        try:
            with with_token as token:
                await self._app(scope, receive, sending)
        except DeadlineExceeded:
            if began or token is None or not _has_ended(token):
                raise
            await _too_late(send)


def _has_ended(token: Any) -> bool:
    try:
        token.check()
    except HardsockError:
        return True
    return False


async def _too_late(send: Send) -> None:
    text = b"the deadline of this request has passed\n"
    await send(
        {
            "type": "http.response.start",
            "status": 504,
            "headers": [
                (b"content-type", b"text/plain"),
                (b"content-length", str(len(text)).encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": text})
