"""hardsock.aio on uvloop."""

from __future__ import annotations

from importlib import metadata

import uvloop

from . import hardsock
from ._hardsock_asyncio import works_with

_works = works_with(uvloop.run)
request_reply = _works.request_reply
lines = _works.lines
frames_1k = _works.frames_1k
frames_1m = _works.frames_1m
crowd_churn = _works.crowd_churn
crowd_echo = _works.crowd_echo
idle_memory_awaited = _works.idle_memory_awaited


def version() -> str:
    return f"{hardsock.version()} on uvloop {metadata.version('uvloop')}"
