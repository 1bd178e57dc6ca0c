"""TLS on connections: handshakes and how they fail, upgrades, sessions, and the ends of streams."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import re
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import urllib3

from support.require import need_module

need_module("cryptography")

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

import hardsock as hs
from conformance.drivers import DRIVERS, Driver
from hardsock import aio
from hardsock.lab.servers.process import free_port
from hardsock.lab.waits import poll_until
from support import Call, Namespace, PeerScript, require, run_threaded
from support.pki import CLIENT, SERVER
from support.servers import redis_server
from support.tls import Identities, tls_pair

Clause = Callable[[Driver], Coroutine[Any, Any, None]]
VERSIONS = ("TLSv1.2", "TLSv1.3")

pytestmark = pytest.mark.usefixtures("event_loops")


@pytest.fixture(params=["threads", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Clause], None]:
    """Runs a clause by a blocking thread, and in an event loop."""
    driver = DRIVERS[request.param]()
    return lambda clause: driver.run(lambda: clause(driver))


@pytest.fixture(params=VERSIONS)
def only(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings that leave one version."""
    return {"min_version": request.param, "max_version": request.param}


async def until(driver: Driver, condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Let others run until *condition* holds, of which nobody tells."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        await driver.turn()


def echo(conn: hs.Connection) -> None:
    with conn:
        while data := conn.recv(65536, timeout=10):
            conn.sendall(data, timeout=10)
        conn.close_write(timeout=10)


def greet(conn: hs.Connection) -> None:
    """Says its server name, and waits for the end."""
    with conn:
        assert conn.tls is not None
        conn.sendall(f"{conn.tls.server_name}\n".encode(), timeout=10)
        conn.recv(1, timeout=10)


def info(conn: Any) -> hs.TLSInfo:
    found: hs.TLSInfo | None = conn.tls
    assert found is not None
    return found


def serve(
    handler: Callable[[hs.Connection], None], config: hs.TLSConfig, **settings: Any
) -> hs.Server:
    return hs.serve(handler, ("127.0.0.1", 0), tls=config, drain_timeout=10, **settings)


@contextlib.contextmanager
def visit(server: hs.Server, config: hs.TLSConfig, **settings: Any) -> Iterator[hs.Connection]:
    with hs.connect(server.address, tls=config, timeout=10, **settings) as conn:
        yield conn


# ---- What a handshake agreed on


def test_a_connection_tells_what_it_agreed_on(ids: Identities, run: Any, only: Any) -> None:
    async def main(driver: Driver) -> None:
        async with await driver.connect(
            server.address, tls=ids.client(alpn=["b", "a"], **only), server_name="localhost"
        ) as conn:
            await conn.confirm(timeout=5)
            found = info(conn)
            assert (found.role, found.version) == ("client", only["min_version"])
            assert (found.alpn, found.server_name) == ("a", "localhost")
            assert (found.resumed, found.verified, found.ocsp) == (False, True, "none")
            assert found.tickets > 0
            assert found.group == "X25519"
            assert len(found.peer_chain) == 1
            assert found.peer_certificate is not None
            assert found.peer_certificate.subject == "CN=localhost"
            assert found.peer_certificate.issuer == "CN=hardsock test authority"
            assert found.peer_certificate.names == ("DNS:localhost", "IP:127.0.0.1", "IP:::1")
            assert found.first_byte is not None
            assert found.verified_at is not None
            assert found.finished is not None
            assert 0 < found.first_byte <= found.verified_at <= found.finished

    with serve(echo, ids.server(alpn=["a", "b"], **only)) as server:
        run(main)


def test_a_plain_connection_has_no_tls_and_nothing_to_confirm() -> None:
    left, right = socket.socketpair()
    with right, hs.adopt(left) as conn:
        assert conn.tls is None
        with pytest.raises(ValueError, match="a plain connection has nothing to confirm"):
            conn.confirm(timeout=5)


def test_what_was_agreed_on_can_be_asked_after_the_end(ids: Identities) -> None:
    with tls_pair(ids.client(), ids.server()) as (ours, _):
        pass
    assert info(ours).version == "TLSv1.3"
    assert info(ours).peer_certificate is not None


def test_usual_mistakes_of_certificates_come_with_advice(ids: Identities, run: Any) -> None:
    rows: list[tuple[dict[str, Any], str | None, str]] = [
        ({"names": ("db.test",)}, None, "give one of the names as server_name"),
        ({"names": ("*.db.test",)}, "db.test", "exactly one label"),
        ({"names": (), "common_name": "db.test"}, "db.test", "in its subjectAltName"),
    ]

    async def main(driver: Driver) -> None:
        for form, name, advice in rows:
            with serve(greet, ids.server(certificates=ids.issue(**form))) as server:
                with pytest.raises(hs.CertificateError) as caught:
                    await driver.connect(
                        server.address, tls=ids.client(), server_name=name, timeout=5
                    )
            assert advice in str(caught.value.hint)
            assert advice in str(caught.value)

    run(main)


def test_a_client_without_a_certificate_is_told_what_to_give(ids: Identities, run: Any) -> None:
    """With TLS 1.3 by the first read (RFC 8446 section 6.2: alert 116)."""

    async def main(driver: Driver) -> None:
        async with await driver.connect(server.address, tls=ids.client(), timeout=5) as conn:
            with pytest.raises(hs.TLSError) as caught:
                await conn.recv(1, timeout=5)
        assert caught.value.alert == 116
        assert "TLSConfig(certificates=...)" in str(caught.value.hint)

    with serve(greet, mutual(ids, "required")) as server:
        run(main)


def test_no_name_is_asked_of_an_address(ids: Identities) -> None:
    with serve(greet, ids.server()) as server:
        with visit(server, ids.client()) as conn:
            assert info(conn).server_name is None
            assert conn.recv_line(timeout=5) == b"None"
        with visit(server, ids.client(), server_name="localhost.") as conn:
            assert info(conn).server_name == "localhost"
            assert conn.recv_line(timeout=5) == b"localhost"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "server_name must be given"),
        (".", "server_name must have 1 to 253 characters, got 0"),
        ("x" * 254, "server_name must have 1 to 253 characters, got 254"),
        (".localhost", "server_name must not begin with a dot"),
        ("local\0host", "server_name must have at most 255 characters, and no NUL"),
        ("gr\u00fc\u00df" * 20, r"server_name: '.*' cannot be a host name \(IDNA\)"),
        ("gr\u00fc\u00df..test", r"server_name: '.*' cannot be a host name \(IDNA\)"),
    ],
)
def test_a_name_that_would_check_nothing_is_refused(
    ids: Identities, name: str, message: str
) -> None:
    with serve(greet, ids.server()) as server, pytest.raises(ValueError, match=message):
        hs.connect(server.address, tls=ids.client(), server_name=name, timeout=5)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with require(Namespace()) as made:
        yield made


