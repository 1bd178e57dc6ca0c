"""The page as an ASGI app, a WSGI app, and a handler for ``hs.serve``."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Iterable
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import quote

from hardsock._core import Connection
from hardsock._errors import HardsockError
from hardsock._options import _check_seconds
from hardsock.debug._history import History
from hardsock.debug._snapshot import snapshot

__all__ = ["asgi", "handler", "wsgi"]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_TEXT = "text/plain; charset=utf-8"
_REASONS = {200: "OK", 301: "Moved Permanently", 400: "Bad Request", 404: "Not Found",
            405: "Method Not Allowed", 421: "Misdirected Request"}  # fmt: skip
_MAX_HEAD = 16384
_PATIENCE = 10.0
_AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class _Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class _Page:
    def __init__(self, every: float) -> None:
        _check_seconds("every", every, 0.1)
        self._every = every
        self._history = History()

    def answer(self, method: str, path: str, root: str = "") -> _Answer:
        """Answer a request for *path* below *root*, which is quoted as in a URL."""
        if method != "GET":
            return _answer(405, _TEXT, b"GET only\n", ("Allow", "GET"))
        if path == "":  # The page's own names are relative.
            where = root.rpartition("/")[2] + "/"
            return _answer(301, _TEXT, b"", ("Location", where))
        if path in _FILES:
            name, kind = _FILES[path]
            return _answer(200, kind, resources.files(__package__).joinpath(name).read_bytes())
        if path == "/data":
            return _answer(200, "application/json", self._data())
        if path == "/events":
            milliseconds = round(self._every * 1000)
            body = b"retry: %d\ndata: %b\n\n" % (milliseconds, self._data())
            return _answer(200, "text/event-stream; charset=utf-8", body)
        return _answer(404, _TEXT, b"There is nothing here.\n")

    def _data(self) -> bytes:
        """One line of ASCII."""
        return json.dumps(snapshot(self._history), separators=(",", ":")).encode()


def _answer(status: int, kind: str, body: bytes, *more: tuple[str, str]) -> _Answer:
    own = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    return _Answer(status, [*own, *more, *_HEADERS], body)


def asgi(*, every: float = 2.0) -> _AsgiApp:
    """Return the page as an ASGI app, to be mounted under any path.

    Args:
        every: Seconds between two looks of a browser.
    """
    page = _Page(every)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        else:
            root = scope.get("root_path", "")
            path = scope["path"]
            if root and (path == root or path.startswith(root + "/")):
                path = path[len(root) :]
            answer = await asyncio.to_thread(page.answer, scope["method"], path, quote(root))
            headers = [(k.lower().encode(), v.encode()) for k, v in answer.headers]
            start = {"type": "http.response.start", "status": answer.status, "headers": headers}
            await send(start)
            await send({"type": "http.response.body", "body": answer.body})

    return app


async def _live(receive: Any, send: Any) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def wsgi(*, every: float = 2.0) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """Return the page as a WSGI app, to be mounted under any path.

    Args:
        every: Seconds between two looks of a browser.
    """
    page = _Page(every)

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        root, path = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
        if not root and not path:
            path = "/"
        answer = page.answer(environ["REQUEST_METHOD"], path, quote(root, encoding="latin-1"))
        start(f"{answer.status} {_REASONS[answer.status]}", answer.headers)
        return [answer.body]

    return app


def handler(*, every: float = 2.0, hosts: Iterable[str] = ()) -> Callable[[Connection], None]:
    """Return the page as a handler for ``hs.serve``: one request for each connection.

    It has no authentication: listen on loopback. A request for a host that is neither an address nor
    localhost is refused: a page of somebody else's, whose name was made to lead here (DNS rebinding),
    could read the answer.

    Args:
        every: Seconds between two looks of a browser.
        hosts: Names, without ports, under which it may be asked for as well.
    """
    page, known = _Page(every), frozenset(name.lower() for name in hosts)

    def handle(conn: Connection) -> None:
        try:
            head = conn.recv_until(b"\r\n\r\n", max_size=_MAX_HEAD, timeout=_PATIENCE)
        except HardsockError:
            return  # It said nothing that could be answered.
        first, *fields = head.decode("latin-1").split("\r\n")
        words = first.split(" ")
        if not all(_is_known(host, known) for host in _hosts(fields)):
            answer = _answer(421, _TEXT, b"Ask for it by its address, or as localhost.\n")
        elif len(words) == 3 and words[1].startswith("/") and words[2].startswith("HTTP/1."):
            answer = page.answer(words[0], words[1].partition("?")[0])
        else:
            answer = _answer(400, _TEXT, b"That is no request.\n")
        lines = [f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        text = "\r\n".join([*lines, "", ""]).encode("latin-1")
        conn.sendall(text + answer.body, timeout=_PATIENCE)

    return handle


def _hosts(fields: list[str]) -> list[str]:
    """What a request's Host fields say, without ports."""
    named = [field.partition(":") for field in fields]
    values = [value.strip().lower() for name, _, value in named if name.strip().lower() == "host"]
    return [re.sub(r":[0-9]*$", "", value) for value in values]


def _is_known(host: str, known: frozenset[str]) -> bool:
    if host in known or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
