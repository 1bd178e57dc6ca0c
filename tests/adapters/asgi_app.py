"""An application for servers of ASGI."""

from __future__ import annotations

import asyncio
from typing import Any


async def application(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/wait":
        await asyncio.get_running_loop().create_future()
    loop = type(asyncio.get_running_loop()).__module__
    text = (
        loop.encode() if scope["path"] == "/loop" else f"{scope['client'][0]} {len(body)}".encode()
    )
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text})
