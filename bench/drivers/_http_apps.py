"""The smallest application that answers as the other servers do, for WSGI and ASGI."""

from __future__ import annotations

from typing import Any

from ._http import BODY

LENGTH = str(len(BODY))


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", LENGTH)])
    return [BODY]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    fields = [(b"content-length", LENGTH.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": BODY})
