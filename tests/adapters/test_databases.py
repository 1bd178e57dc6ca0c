"""PyMySQL over hardsock, and pg8000, which takes a connected socket."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

import pg8000.native
import pymysql
import pytest

import hardsock as hs
import hardsock.adapters.pymysql
from adapters.endings import SHORT, causes, is_ended
from adapters.http_contract import nothing_open, server_context
from adapters.mysql_peer import GREETING_PACKET, MySQLPeer
from hardsock.lab.blackhole import BlackHole
from hardsock.lab.namespaces import Namespace
from hardsock.lab.peers import PeerScript
from support.require import require
from support.servers import postgres
from support.tls import Identities


@contextlib.contextmanager
def _mysql(
    port: int, ids: Identities | None, host: str = "127.0.0.1", **settings: Any
) -> Iterator[Any]:
    if ids is not None:
        settings["ssl"] = {"ca": str(ids.ca)}
    else:
        settings["ssl_disabled"] = True
    conn = hardsock.adapters.pymysql.connect(
        host=host, port=port, user="u", password="p", **settings
    )
    try:
        yield conn
    finally:
        if conn.open:
            conn.close()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("fault", ["stall", "drip"])
@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_a_statement_ends(tls: bool, fault: str, end: str, ids: Identities) -> None:
    with MySQLPeer(server_context(ids)) as peer, hs.timeout(60):
        with _mysql(peer.port, ids if tls else None) as conn:
            assert peer.secured == tls
            (found,) = (one for one in hs.open_connections() if one.how == "connect")
            assert found.site.function == "_mysql"
            is_ended(end, lambda: conn.query(fault), pymysql.err.OperationalError)
            assert not conn.open
            nothing_open()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_an_answer_that_breaks_off_is_an_error(tls: bool, fault: str, ids: Identities) -> None:
    with MySQLPeer(server_context(ids)) as peer, hs.timeout(60):
        with _mysql(peer.port, ids if tls else None) as conn:
            with pytest.raises(pymysql.err.OperationalError) as broken:
                conn.query(fault)
            assert not any(isinstance(one, hs.DeadlineExceeded) for one in causes(broken.value))
            del broken
            assert not conn.open
            nothing_open()


@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_connecting_ends(end: str) -> None:
    def connect(port: int) -> None:
        with _mysql(port, None):
            pass

    with BlackHole() as hole:
        is_ended(end, lambda: connect(hole.address[1]), pymysql.err.OperationalError)
    with PeerScript([("stall",)]) as peer:
        is_ended(end, lambda: connect(int(peer.address[1])), pymysql.err.OperationalError)
    nothing_open()


@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_a_stalled_handshake_ends(end: str, ids: Identities) -> None:
    script = [
        ("send", GREETING_PACKET),
        ("recv", 36),
        ("stall",),
    ]  # all but its answer to the hello

    def connect(port: int) -> None:
        with _mysql(port, ids):
            pass

    with PeerScript(script, check=end == "cancel") as peer:  # A scope may end before its answer.
        is_ended(
            end,
            lambda: connect(int(peer.address[1])),
            pymysql.err.OperationalError,
            lambda: peer.wait_steps(2, 60),
            (),
        )
    nothing_open()


def _dead_dns(end: str) -> bool:
    from hardsock.lab.dns import DeadDNS, use_dns

    def connect() -> None:
        with _mysql(3306, None, host="nobody.test"):
            pass

    with DeadDNS():
        use_dns("127.0.0.1", timeout=30, attempts=5)
        is_ended(end, connect, pymysql.err.OperationalError)
    return True


@pytest.mark.net
@pytest.mark.parametrize("end", ["scope", "cancel"])
def test_a_dead_name_server_ends(end: str) -> None:
    with require(Namespace()) as namespace:
        assert namespace.run("adapters.test_databases:_dead_dns", end, timeout=120)


def test_a_read_timeout_is_a_total_for_the_packet() -> None:
    with MySQLPeer() as peer, hs.timeout(60), _mysql(peer.port, None, read_timeout=0.2) as conn:
        with pytest.raises(pymysql.err.OperationalError, match="Lost connection"):
            conn.query("drip")


def test_certificates_are_verified_as_it_says(ids: Identities, tmp_path: Any) -> None:
    with MySQLPeer(server_context(ids)) as peer, hs.timeout(60):
        with pytest.raises(pymysql.err.OperationalError, match="issuer that is not known"):
            with _mysql(peer.port, Identities(tmp_path)):
                pass
    for settings, verified in (
        ({}, False),
        ({"verify_mode": True}, True),
        ({"ca": str(ids.ca)}, True),
        ({"ca": str(ids.ca), "verify_mode": "none"}, False),
    ):
        made = hardsock.adapters.pymysql.Connection(defer_connect=True)._create_ssl_ctx(settings)
        assert (made.verify_mode == ssl.CERT_REQUIRED) == verified
    with pytest.raises(TypeError, match=r"ssl=hardsock\.ssl_context"):
        hardsock.adapters.pymysql.connect(ssl=ssl.create_default_context(), defer_connect=True)


# ---- sock=


def test_pg8000_takes_a_connection() -> None:
    with require(postgres()) as server, hs.timeout(60), hs.connect(server.address) as conn:
        with contextlib.closing(pg8000.native.Connection("postgres", sock=conn)) as database:
            assert database.run("select 41 + 1") == [[42]]
            with hs.timeout(SHORT), pytest.raises(Exception) as late:
                database.run("select pg_sleep(60)")
            assert any(isinstance(one, hs.DeadlineExceeded) for one in causes(late.value))