IDN, A_LABEL = "B\u00fccher.test", "xn--bcher-kva.test"


def test_a_name_may_be_given_as_people_write_it(ids: Identities, run: Any) -> None:
    """It is asked for and compared as DNS and certificates have it (RFC 5890)."""

    async def main(driver: Driver) -> None:
        async with await driver.connect(server.address, tls=ids.client(), server_name=IDN) as conn:
            assert conn.tls.server_name == A_LABEL
            assert await conn.recv_line(timeout=5) == A_LABEL.encode()
        with pytest.raises(hs.CertificateError, match=f"is for {A_LABEL}, not for xn--"):
            await driver.connect(server.address, tls=ids.client(), server_name="b\u00fcch.test")
        async with await driver.connect(plain.address, timeout=5) as conn:
            await conn.upgrade_to_tls(ids.client(), server_name=IDN, timeout=5)
            assert conn.tls.server_name == A_LABEL

    def upgrade(conn: hs.Connection) -> None:
        conn.upgrade_to_tls(config, timeout=5)

    config = ids.server(certificates=ids.issue((A_LABEL,)))
    with (
        serve(greet, config) as server,
        hs.serve(upgrade, ("127.0.0.1", 0), drain_timeout=5) as plain,
    ):
        run(main)
        with hs.Pool(server.address, tls=ids.client(), server_name=IDN) as pool:
            with pool.connection(timeout=5) as conn:
                assert info(conn).server_name == A_LABEL


def _by_an_idn() -> list[str | None]:
    from tempfile import TemporaryDirectory

    from support.inside import bind_mount_file

    bind_mount_file("/etc/hosts", f"127.0.1.1 {A_LABEL}\n")
    bind_mount_file("/etc/nsswitch.conf", "hosts: files\n")
    with TemporaryDirectory() as directory:
        ids = Identities(Path(directory))
        config = ids.server(certificates=ids.issue((A_LABEL,)))
        with hs.serve(greet, ("127.0.1.1", 0), tls=config, drain_timeout=5) as server:
            port = server.address[1]
            found = []
            for address in (f"{IDN}:{port}", (IDN, port)):
                with hs.connect(address, tls=ids.client(), timeout=5) as conn:
                    found.append(info(conn).server_name)
            return found


@pytest.mark.net
def test_an_address_may_be_one_that_people_write(namespace: Namespace) -> None:
    assert namespace.run(_by_an_idn) == [A_LABEL, A_LABEL]


# ---- How connecting fails

