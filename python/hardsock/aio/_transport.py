"""asyncio's stream transport over a connection of hardsock, driven by Operations without a task.

Invariants, all in the thread of the loop:
- At most one Operation that receives, and one that sends; each is parked in the Hub, which calls
  back, or none exists.
- Nothing is received while reading is paused, or after the end.
- ``connection_lost`` is called once, and nothing of the protocol after it.
- Operations run in a copy of the context in which the connection was made, without hardsock's scopes:
  a connection in a pool outlives the call that opened it. ``write`` leaves the caller's scope, too.
- What is still to be sent when the transport is closed has `FLUSH_TIMEOUT` seconds.
- What is queued while nothing is being sent is sent before the loop waits again: see `Unsent`.
- A client asks nothing under a scope that has ended, over a connection that it has for itself: see
  `_holds_back`. What is written is sent, or the protocol hears of an error.
- A transport that its owner has closed is closed at the latest with its loop: see `end_with_loop`.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import inspect
import os
import selectors
import socket
import weakref
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from hardsock import _core
from hardsock._core import Hub, Operation
from hardsock._errors import Closed, HardsockError
from hardsock._greenlets import unpatched
from hardsock.aio._connection import Connection
from hardsock.aio._host import loop_ended, tell_scopes
from hardsock.aio._host_scope import HostScope, in_vain, without_scopes

__all__ = ["FLUSH_TIMEOUT", "SocketFace", "Transport", "Unsent", "attached", "end_with_loop"]

_scope = _core.scope

FLUSH_TIMEOUT = 30.0
"""Seconds for what was written before ``close``: a peer that does not read holds nothing for ever."""

_ALONE = 4
"""Times in a row that one piece alone was gathered, until the next is sent at once again."""
_CHUNK = 262144
_HIGH = 65536
_NOBODY, _SEVERAL = object(), object()
_IN_A_ROW = range(8)  # Pieces that one connection receives before the others have their turn.


_WITH_TRANSPORT = "transport" in inspect.signature(asyncio.Server._attach).parameters  # type: ignore[attr-defined]


# Weakly: a transport that nobody has closed is its owner's leak, and shall be seen as one.
_living: weakref.WeakKeyDictionary[Hub, weakref.WeakSet[Transport]] = weakref.WeakKeyDictionary()


def end_with_loop(hub: Hub) -> None:
    """The loop of *hub* is being closed: close what its transports' owners have closed.

    Such a transport still had something to send, a goodbye of TLS to wait for, or the last turn of
    the loop to come. None of that comes any more, and its owner can do nothing about it. One that
    fails keeps none of the others open; the last failure is raised.
    """
    with contextlib.ExitStack() as each:
        for transport in list(_living.get(hub, ())):
            each.callback(transport.end_if_closed)


loop_ended.append(end_with_loop)


def attached(method: Callable[..., None], transport: Transport) -> None:
    """A server counts its connections; from some 3.12 on it knows them."""
    if _WITH_TRANSPORT:
        method(transport)
    else:
        method()


class _Busy:
    """Stands for an Operation that somebody awaits."""

    def close(self) -> None:
        """It ends by itself when the connection is closed."""


class SocketFace:
    """What ``get_extra_info("socket")`` gives: of a socket, all that does not read, write or close."""

    def __init__(self, conn: _core.Connection) -> None:
        self._conn = conn
        self.shared = False

    type = socket.SOCK_STREAM

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET, AF_INET6 or AF_UNIX."""
        return socket.AddressFamily(self._conn.family)

    @property
    def proto(self) -> int:
        """IPPROTO_TCP, or 0 for a unix socket."""
        return 0 if self._conn.family == socket.AF_UNIX else socket.IPPROTO_TCP

    def fileno(self) -> int:
        """The descriptor's number, -1 when closed."""
        return self._conn.fileno()

    def dup(self) -> socket.socket:
        """A socket of the caller's on the same stream, which stays when the transport is closed.

        aiomysql and asyncmy begin TLS in this way.
        """
        number = os.dup(self._conn.fileno())
        self.shared = True
        return socket.socket(self.family, self.type, self.proto, fileno=number)

    def getsockname(self) -> Any:
        """Our address."""
        return self._conn.getsockname()

    def getpeername(self) -> Any:
        """The peer's address."""
        return self._conn.getpeername()

    def getsockopt(self, *args: int) -> Any:
        """getsockopt(2)."""
        return self._conn.getsockopt(*args)

    def setsockopt(self, level: int, optname: int, value: Any) -> None:
        """setsockopt(2)."""
        self._conn.setsockopt(level, optname, value)

    def gettimeout(self) -> float:
        """Zero: as of any socket in an event loop."""
        return 0.0

    def settimeout(self, value: float | None) -> None:
        """Only 0, as of any socket in an event loop."""
        if value != 0:
            raise ValueError("settimeout() takes only 0 here: the event loop waits")

    def setblocking(self, flag: bool) -> None:
        """Only False, as of any socket in an event loop."""
        if flag:
            raise ValueError("setblocking() takes only False here: the event loop waits")

    def __repr__(self) -> str:
        return f"<hardsock.aio.SocketFace of {self._conn!r}>"


