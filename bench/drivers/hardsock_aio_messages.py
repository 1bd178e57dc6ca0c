"""hardsock.aio on asyncio's own event loop, with a handler for each message: quiet connections are
parked, without a task."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from hardsock import aio

from ..model import SkipWork, Target
from . import _crowd, _hardsock_aio, hardsock
from ._hardsock_http import http_message_works_with


def version() -> str:
    if inspect.signature(aio.serve).parameters["per"].annotation == 'Literal["connection"]':
        raise SkipWork('aio.serve has no per="message"')
    return hardsock.version()


_works = http_message_works_with(asyncio.run)
http_raw = _works.http_raw
http_raw_churn = _works.http_raw_churn
http_raw_paced = _works.http_raw_paced
http_parsed = _works.http_parsed
http_parsed_churn = _works.http_parsed_churn
http_idle_memory = _works.http_idle_memory


def idle_memory_served(target: Target, seconds: float, count: int) -> dict[str, Any]:
    return _crowd.hold(
        target, count, lambda announce: asyncio.run(_hardsock_aio.serve(announce, "message"))
    )