ALERT = b"\x15\x03\x03\x00\x02\x02"
FAILING_PEERS: dict[str, tuple[bytes, str, str]] = {
    # failure: what the peer sends before it closes, what the error says, the advice
    "empty": (b"", "closed the connection without sending a byte", ""),
    "aborted": (b"\x16\x03\x03\x00\x7a\x02", "in the middle of the handshake", ""),
    "alert": (ALERT + b"\x28", "refused: alert 40, handshake failure", ""),
    "not_tls": (b"220 mail.test ESMTP\r\n", "does not speak TLS", "upgrade_to_tls"),
    "protocol": (b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00", "broke the TLS protocol", ""),
}


@pytest.mark.parametrize("failure", FAILING_PEERS)
def test_a_failed_handshake_says_of_what(ids: Identities, run: Any, failure: str) -> None:
    sent, message, hint = FAILING_PEERS[failure]

    async def main(driver: Driver) -> None:
        with pytest.raises(hs.TLSError, match=message) as caught:
            await driver.connect(peer.address, tls=ids.client(), timeout=5)
        error = caught.value
        assert (error.failure, error.op, error.phase) == (failure, "connect", "tls")
        assert error.alert == (40 if failure == "alert" else None)
        assert not isinstance(error, hs.CertificateError)
        assert isinstance(error, ssl.SSLError)
        assert hint in str(error.hint)
        assert error.peer == "{}:{}".format(*peer.address)
        assert [(a.phase, a.tls) for a in error.attempts] == [("tls", failure)]

    script = [("call", lambda sock: sock.recv(65536)), ("send", sent), ("half_close",)]
    with PeerScript([*script, ("recv_until_eof",)]) as peer:
        run(main)


def test_a_reset_in_the_handshake_is_a_reset(ids: Identities, run: Any) -> None:
    async def main(driver: Driver) -> None:
        with pytest.raises(hs.Reset) as caught:
            await driver.connect(peer.address, tls=ids.client(), timeout=5)
        assert (caught.value.phase, caught.value.attempts[0].tls) == ("tls", "reset")

    with PeerScript([("recv", 1), ("rst",)]) as peer:
        run(main)


BAD_CERTIFICATES: dict[str, tuple[tuple[int, int], str | None, str]] = {
    # why: days of validity from now, name asked for, what the error says
    "expired": (
        (-10, -3),
        None,
        (
            r"certificate for 127\.0\.0\.1 expired 3 days ago \(\d{4}-\d\d-\d\d\), "
            r"issuer CN=hardsock test authority"
        ),
    ),
    "future": (
        (4, 9),
        None,
        r"certificate for 127\.0\.0\.1 is valid only in [34] days \(from \d{4}-\d\d-\d\d\)",
    ),
    "name": (
        (-1, 9),
        "db.internal",
        r"certificate is for localhost, 127\.0\.0\.1, ::1, not for db\.internal",
    ),
    "address": ((-1, 9), "192.0.2.1", r"certificate is for .*, not for 192\.0\.2\.1"),
}
VERIFY_CODES = {"expired": 10, "future": 9, "name": 62, "address": 64}


@pytest.mark.parametrize("why", BAD_CERTIFICATES)
def test_a_bad_certificate_says_whose_and_why(
    ids: Identities, run: Any, only: Any, why: str
) -> None:
    (begin, end), name, message = BAD_CERTIFICATES[why]

    async def main(driver: Driver) -> None:
        with pytest.raises(hs.CertificateError, match=message) as caught:
            await driver.connect(
                server.address, tls=ids.client(**only), server_name=name, timeout=5
            )
        error = caught.value
        assert isinstance(error, ssl.SSLCertVerificationError)
        assert (error.failure, error.phase, error.verify_code) == (
            "verify",
            "tls",
            VERIFY_CODES[why],
        )
        assert re.search(message, error.verify_message)
        assert [a.tls for a in error.attempts] == ["verify"]

    identity = ids.issue_between(timedelta(days=begin), timedelta(days=end))
    with serve(greet, ids.server(certificates=identity)) as server:
        run(main)


def test_an_unknown_issuer_is_named(ids: Identities, tmp_path: Path) -> None:
    other = Identities(tmp_path)
    message = "has an issuer that is not known here: CN=hardsock test authority"
    with serve(greet, ids.server()) as server, pytest.raises(hs.CertificateError, match=message):
        hs.connect(server.address, tls=other.client(), timeout=5)


def test_skipping_the_name_still_verifies_and_skipping_all_does_not(
    ids: Identities, tmp_path: Path
) -> None:
    other = Identities(tmp_path)
    with serve(greet, ids.server()) as server:
        with visit(server, ids.client(insecure_skip_hostname=True), server_name="x.test") as conn:
            assert info(conn).verified
        with pytest.raises(hs.CertificateError, match="issuer that is not known"):
            hs.connect(
                server.address,
                tls=other.client(insecure_skip_hostname=True),
                server_name="x.test",
                timeout=5,
            )
        with visit(server, hs.TLSConfig(insecure_skip_verify=True)) as conn:
            assert not info(conn).verified
            assert info(conn).peer_certificate is not None


# ---- Time and cancelling


def test_the_deadline_of_a_connect_covers_the_handshake(ids: Identities, run: Any) -> None:
    async def main(driver: Driver) -> None:
        began = time.monotonic()
        with pytest.raises(hs.DeadlineExceeded) as caught:
            await driver.connect(peer.address, tls=ids.client(), timeout=0.2)
        assert time.monotonic() - began >= 0.2
        assert (caught.value.op, caught.value.phase) == ("connect", "tls")
        assert [a.phase for a in caught.value.attempts] == ["tls"]
        assert "does not go on with the handshake" in str(caught.value.hint)

    with PeerScript([("recv", 1), ("stall",)], check=False) as peer:
        run(main)


def test_the_handshake_has_a_timeout_of_its_own(ids: Identities, run: Any) -> None:
    async def main(driver: Driver) -> None:
        client = ids.client(handshake_timeout=0.15)
        message = r"the TLS handshake took longer than 0\.15 s"
        with pytest.raises(hs.DeadlineExceeded, match=message) as caught:
            await driver.connect(peer.address, tls=client, timeout=30)
        assert caught.value.phase == "tls"
        assert [a.tls for a in caught.value.attempts] == ["timeout"]

    with PeerScript([("recv", 1), ("stall",)], check=False) as peer:
        run(main)


def test_dripping_bytes_buy_no_time(ids: Identities) -> None:
    record = b"\x16\x03\x03\x3f\xff" + b"." * 3000
    with PeerScript([("drip", record, 0.01)], check=False) as peer:
        with pytest.raises(hs.DeadlineExceeded) as caught:
            hs.connect(peer.address, tls=ids.client(), timeout=0.3)
    assert caught.value.elapsed is not None
    assert 0.3 <= caught.value.elapsed < 20  # of thirty that the record takes


def test_a_token_cancels_in_the_middle_of_a_handshake(ids: Identities, run: Any) -> None:
    async def main(driver: Driver) -> None:
        token = hs.CancelToken()
        async with driver.start(
            driver.connect, peer.address, tls=ids.client(), token=token
        ) as connecting:
            await until(driver, lambda: peer.received != b"")
            await connecting.wait_until_blocked()
            token.cancel("never mind")
            with pytest.raises(hs.Cancelled, match="never mind") as caught:
                await connecting.result(5)
        assert caught.value.phase == "tls"

    with PeerScript([("recv", 1), ("stall",)], check=False) as peer:
        run(main)


# ---- When the race of addresses is won


def _race(first: str) -> dict[str, list[str]]:
    """A name with two addresses, of which the first has a *first* ("stalls", "expired")."""
    from tempfile import TemporaryDirectory

    from support.inside import bind_mount_file

    bind_mount_file("/etc/hosts", "127.0.1.1 two.test\n127.0.1.2 two.test\n")
    bind_mount_file("/etc/nsswitch.conf", "hosts: files\n")
    outcomes: dict[str, list[str]] = {}
    with TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        ids = Identities(Path(directory))
        names = ("two.test",)
        good = ids.server(certificates=ids.issue(names))
        enter = stack.enter_context
        second = enter(hs.serve(greet, ("127.0.1.2", 0), tls=good, drain_timeout=5))
        port = second.address[1]
        if first == "stalls":
            script = [("recv", 1), ("stall",)]
            enter(PeerScript(script, host="127.0.1.1", port=port, connections=9, check=False))
        else:
            expired = ids.issue_between(timedelta(-9), timedelta(-2), names)
            bad = ids.server(certificates=expired)
            enter(hs.serve(greet, ("127.0.1.1", port), tls=bad, drain_timeout=5))
        for commit in ("tcp", "tls"):
            try:
                with hs.connect(
                    ("two.test", port),
                    tls=ids.client(),
                    commit=commit,  # type: ignore[arg-type]
                    timeout=1.5,
                    attempt_delay=0.05,
                ) as conn:
                    outcomes[commit] = [conn.getpeername()[0]]
            except hs.HardsockError as exc:
                outcomes[commit] = [type(exc).__name__, str(exc.phase)]
    return outcomes


@pytest.mark.net
def test_an_address_whose_handshake_stalls_loses_when_tls_commits(namespace: Namespace) -> None:
    outcomes = namespace.run(_race, "stalls")
    assert outcomes == {"tcp": ["DeadlineExceeded", "tls"], "tls": ["127.0.1.2"]}


@pytest.mark.net
def test_an_address_whose_handshake_fails_loses_when_tls_commits(namespace: Namespace) -> None:
    outcomes = namespace.run(_race, "expired")
    assert outcomes == {"tcp": ["CertificateError", "tls"], "tls": ["127.0.1.2"]}


# ---- Upgrading

CRLF = hs.Line("\r\n")
READY = b"220 go ahead\r\n"


def test_a_connection_is_upgraded_on_both_sides(ids: Identities, run: Any, only: Any) -> None:
    async def serve_one(accepting: Any) -> bytes:
        theirs = await accepting
        async with theirs:
            assert await theirs.recv_line(CRLF, timeout=5) == b"STARTTLS"
            await theirs.sendall(READY, timeout=5)
            await theirs.upgrade_to_tls(ids.server(**only), timeout=5)
            data: bytes = await theirs.recv_exactly(3, timeout=5)
            await theirs.sendall(data, timeout=5)
            assert await theirs.recv(1, timeout=5) == b""
            return data

    async def main(driver: Driver) -> None:
        async with await driver.listen(("127.0.0.1", 0)) as listener:
            async with driver.start(serve_one, listener.accept(timeout=5)) as serving:
                async with await driver.connect(listener.address, timeout=5) as conn:
                    await conn.sendall(b"STARTTLS\r\n", timeout=5)
                    assert await conn.recv_exactly(len(READY), timeout=5) == READY
                    assert conn.tls is None
                    await conn.upgrade_to_tls(
                        ids.client(**only), server_name="localhost", timeout=5
                    )
                    assert info(conn).version == only["min_version"]
                    await conn.sendall(b"abc", timeout=5)
                    assert await conn.recv_exactly(3, timeout=5) == b"abc"
                    await conn.close_write(timeout=5)
                    assert await serving.result() == b"abc"

    run(main)


def test_unread_plaintext_ends_an_upgrade(ids: Identities, run: Any) -> None:
    """The one who sits in the middle may have put it there, to be taken for protected."""

    async def main(driver: Driver) -> None:
        async with await driver.connect(peer.address, timeout=5) as conn:
            assert await conn.recv_line(CRLF, timeout=5) == READY[:-2]
            with pytest.raises(hs.TLSError, match="bytes that came before TLS began") as caught:
                await conn.upgrade_to_tls(ids.client(), server_name="localhost", timeout=5)
            assert caught.value.failure == "plaintext"
            for call in (conn.recv(1), conn.sendall(b"x")):
                with pytest.raises(hs.Poisoned):
                    await call
            assert conn.tls is None

    with PeerScript([("send", READY + b"MAIL FROM:<evil>\r\n"), ("recv_until_eof",)]) as peer:
        run(main)


def test_plaintext_that_nobody_has_received_yet_ends_an_upgrade_too(ids: Identities) -> None:
    with PeerScript([("send", b"MAIL FROM:<evil>\r\n"), ("stall",)], check=False) as peer:
        with hs.connect(peer.address, timeout=5) as conn:
            peer.wait_steps(1)
            with pytest.raises(hs.TLSError) as caught:
                conn.upgrade_to_tls(ids.client(), server_name="localhost", timeout=5)
            assert caught.value.failure == "not_tls"
            with pytest.raises(hs.Poisoned):
                conn.recv(1)


def speak_with_a_header(address: Any, ca: Path) -> bytes:
    """The header of a proxy and the client's first message in one segment; what is answered."""
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context(cafile=str(ca)).wrap_bio(
        inward, outward, server_hostname="localhost"
    )
    with socket.create_connection(address, 10) as plain:
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
                async with await listener.accept(timeout=5) as conn:
                    assert (await conn.recv_line(CRLF, timeout=5)).startswith(b"PROXY TCP4")
                    if settings.get("read_ahead", True):
                        await conn.upgrade_to_tls(ids.server(), timeout=5, **settings)
                        await conn.sendall(b"protected", timeout=5)
                    else:
                        with pytest.raises(hs.TLSError) as caught:
                            await conn.upgrade_to_tls(ids.server(), timeout=5, **settings)
                        assert caught.value.failure == "plaintext"
                expected = b"protected" if settings.get("read_ahead", True) else b""
                assert speaking.result(timeout=10) == expected

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
            async with driver.start(conn.recv, 1, timeout=10) as reading:
                await reading.wait_until_blocked()
                with pytest.raises(hs.Busy):
                    await conn.upgrade_to_tls(ids.client(), server_name="localhost", timeout=5)
                await peer.sendall(b"x", timeout=5)
                assert await reading.result() == b"x"
            await conn.sendall(b"y", timeout=5)
            assert await peer.recv(1, timeout=5) == b"y"

    run(main)


def test_a_connection_is_upgraded_twice_and_no_more(ids: Identities) -> None:
    with tls_pair(ids.client(), ids.server()) as (ours, theirs):
        with Call(theirs.upgrade_to_tls, ids.server(), timeout=5) as answering:
            ours.upgrade_to_tls(ids.client(), server_name="localhost", timeout=5)
            answering.result()
        with pytest.raises(ValueError, match="speaks TLS within TLS already"):
            ours.upgrade_to_tls(ids.client(), server_name="localhost", timeout=5)
        ours.sendall(b"x")
        assert theirs.recv(1, timeout=5) == b"x"


def test_what_a_client_expects_must_be_said(ids: Identities) -> None:
    left, right = socket.socketpair()
    with right, hs.adopt(left) as conn:
        with pytest.raises(ValueError, match="server_name must be given"):
            conn.upgrade_to_tls(ids.client(), timeout=5)
        with pytest.raises(TypeError, match="config must be a TLSConfig"):
            conn.upgrade_to_tls("tls")  # type: ignore[arg-type]
        conn.sendall(b"plain")
        assert right.recv(5) == b"plain"


def test_after_a_failed_upgrade_nothing_plain_passes(ids: Identities, run: Any) -> None:
    async def main(driver: Driver) -> None:
        async with await driver.connect(peer.address, timeout=5) as conn:
            with pytest.raises(hs.DeadlineExceeded) as caught:
                await conn.upgrade_to_tls(ids.client(), server_name="localhost", timeout=0.1)
            assert caught.value.phase == "tls"
            peer.release()
            peer.wait_steps(3)
            for call in (conn.recv(1), conn.sendall(b"x"), conn.recv_line()):
                with pytest.raises(hs.Poisoned):
                    await call
            with pytest.raises((hs.Poisoned, ValueError)):
                await conn.upgrade_to_tls(ids.client(), server_name="localhost", timeout=5)
            assert conn.tls is None

    script = [("recv", 1), ("stall",), ("send", b"plain"), ("recv_until_eof",)]
    with PeerScript(script, check=False) as peer:
        run(main)


# ---- Client certificates


def mutual(ids: Identities, mode: str, **settings: Any) -> hs.TLSConfig:
    return ids.server(client_certificates=mode, ca=ids.ca, **settings)


@pytest.mark.parametrize("mode", ["optional", "required"])
def test_a_server_knows_its_client(ids: Identities, only: Any, mode: str) -> None:
    client = ids.client(certificates=ids.client_identity, **only)
    with tls_pair(client, mutual(ids, mode, **only)) as (_, theirs):
        found = info(theirs)
        assert found.verified
        assert found.peer_certificate is not None
        assert found.peer_certificate.names == ("DNS:alice.test",)


def test_an_optional_certificate_may_be_missing(ids: Identities, only: Any) -> None:
    with tls_pair(ids.client(**only), mutual(ids, "optional", **only)) as (_, theirs):
        assert not info(theirs).verified
        assert info(theirs).peer_certificate is None


@pytest.mark.parametrize("mode", ["optional", "required"])
def test_confirm_says_what_a_finished_handshake_cannot(
    ids: Identities, run: Any, mode: str, tmp_path: Path
) -> None:
    """With TLS 1.3 the server looks at the client's certificate after the client's handshake."""
    stranger = Identities(tmp_path).client_identity

    async def main(driver: Driver) -> None:
        for certificates, alert in ((None, 116), (stranger, 48)):
            if mode == "optional" and certificates is None:
                continue
            client = ids.client(certificates=certificates)
            async with await driver.connect(server.address, tls=client, timeout=5) as conn:
                assert info(conn).version == "TLSv1.3"
                with pytest.raises(hs.TLSError, match=r"127\.0\.0\.1 refused: alert") as caught:
                    await conn.confirm(timeout=5)
                assert (caught.value.failure, caught.value.alert) == ("alert", alert)

    with serve(greet, mutual(ids, mode)) as server:
        run(main)


def test_before_tls_13_the_handshake_itself_says_so(ids: Identities) -> None:
    client = ids.client(max_version="TLSv1.2")
    with serve(greet, mutual(ids, "required")) as server:
        with pytest.raises(hs.TLSError) as caught:
            hs.connect(server.address, tls=client, timeout=5)
    assert (caught.value.failure, caught.value.phase) == ("alert", "tls")


def test_confirm_leaves_data_to_be_read_and_has_a_deadline(ids: Identities, run: Any) -> None:
    async def main(driver: Driver) -> None:
        async with await driver.connect(server.address, tls=ids.client(), timeout=5) as conn:
            await conn.confirm(timeout=5)
            assert await conn.recv_line(timeout=5) == b"None"
        async with await driver.connect(quiet.address, tls=ids.client(), timeout=5) as conn:
            with pytest.raises(hs.DeadlineExceeded):
                await conn.confirm(timeout=0.05)
            assert not conn.poisoned

    with serve(greet, ids.server(tickets=0)) as server, serve(echo, ids.server(tickets=0)) as quiet:
        run(main)


# ---- ALPN, and which certificate


@pytest.mark.parametrize(
    ("client", "server", "chosen"),
    [
        (["h2", "http/1.1"], ["http/1.1", "h2"], "http/1.1"),
        (["h2"], [], None),
        ([], ["h2"], None),
        (["x" * 255, "y"], ["y"], "y"),
    ],
)
def test_the_server_s_order_of_protocols_counts(
    ids: Identities, only: Any, client: list[str], server: list[str], chosen: str | None
) -> None:
    with tls_pair(ids.client(alpn=client, **only), ids.server(alpn=server, **only)) as pair:
        assert [info(conn).alpn for conn in pair] == [chosen, chosen]


def test_no_protocol_in_common_is_refused(ids: Identities, run: Any) -> None:
    async def main(driver: Driver) -> None:
        with pytest.raises(hs.TLSError, match="alert 120, no application protocol"):
            await driver.connect(server.address, tls=ids.client(alpn=["h3"]), timeout=5)

    with serve(echo, ids.server(alpn=["h2"])) as server:
        run(main)


def test_a_server_presents_what_fits_the_name(ids: Identities, only: Any) -> None:
    certificates = [ids.issue(names) for names in (("a.test",), ("*.b.test",), ("c.test",))]
    wanted = {
        "a.test": "DNS:a.test",
        "x.b.test": "DNS:*.b.test",
        "C.TEST": "DNS:c.test",
        "nobody.test": "DNS:a.test",  # the first, which the client then refuses
    }
    client = ids.client(insecure_skip_hostname=True, sessions=False, **only)
    with serve(greet, ids.server(certificates=certificates, **only)) as server:
        for name, presented in wanted.items():
            with visit(server, client, server_name=name) as conn:
                found = info(conn).peer_certificate
                assert found is not None
                assert found.names == (presented,), name
        with pytest.raises(hs.CertificateError, match=r"is for a\.test, not for nobody\.test"):
            hs.connect(server.address, tls=ids.client(**only), server_name="nobody.test", timeout=5)


@pytest.mark.parametrize("name", [None, "nobody.test", "localhost"])
@pytest.mark.parametrize(("cipher", "kind"), [("ECDSA", "ec"), ("RSA", "rsa")])
def test_the_certificate_is_one_that_the_client_can_verify(
    ids: Identities, name: str | None, cipher: str, kind: str
) -> None:
    """Clients that connect to an address ask for no name (RFC 6066 section 3)."""
    certificates = [ids.issue(key="rsa"), ids.issue(key="ec")]
    context = ssl.create_default_context(cafile=str(ids.ca))
    context.check_hostname = False
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"ECDHE-{cipher}-AES128-GCM-SHA256")
    with (
        serve(greet, ids.server(certificates=certificates)) as server,
        socket.create_connection(server.address, 5) as plain,
        context.wrap_socket(plain, server_hostname=name) as conn,
    ):
        der = conn.getpeercert(binary_form=True)
    assert der is not None
    public_key = x509.load_der_x509_certificate(der).public_key()
    assert isinstance(public_key, RSAPublicKey) is (kind == "rsa")


