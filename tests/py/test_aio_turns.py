"""What opens a connection on hardsock's loop is ended at every turn of the loop, and loses nothing.

The loop is stepped: after its k-th turn the task is cancelled, its scope is cancelled, or the scope's
deadline passes, for k = 0, 1, 2 and so on until it was too late. No clock is in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock import aio
from hardsock.aio import loop as hsloop
from hardsock.aio import streams
from support.pki import make_authority

pytestmark = pytest.mark.usefixtures("event_loops")

LATE = 30.0
TURNS = 200  # More than any of them has.
SILENT_TURNS = 14  # By then it waits for the peer.


@dataclass
class Ways:
    """What a client asks TLS with, and the addresses of a server with TLS and of one without."""

    ssl: ssl.SSLContext
    hardsock: hs.TLSConfig
    tls: tuple[str, int]
    plain: tuple[str, int]
    silent: tuple[str, int]
    unix: str


class Peers:
    """Servers of the standard library: each connection is shaken hands with, and held to its end."""

    def __init__(self, context: ssl.SSLContext, path: str) -> None:
        self._context = context
        self._stopping = False
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.tls, self.plain = (socket.create_server(("127.0.0.1", 0), backlog=64) for _ in "ab")
        self.silent = socket.create_server(("127.0.0.1", 0), backlog=1024)  # accepts nobody
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(path)
        self.unix.listen(64)
        for listener in (self.tls, self.plain, self.unix):
            self._start(self._accept, listener, listener is self.tls)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket, tls: bool) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                sock.settimeout(LATE)
                self._start(self._serve, sock, tls)

    def _serve(self, sock: socket.socket, tls: bool) -> None:
        with contextlib.suppress(OSError, ValueError):
            if not tls:  # StartTLS: the client says a byte first, if it wants any.
                tls = sock.recv(1) == b"T"
                if tls:
                    sock.sendall(b"T")
            if tls:
                sock = self._context.wrap_socket(
                    sock, server_side=True, do_handshake_on_connect=False
                )
                sock.do_handshake()
            while sock.recv(1000):
                pass
        sock.close()

    def close(self) -> None:
        for listener in (self.tls, self.plain, self.unix, self.silent):
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in self._threads:
            thread.join(LATE)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    authority = make_authority(tmp_path_factory.mktemp("pki"), "ca")
    identity = authority.issue(file="server")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(identity.certificate, identity.key)
    asking = ssl.create_default_context(cafile=str(authority.certificate))
    return serving, asking, hs.TLSConfig(ca=authority.certificate)


@pytest.fixture
def ways(contexts: tuple[Any, Any, Any], tmp_path: Path) -> Iterator[Ways]:
    serving, asking, config = contexts
    peers = Peers(serving, str(tmp_path / "peer"))
    try:
        yield Ways(
            asking,
            config,
            peers.tls.getsockname(),
            peers.plain.getsockname(),
            peers.silent.getsockname(),
            peers.unix.getsockname(),
        )
    finally:
        peers.close()


class Stepped(hsloop.EventLoop):
    """Calls *act* after the turn number *at*; *restless*: no turn of it waits for anything."""

    def __init__(self, at: int, act: Callable[[], object], *, restless: bool) -> None:
        super().__init__()
        self._left, self._act, self._restless = at, act, restless
        self.acted = False

    def _run_once(self) -> None:
        if not self._left and not self.acted:
            self.acted = True
            self._act()
        self._left -= 1
        if self._restless:
            self.call_soon(lambda: None)
        super()._run_once()  # type: ignore[misc]


Opened = Callable[[Ways, Any, tuple[str, int]], Awaitable[Any]]
_HOST = "127.0.0.1"


def lost_of_ours(warned: list[warnings.WarningMessage]) -> list[str]:
    """The peers' ssl module leaks its socket where a client resets before it is wrapped (3.11)."""
    told = [str(one.message) for one in warned]
    return [one for one in told if "ssl.SSLSocket" not in one]


def _named(tls: Any) -> dict[str, Any]:
    return {} if tls is None else {"ssl": tls, "server_hostname": _HOST}


async def _own(ways: Ways, tls: Any, address: tuple[str, int]) -> Any:
    loop = asyncio.get_running_loop()
    made = await loop.create_connection(asyncio.Protocol, *address, **_named(tls))
    return made[0]


async def _given(ways: Ways, tls: Any, address: tuple[str, int]) -> Any:
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as unless_taken:
        sock = unless_taken.enter_context(socket.create_connection(address))
        sock.setblocking(False)
        made = await loop.create_connection(asyncio.Protocol, sock=sock, **_named(tls))
        unless_taken.pop_all()
    return made[0]


async def _streams(ways: Ways, tls: Any, address: tuple[str, int]) -> Any:
    _, writer = await asyncio.open_connection(*address, **_named(tls))
    return writer


