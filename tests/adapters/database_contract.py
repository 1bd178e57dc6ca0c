"""The contract of a client of a database on hardsock's event loop. A client is one `Library`.

A test module makes the tests its own, and says with which: its pool's queue and its peer's waits end by a
scope, by a cancel from another thread, and by the library's own limit where it has one.

    LIBRARY = Asyncpg()
    from adapters.database_contract import *
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import pytest

import hardsock as hs
from adapters.endings import SHORT, causes
from adapters.http_contract import nothing_open
from hardsock.aio import loop as hsloop
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.peers import PeerScript
from support.require import require
from support.tls import Identities

LATE = 60.0


class Library(Protocol):
    """One client."""

    ends: Sequence[str]
    """Of ``"own"`` (a limit of its own), ``"scope"`` and ``"cancel"``: what a call of it ends by."""
    port: int
    until_tls: Sequence[tuple[Any, ...]]
    """What a server says and hears until TLS begins."""
    broken: tuple[type[BaseException], ...]
    """What it raises when an answer breaks off."""
    own_limit: type[BaseException]

    def peer(self, ids: Identities) -> AbstractContextManager[Any]:
        """A server with a ``port``; ``secured`` says whether TLS was begun."""

    def connected(
        self, host: str, port: int, tls: Any, own: float | None = None
    ) -> AbstractAsyncContextManager[Any]:
        """A connection, which takes *own* seconds at most."""

    async def ask(self, conn: Any, what: str, own: float | None = None) -> object:
        """Let the peer do *what*: ``"stall"``, ``"drip"``, ``"reset"``, ``"truncated"``."""

    async def wait_for_a_place(
        self, port: int, tls: Any, begin: Callable[[], hs.CancelToken], own: float | None
    ) -> None:
        """Ask a pool of one connection, which is taken, in the scope of the token of *begin*."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "end_of_database" in metafunc.fixturenames:
        library = metafunc.module.LIBRARY
        metafunc.parametrize("end_of_database", library.ends, ids=list(library.ends))


@pytest.fixture
def library(request: pytest.FixtureRequest) -> Library:
    return request.module.LIBRARY  # type: ignore[no-any-return]


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, ids: Identities) -> Any:
    return hs.ssl_context(ca=ids.ca) if request.param == "tls" else None


async def _use(library: Library, wait: str, port: int, tls: Any, end: str) -> None:
    """Wait under a token whose time begins when there is something to wait for."""
    token = hs.CancelToken()
    thread = threading.Timer(SHORT, token.cancel, ("stop button",))
    own = SHORT if end == "own" else None

    def begin() -> hs.CancelToken:
        if end == "scope":
            token.set_timeout(SHORT)
        elif end == "cancel":
            thread.start()
        return token

    try:
        if wait in ("silent", "drip"):
            async with library.connected("127.0.0.1", port, tls) as conn:
                with hs.scope(begin()):
                    await library.ask(conn, "stall" if wait == "silent" else "drip", own)
        elif wait == "queue":
            await library.wait_for_a_place(port, tls, begin, own)
        else:
            host = "nobody.test" if wait == "dead DNS" else "127.0.0.1"
            with hs.scope(begin()):
                async with library.connected(host, port, tls, own):
                    pass
    finally:
        if thread.ident is not None:
            await asyncio.to_thread(thread.join)


def _ends(library: Library, wait: str, port: int, end: str, tls: Any = None) -> None:
    with pytest.raises(Exception) as ended:
        hsloop.run(_use(library, wait, port, tls, end))
    found = [type(one) for one in causes(ended.value)]
    wanted = {"own": library.own_limit, "scope": hs.DeadlineExceeded, "cancel": hs.Cancelled}
    assert wanted[end] in found, found
    del ended
    nothing_open()


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("wait", ["silent", "drip", "queue"])
def test_what_the_client_waits_for_ends(
    library: Library, wait: str, tls: Any, end_of_database: str, ids: Identities
) -> None:
    with library.peer(ids) as peer:
        _ends(library, wait, peer.port, end_of_database, tls)
        assert peer.secured == (tls is not None)


@pytest.mark.usefixtures("event_loops")
def test_the_client_connects_into_a_black_hole_and_ends(
    library: Library, end_of_database: str
) -> None:
    with BlackHole() as hole:
        _ends(library, "black hole", hole.address[1], end_of_database)


@pytest.mark.usefixtures("event_loops")
def test_a_stalled_handshake_of_the_client_ends(
    library: Library, end_of_database: str, ids: Identities
) -> None:
    with PeerScript([*library.until_tls, ("stall",)], check=False) as peer:
        port = int(peer.address[1])
        _ends(library, "TLS stall", port, end_of_database, hs.ssl_context(ca=ids.ca))


def dead_dns(module: str, end: str) -> bool:
    """Runs inside of a namespace."""
    from hardsock.lab.dns import DeadDNS, use_dns

    library = importlib.import_module(module).LIBRARY
    with DeadDNS():
        use_dns("127.0.0.1", timeout=30, attempts=5)
        _ends(library, "dead DNS", library.port, end)
    return True


@pytest.mark.net
@pytest.mark.usefixtures("event_loops")
def test_a_dead_name_server_ends_for_the_client(
    library: Library, end_of_database: str, request: pytest.FixtureRequest
) -> None:
    module = f"adapters.{Path(request.module.__file__).stem}"
    where = "adapters.database_contract:dead_dns"
    with require(Namespace()) as namespace:
        assert namespace.run(where, module, end_of_database, timeout=120)


@pytest.mark.usefixtures("event_loops")
@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_an_answer_to_the_client_that_breaks_off_is_an_error(
    library: Library, fault: str, tls: Any, ids: Identities
) -> None:
    async def main(port: int) -> None:
        with hs.timeout(LATE):
            async with library.connected("127.0.0.1", port, tls) as conn:
                with pytest.raises(library.broken):
                    await library.ask(conn, fault)

    with library.peer(ids) as peer:
        hsloop.run(main(peer.port))
        nothing_open()


__all__ = [name for name in globals() if name.startswith("test_")]
__all__ += ["library", "pytest_generate_tests", "tls"]