# ---- Sessions


def resumed(server: hs.Server, config: hs.TLSConfig, **settings: Any) -> bool:
    """Connect, wait for the tickets, end well; whether the session was resumed."""
    with visit(server, config, **settings) as conn:
        assert conn.recv_line(timeout=5)
        return info(conn).resumed


def test_a_session_is_resumed_under_its_name_only(ids: Identities, only: Any) -> None:
    client = ids.client(**only)
    identity = ids.issue(("a.test", "b.test", "127.0.0.1"))
    with serve(greet, ids.server(certificates=identity, **only)) as server:
        assert not resumed(server, client, server_name="a.test")
        assert client.sessions_kept > 0
        assert not resumed(server, client, server_name="b.test"), "another name"
        assert not resumed(server, client), "another name"
        assert resumed(server, client, server_name="a.test")
        assert not resumed(server, ids.client(**only), server_name="a.test"), "another config"


def test_a_session_is_for_one_server(ids: Identities) -> None:
    client = ids.client()
    with serve(greet, ids.server()) as one, serve(greet, ids.server()) as two:
        assert not resumed(one, client)
        assert not resumed(two, client)
        assert resumed(one, client)


def test_a_resumed_connection_is_as_good_as_the_first(ids: Identities, only: Any) -> None:
    client, seen = ids.client(**only), []

    def look(conn: hs.Connection) -> None:
        seen.append(info(conn).resumed)
        greet(conn)

    with serve(look, ids.server(**only)) as server:
        resumed(server, client)
        with visit(server, client, server_name="127.0.0.1") as conn:
            found = info(conn)
            assert (found.resumed, found.verified) == (True, True)
            assert (found.ocsp, found.verified_at) == ("skipped", None)
            assert found.peer_certificate is not None
            conn.recv_line(timeout=5)
    assert seen == [False, True]