if TYPE_CHECKING:
    from selectors import EpollSelector
else:
    EpollSelector = unpatched(selectors, "EpollSelector")


class Unsent(EpollSelector):
    """The selector of a loop; before each wait it sends what the loop's transports have gathered.

    A loop that ends its run does not wait any more: it calls `send_all` itself.

    Once there is a Hub it is waited in that one's set, where the selector's own set, with all that is
    not hardsock's, is one more descriptor: what is hardsock's costs one call of the kernel, and not two.
    """

    def __init__(self) -> None:
        super().__init__()
        self.turn = 0  # how often the loop has waited
        self.transports: collections.deque[Transport] = collections.deque()
        self._hub: Hub | None = None
        self._due: list[tuple[selectors.SelectorKey, int]] = []  # What says that the Hub is to run.

    def wait_in(self, hub: Hub) -> None:
        """Wait in the set of *hub*, which is registered; where the kernel refuses, as before."""
        due = [(self.get_key(hub), selectors.EVENT_READ)]
        with contextlib.suppress(OSError):
            hub.take_others(self.fileno())
            self._hub, self._due = hub, due

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """As ever."""
        key = super().unregister(fileobj)
        if self._due and key is self._due[0][0]:
            self._leave_hub().leave_others(self.fileno())
        return key

    def _leave_hub(self) -> Hub:
        hub, self._hub, self._due = self._hub, None, []
        assert hub is not None
        return hub

    def close(self) -> None:
        """As ever."""
        self._hub, self._due = None, []
        super().close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As ever; it does not wait if somebody was told meanwhile, who may have plans."""
        self.turn += 1
        if self.transports and not self.send_all():
            timeout = 0
        hub = self._hub
        ready = hub.wait(timeout) if hub is not None else None
        if ready is None:
            return super().select(timeout)
        if ready < 2:
            return self._due if ready else []
        found = super().select(0)
        return found + self._due if ready == 3 else found

    def send_all(self) -> bool:
        """Send it all, as far as the kernel takes it; whether nobody had to be told."""
        calm = True
        while self.transports:
            calm = self.transports.popleft().flush() and calm
        return calm


class Transport(asyncio.Transport):
    """See the module."""

    _start_tls_compatible = True
    _extra: dict[str, Any]
    _closing = False
    _held = b""  # What was asked in vain.
    _end_of_asker: HardsockError  # Who wrote it.
    _shared = False  # Seen to be asked over by several at a time.
    _asker: object = _NOBODY  # The scope of what was written since something has arrived.

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hub: Hub,
        conn: _core.Connection,
        protocol: asyncio.BaseProtocol,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
    ) -> None:
        super().__init__(extra)
        self._unsent: Any = getattr(loop, "unsent", None)
        self._gathers = False
        self._turn = -1  # of the last piece that was sent at once
        self._alone = 0
        self._loop, self._hub, self._conn, self._server = loop, hub, conn, server
        self._context = contextvars.copy_context()
        self._context.run(without_scopes)
        self._extra.update(socket=SocketFace(conn))
        self._begin_recv, self._begin_sendall = conn._op_recv, conn._op_sendall
        self._reading: Operation | None = None
        self._sending: Operation | _Busy | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._in_flight = 0
        self._queue: collections.deque[bytes] = collections.deque()
        self._queued = 0
        self._high, self._low = _HIGH, _HIGH // 4
        self._may_write = True
        self._paused = self._closing = self._lost = self._ended = self._eof_wanted = False
        self.set_protocol(protocol)
        if server is not None:
            attached(server._attach, self)
        living = _living.get(hub)
        if living is None:
            living = _living[hub] = weakref.WeakSet()
        living.add(self)

    # ---- beginning

    def begin(self, waiter: asyncio.Future[Any] | None = None) -> None:
        """Tell the protocol, begin to read, then wake *waiter*."""
        self._loop.call_soon(self._made, waiter, context=self._context)

    def _made(self, waiter: asyncio.Future[Any] | None) -> None:
        self._protocol.connection_made(self)
        if not self._paused and not self._closing:
            self._receive()
        if waiter is not None and not waiter.cancelled():
            waiter.set_result(None)

    def go_on(self) -> None:
        """Begin to read for a protocol that knows it is connected."""
        self._loop.call_soon(self._receive_again, None, context=self._context)

    def fail(self, exc: OSError) -> None:
        """Somebody else has read, and met this: the connection is closed, the protocol told later."""
        self._conn.close()
        self._schedule_end(exc)

    def give_up(self, exc: BaseException | None) -> None:
        """End what has not begun: the protocol is told in a later turn."""
        self._schedule_end(exc)

    def take_place(self, former: Transport, server: Any) -> None:
        """Be the one that *server* counts instead; it may have been closed meanwhile."""
        self._server = server
        if server is not None and _WITH_TRANSPORT:  # Else it has a number only, which stays.
            server._clients.discard(former)
            server._clients.add(self)

    def add_info(self, **extra: Any) -> None:
        """What ``get_extra_info`` gives from now on."""
        self._extra.update(extra)

    def leave(self) -> tuple[_core.Connection, Any]:
        """Give the connection and its server to another transport: nothing is called back here."""
        if self._held and not self._asks_in_vain():
            self._let_go()
        if self._held:
            raise self._end_of_asker  # What it wants to begin would be in vain, too.
        self.flush()
        if self._closing or self._sending is not None:
            raise RuntimeError("the transport is closing, or has not sent everything yet")
        self._stop_reading()
        self._closing = self._lost = True
        server, self._server = self._server, False
        return self._conn, server

    # ---- the protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See ``asyncio.BaseTransport``."""
        self._protocol: Any = protocol
        self._deliver: Callable[[bytes], None]
        if isinstance(protocol, asyncio.BufferedProtocol):
            self._deliver = self._deliver_into_buffers
        else:
            self._deliver = protocol.data_received  # type: ignore[attr-defined]

    def get_protocol(self) -> asyncio.BaseProtocol:
        """See ``asyncio.BaseTransport``."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def _deliver_into_buffers(self, data: bytes) -> None:
        view = memoryview(data)
        protocol = self._protocol
        while view and not self._lost:
            buffer = protocol.get_buffer(len(view))
            size = min(len(buffer), len(view))
            if not size:
                raise RuntimeError("get_buffer() returned an empty buffer")
            buffer[:size] = view[:size]
            protocol.buffer_updated(size)
            view = view[size:]

    # ---- receiving

    def _receive(self, operation: Operation | None = None) -> None:
        """Take what is there, up to a few pieces, and park for more."""
        self._reading = None
        begin, hub = self._begin_recv, self._hub
        try:
            for _ in _IN_A_ROW:
                if operation is None:
                    operation = begin(hub, _CHUNK)
                ended = operation.step()
                if not ended:
                    if ended is None:
                        break
                    operation.add_done_callback(self._receive, context=self._context)
                    self._reading = operation
                    return
                data = operation.value()
                operation = None
                if self._sending is None and not self._queue:
                    self._asker = _NOBODY  # Else it answers nothing that is still to be sent.
                if not data:
                    self._at_end()
                    return
                try:
                    self._deliver(data)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as exc:
                    self._fail(exc, "an error in data_received()")
                    return
                if self._paused or self._closing:
                    return
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._break(exc, "a receive failed")
            return
        self._loop.call_soon(self._receive_again, operation, context=self._context)

    def _receive_again(self, operation: Operation | None) -> None:
        if self._reading is None and not (self._paused or self._closing or self._ended):
            self._receive(operation)
        elif operation is not None:
            operation.close()

    def _stop_reading(self) -> None:
        operation, self._reading = self._reading, None
        if operation is not None:
            operation.close()  # Nothing that has arrived is lost.

    def _at_end(self) -> None:
        self._ended = True
        try:
            keep_open = self._protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fail(exc, "an error in eof_received()")
            return
        if not keep_open:
            self.close()

    def pause_reading(self) -> None:
        """See ``asyncio.ReadTransport``."""
        if not (self._closing or self._paused):
            self._paused = True
            self._stop_reading()

    def resume_reading(self) -> None:
        """See ``asyncio.ReadTransport``."""
        if self._closing or not self._paused:
            return
        self._paused = False
        if not self._ended and self._reading is None:
            self._loop.call_soon(self._receive_again, None, context=self._context)

    def is_reading(self) -> bool:
        """See ``asyncio.ReadTransport``."""
        return not (self._closing or self._paused)

    # ---- sending

    def write(self, data: Any) -> None:
        """See ``asyncio.WriteTransport``; it never waits.

        It is tried at once, unless the connection's owner uses to write more than one piece before
        the loop waits again. Those are sent as one: a head and its body are one segment, and one
        call of the kernel.
        """
        if type(data) is not bytes:
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise TypeError(
                    "data must be a bytes-like object, not "  # The words of asyncio.
                    f"{type(data).__name__!r}"
                )
            data = bytes(data)
        if self._eof_wanted:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._lost or not data:
            return
        scope = _scope.get()
        # Most scopes live: then nothing is held back, and nothing was.
        if (self._held or (scope is not None and scope.cancelled)) and self._holds_back(data):
            return
        if self._asker is not scope:
            self._asker = scope if self._asker is _NOBODY else _SEVERAL
        if not self._queue and self._sending is None:
            if self._gathers:
                self._unsent.transports.append(self)
            else:
                if self._unsent is not None:
                    turn = self._unsent.turn
                    # As it was for the piece before: from now on they are gathered.
                    self._gathers = turn == self._turn
                    self._turn = turn
                if not self._send(data):
                    self._maybe_pause()
                return
        self._queue.append(data)
        self._queued += len(data)
        if self._sending is None and self._queued > self._high:
            self._send_queued()
        if self._sending is not None:
            self._maybe_pause()

    def _holds_back(self, data: bytes) -> bool:
        """Whether *data* waits: its client's scope has ended, and the task has not heard of it.

        A write waits for nothing that would end with the scope, and what it raised a library would
        take for a fault of the connection. So the bytes are held; the task hears of the end where it
        waits next; and then the connection is lost, as of any call that was given up. What a server
        writes is an answer, which may be late.

        Others who ask over the connection, too, lose nothing by it: what they write lets go what is held,
        in its order, and while one of them may wait for an answer nothing is held at all.
        """
        ended = self._asks_in_vain()
        if not ended:
            self._let_go()
            return False
        if self._asker is not _NOBODY and not any(self._asker is one.token for one in ended):
            self._shared = True
            self._let_go()
            return False
        self._held += data
        for one in ended:
            one.tell_when_heard(self._lose_held)
        return True

    def _asks_in_vain(self) -> list[HostScope]:
        token = _scope.get()
        if token is None or self._shared or self._server is not None:
            return []
        try:
            token.check()
        except HardsockError as exc:
            self._end_of_asker = exc.with_traceback(None)
            return in_vain(self._hub)
        return []

    def _let_go(self) -> None:
        """Send what is held: somebody else asks over the connection, too."""
        held, self._held = self._held, b""
        if held:
            self._shared = True
            self.write(held)

    def _lose_held(self) -> None:
        """The task is being told: it shall find the connection lost when it has its next step.

        The protocol hears in the next turn of the loop, before that step; through asyncio's TLS, which
        hands it on a turn later, unless it begins now.
        """
        if not self._held:
            return
        error = self._end_of_asker
        self._fail(error)
        if self._above() is not None:
            self._context.run(self._end, error)

    def flush(self) -> bool:
        """Send what was written since the loop has waited; whether nobody had to be told."""
        queue = self._queue
        if self._lost or self._sending is not None or not queue:
            return True
        if len(queue) > 1:
            self._alone = 0
        else:
            self._alone += 1
            self._gathers = self._alone < _ALONE
        if not self._may_write or self._closing or self._eof_wanted or self._waiters:
            self._send_queued()
            return False
        data = b"".join(queue)
        queue.clear()
        self._queued = 0
        self._send(data)
        return not self._lost

    def writelines(self, list_of_data: Any) -> None:
        """See ``asyncio.WriteTransport``."""
        self.write(b"".join(list_of_data))

    def _send(self, data: bytes) -> bool:
        """Whether the kernel has taken all of it; nothing else is being sent."""
        try:
            if _scope.get() is None:
                operation = self._begin_sendall(self._hub, data)
            else:  # The caller's time limit is for the caller, not for the connection.
                with _core.ContextValue(_scope, None):
                    operation = self._begin_sendall(self._hub, data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._break(exc, "a send failed")
            return True
        return self._step_sending(operation, len(data))

    def _step_sending(self, operation: Operation, size: int) -> bool:
        try:
            ended = operation.step()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._sending = None
            self._in_flight = 0
            self._break(exc, "a send failed")
            return True
        if ended:
            self._sending = None
            self._in_flight = 0
            return True
        self._sending, self._in_flight = operation, size
        if ended is None:
            self._loop.call_soon(self._go_on_sending, operation, context=self._context)
        else:
            operation.add_done_callback(self._go_on_sending, context=self._context)
        return False

    def _go_on_sending(self, operation: Operation) -> None:
        if self._lost or operation is not self._sending:
            return
        self._step_sending(operation, self._in_flight)
        self._send_queued()

    def _send_queued(self) -> None:
        while self._waiters and (self._sending is None or self._lost):
            waiter = self._waiters.pop()
            if not waiter.done():
                waiter.set_result(None)
        while self._sending is None and self._queue and not self._lost:
            data = b"".join(self._queue)
            self._queue.clear()
            self._queued = 0
            self._send(data)
        if not self._lost:
            self._maybe_resume()
        if self._sending is None and not self._lost:
            self._sent()

    def _sent(self) -> None:
        """All that was written is with the kernel."""
        if self._eof_wanted and not self._closing:
            self._shut()
        if self._closing:
            self._end_soon()

    async def sendfile(self, file: IO[bytes], offset: int, count: int | None) -> int:
        """Send a file behind what was written, by sendfile(2) where that can be.

        Raises:
            RuntimeError: The transport is closing, or sends a file already.
        """
        if self._closing or self._eof_wanted:
            raise RuntimeError("the transport is closing")
        if self._held:
            if self._asks_in_vain():  # Until the task hears of it.
                raise RuntimeError("the transport is closing: the scope around has ended")
            self._let_go()
        self.flush()
        while isinstance(self._sending, Operation):
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter
        if self._sending is not None or self._closing:
            raise RuntimeError("the transport is closing, or sends another file")
        token = _scope.get()
        if token is not None and token.wait(0):  # The connection stays: nothing of it is sent.
            tell_scopes()
            token.check()
        if self._asker is not token:
            self._asker = token if self._asker is _NOBODY else _SEVERAL
        self._sending = _Busy()
        try:
            return await Connection(self._conn).sendfile(file, offset, count)
        except (OSError, HardsockError) as exc:
            self._fail(exc)
            raise
        finally:
            self._sending = None
            if not self._lost:
                self._send_queued()

    def write_eof(self) -> None:
        """See ``asyncio.WriteTransport``."""
        if self._closing or self._eof_wanted:
            return
        if self._held:
            if self._asks_in_vain():
                return
            self._let_go()
        self._eof_wanted = True
        if self._queue:
            self.flush()
        elif self._sending is None:
            self._shut()

    def _shut(self) -> None:
        try:
            self._conn.shutdown(socket.SHUT_WR)
        except (OSError, HardsockError) as exc:
            self._fail(exc)

    def can_write_eof(self) -> bool:
        """Without TLS."""
        return self._conn.tls is None

    # ---- flow control

    def _maybe_pause(self) -> None:
        if self._may_write and self.get_write_buffer_size() > self._high:
            self._may_write = False
            self._call(self._protocol.pause_writing, "pause_writing")

    @property
    def _protocol_paused(self) -> bool:
        """What asyncio's TLS of Python 3.10 looks at."""
        return not self._may_write

    def _maybe_resume(self) -> None:
        if not self._may_write and self.get_write_buffer_size() <= self._low:
            self._may_write = True
            self._call(self._protocol.resume_writing, "resume_writing")

    def _call(self, function: Callable[[], Any], name: str) -> None:
        try:
            function()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._report(exc, f"protocol.{name}() failed")

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has not taken, or not all of them."""
        return self._queued + self._in_flight + len(self._held)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """See ``asyncio.WriteTransport``."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See ``asyncio.WriteTransport``."""
        if high is None:
            high = _HIGH if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self._maybe_pause()

    # ---- ending

    def is_closing(self) -> bool:
        """See ``asyncio.BaseTransport``."""
        return self._closing

    def close(self) -> None:
        """See ``asyncio.BaseTransport``: what was written is sent first, for a while."""
        if self._closing:
            return
        self._closing = True
        self._held = b""  # Who wrote it is told that its scope has ended.
        self._stop_reading()
        if self._queue:
            self.flush()
        elif self._sending is None:
            self._end_soon()
        if self._sending is not None and not self._lost:
            self._conn.set_write_deadline(FLUSH_TIMEOUT)

    def _end_soon(self) -> None:
        self._lost = True  # As asyncio has it: what is written from now on is not sent.
        self._loop.call_soon(self._end, None, context=self._context)

    def abort(self) -> None:
        """See ``asyncio.WriteTransport``: a reset."""
        self._conn.abort()
        self._schedule_end(None)

    def _force_close(self, exc: BaseException | None) -> None:
        """What asyncio's TLS ends a transport with."""
        self._conn.close()
        self._schedule_end(exc)

    def _fail(self, exc: BaseException, what: str | None = None) -> None:
        """The connection is of no more use; *what* was a fault of the protocol."""
        if what is not None:
            self._report(exc, what)
        self._schedule_end(None if isinstance(exc, Closed) and self._closing else exc)

    def _break(self, exc: BaseException, what: str) -> None:
        """A call has raised: with what it has lost (want of memory) the stream would have a gap."""
        self._fail(exc, None if isinstance(exc, (OSError, HardsockError)) else what)

    def _report(self, exc: BaseException, what: str) -> None:
        self._loop.call_exception_handler(
            {"message": what, "exception": exc, "transport": self, "protocol": self._protocol}
        )

    def _schedule_end(self, exc: BaseException | None) -> None:
        if self._lost:
            return
        self._closing = True
        self._stop_reading()
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.close()
        self._queue.clear()
        self._held = b""
        self._queued = self._in_flight = 0
        self._loop.call_soon(self._end, exc, context=self._context)
        self._lost = True
        self._send_queued()

    def _end(self, exc: BaseException | None) -> None:
        if self._server is False:
            return
        self._lost = True
        server, self._server = self._server, False
        try:
            self._protocol.connection_lost(exc)
        finally:
            self._close_connection()
            if server is not None:
                attached(server._detach, self)

    def _close_connection(self) -> None:
        if self._extra["socket"].shared and not self._conn.closed:
            os.close(Connection(self._conn).detach())  # close() would shut the stream down.
        else:
            self._conn.close()

    def __del__(self) -> None:
        # Its owner has closed it, and the loop's turn that was to end it has not come.
        if self._closing and self._server is not False:
            self._close_connection()

    def _above(self) -> Any:
        """The transport of asyncio's TLS over this one."""
        return getattr(self._protocol, "_app_transport", None)

    def end_if_closed(self) -> None:
        """Close the connection if the owner has closed the transport, or the one of TLS above it."""
        above = self._above()
        closed = self._closing or (above is not None and above.is_closing())
        if closed and self._server is not False:
            self._close_connection()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See ``asyncio.BaseTransport``; also ``"hardsock"``, the connection."""
        if name in ("peername", "sockname") and name not in self._extra:
            try:
                value = self._conn.getpeername() if name == "peername" else self._conn.getsockname()
            except OSError:
                return default
            self._extra[name] = value
        if name == "hardsock":
            return self._conn
        return self._extra.get(name, default)

    def __repr__(self) -> str:
        state = "closed" if self._lost else "closing" if self._closing else "open"
        return f"<hardsock.aio.Transport {state} of {self._conn!r}>"
