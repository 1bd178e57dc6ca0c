"""A client against the list of badssl.com: wrongly accepted none, wrongly refused none."""

from __future__ import annotations

import re

import pytest

import hardsock as hs
from support.badssl import CERTIFICATES, PROTOCOLS, Row, World
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
    with hs.connect(address, tls=config, server_name=row.server_name, timeout=10) as conn:
        conn.confirm(timeout=10)
        assert conn.tls is not None
        assert conn.tls.version == version
        conn.sendall(b"abc\n")
        assert b"cba\n" == conn.recv_exactly(4, timeout=10)


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
