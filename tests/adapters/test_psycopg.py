"""psycopg and its pool under hardsock's deadlines, against a real PostgreSQL."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.require import need_module

need_module("psycopg")
need_module("psycopg_pool")

import psycopg
import psycopg_pool

import hardsock as hs
import hardsock.adapters.psycopg
import hardsock.adapters.psycopg as over
from adapters.endings import QUEUE_WAITS, SHORT, causes, is_ended
from adapters.http_contract import nothing_open, server_context
from adapters.postgres_peer import PostgresPeer
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.peers import PeerScript
from hardsock.lab.servers.process import Server
from hardsock.lab.threads import wait_until_blocked
from pool.relay import Relay
from support.require import require
from support.servers import postgres
from support.tls import Identities

SLOW = "select pg_sleep(600)"
_PATIENT = 60.0


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may take its time to stop a statement, on a machine that stands still for seconds.

    Without it such a connection is closed, as it should be, and no test of what follows holds.
    """
    monkeypatch.setattr(over, "_ASK", _PATIENT)
    monkeypatch.setattr(over, "_PATIENCE", (0.1, 0.4, *[1.0] * int(_PATIENT)))
    monkeypatch.setattr(over, "_IN_ALL", 2 * _PATIENT)


@pytest.fixture(scope="module")
def server(ids: Identities) -> Iterator[Server]:
    """It speaks TLS to the one who asks for it."""
    identity = ids.server_identity
    with require(postgres(certificate=(Path(identity.chain), Path(identity.key)))) as server:
        yield server


