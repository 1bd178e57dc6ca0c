"""Records that come in pieces, streams that are cut at any byte: nothing is lost, nothing hangs."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.endpoint import connect_to
from hardsock.lab.threads import Call
from support.pki import CLIENT, Authority, Identity, make_authority
from support.require import available
from support.tls_peers import (
    VERSIONS,
    RecordProxy,
    Shape,
    ShapedPeer,
    client_context,
    server_context,
    split_at,
    split_by_number,
    split_everywhere,
)

NAME = "localhost"
DATA = bytes(range(40))


@dataclass(frozen=True)
class World:
    root: Authority
    server: Identity
    client: Identity

    def config(self, role: str, version: str, **settings: Any) -> hs.TLSConfig:
        """Ours; a server wants a certificate, so that a client's flight has everything in it."""
        both = {"ca": self.root.certificate, "min_version": version, "max_version": version}
        if role == "server":
            both["client_certificates"] = "required"
            who = self.server
        else:
            who = self.client
        own = hs.Certificate(chain=who.certificate, key=who.key)
        return hs.TLSConfig(**{"role": role, "certificates": own, **both, **settings})

    def peer(self, sock: socket.socket, our_role: str, version: str, **how: Any) -> ShapedPeer:
        """Python's end, for ours of *our_role*."""
        if our_role == "server":
            context = client_context(self.root, version, self.client)
            return ShapedPeer(sock, context, server_name=NAME, **how)
        return ShapedPeer(sock, server_context(self.server, version), **how)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    with available():
        root = make_authority(tmp_path_factory.mktemp("records"))
    return World(root, root.issue(), root.issue(["alice"], usages=CLIENT, file="alice"))


both_roles = pytest.mark.parametrize("role", ["client", "server"])
both_versions = pytest.mark.parametrize("version", VERSIONS)


def name_for(role: str) -> str | None:
    return NAME if role == "client" else None


def exchange(conn: hs.Connection, config: hs.TLSConfig, timeout: float = 60.0) -> None:
    """From the handshake to the clean end of both directions."""
    with hs.timeout(timeout):
        conn.upgrade_to_tls(config, server_name=name_for(config.role))
        conn.sendall(DATA)
        assert DATA == conn.recv_exactly(len(DATA))
        conn.close_write()
        assert b"" == conn.recv(1)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


def run(
    world: World,
    role: str,
    version: str,
    shape: Shape,
    config: hs.TLSConfig,
    pair: Callable[[], tuple[socket.socket, socket.socket]] = socket.socketpair,
) -> ShapedPeer:
    """One exchange with a peer whose records have this shape; the peer, when it is over."""
    ours, theirs = pair()
    with world.peer(theirs, role, version, shape=shape) as peer:
        with hs.adopt(ours) as conn:
            exchange(conn, config)
        peer.wait()
    assert peer.error is None
    assert DATA == peer.received
    return peer


# ---- pieces


@pytest.mark.slow
@both_versions
@both_roles
def test_each_record_split_at_each_offset(role: str, version: str, world: World) -> None:
    """In turn *k* each record that has more than *k* bytes is split there, all in one exchange."""
    config = world.config(role, version, sessions=False)
    longest = max(run(world, role, version, Shape(), config).shaper.records)
    offset, splits = 1, 0
    while offset < longest:
        peer = run(world, role, version, Shape(split=split_at(offset)), config)
        longest = max(longest, *peer.shaper.records)
        splits += sum(1 for record in peer.shaper.records if record > offset)
        offset += 1
    assert splits > longest


@both_versions
@both_roles
def test_each_byte_alone(role: str, version: str, world: World) -> None:
    config = world.config(role, version)
    peer = run(world, role, version, Shape(split=split_everywhere), config)
    assert sum(peer.shaper.records) == peer.shaper.sent


@pytest.mark.slow
@both_versions
def test_data_records_split_at_each_offset(version: str, world: World) -> None:
    """Three hundred records, each split somewhere else; then the same while we are sending."""
    ours, theirs = socket.socketpair()
    shape = Shape(split=split_by_number)
    message = bytes(range(250))
    with world.peer(theirs, "client", version, shape=shape) as peer, hs.adopt(ours) as conn:
        conn.upgrade_to_tls(world.config("client", version), server_name=NAME, timeout=30)
        with hs.timeout(30):
            for _ in range(300):
                conn.sendall(message)
                assert message == conn.recv_exactly(len(message))
            with Call(conn.sendall, message * 300, timeout=30):
                assert message * 300 == conn.recv_exactly(len(message) * 300)
            conn.close_write()
            assert b"" == conn.recv(1)
    assert peer.error is None


@both_versions
@both_roles
@pytest.mark.parametrize("piece", [1, 1000, 16384, 100_000])
def test_what_comes_with_the_handshake_is_not_left_lying(
    role: str, version: str, piece: int, world: World
) -> None:
    """Its first words are in the same piece as the end of its handshake: no event tells of them."""
    ours, theirs = socket.socketpair()
    greeting = bytes(piece)
    with world.peer(theirs, role, version, greeting=greeting), hs.adopt(ours) as conn:
        with hs.timeout(60):
            conn.upgrade_to_tls(world.config(role, version), server_name=name_for(role))
            assert greeting == conn.recv_exactly(piece)


