"""The contract of an adapter for an HTTP library. An adapter is one `Driver`.

A test module makes the tests its own, and says with which drivers:

    DRIVERS = [RequestsDriver()]
    from adapters.http_contract import *

Every wait ends by the deadline of the client, by that of a scope, and by a cancel from another
thread; the ledger is empty after; and nobody gets somebody else's answer. Bounds are generous: the
machine may be busy. How near the deadline it ends is measured by `bench/adapters.py`.
"""

from __future__ import annotations

import gc
import inspect
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import pytest

import hardsock as hs
from adapters.endings import QUEUE_WAITS, SHORT, causes, is_ended
from adapters.http_peer import HttpPeer
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import IO_WAITS, Call
from support.require import require
from support.tls import Identities

LATE = 10.0  # by then it was not ended by its deadline


class Client(Protocol):
    """A client of the library, with one connection at most for each host."""

    def get(self, url: str) -> bytes:
        """GET with redirects; the whole body of a 200."""

    def post(self, url: str, body: bytes) -> int:
        """POST; the status."""

    def stream(self, url: str) -> Iterator[bytes]:
        """GET; returns when the head is there, and yields the body as it comes."""


class Driver(Protocol):
    """One adapter."""

    name: str
    timed_out: tuple[type[BaseException], ...]
    """What it raises at a deadline, as the library says it."""
    failed: tuple[type[BaseException], ...]
    """What it raises when the peer breaks off."""
    lacks: frozenset[str]
    """What the library has not: ``"queue"`` (a pool with a limit), ``"retries"`` (after a 503 with
    Retry-After), ``"redirects"``, ``"reuse"`` (of connections), ``"streams"`` (bodies that are read as
    they come), ``"bound"`` (a body that is read after the scope of its request still ends with that)."""

    def client(
        self, total: float | None, ca: Path | None = None, retries: int = 0
    ) -> AbstractContextManager[Client]:
        """A client whose requests take *total* seconds at most, and that trusts *ca*."""


_NEEDS = {
    "test_the_queue_of_the_pool_ends": {"queue"},
    "test_the_pause_before_another_try_ends": {"retries"},
    "test_it_tries_again_while_there_is_time": {"retries"},
    "test_redirects_are_followed": {"redirects"},
    "test_a_redirect_to_a_drip_ends": {"redirects"},
    "test_a_body_that_is_streamed_ends": {"streams"},
    "test_a_body_ends_with_the_scope_that_its_request_was_made_in": {"bound"},
    "test_a_connection_is_used_again": {"reuse"},
    "test_after_a_cancel_the_next_request_gets_its_own_answer": {"reuse"},
    "test_a_scope_that_has_ended_does_not_reach_the_next_request": {"reuse"},
    "test_a_scope_that_has_ended_asks_nobody_over_a_connection_that_was_kept": {"reuse"},
    "test_the_ledger_names_the_line_of_the_program": {"reuse"},
}


def server_context(ids: Identities) -> ssl.SSLContext:
    """For the standard library's side."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(ids.server_identity.chain, ids.server_identity.key)
    return made


@pytest.fixture(params=["plain", "tls"])
def peer(request: pytest.FixtureRequest, ids: Identities) -> Iterator[HttpPeer]:
    with HttpPeer(server_context(ids) if request.param == "tls" else None) as peer:
        yield peer


@pytest.fixture(params=["deadline", "scope", "cancel"])
def end(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> Driver:
    return request.param  # type: ignore[no-any-return]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test runs with each of the module's DRIVERS that has what it is about."""
    if "driver" in metafunc.fixturenames:
        needed = _NEEDS.get(metafunc.function.__name__, set())
        drivers = [one for one in metafunc.module.DRIVERS if not needed & one.lacks]
        metafunc.parametrize("driver", drivers, indirect=True, ids=[one.name for one in drivers])


def keep_what_a_driver_has(module: dict[str, Any]) -> None:
    """Leave out the tests that are about what none of the module's DRIVERS has: nothing to skip."""
    for name, needed in _NEEDS.items():
        if all(needed & one.lacks for one in module["DRIVERS"]):
            del module[name]


def total_of(end: str) -> float | None:
    """What the client is made with."""
    return SHORT if end == "deadline" else None


def ends(
    driver: Driver,
    end: str,
    call: Callable[[], object],
    when: Callable[[], object] = lambda: None,
    waits: Sequence[str] = IO_WAITS,
) -> None:
    """*call* is ended by *end*, in time, with the right error; a cancel comes after *when* returned."""
    began = time.monotonic()
    is_ended(end, call, driver.timed_out, when, waits)
    assert end == "cancel" or time.monotonic() - began > SHORT * 0.9
    assert time.monotonic() - began < LATE


