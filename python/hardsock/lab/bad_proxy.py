"""A TCP proxy that misbehaves: for services on machines that allow no namespaces.

    with BadProxy(("127.0.0.1", 6379), latency=0.1) as proxy:
        client = redis.Redis(*proxy.address, socket_timeout=1)
        proxy.stall()  # connections stay open, nothing comes through any more

It handles two streams of bytes, one to each side, so it is honest about what it is not: it cannot
lose, copy or reorder a packet, and it has answered a client's SYN before it knows the server. Use
`hardsock.lab.Wire` for those.
"""

from __future__ import annotations

import math
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, Literal

from hardsock.lab.endpoint import Address, address_of, listen

__all__ = ["BadProxy", "Behaviour"]

TLSPoint = Literal["client_hello", "server_hello", "after_server_hello"]
Way = Literal["up", "down", "both"]

_CHUNK = 65536
_MOST_WAITING = 1 << 20
_RESET = struct.pack("ii", 1, 0)
_TLS_HANDSHAKE = 22
_TLS_HEAD = 5


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What happens to the bytes of one direction. Times in seconds.

    Attributes:
        latency: How long each byte is kept.
        rate: Bytes a second; 0: no limit.
        slice: At most so many bytes are sent at once, with *slice_gap* between; 0: as they come.
        slice_gap: Seconds between two slices.
        stalled: Nothing is passed on, and soon nothing more is read: the connection stays open.
        cut_after: After so many bytes of a connection both sides see its end (FIN).
        reset_after: The same, by a reset.
        tls_stall: Stall there: before the client's or the server's first record is passed on, or
            behind the server's. What is no TLS passes.
    """

    latency: float = 0.0
    rate: float = 0.0
    slice: int = 0
    slice_gap: float = 0.0
    stalled: bool = False
    cut_after: int | None = None
    reset_after: int | None = None
    tls_stall: TLSPoint | None = None

    def __post_init__(self) -> None:
        for name in ("latency", "rate", "slice", "slice_gap"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be a number and not negative, got {value!r}")
        for name in ("cut_after", "reset_after"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be negative, got {value!r}")
        if self.cut_after is not None and self.reset_after is not None:
            raise ValueError("cut_after and reset_after contradict each other")
        if self.slice_gap and not self.slice:
            raise ValueError("slice_gap without slice: there are no pieces to pause between")
        points = ("client_hello", "server_hello", "after_server_hello")
        if self.tls_stall is not None and self.tls_stall not in points:
            raise ValueError(
                f"tls_stall must be one of {', '.join(points)}, got {self.tls_stall!r}"
            )


class _Stream:
    """One direction of one connection."""

    def __init__(self, is_up: bool, source: socket.socket, sink: socket.socket) -> None:
        self.is_up, self.source, self.sink = is_up, source, sink
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.passed = 0
        self.ended = False
        self.end_told = False
        self.free = 0.0
        self.head = b""
        self.is_blocked = False

    def may_read(self, how: Behaviour) -> bool:
        return not self.ended and self.size < (1 if how.stalled else _MOST_WAITING)

    def put(self, data: bytes, how: Behaviour, now: float) -> None:
        due = now + how.latency
        if self.waiting:
            due = max(due, self.waiting[-1][0])
        self.waiting.append((due, data))
        self.size += len(data)
        if len(self.head) < _TLS_HEAD:
            self.head = (self.head + data)[:_TLS_HEAD]

    def allowed(self, how: Behaviour) -> int:
        """How many bytes may pass at most by what is to happen to the connection."""
        if how.stalled:
            return 0
        most = [_CHUNK]
        for limit in (how.cut_after, how.reset_after):
            if limit is not None:
                most.append(limit - self.passed)
        most.append(self._by_tls(how))
        if how.slice:
            most.append(how.slice)
        return max(0, min(most))

    def _by_tls(self, how: Behaviour) -> int:
        point = how.tls_stall
        if point is None or (point == "client_hello") != self.is_up:
            return _CHUNK
        if self.head and self.head[0] != _TLS_HANDSHAKE:
            return _CHUNK
        if point != "after_server_hello":
            return 0
        if len(self.head) < _TLS_HEAD:
            return _TLS_HEAD - self.passed
        return _TLS_HEAD + int.from_bytes(self.head[3:5], "big") - self.passed

    def next_due(self, how: Behaviour) -> float:
        """When something may be sent; inf: not before something else happens."""
        if not self.waiting or self.allowed(how) == 0:
            return math.inf
        return max(self.waiting[0][0], self.free)

    def send(self, how: Behaviour, now: float) -> None:
        """Send a piece that is due. Raises OSError when its sink is gone."""
        data = self.waiting[0][1]
        try:
            sent = self.sink.send(data[: self.allowed(how)], socket.MSG_NOSIGNAL)
        except BlockingIOError:
            self.is_blocked = True
            return
        due, _ = self.waiting.popleft()
        if sent < len(data):
            self.waiting.appendleft((due, data[sent:]))
        self.size -= sent
        self.passed += sent
        pause = sent / how.rate if how.rate else 0.0
        self.free = max(self.free, now) + max(pause, how.slice_gap)

    def is_over(self, how: Behaviour) -> bool:
        limits = [one for one in (how.cut_after, how.reset_after) if one is not None]
        return any(self.passed >= limit for limit in limits)


class _Pair:
    """A connection: the client's socket, ours to the server, and both directions."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.sockets = (client, server)
        self.up = _Stream(True, client, server)
        self.down = _Stream(False, server, client)
        self.connected = False

    def close(self, *, by_reset: bool = False) -> None:
        for sock in self.sockets:
            if by_reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()


