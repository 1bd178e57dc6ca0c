"""TLS by the ``ssl`` module over a connection of hardsock: a given ``SSLContext`` counts in full.

Bytes go through memory (``ssl.MemoryBIO``), so it also runs within another layer of TLS. Deadlines,
tokens and scopes are those of the connection below; a call that is ended in the middle of a record
has poisoned that connection's direction, as everywhere.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any

__all__ = ["AsyncTLSOverBio", "TLSOverBio"]

_CHUNK = 65536


class _Bio:
    def __init__(self, conn: Any, context: ssl.SSLContext, name: str | None) -> None:
        self._conn = conn
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(self._in, self._out, server_hostname=name)

    def _try(self, call: Callable[..., Any], *args: Any) -> tuple[bool, Any]:
        """Whether it is done, and its value."""
        try:
            return True, call(*args)
        except ssl.SSLWantReadError:
            return False, None

    def _arrived(self, data: bytes) -> None:
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    @property
    def buffered(self) -> int:
        """Bytes that have arrived and were not returned yet."""
        return self.ssl_object.pending() + self._in.pending + int(self._conn.buffered)

    def _is_quiet(self) -> bool:
        return not self.buffered and bool(self._conn._is_quiet())

    def close(self) -> None:
        """Close the connection below."""
        self._conn.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)


class TLSOverBio(_Bio):
    """Blocking; see the module."""

    def _run(self, timeout: float | None, call: Callable[..., Any], *args: Any) -> Any:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            done, value = self._try(call, *args)
            left = None if end is None else max(0.0, end - time.monotonic())
            if self._out.pending:
                self._conn.sendall(self._out.read(), timeout=left)
            if done:
                return value
            self._arrived(self._conn.recv(_CHUNK, timeout=left))

    def handshake(self, timeout: float | None) -> None:
        """Shake hands."""
        self._run(timeout, self.ssl_object.do_handshake)

    def recv(self, max_bytes: int, *, timeout: float | None = None) -> bytes:
        """At most *max_bytes*; empty at the end."""
        try:
            data: bytes = self._run(timeout, self.ssl_object.read, max_bytes)
        except ssl.SSLZeroReturnError:
            return b""
        return data

    def sendall(self, data: bytes, *, timeout: float | None = None) -> None:
        """All of *data*."""
        end = None if timeout is None else time.monotonic() + timeout
        view = memoryview(data)
        while view:
            left = None if end is None else max(0.0, end - time.monotonic())
            view = view[self._run(left, self.ssl_object.write, view) :]


class AsyncTLSOverBio(_Bio):
    """Awaited; see the module."""

    async def _run(self, timeout: float | None, call: Callable[..., Any], *args: Any) -> Any:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            done, value = self._try(call, *args)
            left = None if end is None else max(0.0, end - time.monotonic())
            if self._out.pending:
                await self._conn.sendall(self._out.read(), timeout=left)
            if done:
                return value
            self._arrived(await self._conn.recv(_CHUNK, timeout=left))

    async def handshake(self, timeout: float | None) -> None:
        """Shake hands."""
        await self._run(timeout, self.ssl_object.do_handshake)

    async def recv(self, max_bytes: int, *, timeout: float | None = None) -> bytes:
        """At most *max_bytes*; empty at the end."""
        try:
            data: bytes = await self._run(timeout, self.ssl_object.read, max_bytes)
        except ssl.SSLZeroReturnError:
            return b""
        return data

    async def sendall(self, data: bytes, *, timeout: float | None = None) -> None:
        """All of *data*."""
        end = None if timeout is None else time.monotonic() + timeout
        view = memoryview(data)
        while view:
            left = None if end is None else max(0.0, end - time.monotonic())
            view = view[await self._run(left, self.ssl_object.write, view) :]