def nothing_open() -> None:
    """No connection is in the ledger, however it came there: the peers here are not hardsock's.

    An idle one may hang on the pool of a client that is closed, and that on the frames of an error.
    """
    gc.collect()
    left = hs.open_connections()
    assert not left, left


# ---- The waits


@pytest.mark.parametrize("path", ["/silent", "/drip", "/drip-head"])
def test_what_the_server_does_ends(
    driver: Driver, peer: HttpPeer, end: str, path: str, ids: Identities
) -> None:
    with driver.client(total_of(end), ids.ca) as client:
        ends(driver, end, lambda: client.get(peer.url(path)))
        nothing_open()


def test_a_redirect_to_a_drip_ends(
    driver: Driver, peer: HttpPeer, end: str, ids: Identities
) -> None:
    with driver.client(total_of(end), ids.ca) as client:
        ends(driver, end, lambda: client.get(peer.url("/to?/drip")), lambda: peer.wait_for("/drip"))
        nothing_open()


def test_a_connect_into_a_black_hole_ends(driver: Driver, end: str) -> None:
    with BlackHole() as hole, driver.client(total_of(end)) as client:
        ends(driver, end, lambda: client.get("http://{}:{}/".format(*hole.address)))
        nothing_open()


def test_a_stalled_handshake_ends(driver: Driver, end: str, ids: Identities) -> None:
    with PeerScript([("stall",)]) as silent, driver.client(total_of(end), ids.ca) as client:
        ends(driver, end, lambda: client.get("https://{}:{}/".format(*silent.address)))
        nothing_open()


def test_the_queue_of_the_pool_ends(
    driver: Driver, peer: HttpPeer, end: str, ids: Identities
) -> None:
    total = total_of(end) and 2.0  # For the one who holds the connection, too.
    with driver.client(total, ids.ca) as client:
        with hs.timeout(60):
            chunks = client.stream(peer.url("/chunks"))
            assert next(chunks) == b"first"
        ends(driver, end, lambda: client.get(peer.url("/ok?x")), waits=QUEUE_WAITS)
        assert [path for path, _ in peer.seen] == ["/chunks"]
        del chunks


def test_the_pause_before_another_try_ends(
    driver: Driver, peer: HttpPeer, end: str, ids: Identities
) -> None:
    with driver.client(total_of(end), ids.ca, retries=3) as client:
        ends(driver, end, lambda: client.get(peer.url("/busy")), lambda: peer.wait_for("/busy"))
        # Not again; a busy machine's deadline may even come before it has asked at all.
        assert [path for path, _ in peer.seen] in ([], ["/busy"])
    nothing_open()


def test_it_tries_again_while_there_is_time(
    driver: Driver, peer: HttpPeer, ids: Identities
) -> None:
    with driver.client(30, ids.ca, retries=3) as client:
        assert client.get(peer.url("/flaky?second")) == b"second"
    nothing_open()


@pytest.mark.parametrize("path", ["/drip", "/chunks"])
def test_a_body_that_is_streamed_ends(
    driver: Driver, peer: HttpPeer, end: str, path: str, ids: Identities
) -> None:
    with driver.client(total_of(end), ids.ca) as client:
        got: list[bytes] = []

        def read() -> None:
            for chunk in client.stream(peer.url(path)):
                got.append(chunk)

        if end == "cancel" and path == "/drip":  # never blocked for long: cancel while it drips
            token = hs.CancelToken()

            def within() -> None:
                with hs.scope(token):
                    read()

            with Call(within) as running:
                peer.wait_for(path)
                token.cancel("stop button")
                with pytest.raises(hs.Cancelled):
                    running.result(20.0)
        else:
            ends(driver, end, read)
        nothing_open()


def test_a_body_ends_with_the_scope_that_its_request_was_made_in(
    driver: Driver, peer: HttpPeer, ids: Identities
) -> None:
    with driver.client(None, ids.ca) as client:
        token = hs.CancelToken()
        with hs.scope(token):
            chunks = client.stream(peer.url("/chunks"))
            assert next(chunks) == b"first"
        with Call(next, chunks) as reading:
            reading.wait_until_blocked()
            token.cancel("stop button")
            with pytest.raises(hs.Cancelled):
                reading.result(20.0)
        nothing_open()


def dead_dns(module: str, name: str, end: str) -> dict[str, Any]:
    """Runs inside of a namespace: how a request to a name ends that nobody answers for."""
    import importlib

    from hardsock.lab.dns import DeadDNS, use_dns

    (driver,) = (one for one in importlib.import_module(module).DRIVERS if one.name == name)
    with DeadDNS():
        use_dns("127.0.0.1", timeout=30, attempts=5)
        with driver.client(total_of(end)) as client:
            ends(driver, end, lambda: client.get("http://nobody.test/"))
    return {"left": len(hs.open_connections())}


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with require(Namespace()) as made:
        yield made


