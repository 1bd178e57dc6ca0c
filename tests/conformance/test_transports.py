"""The contract of streams, by every driver over every transport that hardsock has."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import hardsock as hs
from support.pki import make_authority

from .drivers import DRIVERS, AsyncFunction, Driver
from .frame_contract import FRAME_CONTRACT
from .loop_contract import LISTENER_CONTRACT, LOOP_CONTRACT
from .stream_contract import CONTRACT

Pair = tuple[Any, Any]
Transport = Callable[[Driver, Path], AbstractAsyncContextManager[Pair]]


@asynccontextmanager
async def _accepted(driver: Driver, address: Any) -> AsyncIterator[Pair]:
    async with await driver.listen(address) as listener:
        bound = listener.address
        target = bound if isinstance(bound, tuple) else f"unix:{bound}"
        async with (
            await driver.connect(target, timeout=30) as ours,
            await listener.accept(timeout=30) as theirs,
        ):
            yield ours, theirs


@cache
def _tls_configs(version: str) -> tuple[hs.TLSConfig, hs.TLSConfig]:
    """(a client's, a server's) that speak *version* only."""
    with TemporaryDirectory() as directory:
        authority = make_authority(Path(directory))
        certificate, key = authority.issue()
        both = {"min_version": version, "max_version": version}
        return (
            hs.TLSConfig(ca=authority.certificate, **both),
            hs.TLSConfig(
                role="server", certificates=hs.Certificate(chain=certificate, key=key), **both
            ),
        )


@asynccontextmanager
async def _secured(driver: Driver, version: str) -> AsyncIterator[Pair]:
    """Through connect and a listener, which does its handshake while it accepts."""
    client, server = _tls_configs(version)
    async with await driver.listen(("127.0.0.1", 0), tls=server) as listener:
        async with driver.start(listener.accept, timeout=30) as accepting:
            ours = await driver.connect(listener.address, tls=client, timeout=30)
            theirs = await accepting.result(30)
        async with ours, theirs:
            await ours.confirm(timeout=30)
            yield ours, theirs


@asynccontextmanager
async def _secured_within(driver: Driver) -> AsyncIterator[Pair]:
    """TLS 1.3 within TLS 1.2, as a proxy of older make would have it."""
    client, server = _tls_configs("TLSv1.3")
    async with _secured(driver, "TLSv1.2") as (ours, theirs):
        async with driver.start(theirs.upgrade_to_tls, server, timeout=30) as answering:
            await ours.upgrade_to_tls(client, server_name="localhost", timeout=30)
            await answering.result(30)
        await ours.confirm(timeout=30)
        yield ours, theirs


@asynccontextmanager
async def _socketpair(driver: Driver) -> AsyncIterator[Pair]:
    left, right = socket.socketpair()
    async with driver.adopt(left) as ours, driver.adopt(right) as theirs:
        yield ours, theirs


TRANSPORTS: dict[str, Transport] = {
    "tcp4": lambda driver, path: _accepted(driver, ("127.0.0.1", 0)),
    "tcp6": lambda driver, path: _accepted(driver, ("::1", 0)),
    "unix": lambda driver, path: _accepted(driver, f"unix:{path}/s"),
    "socketpair": lambda driver, path: _socketpair(driver),
    "tls12": lambda driver, path: _secured(driver, "TLSv1.2"),
    "tls13": lambda driver, path: _secured(driver, "TLSv1.3"),
    "tls13 within tls12": lambda driver, path: _secured_within(driver),
}
ADDRESSES: dict[str, Callable[[Path], Any]] = {
    "tcp4": lambda path: ("127.0.0.1", 0),
    "tcp6": lambda path: ("::1", 0),
    "unix": lambda path: f"unix:{path}/s",
}
pytestmark = pytest.mark.usefixtures("event_loops")

LOOPS = [name for name, driver in DRIVERS.items() if driver.awaited]


def _run(driver_name: str, transport: str, clause: AsyncFunction, path: Path) -> None:
    driver = DRIVERS[driver_name]()

    async def main() -> None:
        async with TRANSPORTS[transport](driver, path) as (ours, theirs):
            await clause(driver, ours, theirs)

    driver.run(main)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("clause", [*CONTRACT, *FRAME_CONTRACT], ids=lambda clause: clause.__name__)
def test_transport_keeps(
    driver: str, transport: str, clause: AsyncFunction, tmp_path: Path
) -> None:
    _run(driver, transport, clause, tmp_path)


@pytest.mark.parametrize("driver", LOOPS)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("clause", LOOP_CONTRACT, ids=lambda clause: clause.__name__)
def test_event_loop_keeps(
    driver: str, transport: str, clause: AsyncFunction, tmp_path: Path
) -> None:
    _run(driver, transport, clause, tmp_path)


@pytest.mark.parametrize("driver", LOOPS)
@pytest.mark.parametrize("family", ADDRESSES)
@pytest.mark.parametrize("clause", LISTENER_CONTRACT, ids=lambda clause: clause.__name__)
def test_listener_in_an_event_loop_keeps(
    driver: str, family: str, clause: AsyncFunction, tmp_path: Path
) -> None:
    chosen = DRIVERS[driver]()

    async def main() -> None:
        async with await chosen.listen(ADDRESSES[family](tmp_path)) as listener:
            await clause(chosen, listener)

    chosen.run(main)
