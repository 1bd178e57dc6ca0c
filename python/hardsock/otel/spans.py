"""A span for each connect; what happened in it are its events."""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from hardsock import _core
from hardsock._records import Attempt

__all__ = ["ConnectSpans"]

_FAMILIES: dict[int, str] = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}


def _where(address: Any, prefix: str) -> dict[str, str | int]:
    """An address as the conventions have it: a host and a port, or the path of a socket."""
    if isinstance(address, bytes):
        address = address.decode("utf-8", "backslashreplace")
    if isinstance(address, str):
        if address.startswith(("unix:", "/", "@")):
            return {f"{prefix}.address": address.removeprefix("unix:")}
        host, _, port = address.rpartition(":")
        address = (host.strip("[]"), int(port) if port.isdigit() else 0)
    return {f"{prefix}.address": str(address[0]), f"{prefix}.port": int(address[1])}


class ConnectSpans:
    """Stands for the core's ways to connect; see ``hardsock._observed``."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def connect(self, address: Any, **settings: Any) -> Any:
        began, timeline = time.time_ns(), []  # type: ignore[var-annotated]
        span = self._begin(address, began)
        try:
            conn = _core.connect(address, timeline=timeline, **settings)
        except BaseException as exc:
            self._fail(span, exc, began, timeline)
            raise
        self._succeed(span, conn, began, timeline)
        return conn

    async def op_connect(self, hub: Any, address: Any, **settings: Any) -> Any:
        began, timeline = time.time_ns(), []  # type: ignore[var-annotated]
        span = self._begin(address, began)
        try:
            conn = await _core._op_connect(hub, address, timeline=timeline, **settings)
        except BaseException as exc:
            self._fail(span, exc, began, timeline)
            raise
        self._succeed(span, conn, began, timeline)
        return conn

    def _begin(self, address: Any, began: int) -> Span:
        span = self._tracer.start_span("connect", kind=SpanKind.CLIENT, start_time=began)
        if span.is_recording():
            try:
                span.set_attributes(_where(address, "server"))
            except (TypeError, ValueError, LookupError):
                pass  # No address: the call says so.
        return span

    def _succeed(self, span: Span, conn: Any, began: int, timeline: list[Any]) -> None:
        if span.is_recording():
            self._tell(span, began, timeline)
            peer = conn.getpeername()
            unix = not isinstance(peer, tuple)
            span.set_attribute("network.transport", "unix" if unix else "tcp")
            if not unix:
                span.set_attributes(_where(peer, "network.peer"))
            if (tls := conn.tls) is not None:
                span.set_attribute("tls.protocol.version", tls.version.removeprefix("TLSv"))
        span.end()

    def _fail(self, span: Span, exc: BaseException, began: int, timeline: list[Any]) -> None:
        if span.is_recording():
            self._tell(span, began, timeline)
            span.set_attribute("error.type", type(exc).__qualname__)
            if (phase := getattr(exc, "phase", None)) is not None:
                span.set_attribute("hardsock.phase", phase)
            span.record_exception(exc)
            span.set_status(Status(StatusCode.ERROR, str(exc)))
        span.end()

    def _tell(self, span: Span, began: int, timeline: list[Any]) -> None:
        for lookups, attempts in timeline:
            events = [event for one in lookups for event in _lookup(*one)]
            events += [event for one in attempts for event in _attempt(one)]
            for at, name, attributes in sorted(events, key=lambda event: event[0]):
                span.add_event(name, attributes, began + round(at * 1e9))


def _lookup(
    family: int, started: float, ended: float, addresses: int, error: str | None
) -> list[tuple[float, str, dict[str, Any]]]:
    attributes: dict[str, Any] = {"network.type": _FAMILIES.get(family, str(family))}
    done = {**attributes, "hardsock.addresses": addresses}
    if error is not None:
        done["error.type"] = error
    return [(started, "lookup.started", attributes), (ended, "lookup.ended", done)]


def _attempt(one: Attempt) -> list[tuple[float, str, dict[str, Any]]]:
    attributes: dict[str, Any] = _where(one.address, "network.peer")
    done = {**attributes, "hardsock.phase": one.phase}
    if one.tls is not None:
        done["error.type"] = one.tls
    elif one.errno:
        done["error.type"] = errno.errorcode.get(one.errno, str(one.errno))
    return [(one.started, "attempt.started", attributes), (one.ended, "attempt.ended", done)]