@both_versions
def test_records_split_on_both_ways_between_two_of_ours(version: str, world: World) -> None:
    """Both ends are hardsock's: all that each of them writes is split."""
    left, right = socket.socketpair()
    shape = Shape(split=split_everywhere)
    server, client = world.config("server", version), world.config("client", version)

    def serve(conn: hs.Connection) -> None:
        conn.upgrade_to_tls(server)
        conn.sendall(conn.recv_exactly(len(DATA)))
        assert b"" == conn.recv(1)
        conn.close_write()

    with RecordProxy(left, to_client=shape, to_server=shape) as proxy:
        with hs.adopt(right) as theirs, hs.adopt(proxy.client) as ours:
            with hs.timeout(60), Call(serve, theirs):
                exchange(ours, client)
        assert proxy.down.records
        assert proxy.up.records


# ---- ends


def outcome(world: World, role: str, version: str, shape: Shape, config: hs.TLSConfig) -> Any:
    """What ends the exchange; None if nothing does."""
    ours, theirs = tcp_pair()
    with hs.adopt(ours) as conn, world.peer(theirs, role, version, shape=shape):
        try:
            exchange(conn, config)
        except hs.HardsockError as exc:
            exc.__traceback__ = None  # which would keep the connection
            return exc
    return None


def allowed(exc: Any, how: str) -> bool:
    """Whether that is how a stream may end that was cut."""
    if isinstance(exc, hs.TLSError):
        return exc.failure in {"empty", "aborted", "reset"}
    return isinstance(exc, (hs.Truncated, hs.Reset) if how == "rst" else hs.Truncated)


@pytest.mark.slow
@both_versions
@both_roles
@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.nightly)])
def test_peer_that_leaves_after_any_byte(
    how: Any, role: str, version: str, step: int, world: World
) -> None:
    """A known error each time, not the deadline; and never a clean end where there was none.

    After each seventh byte by day: that finds the same states, and there are thousands.
    """
    config = world.config(role, version, sessions=False)
    whole = run(world, role, version, Shape(), config, tcp_pair).shaper
    kinds: set[str] = set()
    for limit in range(0, sum(whole.records), step):
        exc = outcome(world, role, version, Shape(limit=limit, then=how), config)
        # A signature is a few bytes shorter at times: then the limit may not have been reached.
        if exc is None:
            assert limit > sum(whole.records) - 16, f"a clean end after {limit} bytes"
            continue
        assert allowed(exc, how), f"after {limit} bytes: {exc!r}"
        kinds.add(type(exc).__name__)
    assert ({"TLSError", "Truncated"} if how == "fin" else {"Reset"}) == kinds


@both_versions
@both_roles
def test_peer_that_stalls_after_any_record(role: str, version: str, world: World) -> None:
    """The deadline ends it, whatever is half here."""
    config = world.config(role, version, handshake_timeout=0.05)
    whole = run(world, role, version, Shape(), config, tcp_pair).shaper
    limits = {sum(whole.records[:n]) + more for n in range(len(whole.records)) for more in (0, 3)}
    for limit in sorted(limits):
        ours, theirs = tcp_pair()
        shape = Shape(limit=limit, then="stall")
        with world.peer(theirs, role, version, shape=shape), hs.adopt(ours) as conn:
            with pytest.raises(hs.DeadlineExceeded):
                exchange(conn, config, 0.2)


@both_versions
def test_truncation_is_an_end_where_that_is_asked_for(version: str, world: World) -> None:
    config = world.config("client", version, insecure_accept_truncation=True)
    left, right = socket.socketpair()
    with world.peer(right, "client", version), RecordProxy(left) as proxy:
        with hs.adopt(proxy.client) as conn, hs.timeout(60):
            conn.upgrade_to_tls(config, server_name=NAME)
            conn.sendall(DATA)
            assert DATA == conn.recv_exactly(len(DATA))
            proxy.end("client")
            assert b"" == conn.recv(1)


# ---- a listener


@contextlib.contextmanager
def accepting(listener: hs.Listener) -> Iterator[list[str]]:
    """Accept and close in a thread, until the listener is closed; the list has who came."""
    accepted: list[str] = []

    def accept() -> None:
        with contextlib.suppress(hs.Closed):
            while True:
                with listener.accept(timeout=60) as conn:
                    accepted.append(str(conn.getpeername()))

    with Call(accept):
        try:
            yield accepted
        finally:
            listener.close()


@pytest.mark.slow
@both_versions
def test_listener_with_clients_that_leave_after_any_byte(version: str, world: World) -> None:
    """Each is counted, as one that sent nothing or as one that broke off; none stays."""
    config = world.config("server", version)
    whole = run(world, "server", version, Shape(), config, tcp_pair).shaper
    context = client_context(world.root, version, world.client)
    with hs.listen(("127.0.0.1", 0), tls=config) as listener, accepting(listener) as accepted:
        limit = 0
        while not accepted:
            sock = connect_to(listener.address)
            with ShapedPeer(sock, context, server_name=NAME, shape=Shape(limit=limit)) as peer:
                peer.wait()
            limit += 1
        handshakes = listener.stats().handshakes
        assert handshakes is not None
        failed = {kind: count for kind, count in handshakes.failed.items() if count}
    assert limit > sum(whole.records[:3])
    assert {"empty": 1, "aborted": limit - 2} == failed
