"""A client against the list of badssl.com: wrongly accepted none, wrongly refused none."""

from __future__ import annotations

import re
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.peers import PeerScript
from support import tls_raw
from support.badssl import CERTIFICATES, HOST, PROTOCOLS, Row, World
from support.require import available, require

ROWS = [*CERTIFICATES, *PROTOCOLS]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    with available():
        return World(tmp_path_factory.mktemp("badssl"))


def ask(address: tuple[str, int], world: World, row: Row, version: str) -> None:
    """Connect, and exchange a line; what the server says after the handshake counts, too."""
    settings = {"ca": world.trusted, "max_version": version, **row.client(world)}
    config = hs.TLSConfig(**settings)
    with hs.connect(address, tls=config, server_name=row.server_name, timeout=60) as conn:
        conn.confirm(timeout=60)
        assert conn.tls is not None
        assert conn.tls.version == version
        conn.sendall(b"abc\n")
        assert b"cba\n" == conn.recv_exactly(4, timeout=60)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(row: Row, world: World) -> None:
    with require(row.serve(world)) as address:
        for version in row.versions:
            if row.failure is None:
                ask(address, world, row, version)
                continue
            with pytest.raises(hs.TLSError) as caught:
                ask(address, world, row, version)
            check(caught.value, row)


def check(error: hs.TLSError, row: Row) -> None:
    """The error tells what was wrong, and for whom."""
    assert (row.failure, row.alert) == (error.failure, error.alert), str(error)
    assert re.search(row.says, str(error)), str(error)
    if row.verify is not None:
        assert isinstance(error, hs.CertificateError)
        assert int(row.verify) == error.verify_code, str(error)


@pytest.mark.parametrize(
    ("hello", "alert"),
    [
        ({"cipher": tls_raw.RC4_SHA}, 47),
        ({"cipher": tls_raw.ECDHE_RSA, "version": tls_raw.TLS10}, 70),
        ({"cipher": tls_raw.ECDHE_RSA, "compression": 1}, 47),
        ({"cipher": tls_raw.ECDHE_RSA, "random_end": tls_raw.DOWNGRADED_TO_1_2}, 47),
        ({"cipher": tls_raw.ECDHE_RSA, "random_end": tls_raw.DOWNGRADED_FURTHER}, 47),
    ],
)
def test_the_server_is_told(hello: dict[str, Any], alert: int, world: World) -> None:
    """The alert arrives: no reset overtakes it, though there is more to be read."""
    answer = tls_raw.server_hello(**hello) + bytes(100)
    steps = [("call", tls_raw.read_record), ("send", answer), ("recv_until_eof",)]
    with PeerScript(steps) as peer:
        with pytest.raises(hs.TLSError):
            config = hs.TLSConfig(ca=world.trusted)
            hs.connect(peer.address, tls=config, server_name=HOST, timeout=30)
    assert tls_raw.alert(alert) == peer.received
