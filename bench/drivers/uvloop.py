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


def version() -> str:
    return f"uvloop {metadata.version('uvloop')}"