def test_tickets_of_tls_13_are_used_once(ids: Identities) -> None:
    client = ids.client()
    with serve(greet, ids.server(tickets=1)) as server:
        assert not resumed(server, client)
        assert client.sessions_kept == 1
        with visit(server, client) as conn:
            assert info(conn).resumed
            assert client.sessions_kept == 0, "taken, and the next one is not here yet"
            conn.recv_line(timeout=5)
        assert client.sessions_kept == 1


@pytest.mark.parametrize(
    ("client", "server"),
    [
        ({"insecure_skip_verify": True, "ca": None}, {}),
        ({"sessions": False}, {}),
        ({}, {"sessions": False}),
        ({}, {"tickets": 0}),
    ],
    ids=str,
)
def test_without_sessions_none_is_kept_and_none_resumed(
    ids: Identities, only: Any, client: dict[str, Any], server: dict[str, Any]
) -> None:
    config = ids.client(**client, **only)
    with serve(greet, ids.server(**server, **only)) as running:
        for _ in range(2):
            assert not resumed(running, config)
        assert config.sessions_kept == 0


def test_an_unverified_session_is_not_resumed_by_anybody(ids: Identities) -> None:
    """A resumed handshake checks no certificate: what was never checked must not come that way."""
    trusting = hs.TLSConfig(insecure_skip_verify=True)
    with serve(greet, ids.server()) as server:
        resumed(server, trusting)
        assert trusting.sessions_kept == 0