@pytest.fixture(params=["plain", "tls"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["scope", "cancel"])
def end(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _info(address: Any, transport: str = "plain") -> str:
    host, port = address
    mode = "disable" if transport == "plain" else "require"
    where = f"host={host} port={port} user=postgres dbname=postgres"
    return f"{where} gssencmode=disable sslmode={mode}"


@contextlib.contextmanager
def _connected(server: Server, transport: str = "plain") -> Iterator[Any]:
    with hs.timeout(60):
        info = _info(server.address, transport)
        conn = hardsock.adapters.psycopg.connect(info, autocommit=True)
    with contextlib.closing(conn):
        assert conn.pgconn.ssl_in_use == (transport == "tls")
        yield conn


def _ends(end: str, call: Any, timed_out: type[Exception], when: Any = None) -> None:
    is_ended(end, call, timed_out, when, QUEUE_WAITS if when is None else ())


def test_a_slow_statement_is_cancelled_and_the_connection_stays_usable(
    server: Server, end: str, transport: str
) -> None:
    with _connected(server, transport) as conn:
        for _ in range(3):
            _ends(end, lambda: conn.execute(SLOW), psycopg.errors.QueryCanceled)
            with hs.timeout(60):
                assert conn.execute("select 41 + 1").fetchone() == (42,)
                busy = conn.execute(
                    "select count(*) from pg_stat_activity where query = %s and state = 'active'",
                    [SLOW],
                )
                assert busy.fetchone() == (0,)


def test_in_a_transaction_it_can_be_rolled_back(server: Server, end: str) -> None:
    with _connected(server) as conn:
        with contextlib.suppress(psycopg.errors.QueryCanceled, hs.Cancelled), conn.transaction():
            _ends(end, lambda: conn.execute(SLOW), psycopg.errors.QueryCanceled)
            raise psycopg.errors.QueryCanceled("leave")
        with hs.timeout(60):
            assert conn.execute("select 1").fetchone() == (1,)


def _read_slowly(conn: Any) -> None:
    rows = "copy (select pg_sleep(0.05) from generate_series(1, 1000)) to stdout"
    with conn.cursor() as cursor, cursor.copy(rows) as copy:
        for _ in copy:
            pass


def test_rows_that_come_slowly_are_cancelled(server: Server, end: str, transport: str) -> None:
    with _connected(server, transport) as conn:
        _ends(end, lambda: _read_slowly(conn), psycopg.errors.QueryCanceled)


def test_a_black_hole_ends(end: str) -> None:
    with BlackHole() as hole:
        _ends(
            end,
            lambda: hardsock.adapters.psycopg.connect(_info(hole.address)),
            psycopg.errors.ConnectionTimeout,
        )


@pytest.mark.parametrize("fault", ["silent", "handshake"])
def test_a_server_that_does_not_go_on_ends(end: str, fault: str) -> None:
    script = [("stall",)] if fault == "silent" else [("recv", 8), ("send", b"S"), ("stall",)]
    transport = "plain" if fault == "silent" else "tls"
    with PeerScript(script, check=False) as peer:
        _ends(
            end,
            lambda: hardsock.adapters.psycopg.connect(_info(peer.address, transport)),
            psycopg.errors.ConnectionTimeout,
        )


@pytest.mark.parametrize("how", ["stall", "drip"])
def test_a_statement_that_is_not_answered_ends(
    end: str, how: str, transport: str, ids: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the server heed that it is asked to stop: the connection is closed."""
    monkeypatch.undo()  # The adapter's own patience.
    with PostgresPeer(server_context(ids)) as peer:
        info = _info(("127.0.0.1", peer.port), transport)
        with hs.timeout(_PATIENT):
            conn = hardsock.adapters.psycopg.connect(info, autocommit=True)
        assert peer.secured == (transport == "tls")
        _ends(end, lambda: conn.execute(how), psycopg.errors.QueryCanceled, peer.asked.wait)
        assert conn.closed
        conn.close()
    nothing_open()


@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_an_answer_that_breaks_off_is_an_error(fault: str, transport: str, ids: Identities) -> None:
    with PostgresPeer(server_context(ids)) as peer, hs.timeout(_PATIENT):
        info = _info(("127.0.0.1", peer.port), transport)
        with contextlib.closing(hardsock.adapters.psycopg.connect(info, autocommit=True)) as conn:
            assert peer.secured == (transport == "tls")
            with pytest.raises(psycopg.OperationalError) as broken:
                conn.execute(fault)
            assert not any(isinstance(one, hs.DeadlineExceeded) for one in causes(broken.value))
            assert conn.broken
    nothing_open()


def _dead_dns(end: str) -> bool:
    from hardsock.lab.dns import DeadDNS, use_dns

    with DeadDNS():
        use_dns("127.0.0.1", timeout=30, attempts=5)
        _ends(
            end,
            lambda: hardsock.adapters.psycopg.connect(_info(("nobody.test", 5432))),
            psycopg.errors.ConnectionTimeout,
        )
    return True


@pytest.mark.net
def test_a_dead_name_server_ends(end: str) -> None:
    with require(Namespace()) as namespace:
        assert namespace.run("adapters.test_psycopg:_dead_dns", end, timeout=120)


def test_a_server_that_does_not_stop_costs_the_connection_and_not_the_caller(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # The adapter's own patience.
    with Relay(server.address) as relay, hs.timeout(60):
        conn = hardsock.adapters.psycopg.connect(_info(relay.address), autocommit=True)
        relay.hold_replies()
        with hs.timeout(SHORT), pytest.raises(psycopg.errors.QueryCanceled):
            conn.execute(SLOW)
        assert conn.closed
        assert conn.broken
        conn.close()


def test_with_the_adapters_own_patience_a_statement_ends_near_its_deadline(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above give it, a minute, would also hide an adapter that asks nobody to stop."""
    monkeypatch.undo()
    for seconds in (SHORT, 2.0, 8.0, 30.0):  # A machine that stands still is late by itself.
        with _connected(server) as conn:
            began = time.monotonic()
            with hs.timeout(seconds), pytest.raises(psycopg.errors.QueryCanceled):
                conn.execute(SLOW)
            late = time.monotonic() - began - seconds
            if late < over._IN_ALL and not conn.closed:
                with hs.timeout(60):
                    assert conn.execute("select 41 + 1").fetchone() == (42,)
                return
    pytest.fail(f"{late} s behind its deadline, closed: {conn.closed}")


def test_the_queue_of_the_pool_ends(server: Server, end: str, transport: str) -> None:
    with hardsock.adapters.psycopg.ConnectionPool(
        _info(server.address, transport), min_size=1, max_size=1
    ) as pool:
        held = pool.getconn()
        _ends(end, pool.getconn, psycopg_pool.PoolTimeout)
        pool.putconn(held)
        with hs.timeout(60), pool.connection() as conn:
            assert conn.execute("select 7").fetchone() == (7,)
        assert pool.getconn(_PATIENT) is held
        pool.putconn(held)


@contextlib.contextmanager
def _pool(address: Any, transport: str = "plain", **settings: Any) -> Iterator[Any]:
    """A pool of one connection, whose workers may try in vain: nobody waits for them at its end."""
    pool = hardsock.adapters.psycopg.ConnectionPool(
        _info(address, transport), min_size=1, max_size=1, **settings
    )
    try:
        yield pool
    finally:
        pool.close(timeout=0)


def test_a_pool_in_a_black_hole_ends(end: str) -> None:
    with BlackHole() as hole, _pool(hole.address) as pool:
        _ends(end, pool.getconn, psycopg_pool.PoolTimeout)


@pytest.mark.parametrize("fault", ["silent", "drip"])
def test_a_pool_whose_server_stalls_ends(
    end: str, fault: str, transport: str, ids: Identities
) -> None:
    welcome = {"silent": "stall", "drip": "drip"}[fault]
    with PostgresPeer(server_context(ids), welcome) as peer:
        with _pool(("127.0.0.1", peer.port), transport) as pool:
            assert peer.asked.wait(_PATIENT)
            assert peer.secured == (transport == "tls")
            _ends(end, pool.getconn, psycopg_pool.PoolTimeout)


def test_a_pool_behind_a_stalled_handshake_ends(end: str) -> None:
    script = [("recv", 8), ("send", b"S"), ("stall",)]
    with PeerScript(script, check=False, connections=20) as peer:
        with _pool(peer.address, "tls") as pool:
            peer.wait_steps(2, 60)
            _ends(end, pool.getconn, psycopg_pool.PoolTimeout)


def _dead_dns_of_a_pool(end: str) -> bool:
    from hardsock.lab.dns import DeadDNS, use_dns

    with DeadDNS():
        use_dns("127.0.0.1", timeout=30, attempts=5)
        with _pool(("nobody.test", 5432)) as pool:
            _ends(end, pool.getconn, psycopg_pool.PoolTimeout)
    return True


@pytest.mark.net
def test_a_pool_with_a_dead_name_server_ends(end: str) -> None:
    with require(Namespace()) as namespace:
        assert namespace.run("adapters.test_psycopg:_dead_dns_of_a_pool", end, timeout=120)


def test_the_check_of_a_pool_ends_and_so_does_the_pause_after_it(
    server: Server, end: str, transport: str
) -> None:
    """A cancel was a bad connection to the pool, which asked for another, for half a minute."""
    checked = threading.Event()

    def check(conn: Any) -> None:
        checked.set()
        conn.execute(SLOW)

    def refuse(conn: Any) -> None:
        checked.set()
        raise psycopg.OperationalError("is bad")

    for one in (check, refuse):
        checked.clear()
        with _pool(server.address, transport, check=one, timeout=_PATIENT) as pool:
            pool.wait(_PATIENT)
            _ends(end, pool.getconn, psycopg_pool.PoolTimeout, lambda: checked.wait(_PATIENT))


@pytest.mark.parametrize("within_a_call", [False, True])
def test_an_interrupt_in_the_check_of_a_pool_loses_no_connection(
    server: Server, within_a_call: bool
) -> None:
    """It is no connection that is bad, and ends the search; the one place of the pool is free."""
    main = threading.main_thread()
    checking = threading.Event()

    def check(conn: Any) -> None:
        if checking.is_set():
            return
        checking.set()
        if within_a_call:
            conn.execute(SLOW)
        else:
            signal.raise_signal(signal.SIGINT)

    def interrupt() -> None:
        assert main.native_id is not None
        assert main.ident is not None
        checking.wait(_PATIENT)
        wait_until_blocked(main.native_id)
        signal.pthread_kill(main.ident, signal.SIGINT)

    with _pool(server.address, check=check, timeout=_PATIENT) as pool:
        pool.wait(_PATIENT)
        if within_a_call:
            interrupter = threading.Thread(target=interrupt)
            interrupter.start()
        with hs.timeout(_PATIENT), pytest.raises(KeyboardInterrupt):
            pool.getconn()
        if within_a_call:
            interrupter.join()
        with hs.timeout(_PATIENT), pool.connection() as conn:
            assert conn.execute("select 41 + 1").fetchone() == (42,)


def test_a_connection_of_the_pool_is_given_again_after_a_cancel(
    server: Server, end: str, transport: str
) -> None:
    with _pool(server.address, transport) as pool:
        with pool.connection(_PATIENT) as conn:
            _ends(end, lambda: conn.execute(SLOW), psycopg.errors.QueryCanceled)
        with hs.timeout(_PATIENT), pool.connection() as conn:
            assert conn.execute("select 41 + 1").fetchone() == (42,)


@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_a_connection_of_the_pool_that_breaks_off_is_made_anew(
    fault: str, transport: str, ids: Identities
) -> None:
    with PostgresPeer(server_context(ids)) as peer:
        with _pool(("127.0.0.1", peer.port), transport, kwargs={"autocommit": True}) as pool:
            with pool.connection(_PATIENT) as conn:
                with hs.timeout(_PATIENT), pytest.raises(psycopg.OperationalError) as broken:
                    conn.execute(fault)
                found = causes(broken.value)
                assert not any(isinstance(one, hs.DeadlineExceeded) for one in found)
            with hs.timeout(_PATIENT), pool.connection() as other:
                assert other is not conn
                assert other.execute("select").statusmessage == "SELECT 0"
            assert peer.secured == (transport == "tls")
    nothing_open()


def test_rows_of_a_connection_of_the_pool_are_cancelled(
    server: Server, end: str, transport: str
) -> None:
    with _pool(server.address, transport) as pool:
        with pool.connection(_PATIENT) as conn:
            _ends(end, lambda: _read_slowly(conn), psycopg.errors.QueryCanceled)
        with hs.timeout(_PATIENT), pool.connection() as conn:
            assert conn.execute("select 41 + 1").fetchone() == (42,)


def test_a_scope_that_has_ended_takes_no_place(server: Server) -> None:
    with hardsock.adapters.psycopg.ConnectionPool(
        _info(server.address), min_size=1, max_size=1
    ) as pool:
        token = hs.CancelToken()
        token.cancel()
        with hs.scope(token), pytest.raises(hs.Cancelled):
            pool.getconn()
        with pool.connection(60) as conn:
            assert conn.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_a_scope_that_has_ended_begins_no_statement(server: Server, end: str) -> None:
    token = hs.CancelToken(0.0 if end == "scope" else None)
    if end == "cancel":
        token.cancel("before")
    ended = psycopg.errors.QueryCanceled if end == "scope" else hs.Cancelled
    with _connected(server) as conn:
        conn.execute("create temporary table unasked (n int)")
        with hs.scope(token), pytest.raises(ended):
            conn.execute("insert into unasked values (1)")
        with contextlib.suppress(ended), hs.scope(token), conn.transaction():
            conn.execute("insert into unasked values (2)")
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert conn.execute("select count(*) from unasked").fetchone() == (0,)


def test_it_works_without_any_scope_and_names_its_descriptor(server: Server) -> None:
    conn = hardsock.adapters.psycopg.connect(_info(server.address))
    with contextlib.closing(conn):
        assert conn.execute("select 1").fetchone() == (1,)
        (found,) = (one for one in hs.fd_snapshot().descriptors if one.fd == conn.pgconn.socket)
        assert found.note is not None
        assert found.note.name == "libpq {}:{}/postgres".format(*server.address)
        assert found.note.site.function == (
            "test_it_works_without_any_scope_and_names_its_descriptor"
        )


def test_a_notification_that_does_not_come_leaves_the_connection_as_it_was(
    server: Server,
) -> None:
    with _connected(server) as conn:
        with hs.timeout(60):
            conn.execute("listen news")
            assert list(conn.notifies(timeout=0.05)) == []
        with hs.timeout(SHORT), pytest.raises(psycopg.errors.QueryCanceled):
            next(conn.notifies())
        with hs.timeout(60):
            conn.execute("notify news, 'x'")
            assert next(conn.notifies(timeout=30)).payload == "x"


def test_names_are_looked_up_by_hardsock(server: Server) -> None:
    host, port = server.address
    with hs.timeout(60):
        conn = hardsock.adapters.psycopg.connect(_info(("localhost", port)))
        assert conn.info.hostaddr == "127.0.0.1"
        conn.close()
        with socket.socket() as unused:
            unused.bind((host, 0))
            both = f"host=localhost,localhost port={unused.getsockname()[1]},{port}"
            conn = hardsock.adapters.psycopg.connect(f"{both} user=postgres dbname=postgres")
            conn.close()
        with pytest.raises(psycopg.OperationalError, match="no such name"):
            hardsock.adapters.psycopg.connect(_info(("nobody.invalid", port)))
