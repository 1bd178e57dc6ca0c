"""Being an HTTP server for peers/http_crowd.c: what all servers in Python share.

Raw: a handler finds the end of a head and answers. Parsed: httptools reads the head, as uvicorn has
it do, into a list of fields. Connections stay; the crowd ends them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..model import Target
from . import _common, _crowd
from ._crowd import Serve

BODY = b"hello, world\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n" + BODY
END = b"\r\n\r\n"
RECEIVE_SIZE = 65536
MOST_CONNECTIONS = _common.MOST_SERVED


class Request:
    """One connection's parser, and the request that it reads."""

    __slots__ = ("_parser", "complete", "fields", "target")

    def __init__(self) -> None:
        import httptools

        self._parser = httptools.HttpRequestParser(self)
        self.complete = False
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes) -> bool:
        """Whether the request is whole with that."""
        self.complete = False
        self._parser.feed_data(data)
        return self.complete

    def on_message_begin(self) -> None:
        self.fields = []

    def on_url(self, target: bytes) -> None:
        self.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))

    def on_message_complete(self) -> None:
        self.complete = True


def anonymous_bytes_of(pid: int) -> int:
    """Resident anonymous memory of another process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Anonymous: in smaps_rollup")


class Works:
    """The works for one server.

    Args:
        raw, parsed: What runs it, for ever.
        memory: What measures the process that it runs in.
        cpu: How long that was on a CPU, in nanoseconds.
    """

    def __init__(
        self,
        *,
        parsed: Serve,
        raw: Serve | None = None,
        memory: Callable[[], int] = _common.anonymous_bytes,
        cpu: Callable[[], int] = time.process_time_ns,
    ) -> None:
        self._parsed = parsed
        self._raw = raw
        self._memory = memory
        self._cpu = cpu

    def _measure(self, function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        before = self._cpu()
        return function() | {"cpu_ns": self._cpu() - before}

    def http_raw(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        assert self._raw is not None
        crowd = _crowd.of(target, count, self._raw)
        return self._measure(lambda: crowd.command(f"ask {seconds}"))

    def http_raw_paced(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        assert self._raw is not None
        crowd = _crowd.of(target, count, self._raw)
        return self._measure(lambda: crowd.command(f"pace {seconds}"))

    def http_raw_churn(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        assert self._raw is not None
        crowd = _crowd.of(target, count, self._raw)
        return self._measure(lambda: crowd.churn(seconds))

    def http_parsed(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        crowd = _crowd.of(target, count, self._parsed)
        return self._measure(lambda: crowd.command(f"ask {seconds}"))

    def http_parsed_churn(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        crowd = _crowd.of(target, count, self._parsed)
        return self._measure(lambda: crowd.churn(seconds))

    def http_idle_memory(self, target: Target, seconds: float, count: int) -> dict[str, Any]:
        return _crowd.hold(target, count, self._parsed, self._memory)


def for_ever() -> None:
    """What a server's thread does when others serve."""
    threading.Event().wait()