async def _unix(ways: Ways, tls: Any, address: tuple[str, int]) -> Any:
    loop = asyncio.get_running_loop()
    made = await loop.create_unix_connection(asyncio.Protocol, ways.unix)
    return made[0]


async def _start_tls(ways: Ways, tls: Any, address: tuple[str, int]) -> Any:
    loop = asyncio.get_running_loop()
    if address == ways.tls:
        address = ways.plain
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(b"T")
        if address != ways.silent:
            await reader.readexactly(1)
        transport = await loop.start_tls(
            writer.transport, writer.transport.get_protocol(), tls, server_hostname=_HOST
        )
    except BaseException:
        writer.close()
        raise
    assert transport is not None
    writer._transport = transport  # type: ignore[attr-defined]  # As its own start_tls() does.
    return writer


OPENED: dict[str, Opened] = {
    "own": _own,
    "given": _given,
    "streams": _streams,
    "start_tls": _start_tls,
    "unix": _unix,
}
CASES = [
    *(
        (way, tls, peer)
        for way in ("own", "given", "streams")
        for tls in ("no", "ssl", "hardsock")
        for peer in ("answers", "silent")
        if tls != "no" or peer == "answers"
    ),
    *(("start_tls", tls, peer) for tls in ("ssl", "hardsock") for peer in ("answers", "silent")),
    ("unix", "no", "answers"),
]


async def _nothing_is_open() -> None:
    try:
        async with aio.timeout(LATE):
            while hs.open_connections():
                await asyncio.sleep(0)  # TLS of the ssl module waits for the peer's goodbye.
    except hs.DeadlineExceeded:
        raise AssertionError(f"left open: {hs.open_connections()}") from None


def _ended_at(turn: int, ways: Ways, case: tuple[str, str, str], end: str, after: str) -> bool:
    """Whether the end came before the connection was there; nothing of it may be left."""
    way, kind, peer = case
    tls = {"no": None, "ssl": ways.ssl, "hardsock": ways.hardsock}[kind]
    address = ways.silent if peer == "silent" else ways.plain if tls is None else ways.tls
    token = hs.CancelToken()
    acts: dict[str, Callable[[], object]] = {
        "task": lambda: task.cancel(),
        "cancel": token.cancel,
        "deadline": lambda: token.set_timeout(0),
    }
    loop = Stepped(turn, acts[end], restless=peer == "silent")

    async def main() -> None:
        with hs.scope(token):
            opened = await OPENED[way](ways, tls, address)
            opened.close()

    task = loop.create_task(main())
    try:
        loop.run_until_complete(task)
    except asyncio.CancelledError:
        assert end == "task"
    except (hs.Cancelled, hs.DeadlineExceeded):
        assert end != "task"
    finally:
        if after == "goes on":
            loop.run_until_complete(_nothing_is_open())
        loop.close()
    return loop.acted


@pytest.mark.parametrize("case", CASES, ids="-".join)
@pytest.mark.parametrize(
    ("end", "after"),
    [
        ("task", "the loop is closed"),
        ("task", "goes on"),
        ("cancel", "goes on"),
        ("deadline", "the loop is closed"),
    ],
)
def test_it_is_ended_at_every_turn_and_loses_no_connection(
    ways: Ways, case: tuple[str, str, str], end: str, after: str
) -> None:
    for turn in range(TURNS):
        with warnings.catch_warnings(record=True) as lost:
            warnings.simplefilter("always")
            acted = _ended_at(turn, ways, case, end, after)
            gc.collect()
        assert not lost_of_ours(lost), f"ended after turn {turn}"
        assert hs.open_connections() == [], f"ended after turn {turn}"
        if not acted or (case[2] == "silent" and turn == SILENT_TURNS):
            return
    raise AssertionError(f"it was not there after {TURNS} turns")


# ---- What fails in between


class _Failed(Exception):
    pass


def _fails() -> asyncio.Protocol:
    raise _Failed


@pytest.mark.parametrize("kind", ["no", "ssl", "hardsock"])
@pytest.mark.parametrize("given", [False, True], ids=["own", "given"])
def test_a_factory_that_fails_loses_no_connection(ways: Ways, kind: str, given: bool) -> None:
    tls = {"no": None, "ssl": ways.ssl, "hardsock": ways.hardsock}[kind]
    address = ways.plain if tls is None else ways.tls

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as opened:
            where: dict[str, Any] = dict(zip(("host", "port"), address, strict=True))
            if given:
                where = {"sock": opened.enter_context(socket.create_connection(address))}
                where["sock"].setblocking(False)
            with pytest.raises(_Failed):
                await loop.create_connection(_fails, **where, **_named(tls))

    hsloop.run(main())
    assert hs.open_connections() == []


