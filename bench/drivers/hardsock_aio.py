"""hardsock.aio on asyncio's own event loop."""

from __future__ import annotations

import asyncio

from . import hardsock
from ._hardsock_asyncio import works_with

version = hardsock.version
_works = works_with(asyncio.run)
request_reply = _works.request_reply
lines = _works.lines
frames_1k = _works.frames_1k
frames_1m = _works.frames_1m
crowd_churn = _works.crowd_churn
crowd_echo = _works.crowd_echo
idle_memory_awaited = _works.idle_memory_awaited