@pytest.mark.net
def test_a_dead_name_server_ends(
    driver: Driver, end: str, namespace: Namespace, request: pytest.FixtureRequest
) -> None:
    module = f"adapters.{Path(request.module.__file__).stem}"
    found = namespace.run("adapters.http_contract:dead_dns", module, driver.name, end, timeout=120)
    assert found == {"left": 0}


# ---- Endings


@pytest.mark.parametrize("path", ["/reset", "/truncated"])
def test_a_peer_that_breaks_off_is_a_failure(
    driver: Driver, peer: HttpPeer, path: str, ids: Identities
) -> None:
    with driver.client(30, ids.ca) as client:
        with pytest.raises(driver.failed) as caught:
            client.get(peer.url(path))
        assert not any(isinstance(one, hs.DeadlineExceeded) for one in causes(caught.value))
        nothing_open()


def test_an_answer_that_comes_before_the_request_is_whole_is_read(
    driver: Driver, peer: HttpPeer, ids: Identities
) -> None:
    with driver.client(30, ids.ca) as client:
        assert client.post(peer.url("/early"), bytes(8 << 20)) == 413


def test_redirects_are_followed(driver: Driver, peer: HttpPeer, ids: Identities) -> None:
    with driver.client(30, ids.ca) as client:
        assert client.get(peer.url("/to?/ok?there")) == b"there"


def test_a_connection_is_used_again(driver: Driver, peer: HttpPeer, ids: Identities) -> None:
    with driver.client(30, ids.ca) as client:
        for number in range(5):
            body = f"answer{number}"
            assert client.get(peer.url(f"/ok?{body}")) == body.encode()
        assert {number for _, number in peer.seen} == {1}
    nothing_open()


@pytest.mark.parametrize("path", ["/silent", "/drip", "/drip-head"])
def test_after_a_cancel_the_next_request_gets_its_own_answer(
    driver: Driver, peer: HttpPeer, path: str, ids: Identities
) -> None:
    with driver.client(None, ids.ca) as client:
        assert client.get(peer.url("/ok?before")) == b"before"
        token = hs.CancelToken()

        def cancelled() -> None:
            with hs.scope(token):
                client.get(peer.url(path))

        with Call(cancelled) as running:
            peer.wait_for(path)
            token.cancel()
            with pytest.raises(hs.Cancelled):
                running.result(20.0)
        for number in range(3):
            assert client.get(peer.url(f"/ok?after{number}")) == b"after%d" % number
        first = peer.seen[1][1]
        assert {number for path, number in peer.seen if path == "/ok"} - {1} >= {first + 1}


def test_a_scope_that_has_ended_does_not_reach_the_next_request(
    driver: Driver, peer: HttpPeer, ids: Identities
) -> None:
    with driver.client(None, ids.ca) as client:
        with hs.timeout(30) as token:
            assert client.get(peer.url("/ok?one")) == b"one"
        token.cancel()
        assert client.get(peer.url("/ok?two")) == b"two"
        assert {number for _, number in peer.seen} == {1}


def test_a_scope_that_has_ended_asks_nobody(
    driver: Driver, peer: HttpPeer, ids: Identities
) -> None:
    token = hs.CancelToken()
    token.cancel("before")
    with driver.client(None, ids.ca) as client:
        with hs.scope(token), pytest.raises(hs.Cancelled):
            client.get(peer.url("/ok?x"))
    assert peer.seen == []


def test_a_scope_that_has_ended_asks_nobody_over_a_connection_that_was_kept(
    driver: Driver, peer: HttpPeer, ids: Identities
) -> None:
    """Its bytes could go out without any wait that the scope would end."""
    token = hs.CancelToken()
    token.cancel("before")
    with driver.client(None, ids.ca) as client:
        assert client.get(peer.url("/ok?before")) == b"before"
        with hs.scope(token), pytest.raises(hs.Cancelled):
            client.get(peer.url("/silent"))
        assert client.get(peer.url("/ok?after")) == b"after"
    assert [path for path, _ in peer.seen] == ["/ok", "/ok"]


def test_a_certificate_of_somebody_else_is_refused(
    driver: Driver, ids: Identities, tmp_path: Path
) -> None:
    with (
        HttpPeer(server_context(ids)) as peer,
        driver.client(30, Identities(tmp_path).ca) as client,
    ):
        with pytest.raises(driver.failed) as caught:
            client.get(peer.url("/ok?x"))
        assert any(isinstance(one, hs.CertificateError) for one in causes(caught.value))
        nothing_open()


def test_the_ledger_names_the_line_of_the_program(
    driver: Driver, peer: HttpPeer, ids: Identities
) -> None:
    with driver.client(30, ids.ca) as client:
        assert client.get(peer.url("/ok?x")) == b"x"
        (found,) = (one for one in hs.open_connections() if one.how == "connect")
        assert found.site.file == inspect.getfile(type(driver)), found