def test_reload_of_a_client_drops_its_sessions(ids: Identities) -> None:
    client = ids.client()
    with serve(greet, ids.server()) as server:
        resumed(server, client)
        assert client.sessions_kept > 0
        client.reload()
        assert client.sessions_kept == 0
        assert not resumed(server, client)


def test_reload_of_a_server_keeps_sessions_unless_they_stand_for_client_certificates(
    ids: Identities, only: Any
) -> None:
    for config, after in ((ids.server(**only), True), (mutual(ids, "required", **only), False)):
        client = ids.client(certificates=ids.client_identity, **only)
        with serve(greet, config) as server:
            assert not resumed(server, client)
            assert resumed(server, client)
            config.reload()
            assert resumed(server, client) is after


SOON = timedelta(seconds=4)


@pytest.mark.parametrize(("who", "style"), [("client", "threads"), ("server", "asyncio")])
def test_a_certificate_that_expires_ends_its_sessions(
    ids: Identities, only: Any, who: str, style: str
) -> None:
    """It resumes until then, and is refused by a full handshake after that."""
    usages = CLIENT if who == "client" else SERVER
    short = ids.issue_between(timedelta(days=-1), SOON, usages=usages)
    client = ids.client(certificates=short if who == "client" else ids.client_identity, **only)
    server = mutual(ids, "required", **only, **({"certificates": short} if who == "server" else {}))
    refusals: list[hs.TLSError] = []

    async def visit_async(address: Any) -> bool:
        async with await aio.connect(address, tls=client, timeout=5) as conn:
            assert await conn.recv_line(timeout=5)
            return info(conn).resumed

    with serve(greet, server) as running:

        def call() -> bool:
            if style == "threads":
                return resumed(running, client)
            return asyncio.run(visit_async(running.address))

        def is_refused() -> bool:
            try:
                assert call(), "a new handshake, though nothing has ended"
            except hs.TLSError as exc:
                refusals.append(exc)
            return bool(refusals)

        assert not call()
        assert call()
        poll_until(is_refused, timeout=20)
    assert (refusals[0].alert == 45) if who == "client" else (refusals[0].verify_code == 10)


def test_a_failed_handshake_forgets_the_sessions_of_its_name(ids: Identities) -> None:
    client = ids.client()
    with serve(greet, ids.server()) as server:
        resumed(server, client)
        assert client.sessions_kept > 0
        address = server.address
    expired = ids.issue_between(timedelta(days=-9), timedelta(days=-2))
    with hs.serve(greet, address, tls=ids.server(certificates=expired), drain_timeout=5):
        with pytest.raises(hs.CertificateError, match="expired"):
            hs.connect(address, tls=client, timeout=5)
    assert client.sessions_kept == 0


# ---- The key log

SECRET = re.compile(r"(CLIENT|SERVER|EXPORTER)_\w+ [0-9a-f]{64} [0-9a-f]{64,96}")


def test_a_key_log_has_the_secrets_of_every_connection(
    ids: Identities, only: Any, tmp_path: Path
) -> None:
    log = tmp_path / "keys"
    client = ids.client(insecure_key_log_file=log, sessions=False, **only)
    randoms = set()
    with serve(greet, ids.server(**only)) as server:
        for _ in range(2):
            with visit(server, client):
                pass
    for line in log.read_text().splitlines():
        assert SECRET.fullmatch(line), line
        randoms.add(line.split()[1])
    assert len(randoms) == 2
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_both_sides_log_the_same_secrets(ids: Identities, tmp_path: Path) -> None:
    logs = [tmp_path / "client", tmp_path / "server"]
    client_config = ids.client(insecure_key_log_file=logs[0])
    with tls_pair(client_config, ids.server(insecure_key_log_file=logs[1])):
        pass
    client, server = ({*log.read_text().splitlines()} for log in logs)
    assert client == server
    assert {line.split()[0] for line in client} >= {"CLIENT_TRAFFIC_SECRET_0", "EXPORTER_SECRET"}


# ---- Code written for sockets


def answer_http(conn: hs.Connection) -> None:
    """Two requests on one connection."""
    with conn, conn.makefile("rwb") as file:
        for _ in range(2):
            while file.readline() not in (b"\r\n", b""):
                pass
            file.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
            file.flush()
        conn.close_write(timeout=5)


def test_http_client_runs_unchanged_over_tls(ids: Identities, only: Any) -> None:
    with serve(answer_http, ids.server(**only)) as server:
        client = http.client.HTTPConnection(*server.address)
        client._create_connection = (  # type: ignore[attr-defined]
            lambda address, timeout, source: hs.connect(address, tls=ids.client(**only), timeout=5)
        )
        for _ in range(2):
            client.request("GET", "/")
            assert client.getresponse().read() == b"secret"
        client.close()


