"""asyncio streams on the standard library's own event loop."""

from __future__ import annotations

import asyncio
import platform

from ._streams import StreamWorks

_works = StreamWorks(asyncio.run)
connect_close = _works.connect_close
request_reply = _works.request_reply
cancel_latency = _works.cancel_latency
idle_memory = _works.idle_memory
lines = _works.lines
frames = _works.frames
accept_crowd = _works.accept_crowd
echo_crowd = _works.echo_crowd
idle_memory_awaited = _works.idle_memory_awaited


def version() -> str:
    return f"asyncio of Python {platform.python_version()}"
