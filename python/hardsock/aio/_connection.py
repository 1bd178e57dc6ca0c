"""The awaited Connection."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal

from hardsock import _core
from hardsock._core import CancelToken
from hardsock._errors import EndOfStream
from hardsock._framing import AnyFraming, LengthPrefix, Line
from hardsock._records import CloseReport, Setting, TLSInfo
from hardsock.aio._host import current_hub, forget
from hardsock.files.sendfile import must_be_read, send_by_reading_async
from hardsock.tls.config import TLSConfig

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

__all__ = ["Connection"]

_DEFAULT_LINE = Line()


class Connection:
    """A connected stream socket whose calls are awaited; made by ``aio.connect`` and the like.

    The same names, parameters and exceptions as ``hardsock.Connection``: ``timeout=`` in seconds
    for the whole call, ``token=``, ambient scopes. Besides, the event loop's own cancelling works:
    a cancelled call loses no received byte, and poisons a direction only if it leaves half a
    message. One reader and one writer at a time, in whatever event loops they run; tokens, ``close``
    and ``abort`` work from any thread.
    """

    __slots__ = ("__weakref__", "_conn", "_hub")

    def __init__(self, conn: _core.Connection) -> None:
        self._conn = conn
        self._hub = current_hub()

    @property
    def blocking(self) -> _core.Connection:
        """The same connection, for use in threads."""
        return self._conn

    # ---- lent by a pool

    def mark_clean(self) -> None:
        """As ``hardsock.Connection.mark_clean``."""
        self._conn.mark_clean()

    @property
    def reused(self) -> bool:
        """Whether somebody had it from its pool before."""
        return self._conn.reused

    @property
    def retry_is_safe(self) -> bool:
        """As ``hardsock.Connection.retry_is_safe``."""
        return self._conn.retry_is_safe

    # ---- receiving

    async def recv(
        self,
        bufsize: int,
        flags: int = 0,
        /,
        *,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> bytes:
        """As ``hardsock.Connection.recv``."""
        value: bytes = await self._conn._op_recv(
            self._hub, bufsize, flags, timeout=timeout, token=token
        )
        return value

    async def recv_into(
        self,
        buffer: Buffer,
        nbytes: int = 0,
        flags: int = 0,
        *,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> int:
        """As ``hardsock.Connection.recv_into``; the buffer is pinned until the call ends."""
        value: int = await self._conn._op_recv_into(
            self._hub, buffer, nbytes, flags, timeout=timeout, token=token
        )
        return value

    async def recvmsg(
        self,
        bufsize: int,
        ancbufsize: int = 0,
        flags: int = 0,
        /,
        *,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
        """As ``hardsock.Connection.recvmsg``."""
        value: tuple[bytes, list[tuple[int, int, bytes]], int, None] = await self._conn._op_recvmsg(
            self._hub, bufsize, ancbufsize, flags, timeout=timeout, token=token
        )
        return value

    async def recv_exactly(
        self, n: int, /, *, timeout: float | None = None, token: CancelToken | None = None
    ) -> bytes:
        """As ``hardsock.Connection.recv_exactly``."""
        value: bytes = await self._conn._op_recv_exactly(self._hub, n, timeout=timeout, token=token)
        return value

    async def recv_until(
        self,
        separator: bytes,
        /,
        *,
        max_size: int = 65536,
        keep: bool = False,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> bytes:
        """As ``hardsock.Connection.recv_until``."""
        value: bytes = await self._conn._op_recv_until(
            self._hub, separator, max_size=max_size, keep=keep, timeout=timeout, token=token
        )
        return value

    async def recv_line(
        self,
        line: Line | None = None,
        /,
        *,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> Any:
        """As ``hardsock.Connection.recv_line``."""
        value: Any = await self._conn._op_recv_line(self._hub, line, timeout=timeout, token=token)
        return value

    async def recv_lines(
        self,
        max_count: int | None = None,
        line: Line | None = None,
        /,
        *,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> list[Any]:
        """As ``hardsock.Connection.recv_lines``."""
        value: list[Any] = await self._conn._op_recv_lines(
            self._hub, max_count, line, timeout=timeout, token=token
        )
        return value

    async def recv_frame(
        self,
        framing: AnyFraming,
        /,
        *,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> Any:
        """As ``hardsock.Connection.recv_frame``."""
        value: Any = await self._conn._op_recv_frame(
            self._hub, framing, timeout=timeout, token=token
        )
        return value

    async def recv_frames(
        self,
        framing: AnyFraming,
        max_count: int | None = None,
        /,
        *,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> list[Any]:
        """As ``hardsock.Connection.recv_frames``."""
        value: list[Any] = await self._conn._op_recv_frames(
            self._hub, framing, max_count, timeout=timeout, token=token
        )
        return value

    async def peek(
        self, n: int, /, *, timeout: float | None = None, token: CancelToken | None = None
    ) -> bytes:
        """As ``hardsock.Connection.peek``."""
        value: bytes = await self._conn._op_peek(self._hub, n, timeout=timeout, token=token)
        return value

    def lines(
        self,
        line: Line | None = None,
        /,
        *,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> Frames:
        """As ``hardsock.Connection.lines``; for ``async for``."""
        return Frames(self, line if line is not None else _DEFAULT_LINE, timeout, token)

    def frames(
        self,
        framing: AnyFraming,
        /,
        *,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> Frames:
        """As ``hardsock.Connection.frames``; for ``async for``."""
        return Frames(self, framing, timeout, token)

    # ---- sending

    async def send(
        self,
        data: Buffer,
        flags: int = 0,
        /,
        *,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> int:
        """As ``hardsock.Connection.send``."""
        value: int = await self._conn._op_send(self._hub, data, flags, timeout=timeout, token=token)
        return value

    async def sendall(
        self,
        data: Buffer,
        flags: int = 0,
        /,
        *,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> None:
        """As ``hardsock.Connection.sendall``; returns when the kernel has taken all of it."""
        await self._conn._op_sendall(self._hub, data, flags, timeout=timeout, token=token)

    async def sendmsg(
        self,
        buffers: Iterable[Buffer],
        ancdata: Iterable[tuple[int, int, Buffer]] = (),
        flags: int = 0,
        address: None = None,
        /,
        *,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> int:
        """As ``hardsock.Connection.sendmsg``."""
        value: int = await self._conn._op_sendmsg(
            self._hub, buffers, ancdata, flags, address, timeout=timeout, token=token
        )
        return value

    async def send_frame(
        self,
        payload: Buffer,
        framing: LengthPrefix,
        head: Buffer = b"",
        /,
        *,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> None:
        """As ``hardsock.Connection.send_frame``."""
        await self._conn._op_send_frame(
            self._hub, payload, framing, head, timeout=timeout, token=token
        )

    async def sendfile(
        self,
        file: IO[bytes] | int,
        offset: int = 0,
        count: int | None = None,
        *,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> int:
        """As ``hardsock.Connection.sendfile``."""
        if not isinstance(file, int) and must_be_read(file):
            return await send_by_reading_async(self, file, offset, count, timeout, token)
        value: int = await self._conn._op_sendfile(
            self._hub, file, offset, count, timeout=timeout, token=token
        )
        return value

    # ---- ending

    async def finish(
        self, *, timeout: float | None = None, token: CancelToken | None = None
    ) -> CloseReport:
        """As ``hardsock.Connection.finish``."""
        value: CloseReport = await self._conn._op_finish(self._hub, timeout=timeout, token=token)
        return value

    def shutdown(self, how: int, /) -> None:
        """shutdown(2) with SHUT_RD, SHUT_WR or SHUT_RDWR; never blocks.

        With TLS, SHUT_WR can wait, so it is a ValueError: await ``close_write()`` instead.
        """
        if how == socket.SHUT_WR and self._conn.tls is not None:
            raise ValueError("shutdown(SHUT_WR) can wait with TLS: await close_write() instead")
        self._conn.shutdown(how)

    async def close_write(
        self, *, timeout: float | None = None, token: CancelToken | None = None
    ) -> None:
        """As ``hardsock.Connection.close_write``; without TLS it never waits."""
        await self._conn._op_close_write(self._hub, timeout=timeout, token=token)

    def cancel_on_end(self, on: bool = True, /) -> None:
        """As ``hardsock.Connection.cancel_on_end``."""
        self._conn.cancel_on_end(on)

    @property
    def state(self) -> Any:
        """As ``hardsock.Connection.state``."""
        return self._conn.state

    @state.setter
    def state(self, value: Any) -> None:
        self._conn.state = value

    # ---- TLS

    async def upgrade_to_tls(
        self,
        config: TLSConfig,
        /,
        *,
        server_name: str | None = None,
        read_ahead: bool = True,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> None:
        """As ``hardsock.Connection.upgrade_to_tls``."""
        await self._conn._op_upgrade_to_tls(
            self._hub,
            config,
            server_name=server_name,
            read_ahead=read_ahead,
            timeout=timeout,
            token=token,
        )

    async def confirm(
        self, *, timeout: float | None = None, token: CancelToken | None = None
    ) -> None:
        """As ``hardsock.Connection.confirm``."""
        await self._conn._op_confirm(self._hub, timeout=timeout, token=token)

    async def request_client_certificate(
        self,
        *,
        required: bool = True,
        wait: bool = True,
        timeout: float | None = None,
        token: CancelToken | None = None,
    ) -> None:
        """As ``hardsock.Connection.request_client_certificate``."""
        await self._conn._op_request_client_certificate(
            self._hub, required=required, wait=wait, timeout=timeout, token=token
        )

    def export_keying_material(
        self, label: str, length: int, /, context: Buffer | None = None
    ) -> bytes:
        """As ``hardsock.Connection.export_keying_material``."""
        return self._conn.export_keying_material(label, length, context)

    def channel_binding(self, kind: Literal["tls-server-end-point", "tls-exporter"], /) -> bytes:
        """As ``hardsock.Connection.channel_binding``."""
        return self._conn.channel_binding(kind)

    @property
    def tls(self) -> TLSInfo | None:
        """What the TLS handshake agreed on, or None."""
        return self._conn.tls

    @property
    def proxy(self) -> Any:
        """As ``hardsock.Connection.proxy``."""
        return self._conn.proxy

    def close(self) -> None:
        """Close; never blocks. Calls in progress raise Closed, in whatever task or thread."""
        self._conn.close()

    async def aclose(self) -> None:
        """``close()``, for ``contextlib.aclosing`` and the like; never waits."""
        self._conn.close()

    def abort(self) -> None:
        """End it for everybody with a reset (RST) to the peer; never blocks."""
        self._conn.abort()

    def detach(self) -> int:
        """Give the descriptor to the caller, who must close it; this object becomes closed."""
        fd = self._conn.detach()
        forget(fd, self._hub)
        return fd

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._conn.close()

    # ---- asking

    def fileno(self) -> int:
        """The descriptor's number, -1 when closed."""
        return self._conn.fileno()

    def getsockname(self) -> Any:
        """Our address, as socket has it."""
        return self._conn.getsockname()

    def getpeername(self) -> Any:
        """The peer's address, as socket has it."""
        return self._conn.getpeername()

    def getsockopt(self, level: int, optname: int, buflen: int = 0, /) -> Any:
        """As ``socket.getsockopt``."""
        return self._conn.getsockopt(level, optname, buflen)

    def setsockopt(self, level: int, optname: int, value: int | Buffer, /) -> None:
        """As ``socket.setsockopt``."""
        self._conn.setsockopt(level, optname, value)

    def set_read_deadline(self, timeout: float | None, /) -> None:
        """End all reading, present and future, *timeout* seconds from now; None: no deadline."""
        self._conn.set_read_deadline(timeout)

    def set_write_deadline(self, timeout: float | None, /) -> None:
        """End all writing, present and future, *timeout* seconds from now; None: no deadline."""
        self._conn.set_write_deadline(timeout)

    def set_half_closed_timeout(self, timeout: float | None, /) -> None:
        """As ``hardsock.Connection.set_half_closed_timeout``."""
        self._conn.set_half_closed_timeout(timeout)

    def set_min_receive_rate(self, bytes_per_second: int | None, /, *, grace: float = 1.0) -> None:
        """As ``hardsock.Connection.set_min_receive_rate``."""
        self._conn.set_min_receive_rate(bytes_per_second, grace=grace)

    def audit(self) -> list[Setting]:
        """List every socket setting: asked, in effect, and what limited it."""
        return self._conn.audit()

    def tcp_info(self) -> dict[str, int]:
        """As ``hardsock.Connection.tcp_info``."""
        return self._conn.tcp_info()

    @property
    def closed(self) -> bool:
        """Whether it was closed here."""
        return self._conn.closed

    @property
    def poisoned(self) -> bool:
        """Whether a direction is unusable after a half-done message."""
        return self._conn.poisoned

    @property
    def write_poisoned(self) -> bool:
        """As ``hardsock.Connection.write_poisoned``."""
        return self._conn.write_poisoned

    @property
    def idle(self) -> bool:
        """As ``hardsock.Connection.idle``."""
        return self._conn.idle

    @property
    def buffered(self) -> int:
        """Bytes received but not yet returned to a caller, those inside of TLS included."""
        return self._conn.buffered

    def _is_quiet(self) -> bool:
        return self._conn._is_quiet()

    def pending(self) -> int:
        """As ``hardsock.Connection.pending``."""
        return self._conn.pending()

    def get_inheritable(self) -> bool:
        """Whether programs that this process starts get the descriptor."""
        return self._conn.get_inheritable()

    def set_inheritable(self, inheritable: bool, /) -> None:
        """As ``hardsock.Connection.set_inheritable``."""
        self._conn.set_inheritable(inheritable)

    @property
    def bytes_received(self) -> int:
        """Bytes received from the kernel so far."""
        return self._conn.bytes_received

    @property
    def bytes_sent(self) -> int:
        """Bytes that the kernel took so far."""
        return self._conn.bytes_sent

    @property
    def created(self) -> float:
        """When it was made, as ``time.monotonic()`` tells time."""
        return self._conn.created

    @property
    def last_read(self) -> float | None:
        """When bytes were last received, by ``time.monotonic()``; None: never."""
        return self._conn.last_read

    @property
    def last_write(self) -> float | None:
        """When bytes were last sent, by ``time.monotonic()``; None: never."""
        return self._conn.last_write

    @property
    def family(self) -> int:
        """AF_INET, AF_INET6 or AF_UNIX."""
        return self._conn.family

    @property
    def type(self) -> int:
        """``socket.SOCK_STREAM``."""
        return socket.SOCK_STREAM

    @property
    def changed_settings(self) -> int:
        """How many settings the kernel silently changed; see ``audit()``."""
        return self._conn.changed_settings

    def __repr__(self) -> str:
        return f"<hardsock.aio.Connection of {self._conn!r}>"


class Frames:
    """An asynchronous iterator over frames, until the peer ends.

    It consumes exactly what it yields. Frames that are buffered already are taken without a turn of
    the event loop.
    """

    __slots__ = ("_conn", "_framing", "_timeout", "_token")

    def __init__(
        self,
        conn: Connection,
        framing: AnyFraming,
        timeout: float | None,
        token: CancelToken | None,
    ) -> None:
        self._conn, self._framing, self._timeout, self._token = conn, framing, timeout, token

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._conn.recv_frame(
                self._framing, timeout=self._timeout, token=self._token
            )
        except EndOfStream:
            raise StopAsyncIteration from None
