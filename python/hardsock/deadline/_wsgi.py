"""WSGI middleware: the application and its body run under the deadline that came with the request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hardsock._core import CancelToken
from hardsock._errors import DeadlineExceeded, HardsockError
from hardsock._scope import current, scope
from hardsock.deadline._headers import DEFAULT_NAMES, answer_by, form_of, from_header

__all__ = ["WSGI"]

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
App = Callable[[Environ, StartResponse], Iterable[bytes]]


class WSGI:
    """``app = hs.deadline.wsgi(app, cap=30)``.

    The application runs in a scope, and so does every piece of a body that it streams, up to the
    ``close()`` of that body, in whatever thread the server iterates. A request that is too late, or
    becomes so before its first byte, is answered with 504. A body that becomes so is cut: the error
    goes on to the server, which drops the connection.

    Args:
        app: The application.
        cap: The most seconds that a request's header is believed.
        default: Seconds for requests without a header; ``None``: no deadline.
        margin: Seconds that are kept for the way back.
        names: The headers that are read; the shortest counts.

    ``environ["hardsock.arrived"]``, if a server sets it, is ``time.monotonic()`` when the request
    arrived, before it waited for a thread; else the time counts from here.
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
        self._keys = [("HTTP_" + name.upper().replace("-", "_"), form_of(name)) for name in names]

    def _asked(self, environ: Environ) -> float | None:
        arrived = environ.get("hardsock.arrived")
        found = [
            seconds
            for key, form in self._keys
            if (seconds := from_header(environ.get(key), cap=self._cap, form=form, arrived=arrived))
            is not None
        ]
        return min(found, default=None)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        seconds = answer_by(self._asked(environ), self._default, self._margin)
        if seconds is None:
            return self._app(environ, start_response)
        if seconds <= 0:
            return _too_late(start_response)
        outer = current()
        name = "the deadline of the request"
        token = (
            CancelToken(seconds, name=name) if outer is None else outer.child(seconds, name=name)
        )
        return self._run(token, environ, start_response)

    def _run(
        self, token: CancelToken, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        started = Started(start_response)
        try:
            with scope(token):
                body = self._app(environ, started)
        except DeadlineExceeded:
            if started.wrote or not _has_ended(token):
                raise
            return _too_late(start_response, replace=started.called)
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, (list, tuple)) or (
            isinstance(wrapper, type) and isinstance(body, wrapper)
        ):
            return body  # No more code of the application runs.
        return Body(body, token, started)


class Started:
    """``start_response`` that remembers what has happened, and can still be overruled."""

    def __init__(self, start_response: StartResponse) -> None:
        self._start_response = start_response
        self.called = self.wrote = False

    def __call__(self, *args: Any) -> Callable[[bytes], object]:
        write = self._start_response(*args)
        self.called = True

        def noted(data: bytes) -> object:
            self.wrote = True
            return write(data)

        return noted

    def overrule(self) -> Iterable[bytes]:
        """The answer that it is too late, in the place of the one that was announced."""
        return _too_late(self._start_response, replace=self.called)


class Body:
    """A body whose every piece, and whose end, is made in the scope of its request."""

    def __init__(self, body: Iterable[bytes], token: CancelToken, started: Started) -> None:
        self._body, self._token, self._started = body, token, started

    def __iter__(self) -> Iterator[bytes]:
        with scope(self._token):
            pieces = iter(self._body)
        while True:
            try:
                with scope(self._token):
                    piece = next(pieces)
            except StopIteration:
                return
            except DeadlineExceeded:
                if self._started.wrote or not _has_ended(self._token):
                    raise
                yield from self._started.overrule()
                return
            self._started.wrote = self._started.wrote or bool(piece)
            yield piece

    def close(self) -> None:
        """End the application's body, in its scope."""
        close = getattr(self._body, "close", None)
        if close is not None:
            with scope(self._token):
                close()


def _has_ended(token: CancelToken) -> bool:
    try:
        token.check()
    except HardsockError:
        return True
    return False


def _too_late(start_response: StartResponse, *, replace: bool = False) -> Iterable[bytes]:
    text = b"the deadline of this request has passed\n"
    head = [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))]
    if replace:  # PEP 3333: allowed with exc_info, as long as no byte was sent.
        error = DeadlineExceeded(110, "the deadline of the request has passed")
        start_response("504 Gateway Timeout", head, (DeadlineExceeded, error, None))
    else:
        start_response("504 Gateway Timeout", head)
    return [text]
