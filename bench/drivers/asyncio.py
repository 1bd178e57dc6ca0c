"""asyncio streams on the standard library's own event loop."""

from __future__ import annotations

import asyncio
import platform

from . import _importing
from ._streams import StreamWorks
from ._streams_http import http_works_with
from ._streams_tls import StreamTLSWorks

_works = StreamWorks(asyncio.run)
connect_close = _works.connect_close
request_reply = _works.request_reply
cancel_latency = _works.cancel_latency
lines = _works.lines
frames_1k = _works.frames_1k
frames_1m = _works.frames_1m
crowd_churn = _works.crowd_churn
crowd_echo = _works.crowd_echo
idle_memory = _works.idle_memory
idle_memory_awaited = _works.idle_memory_awaited
idle_memory_served = _works.idle_memory_served
importing = _importing.of("import ssl, asyncio")

_http_works = http_works_with(asyncio.run)
http_raw = _http_works.http_raw
http_raw_churn = _http_works.http_raw_churn
http_parsed = _http_works.http_parsed
http_parsed_churn = _http_works.http_parsed_churn
http_idle_memory = _http_works.http_idle_memory

_tls_works = StreamTLSWorks(asyncio.run)
tls_handshake = _tls_works.tls_handshake
tls_resume = _tls_works.tls_resume
tls_request_reply = _tls_works.tls_request_reply
tls_receive = _tls_works.tls_receive
tls_send = _tls_works.tls_send
tls_accept = _tls_works.tls_accept
tls_idle_memory = _tls_works.tls_idle_memory
tls_idle_memory_server = _tls_works.tls_idle_memory_server


def version() -> str:
    return f"asyncio of Python {platform.python_version()}"
