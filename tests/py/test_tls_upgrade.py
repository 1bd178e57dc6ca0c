"""From plain to TLS on a connection that is there: what may have been read, and what may not."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from conformance.drivers import Driver
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import Call
from support.tls import Identities, tls_pair
from support.tls_visits import info

pytestmark = pytest.mark.usefixtures("event_loops")


CRLF = hs.Line("\r\n")

READY = b"220 go ahead\r\n"


def test_a_connection_is_upgraded_on_both_sides(ids: Identities, run: Any, only: Any) -> None:
    async def serve_one(accepting: Any) -> bytes:
        theirs = await accepting
        async with theirs:
            assert await theirs.recv_line(CRLF, timeout=30) == b"STARTTLS"
            await theirs.sendall(READY, timeout=30)
            await theirs.upgrade_to_tls(ids.server(**only), timeout=30)
            data: bytes = await theirs.recv_exactly(3, timeout=30)
            await theirs.sendall(data, timeout=30)
            assert await theirs.recv(1, timeout=30) == b""
            return data

    async def main(driver: Driver) -> None:
        async with await driver.listen(("127.0.0.1", 0)) as listener:
            async with driver.start(serve_one, listener.accept(timeout=30)) as serving:
                async with await driver.connect(listener.address, timeout=30) as conn:
                    await conn.sendall(b"STARTTLS\r\n", timeout=30)
                    assert await conn.recv_exactly(len(READY), timeout=30) == READY
                    assert conn.tls is None
                    await conn.upgrade_to_tls(
                        ids.client(**only), server_name="localhost", timeout=30
                    )
                    assert info(conn).version == only["min_version"]
                    await conn.sendall(b"abc", timeout=30)
                    assert await conn.recv_exactly(3, timeout=30) == b"abc"
                    await conn.close_write(timeout=30)
                    assert await serving.result() == b"abc"

    run(main)


def test_unread_plaintext_ends_an_upgrade(ids: Identities, run: Any) -> None:
    """The one who sits in the middle may have put it there, to be taken for protected."""

    async def main(driver: Driver) -> None:
        async with await driver.connect(peer.address, timeout=30) as conn:
            assert await conn.recv_line(CRLF, timeout=30) == READY[:-2]
            with pytest.raises(hs.TLSError, match="bytes that came before TLS began") as caught:
                await conn.upgrade_to_tls(ids.client(), server_name="localhost", timeout=30)
            assert caught.value.failure == "plaintext"
            for call in (conn.recv(1), conn.sendall(b"x")):
                with pytest.raises(hs.Poisoned):
                    await call
            assert conn.tls is None

    with PeerScript([("send", READY + b"MAIL FROM:<evil>\r\n"), ("recv_until_eof",)]) as peer:
        run(main)


def test_plaintext_that_nobody_has_received_yet_ends_an_upgrade_too(ids: Identities) -> None:
    with PeerScript([("send", b"MAIL FROM:<evil>\r\n"), ("stall",)], check=False) as peer:
        with hs.connect(peer.address, timeout=30) as conn:
            peer.wait_steps(1)
            with pytest.raises(hs.TLSError) as caught:
                conn.upgrade_to_tls(ids.client(), server_name="localhost", timeout=30)
            assert caught.value.failure == "not_tls"
            with pytest.raises(hs.Poisoned):
                conn.recv(1)


def speak_with_a_header(address: Any, ca: Path) -> bytes:
    """The header of a proxy and the client's first message in one segment; what is answered."""
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context(cafile=str(ca)).wrap_bio(
        inward, outward, server_hostname="localhost"
    )
    with socket.create_connection(address, 60) as plain:
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        plain.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n" + outward.read())
        while True:
            try:
                return tls.read(100)
            except ssl.SSLWantReadError:
                plain.sendall(outward.read())
                if not (received := plain.recv(65536)):
                    return b""
                inward.write(received)


