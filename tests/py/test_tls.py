"""TLS on connections: what a handshake agrees on, how it fails, and in whose time."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from support.require import need_module

need_module("cryptography")

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

import hardsock as hs
from conformance.drivers import Driver
from hardsock.lab.namespaces import Namespace
from hardsock.lab.peers import PeerScript
from support.require import require
from support.tls import Identities, tls_pair
from support.tls_visits import echo, greet, info, mutual, serve, visit

pytestmark = pytest.mark.usefixtures("event_loops")


async def until(driver: Driver, condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Let others run until *condition* holds, of which nobody tells."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        await driver.turn()


# ---- What a handshake agreed on


def test_a_connection_tells_what_it_agreed_on(ids: Identities, run: Any, only: Any) -> None:
    async def main(driver: Driver) -> None:
        async with await driver.connect(
            server.address, tls=ids.client(alpn=["b", "a"], **only), server_name="localhost"
        ) as conn:
            await conn.confirm(timeout=30)
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
            conn.confirm(timeout=30)


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
                        server.address, tls=ids.client(), server_name=name, timeout=30
                    )
            assert advice in str(caught.value.hint)
            assert advice in str(caught.value)

    run(main)


def test_a_client_without_a_certificate_is_told_what_to_give(ids: Identities, run: Any) -> None:
    """With TLS 1.3 by the first read (RFC 8446 section 6.2: alert 116)."""

    async def main(driver: Driver) -> None:
        async with await driver.connect(server.address, tls=ids.client(), timeout=30) as conn:
            with pytest.raises(hs.TLSError) as caught:
                await conn.recv(1, timeout=30)
        assert caught.value.alert == 116
        assert "TLSConfig(certificates=...)" in str(caught.value.hint)

    with serve(greet, mutual(ids, "required")) as server:
        run(main)


def test_no_name_is_asked_of_an_address(ids: Identities) -> None:
    with serve(greet, ids.server()) as server:
        with visit(server, ids.client()) as conn:
            assert info(conn).server_name is None
            assert conn.recv_line(timeout=30) == b"None"
        with visit(server, ids.client(), server_name="localhost.") as conn:
            assert info(conn).server_name == "localhost"
            assert conn.recv_line(timeout=30) == b"localhost"


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
        hs.connect(server.address, tls=ids.client(), server_name=name, timeout=30)


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
            assert await conn.recv_line(timeout=30) == A_LABEL.encode()
        with pytest.raises(hs.CertificateError, match=f"is for {A_LABEL}, not for xn--"):
            await driver.connect(server.address, tls=ids.client(), server_name="b\u00fcch.test")
        async with await driver.connect(plain.address, timeout=30) as conn:
            await conn.upgrade_to_tls(ids.client(), server_name=IDN, timeout=30)
            assert conn.tls.server_name == A_LABEL

    def upgrade(conn: hs.Connection) -> None:
        conn.upgrade_to_tls(config, timeout=30)

    config = ids.server(certificates=ids.issue((A_LABEL,)))
    with (
        serve(greet, config) as server,
        hs.serve(upgrade, ("127.0.0.1", 0), drain_timeout=30) as plain,
    ):
        run(main)
        with hs.Pool(server.address, tls=ids.client(), server_name=IDN) as pool:
            with pool.connection(timeout=30) as conn:
                assert info(conn).server_name == A_LABEL


def _by_an_idn() -> list[str | None]:
    from tempfile import TemporaryDirectory

    from hardsock.lab.inside import bind_mount_file

    bind_mount_file("/etc/hosts", f"127.0.1.1 {A_LABEL}\n")
    bind_mount_file("/etc/nsswitch.conf", "hosts: files\n")
    with TemporaryDirectory() as directory:
        ids = Identities(Path(directory))
        config = ids.server(certificates=ids.issue((A_LABEL,)))
        with hs.serve(greet, ("127.0.1.1", 0), tls=config, drain_timeout=30) as server:
            port = server.address[1]
            found = []
            for address in (f"{IDN}:{port}", (IDN, port)):
                with hs.connect(address, tls=ids.client(), timeout=30) as conn:
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
            await driver.connect(peer.address, tls=ids.client(), timeout=30)
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
            await driver.connect(peer.address, tls=ids.client(), timeout=30)
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
                server.address, tls=ids.client(**only), server_name=name, timeout=30
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
        hs.connect(server.address, tls=other.client(), timeout=30)


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
                timeout=30,
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
                await connecting.result(30)
        assert caught.value.phase == "tls"

    with PeerScript([("recv", 1), ("stall",)], check=False) as peer:
        run(main)


# ---- When the race of addresses is won


def _race(first: str) -> dict[str, list[str]]:
    """A name with two addresses, of which the first has a *first* ("stalls", "expired")."""
    from tempfile import TemporaryDirectory

    from hardsock.lab.inside import bind_mount_file

    bind_mount_file("/etc/hosts", "127.0.1.1 two.test\n127.0.1.2 two.test\n")
    bind_mount_file("/etc/nsswitch.conf", "hosts: files\n")
    outcomes: dict[str, list[str]] = {}
    with TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        ids = Identities(Path(directory))
        names = ("two.test",)
        good = ids.server(certificates=ids.issue(names))
        enter = stack.enter_context
        second = enter(hs.serve(greet, ("127.0.1.2", 0), tls=good, drain_timeout=30))
        port = second.address[1]
        if first == "stalls":
            script = [("recv", 1), ("stall",)]
            enter(PeerScript(script, host="127.0.1.1", port=port, connections=9, check=False))
        else:
            expired = ids.issue_between(timedelta(-9), timedelta(-2), names)
            bad = ids.server(certificates=expired)
            enter(hs.serve(greet, ("127.0.1.1", port), tls=bad, drain_timeout=30))
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


# ---- Client certificates


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
            async with await driver.connect(server.address, tls=client, timeout=30) as conn:
                assert info(conn).version == "TLSv1.3"
                with pytest.raises(hs.TLSError, match=r"127\.0\.0\.1 refused: alert") as caught:
                    await conn.confirm(timeout=30)
                assert (caught.value.failure, caught.value.alert) == ("alert", alert)

    with serve(greet, mutual(ids, mode)) as server:
        run(main)


def test_before_tls_13_the_handshake_itself_says_so(ids: Identities) -> None:
    client = ids.client(max_version="TLSv1.2")
    with serve(greet, mutual(ids, "required")) as server:
        with pytest.raises(hs.TLSError) as caught:
            hs.connect(server.address, tls=client, timeout=30)
    assert (caught.value.failure, caught.value.phase) == ("alert", "tls")


def test_confirm_leaves_data_to_be_read_and_has_a_deadline(ids: Identities, run: Any) -> None:
    async def main(driver: Driver) -> None:
        async with await driver.connect(server.address, tls=ids.client(), timeout=30) as conn:
            await conn.confirm(timeout=30)
            assert await conn.recv_line(timeout=30) == b"None"
        async with await driver.connect(quiet.address, tls=ids.client(), timeout=30) as conn:
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
            await driver.connect(server.address, tls=ids.client(alpn=["h3"]), timeout=30)

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
            hs.connect(
                server.address, tls=ids.client(**only), server_name="nobody.test", timeout=30
            )


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
        socket.create_connection(server.address, 30) as plain,
        context.wrap_socket(plain, server_hostname=name) as conn,
    ):
        der = conn.getpeercert(binary_form=True)
    assert der is not None
    public_key = x509.load_der_x509_certificate(der).public_key()
    assert isinstance(public_key, RSAPublicKey) is (kind == "rsa")
