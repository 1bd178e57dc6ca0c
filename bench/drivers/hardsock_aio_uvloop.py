"""hardsock.aio on uvloop."""

from __future__ import annotations

from importlib import metadata

import uvloop

from . import hardsock
from ._hardsock_asyncio import tls_works_with, works_with
from ._hardsock_http import http_works_with

_works = works_with(uvloop.run)
request_reply = _works.request_reply
lines = _works.lines
frames_1k = _works.frames_1k
frames_1m = _works.frames_1m
crowd_churn = _works.crowd_churn
crowd_echo = _works.crowd_echo
idle_memory_awaited = _works.idle_memory_awaited
idle_memory_served = _works.idle_memory_served

_http_works = http_works_with(uvloop.run)
http_raw = _http_works.http_raw
http_raw_churn = _http_works.http_raw_churn
http_raw_paced = _http_works.http_raw_paced
http_parsed = _http_works.http_parsed
http_parsed_churn = _http_works.http_parsed_churn
http_idle_memory = _http_works.http_idle_memory

_tls_works = tls_works_with(uvloop.run)
tls_handshake = _tls_works.tls_handshake
tls_resume = _tls_works.tls_resume
tls_request_reply = _tls_works.tls_request_reply
tls_receive = _tls_works.tls_receive
tls_send = _tls_works.tls_send
tls_accept = _tls_works.tls_accept
tls_idle_memory = _tls_works.tls_idle_memory
tls_idle_memory_server = _tls_works.tls_idle_memory_server


def version() -> str:
    return f"{hardsock.version()} on uvloop {metadata.version('uvloop')}"