def test_urllib3_runs_unchanged_over_tls(ids: Identities) -> None:
    class Secured(urllib3.connection.HTTPConnection):
        def _new_conn(self) -> Any:
            return hs.connect((self.host, self.port), tls=ids.client(), timeout=5)

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Secured

    with serve(answer_http, ids.server()) as server, Pool(*server.address, maxsize=1) as pool:
        for _ in range(2):
            assert pool.request("GET", "/", retries=False).data == b"secret"


def test_redis_py_runs_unchanged_over_tls(ids: Identities) -> None:
    identity, port = ids.server_identity, free_port()
    options = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", ids.ca]
    options += ["--tls-cert-file", identity.chain, "--tls-key-file", identity.key]

    class Secured(redis.Connection):
        def _connect(self) -> Any:
            return hs.connect((self.host, self.port), tls=ids.client(), timeout=5)

    with require(redis_server(*map(str, options))) as server:
        pool = redis.ConnectionPool(
            connection_class=Secured, host=server.host, port=port, socket_timeout=5
        )
        client = redis.Redis(connection_pool=pool)
        client.set("big", b"x" * 3_000_000)
        assert client.get("big") == b"x" * 3_000_000
        with client.pipeline(transaction=False) as pipeline:
            for i in range(1000):
                pipeline.incr("counter", i)
            assert pipeline.execute()[-1] == sum(range(1000))
        pool.disconnect()


def test_files_read_and_write_over_tls(ids: Identities, only: Any) -> None:
    with tls_pair(ids.client(**only), ids.server(**only)) as (ours, theirs):
        with ours.makefile("rw", encoding="utf-8", newline="\n") as text:
            theirs.sendall("gr\u00fc\u00dfe\n".encode())
            assert text.readline() == "gr\u00fc\u00dfe\n"
            text.write("zur\u00fcck\n")
            text.flush()
        assert theirs.recv_line(timeout=5).decode() == "zur\u00fcck"


def test_a_file_is_sent_over_tls(ids: Identities, run: Any, only: Any, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "file").write_bytes(content)

    async def main(driver: Driver) -> None:
        async with await driver.connect(server.address, tls=ids.client(**only), timeout=5) as conn:
            with (tmp_path / "file").open("rb") as file:
                assert await conn.sendfile(file, 100, 1_000_000, timeout=10) == 1_000_000
            await conn.close_write(timeout=5)

    got = io.BytesIO()

    def take(conn: hs.Connection) -> None:
        with conn:
            while data := conn.recv(65536, timeout=10):
                got.write(data)

    with serve(take, ids.server(**only)) as server:
        run(main)
    assert got.getvalue() == content[100:1_000_100]


# ---- Ends


def test_each_direction_ends_by_itself(ids: Identities, run: Any, only: Any) -> None:
    async def main(driver: Driver) -> None:
        async with await driver.connect(server.address, tls=ids.client(**only), timeout=5) as conn:
            await conn.sendall(b"question", timeout=5)
            await conn.close_write(timeout=5)
            with pytest.raises(hs.Closed):
                await conn.sendall(b"more", timeout=5)
            assert await conn.recv_exactly(8, timeout=5) == b"question"
            assert await conn.recv(1, timeout=5) == b""

    with serve(echo, ids.server(**only)) as server:
        run(main)


def test_a_server_may_end_first_and_go_on_reading(ids: Identities, only: Any) -> None:
    with tls_pair(ids.client(**only), ids.server(**only)) as (ours, theirs):
        theirs.close_write(timeout=5)
        assert ours.recv(1, timeout=5) == b""
        ours.sendall(b"still listening?")
        assert theirs.recv_exactly(16, timeout=5) == b"still listening?"
        ours.close_write(timeout=5)
        assert theirs.recv(1, timeout=5) == b""


