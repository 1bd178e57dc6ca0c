"""The works, in the order of the table. One file each; add a new one here and to the drivers."""

from __future__ import annotations

from ..model import Work
from . import awaited, cancel_latency, connect_close, idle_memory, messages, request_reply

ALL: tuple[Work, ...] = (
    connect_close.WORK,
    request_reply.WORK,
    cancel_latency.WORK,
    cancel_latency.ACROSS_CPUS,
    idle_memory.WORK,
    messages.LINES,
    messages.FRAMES_1K,
    messages.FRAMES_1M,
    awaited.REQUEST_REPLY,
    awaited.IDLE,
    awaited.ACCEPT,
    awaited.ECHO,
)
