"""asyncio streams on uvloop."""

from __future__ import annotations

from importlib import metadata

import uvloop

from ._streams import StreamWorks

_works = StreamWorks(uvloop.run)
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
    return f"uvloop {metadata.version('uvloop')}"