def python_server(ids: Identities, version: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity = ids.server_identity
    context.load_cert_chain(str(identity.chain), str(identity.key))
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
    return context


def test_an_end_without_close_notify_is_truncated(ids: Identities, run: Any, only: Any) -> None:
    async def main(driver: Driver) -> None:
        async with await driver.connect(peer.address, tls=ids.client(**only), timeout=5) as conn:
            with pytest.raises(hs.Truncated, match=r"\(no close_notify\)") as caught:
                await conn.recv_exactly(100, timeout=5)
            assert caught.value.bytes_done == 4
            assert not isinstance(caught.value, hs.EndOfStream)
            assert await conn.recv(100, timeout=5) == b"half", "what came is kept"
            for _ in range(2):
                with pytest.raises(hs.Truncated):
                    await conn.recv(100, timeout=5)

    tls = python_server(ids, only["min_version"])
    with PeerScript([("send", b"half"), ("half_close",), ("stall",)], tls=tls, check=False) as peer:
        run(main)


def test_truncation_can_be_taken_for_an_end(ids: Identities, run: Any, only: Any) -> None:
    async def main(driver: Driver) -> None:
        client = ids.client(insecure_accept_truncation=True, **only)
        async with await driver.connect(peer.address, tls=client, timeout=5) as conn:
            assert await conn.recv(100, timeout=5) == b"half"
            for _ in range(2):
                assert await conn.recv(100, timeout=5) == b""
            with pytest.raises(hs.EndOfStream):
                await conn.recv_exactly(1, timeout=5)

    tls = python_server(ids, only["min_version"])
    with PeerScript([("send", b"half"), ("half_close",), ("stall",)], tls=tls, check=False) as peer:
        run(main)


def test_finish_reports_truncation(ids: Identities) -> None:
    tls = python_server(ids, "TLSv1.3")
    with PeerScript([("send", b"half"), ("half_close",), ("stall",)], tls=tls, check=False) as peer:
        conn = hs.connect(peer.address, tls=ids.client(), timeout=5)
        report = conn.finish(timeout=5)
    assert (report.ending, report.discarded, report.delivered) == ("truncated", 4, False)


def test_finish_is_clean_when_both_said_goodbye(ids: Identities, run: Any, only: Any) -> None:
    async def main(driver: Driver) -> None:
        conn = await driver.connect(server.address, tls=ids.client(**only), timeout=5)
        await conn.sendall(b"data", timeout=5)
        report = await conn.finish(timeout=5)
        assert (report.ending, report.unsent, report.discarded) == ("clean", 0, 4)
        assert conn.closed

    with serve(echo, ids.server(**only)) as server:
        run(main)


def test_abort_says_no_goodbye(ids: Identities) -> None:
    with tls_pair(ids.client(), ids.server()) as (ours, theirs):
        ours.abort()
        with pytest.raises((hs.Reset, hs.Truncated)):
            theirs.recv(1, timeout=5)


SENT = 400_000
TIMES = 20


def _count_into(ids: Identities, outcomes: list[tuple[int, str]], listener: socket.socket) -> None:
    """A usual TLS 1.3 server with a small window: how much came, and how it ended."""
    context = python_server(ids, "TLSv1.3")
    for _ in range(TIMES):
        raw, _peer = listener.accept()
        count, ending = 0, "clean"
        with context.wrap_socket(raw, server_side=True, suppress_ragged_eofs=False) as sock:
            try:
                while data := sock.recv(4096):
                    count += len(data)
            except OSError as exc:
                ending = type(exc).__name__
        outcomes.append((count, ending))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_client_that_only_writes_and_closes_loses_nothing(
    ids: Identities, asynchronous: bool
) -> None:
    """The server's tickets arrive at a closed socket, which would answer with a reset."""
    outcomes: list[tuple[int, str]] = []
    driver = DRIVERS["asyncio" if asynchronous else "threads"]()

    async def main() -> None:
        for _ in range(TIMES):
            async with await driver.connect(address, tls=ids.client(), timeout=10) as conn:
                await conn.sendall(b"." * SENT, timeout=10)

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen(TIMES)
        address = listener.getsockname()
        with Call(_count_into, ids, outcomes, listener) as counting:
            driver.run(main)
            counting.join(30)
    assert outcomes == [(SENT, "clean")] * TIMES


def test_close_in_the_middle_of_a_send_says_no_goodbye(ids: Identities) -> None:
    """What the peer has is not all, so it must not look as if it were."""
    with tls_pair(ids.client(), ids.server()) as (ours, theirs):
        with Call(ours.sendall, b"." * 50_000_000, timeout=10) as sending:
            sending.wait_until_blocked()
            ours.close()
            with pytest.raises(hs.Closed):
                sending.result(5)
        with pytest.raises((hs.Truncated, hs.Reset)):
            while theirs.recv(1 << 20, timeout=5):
                pass


def test_a_send_that_timed_out_poisons_and_close_says_no_goodbye(ids: Identities) -> None:
    with tls_pair(ids.client(), ids.server()) as (ours, theirs):
        with pytest.raises(hs.DeadlineExceeded) as caught:
            ours.sendall(b"." * 50_000_000, timeout=0.1)
        assert 0 < caught.value.bytes_done < 50_000_000
        with pytest.raises(hs.Poisoned):
            ours.sendall(b"x")
        ours.close()
        with pytest.raises((hs.Truncated, hs.Reset)):
            while theirs.recv(1 << 20, timeout=5):
                pass


# ---- Both directions at once


def test_one_reader_one_writer_and_a_close_from_a_third_thread(ids: Identities, only: Any) -> None:
    with tls_pair(ids.client(**only), ids.server(**only)) as (ours, theirs):
        with Call(ours.recv, 1, timeout=10) as reading:
            reading.wait_until_blocked()
            with Call(ours.sendall, b"." * 50_000_000, timeout=10) as writing:
                writing.wait_until_blocked()
                with pytest.raises(hs.Busy):
                    ours.recv(1)
                with pytest.raises(hs.Busy):
                    ours.sendall(b"x")
                ours.close()
                for call in (reading, writing):
                    with pytest.raises(hs.Closed):
                        call.result(5)
        theirs.abort()


def test_reading_and_writing_at_once_mixes_nothing_up(ids: Identities, only: Any) -> None:
    """What breaks 16 to 28 of 48 connections of the standard library."""
    size = 3_000_000
    up, down = bytes(range(256)) * (size // 256), bytes(range(255, -1, -1)) * (size // 256)

    def receive(conn: hs.Connection, wanted: int) -> bytes:
        return conn.recv_exactly(wanted, timeout=20)

    with tls_pair(ids.client(**only), ids.server(**only)) as (ours, theirs):
        with (
            Call(receive, ours, len(down)) as down_end,
            Call(receive, theirs, len(up)) as up_end,
            Call(ours.sendall, up, timeout=20),
        ):
            theirs.sendall(down, timeout=20)
            assert down_end.result(30) == down
            assert up_end.result(30) == up


def test_cancelled_handshake_of_a_task_leaves_nothing(ids: Identities) -> None:
    from hardsock import aio

    async def main() -> None:
        task = asyncio.ensure_future(aio.connect(peer.address, tls=ids.client()))
        while not peer.received:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with PeerScript([("recv", 1), ("recv_until_eof",)], check=False) as peer:
        asyncio.run(main())


def test_counters_are_of_the_plaintext(ids: Identities) -> None:
    with tls_pair(ids.client(), ids.server()) as (ours, theirs):
        ours.sendall(b"12345")
        assert theirs.recv(10, timeout=5) == b"12345"
        assert (ours.bytes_sent, theirs.bytes_received) == (5, 5)
        assert (ours.bytes_received, theirs.bytes_sent) == (0, 0)


def test_settimeout_zero_never_waits_over_tls(ids: Identities) -> None:
    with tls_pair(ids.client(), ids.server()) as (ours, theirs):
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1)
        theirs.sendall(b"x" * 5)
        assert poll_until(lambda: _try_recv(ours) == b"xx", 5)
        assert ours.recv(10) == b"xxx", "decrypted, so no descriptor tells of it"


def _try_recv(conn: hs.Connection) -> bytes:
    try:
        return conn.recv(2)
    except BlockingIOError:
        return b""


def test_the_kernel_does_no_tls(ids: Identities) -> None:
    """With kTLS alerts and tickets would come by other ways than the ones that are read here."""
    tcp_ulp = 31
    with tls_pair(ids.client(), ids.server()) as pair:
        for conn in pair:
            assert conn.getsockopt(socket.IPPROTO_TCP, tcp_ulp, 16).rstrip(b"\0") == b""


def test_detach_is_refused(ids: Identities) -> None:
    with tls_pair(ids.client(), ids.server()) as (ours, theirs):
        with pytest.raises(ValueError, match="of no use to anybody else"):
            ours.detach()
        ours.sendall(b"x")
        assert theirs.recv(1, timeout=5) == b"x"


def test_configs_are_shared_by_threads(ids: Identities) -> None:
    client, count, lock = ids.client(), [0], threading.Lock()

    def go(_index: int) -> None:
        for _ in range(10):
            with visit(server, client) as conn:
                conn.sendall(b"x")
                assert conn.recv_exactly(1, timeout=10) == b"x"
                with lock:
                    count[0] += 1

    with serve(echo, ids.server()) as server:
        run_threaded(go, 4)
    assert count == [40]
