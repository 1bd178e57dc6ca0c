"""What libraries that were given a connection wait for ends, and what breaks off is an error.

Each by the line that docs/adapters-sockets.md has for it. Connecting is hardsock's, and ends by all that
ends it. After that the caller's thread waits in pg8000 and websocket-client, where scopes reach it;
websockets and paramiko have threads of their own, and limits of their own for logging in.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

import hardsock as hs
from adapters.endings import SHORT, causes, is_ended
from adapters.http_contract import nothing_open, server_context
from adapters.postgres_peer import PostgresPeer
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.peers import PeerScript
from support.require import need_module, require
from support.tls import Identities

HALF = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso"


@dataclass(frozen=True)
class Where:
    """A server, and what a client of it is told besides."""

    host: str
    port: int
    ids: Identities | None = None
    own: float | None = None

    def connect(self, **settings: Any) -> Any:
        return hs.connect((self.host, self.port), timeout=self.own or 600, **settings)


def _at(address: Any, ids: Identities | None = None) -> Where:
    host, port = address
    return Where(host, port, ids)


@contextlib.contextmanager
def _pg8000(where: Where) -> Iterator[Any]:
    library: Any = importlib.import_module("pg8000.native")
    with where.connect() as sock:
        tls = None if where.ids is None else hs.ssl_context(ca=where.ids.ca)
        database = library.Connection(
            "u", host=where.host, password="p", sock=sock, ssl_context=tls or False
        )
        try:
            yield database
        finally:
            with contextlib.suppress(Exception):
                database.close()


@contextlib.contextmanager
def _websocket_client(where: Where) -> Iterator[Any]:
    library: Any = importlib.import_module("websocket")
    tls: Any = False if where.ids is None else where.ids.client()
    with where.connect(tls=tls) as sock:
        scheme = "ws" if where.ids is None else "wss"
        yield library.create_connection(f"{scheme}://{where.host}:{where.port}/", socket=sock)


@contextlib.contextmanager
def _websockets(where: Where) -> Iterator[Any]:
    connect: Any = importlib.import_module("websockets.sync.client").connect
    settings: dict[str, Any] = {"open_timeout": where.own or 600, "close_timeout": 1}
    if where.ids is not None:
        settings |= {"ssl": hs.ssl_context(ca=where.ids.ca), "server_hostname": where.host}
    scheme = "ws" if where.ids is None else "wss"
    with where.connect() as sock:
        with connect(f"{scheme}://{where.host}:{where.port}/", sock=sock, **settings) as ws:
            yield ws


@contextlib.contextmanager
def _paramiko(where: Where) -> Iterator[Any]:
    library: Any = importlib.import_module("paramiko")
    with library.SSHClient() as client, where.connect() as sock:
        limit = where.own or 600
        client.connect(where.host, sock=sock, timeout=limit, banner_timeout=limit)
        yield client


@dataclass(frozen=True)
class Library:
    """One that takes a connection."""

    module: str
    connected: Callable[[Where], contextlib.AbstractContextManager[Any]]
    waits: Sequence[str]
    """What its waits for a server's answer end by: a limit of its own, or what ends hardsock's."""
    half: bytes = HALF
    """Of what a server says first, or to what a client says first."""
    tls: bool = True
    """Whether it has any."""
    late: str = "TimeoutError"
    """What it calls the end of its own limit."""


LIBRARIES = {
    "pg8000": Library("pg8000", _pg8000, ("scope", "cancel"), b"R\0\0\0\x08\0\0"),
    "websocket-client": Library("websocket", _websocket_client, ("scope", "cancel")),
    "websockets": Library("websockets", _websockets, ("own",)),
    "paramiko": Library("paramiko", _paramiko, ("own",), b"SSH-2", False, "SSHException"),
}
SECURED = [name for name, one in LIBRARIES.items() if one.tls]
ENDS = ["own", "scope", "cancel"]
UNTIL_TLS: dict[str, list[tuple[Any, ...]]] = {"pg8000": [("recv", 8), ("send", b"S")]}
PLACES = [
    (name, transport)
    for name, one in LIBRARIES.items()
    for transport in (("plain", "tls") if one.tls else ("plain",))
]


def _library(name: str) -> Library:
    need_module(LIBRARIES[name].module)
    return LIBRARIES[name]


def _use(name: str, where: Where) -> None:
    with _library(name).connected(where):
        pass


def _ends(name: str, end: str, where: Where, when: Callable[[], object] | None = None) -> None:
    """Connecting, and logging in, is ended by *end*."""
    if end == "own":
        where = Where(where.host, where.port, where.ids, SHORT)
        with pytest.raises(Exception) as late:
            _use(name, where)
        kinds = [kind.__name__ for one in causes(late.value) for kind in type(one).__mro__]
        assert {"TimeoutError", _library(name).late} & set(kinds), late.value
        del late
    else:
        waits = {} if when is None else {"waits": ()}
        is_ended(end, lambda: _use(name, where), Exception, when, **waits)
    nothing_open()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", LIBRARIES)
def test_connecting_into_a_black_hole_ends(name: str, end: str) -> None:
    with BlackHole() as hole:
        _ends(name, end, _at(hole.address))


def dead_dns(name: str, end: str) -> bool:
    """Runs inside of a namespace."""
    from hardsock.lab.dns import DeadDNS, use_dns

    with DeadDNS():
        use_dns("127.0.0.1", timeout=30, attempts=5)
        _ends(name, end, Where("nobody.test", 4711))
    return True


@pytest.mark.net
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_dead_name_server_ends(name: str, end: str) -> None:
    _library(name)
    with require(Namespace()) as namespace:
        assert namespace.run("adapters.test_given_waits:dead_dns", name, end, timeout=120)


@pytest.mark.parametrize("end", ["scope", "cancel"])
@pytest.mark.parametrize("name", SECURED)
def test_a_stalled_handshake_ends(name: str, end: str, ids: Identities) -> None:
    script = [*UNTIL_TLS.get(name, []), ("recv", 1), ("stall",)]
    with PeerScript(script, check=False) as peer:
        heard = len(script) - 1
        _ends(name, end, _at(peer.address, ids), lambda: peer.wait_steps(heard, 60))


@pytest.mark.parametrize("fault", ["silent", "drip"])
@pytest.mark.parametrize(
    ("name", "transport", "end"),
    [(name, how, end) for name, how in PLACES for end in LIBRARIES[name].waits],
)
def test_an_answer_that_does_not_come_ends(
    name: str, transport: str, end: str, fault: str, ids: Identities
) -> None:
    tls = ids if transport == "tls" else None
    if name == "pg8000":
        welcome = {"silent": "stall", "drip": "drip"}[fault]
        with PostgresPeer(server_context(ids), welcome) as peer:
            _ends(name, end, Where("127.0.0.1", peer.port, tls), lambda: peer.asked.wait(60))
            assert peer.secured == (tls is not None)
        return
    drip = ("drip", _library(name).half + b"x" * 5000, 0.01)
    script = [("recv", 1), ("stall",) if fault == "silent" else drip]
    context = None if tls is None else server_context(ids)
    with PeerScript(script, check=False, tls=context) as scripted:
        _ends(name, end, _at(scripted.address, tls), lambda: scripted.wait_steps(1, 60))


@pytest.mark.filterwarnings(  # pg8000's goodbye, which nobody gets, stays in a file: that is told.
    "ignore:Exception ignored in. <function ConnectionFile.__del__:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("fault", ["reset", "truncated"])
@pytest.mark.parametrize(("name", "transport"), PLACES)
def test_an_answer_that_breaks_off_is_an_error(
    name: str, transport: str, fault: str, ids: Identities
) -> None:
    tls = ids if transport == "tls" else None
    with contextlib.ExitStack() as opened:
        if name == "pg8000":
            server = opened.enter_context(PostgresPeer(server_context(ids)))
            where = Where("127.0.0.1", server.port, tls)
        else:
            last = ("rst",) if fault == "reset" else ("close",)
            script = [("recv", 1), ("send", _library(name).half), last]
            context = None if tls is None else server_context(ids)
            peer = opened.enter_context(PeerScript(script, check=False, tls=context))
            where = _at(peer.address, tls)
        with pytest.raises(Exception) as broken, hs.timeout(60):
            with _library(name).connected(where) as client:
                client.run(fault)  # Only pg8000 comes that far.
        assert not isinstance(broken.value, AttributeError)
        assert not any(isinstance(one, hs.DeadlineExceeded) for one in causes(broken.value))
        del broken
    nothing_open()