def _to_server(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)


class _Order:
    """Something for the thread to do. It is done, or has failed, once ``over`` is set."""

    def __init__(self, what: Callable[[], None]) -> None:
        self.what = what
        self.over = threading.Event()
        self.failure: BaseException | None = None

    def obey(self) -> None:
        try:
            self.what()
        except Exception as exc:
            self.failure = exc
        finally:
            self.over.set()

    def refuse(self, failure: BaseException) -> None:
        self.failure = failure
        self.over.set()


class BadProxy:
    """Listens on loopback and passes connections on to *target*, badly, in threads of its own.

    Args:
        target: Where the real server is: (host, port).
        host: Where to listen.
        behaviour: Of both directions, as for `Behaviour`: ``latency=0.1, slice=1``. `set` gives
            them different ones; up is towards the server.

    Raises:
        ValueError: A behaviour that makes no sense; the message names it.
    """

    def __init__(
        self, target: tuple[str, int], *, host: str = "127.0.0.1", **behaviour: Any
    ) -> None:
        self.target = target
        both = Behaviour(**behaviour)
        self._how = {"up": both, "down": both}
        self._host = host
        self._lock = threading.Lock()
        self._asked: deque[_Order] = deque()  # guarded by the lock, as are the next two
        self._runs = False
        self._failure: BaseException | None = None
        self._pairs: dict[_Pair, None] = {}
        self._accepted = 0
        self._passed = {"up": 0, "down": 0}
        self._listener: socket.socket | None = None
        self._stopping = False

    def __enter__(self) -> BadProxy:
        self._listener = listen(self._host)
        self._listener.setblocking(False)
        self._address = address_of(self._listener)
        self._ring, self._rung = socket.socketpair()
        for end in (self._ring, self._rung):
            end.setblocking(False)
        self._runs = True
        self._thread = threading.Thread(target=self._run, name="bad-proxy", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections and the proxy. Safe to call twice."""
        if self._listener is None or self._stopping:
            return
        self._stopping = True
        self._wake()
        self._thread.join()
        self._ring.close()
        self._rung.close()
        self._listener.close()

    @property
    def address(self) -> Address:
        """Where clients connect: (host, port)."""
        return self._address

    @property
    def accepted(self) -> int:
        """How many connections there were."""
        return self._accepted

    @property
    def passed(self) -> dict[str, int]:
        """Bytes passed on, ``"up"`` and ``"down"``, over all connections."""
        return dict(self._passed)

    def set(self, way: Way = "both", **changes: Any) -> None:
        """Change the behaviour of *way*, also of connections that are open.

        Raises:
            ValueError: It makes no sense; nothing has changed.
            RuntimeError: The proxy does not run: it has not begun, is closed, or has failed, with
                what it failed with as the cause. The same is true of the calls below.
        """
        if way not in ("up", "down", "both"):
            raise ValueError(f"way must be 'up', 'down' or 'both', got {way!r}")
        unknown = changes.keys() - {one.name for one in fields(Behaviour)}
        if unknown:
            raise ValueError(f"there is no behaviour {sorted(unknown)[0]!r}")
        ways = ("up", "down") if way == "both" else (way,)
        changed = {one: Behaviour(**{**vars(self._how[one]), **changes}) for one in ways}
        self._do(lambda: self._how.update(changed))

    def stall(self, way: Way = "both") -> None:
        """Pass nothing on any more; connections stay open."""
        self.set(way, stalled=True)

    def go_on(self, way: Way = "both") -> None:
        """End a stall, also one in a TLS handshake: what waited is passed on."""
        self.set(way, stalled=False, tls_stall=None)

    def cut(self) -> None:
        """End all connections that are open, as a server that goes away does (FIN)."""
        self._do(lambda: self._end_all(by_reset=False))

    def reset(self) -> None:
        """Reset all connections that are open."""
        self._do(lambda: self._end_all(by_reset=True))

    def refuse(self) -> None:
        """Refuse connects from now on; open connections go on."""

        def stop_listening() -> None:
            assert self._listener is not None
            if self._listener.fileno() >= 0:
                self._listener.close()

        self._do(stop_listening)

    # ---- the thread

    def _do(self, what: Callable[[], None]) -> None:
        """Have the proxy's thread do it, and wait until it is done.

        The thread obeys, or refuses, every order that it was given while it ran.
        """
        order = _Order(what)
        with self._lock:
            if not self._runs:
                raise self._stopped()
            self._asked.append(order)
            self._wake()
        order.over.wait()
        if order.failure is not None:
            try:
                raise order.failure
            finally:
                order.failure = None  # Its traceback has this frame: a cycle.

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # It has been woken very often already.
            self._ring.send(b"x")

    def _stopped(self) -> RuntimeError:
        stopped = RuntimeError("the proxy does not run: use it within its with block")
        if self._failure is not None:
            stopped = RuntimeError(f"the proxy has failed: {self._failure!r}")
            stopped.__cause__ = self._failure
        return stopped

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._go_round()
        except BaseException as exc:
            self._failure = exc
            raise
        finally:
            with self._lock:
                self._runs = False
                left = list(self._asked)
                self._asked.clear()
            try:  # Who hears that it has failed finds it so.
                if self._failure is not None and self._listener is not None:
                    self._listener.close()  # Clients are refused; they would wait for ever.
                self._end_all(by_reset=False)
            finally:
                for order in left:
                    order.refuse(self._stopped())

    def _go_round(self) -> None:
        # One of poll(2): it needs no descriptor, of which there may be none.
        with selectors.PollSelector() as selector:
            timeout = self._register(selector)
            ready = selector.select(timeout)
        for key, events in ready:
            key.data(events)
        self._obey()
        self._send_due()

    def _register(self, selector: selectors.BaseSelector) -> float | None:
        due = math.inf
        selector.register(self._rung, selectors.EVENT_READ, self._drain)
        assert self._listener is not None
        if self._listener.fileno() >= 0:
            selector.register(self._listener, selectors.EVENT_READ, self._accept)
        for pair in self._pairs:
            wanted = dict.fromkeys(pair.sockets, 0)
            for stream, how in self._streams(pair):
                if stream.may_read(how) and (pair.connected or stream.is_up):
                    wanted[stream.source] |= selectors.EVENT_READ
                if stream.is_blocked or (stream.is_up and not pair.connected):
                    wanted[stream.sink] |= selectors.EVENT_WRITE
                else:
                    due = min(due, stream.next_due(how))
            for sock, events in wanted.items():
                if events:
                    selector.register(sock, events, self._event(pair, sock))
        return None if due == math.inf else max(0.0, due - time.monotonic())

    def _streams(self, pair: _Pair) -> list[tuple[_Stream, Behaviour]]:
        return [(pair.up, self._how["up"]), (pair.down, self._how["down"])]

    def _drain(self, _events: int) -> None:
        self._rung.recv(_CHUNK)

    def _obey(self) -> None:
        while True:
            with self._lock:
                if not self._asked:
                    return
                order = self._asked.popleft()
            order.obey()

    def _accept(self, _events: int) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # It is gone again, or there are no descriptors: the next one may have luck.
        try:
            server = _to_server(self.target[0])
        except OSError:
            client.close()  # As a proxy without descriptors does.
            return
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.connect_ex(self.target)
        self._accepted += 1
        self._pairs[_Pair(client, server)] = None

    def _event(self, pair: _Pair, sock: socket.socket) -> Callable[[int], None]:
        def happened(events: int) -> None:
            if pair not in self._pairs:
                return
            try:
                self._look(pair, sock, events)
            except OSError:
                self._end(pair, by_reset=True)

        return happened

    def _look(self, pair: _Pair, sock: socket.socket, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            if sock is pair.sockets[1] and not pair.connected:
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, "connect")
                pair.connected = True
            for stream, _ in self._streams(pair):
                if stream.sink is sock:
                    stream.is_blocked = False
        if events & selectors.EVENT_READ:
            for stream, how in self._streams(pair):
                if stream.source is sock and stream.may_read(how):
                    data = sock.recv(_CHUNK)
                    stream.ended = not data
                    if data:
                        stream.put(data, how, time.monotonic())

    def _send_due(self) -> None:
        for pair in list(self._pairs):
            try:
                self._send_some(pair)
            except OSError:
                self._end(pair, by_reset=True)

    def _send_some(self, pair: _Pair) -> None:
        for name, (stream, how) in zip(("up", "down"), self._streams(pair), strict=True):
            if not pair.connected:
                continue
            now = time.monotonic()
            before = stream.passed
            while not stream.is_blocked and stream.next_due(how) <= now:
                stream.send(how, now)
            self._passed[name] += stream.passed - before
            if stream.is_over(how):
                self._end(pair, by_reset=how.reset_after is not None)
                return
            if stream.ended and not stream.waiting and not stream.end_told and not how.stalled:
                stream.end_told = True
                stream.sink.shutdown(socket.SHUT_WR)
        if pair.up.end_told and pair.down.end_told:
            self._end(pair, by_reset=False)

    def _end(self, pair: _Pair, *, by_reset: bool) -> None:
        if pair in self._pairs:
            del self._pairs[pair]
            pair.close(by_reset=by_reset)

    def _end_all(self, *, by_reset: bool) -> None:
        for pair in list(self._pairs):
            self._end(pair, by_reset=by_reset)