def test_tls_that_cannot_begin_loses_no_connection(ways: Ways) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_connection(ways.tls) as sock:
            sock.setblocking(False)
            with pytest.raises(ValueError, match="ssl_handshake_timeout"):
                await loop.create_connection(
                    asyncio.Protocol, sock=sock, **_named(ways.ssl), ssl_handshake_timeout=-1
                )

    hsloop.run(main())
    assert hs.open_connections() == []


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_factory_of_a_server_that_fails_costs_its_own_connection(
    contexts: tuple[Any, Any, Any], tls: bool
) -> None:
    """And no other one: asyncio's own server goes on, too."""
    serving, asking, _ = contexts
    told: list[dict[str, Any]] = []
    asked = 0

    def factory() -> asyncio.StreamReaderProtocol:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise _Failed
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), serve)

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"served")
        writer.close()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        server = await loop.create_server(factory, _HOST, 0, ssl=serving if tls else None)
        address = server.sockets[0].getsockname()
        async with aio.timeout(LATE):
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(*address)
                assert await reader.read() == b""
                writer.close()
            reader, writer = await asyncio.open_connection(
                *address, **_named(asking if tls else None)
            )
            assert await reader.read() == b"served"
            writer.close()
            server.close()
            await server.wait_closed()
            await _nothing_is_open()

    hsloop.run(main())
    assert [type(one["exception"]) for one in told] == [_Failed]
    assert asked == 2


def test_start_tls_that_fails_tells_the_protocol_and_the_server(
    contexts: tuple[Any, Any, Any],
) -> None:
    """``writer.wait_closed()`` waited for ever, and so did the end of the server."""
    config = contexts[2]
    ended: asyncio.Future[Any]

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        writer.write(b"go")
        with pytest.raises(hs.HardsockError) as caught:
            await loop.start_tls(
                writer.transport, writer.transport.get_protocol(), config, server_hostname=_HOST
            )
        try:
            await writer.wait_closed()
        except hs.HardsockError as exc:
            ended.set_result(exc is caught.value)
        del caught

    async def main() -> None:
        nonlocal ended
        ended = asyncio.get_running_loop().create_future()
        async with aio.timeout(LATE):
            server = await asyncio.start_server(serve, _HOST, 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.readexactly(2) == b"go"
            writer.write(b"this is no TLS\r\n")
            assert await ended
            writer.close()
            server.close()
            await server.wait_closed()
            await _nothing_is_open()

    hsloop.run(main())


# ---- The loop ends


def _loop_of(name: str) -> asyncio.AbstractEventLoop:
    if name == "hardsock":
        return hsloop.EventLoop()
    if name == "asyncio":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


def _closed_in_the_last_turn(ways: Ways, loop: asyncio.AbstractEventLoop, unsent: int) -> None:
    async def main() -> None:
        _, writer = await streams.open_connection(ways.silent)
        if unsent:
            writer.write(bytes(unsent))
        loop.stop()  # After this turn.
        writer.close()

    try:
        task = loop.create_task(main())
        loop.run_forever()
        assert task.done()
        assert [one.how for one in hs.open_connections()] == ["connect"]
    finally:
        loop.close()


@pytest.mark.parametrize(
    ("loop", "unsent"),
    [  # uvloop has one turn more in which an idle one ends.
        ("asyncio", 0),
        ("hardsock", 0),
        ("asyncio", 32 << 20),
        ("hardsock", 32 << 20),
        ("uvloop", 32 << 20),
    ],
)
def test_what_its_owner_has_closed_is_closed_with_the_loop(
    ways: Ways, loop: str, unsent: int
) -> None:
    """On every loop; what its owner has not closed is a leak, and is told of."""
    with warnings.catch_warnings(record=True) as lost:
        warnings.simplefilter("always")
        _closed_in_the_last_turn(ways, _loop_of(loop), unsent)
        gc.collect()
    assert not lost_of_ours(lost)
    assert hs.open_connections() == []


def test_start_tls_goes_on_though_the_server_was_closed_meanwhile(
    contexts: tuple[Any, Any, Any],
) -> None:
    """As a server does that ends while a client of it asks for TLS; and the server's end comes."""
    serving, _, config = contexts

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        assert await reader.readexactly(1) == b"?"
        server.close()
        transport = await loop.start_tls(
            writer.transport, writer.transport.get_protocol(), config, server_hostname=_HOST
        )
        transport.write(b"served")
        transport.close()

    async def main() -> None:
        nonlocal server
        loop = asyncio.get_running_loop()
        async with aio.timeout(LATE):
            server = await asyncio.start_server(serve, _HOST, 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"?")
            protocol = writer.transport.get_protocol()
            inner = await loop.start_tls(writer.transport, protocol, serving, server_side=True)
            writer._transport = inner  # type: ignore[attr-defined]
            assert await reader.read() == b"served"
            writer.close()
            await server.wait_closed()
            await _nothing_is_open()

    server: Any = None
    hsloop.run(main())