@pytest.mark.parametrize("settings", [{}, {"read_ahead": True}, {"read_ahead": False}])
def test_what_a_server_has_read_ahead_begins_its_handshake(
    ids: Identities, run: Any, settings: dict[str, bool]
) -> None:
    async def main(driver: Driver) -> None:
        async with await driver.listen(("127.0.0.1", 0)) as listener:
            with Call(speak_with_a_header, listener.address, ids.ca) as speaking:
                async with await listener.accept(timeout=30) as conn:
                    assert (await conn.recv_line(CRLF, timeout=30)).startswith(b"PROXY TCP4")
                    if settings.get("read_ahead", True):
                        await conn.upgrade_to_tls(ids.server(), timeout=30, **settings)
                        await conn.sendall(b"protected", timeout=30)
                    else:
                        with pytest.raises(hs.TLSError) as caught:
                            await conn.upgrade_to_tls(ids.server(), timeout=30, **settings)
                        assert caught.value.failure == "plaintext"
                expected = b"protected" if settings.get("read_ahead", True) else b""
                assert speaking.result(timeout=60) == expected

    run(main)


def test_read_ahead_is_a_bool(ids: Identities) -> None:
    left, right = socket.socketpair()
    with hs.adopt(left) as conn, right:
        with pytest.raises(TypeError, match="read_ahead must be a bool, not int"):
            conn.upgrade_to_tls(ids.server(), read_ahead=1)  # type: ignore[arg-type]


def test_an_upgrade_while_somebody_reads_is_busy_and_harms_nothing(
    ids: Identities, run: Any
) -> None:
    async def main(driver: Driver) -> None:
        left, right = socket.socketpair()
        async with driver.adopt(left) as conn, driver.adopt(right) as peer:
            async with driver.start(conn.recv, 1, timeout=60) as reading:
                await reading.wait_until_blocked()
                with pytest.raises(hs.Busy):
                    await conn.upgrade_to_tls(ids.client(), server_name="localhost", timeout=30)
                await peer.sendall(b"x", timeout=30)
                assert await reading.result() == b"x"
            await conn.sendall(b"y", timeout=30)
            assert await peer.recv(1, timeout=30) == b"y"

    run(main)


def test_a_connection_is_upgraded_twice_and_no_more(ids: Identities) -> None:
    with tls_pair(ids.client(), ids.server()) as (ours, theirs):
        with Call(theirs.upgrade_to_tls, ids.server(), timeout=30) as answering:
            ours.upgrade_to_tls(ids.client(), server_name="localhost", timeout=30)
            answering.result()
        with pytest.raises(ValueError, match="speaks TLS within TLS already"):
            ours.upgrade_to_tls(ids.client(), server_name="localhost", timeout=30)
        ours.sendall(b"x")
        assert theirs.recv(1, timeout=30) == b"x"


def test_what_a_client_expects_must_be_said(ids: Identities) -> None:
    left, right = socket.socketpair()
    with right, hs.adopt(left) as conn:
        with pytest.raises(ValueError, match="server_name must be given"):
            conn.upgrade_to_tls(ids.client(), timeout=30)
        with pytest.raises(TypeError, match="config must be a TLSConfig"):
            conn.upgrade_to_tls("tls")  # type: ignore[arg-type]
        conn.sendall(b"plain")
        assert right.recv(5) == b"plain"


def test_after_a_failed_upgrade_nothing_plain_passes(ids: Identities, run: Any) -> None:
    async def main(driver: Driver) -> None:
        async with await driver.connect(peer.address, timeout=30) as conn:
            with pytest.raises(hs.DeadlineExceeded) as caught:
                await conn.upgrade_to_tls(ids.client(), server_name="localhost", timeout=0.5)
            assert caught.value.phase == "tls"
            peer.release()
            peer.wait_steps(3)
            for call in (conn.recv(1), conn.sendall(b"x"), conn.recv_line()):
                with pytest.raises(hs.Poisoned):
                    await call
            with pytest.raises((hs.Poisoned, ValueError)):
                await conn.upgrade_to_tls(ids.client(), server_name="localhost", timeout=30)
            assert conn.tls is None

    script = [("recv", 1), ("stall",), ("send", b"plain"), ("recv_until_eof",)]
    with PeerScript(script, check=False) as peer:
        run(main)
