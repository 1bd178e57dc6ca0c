"""Self tests of support.pki, support.ocsp, support.tls_raw and support.tls_peers."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from hardsock.lab.servers.process import find_program
from hardsock.lab.threads import Call
from support import tls_raw
from support.ocsp import ocsp_response
from support.pki import Authority, Identity, make_authority, write_chain
from support.require import available
from support.tls_peers import (
    RecordProxy,
    Shape,
    ShapedPeer,
    client_context,
    server_context,
    split_at,
    split_by_number,
    split_everywhere,
)

VERSION = "TLSv1.3"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("pki"))


def openssl(*arguments: str) -> str:
    """What the program says, good or bad: it has not made what it looks at."""
    with available():
        argv = [find_program("openssl"), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30.0)
    return done.stdout + done.stderr


def verify(authority: Authority, identity: Identity, *options: str) -> str:
    above = write_chain(authority.directory / "above.pem", [authority.parsed, *identity.chain[1:]])
    files = ["-CAfile", str(authority.certificate), "-untrusted", str(above)]
    return openssl("verify", *files, *options, str(identity.certificate))


def test_issued_certificates_are_good(authority: Authority) -> None:
    deep = authority.intermediate("one").intermediate("two").issue(["a.test"], file="deep")

    assert 3 == len(deep.chain)
    assert "OK" in verify(authority, deep, "-verify_hostname", "a.test", "-x509_strict")
    assert "OK" in verify(authority, authority.issue(["10.0.0.1"]), "-verify_ip", "10.0.0.1")


def test_flaws_are_seen(authority: Authority) -> None:
    """Only the one that was asked for, by a program that knows nothing of us."""
    flaws = {
        "has expired": authority.issue(start=-9, days=3, file="a"),
        "not yet valid": authority.issue(start=3, file="b"),
        "signature failure": authority.issue(broken_signature=True, file="c"),
        "invalid CA certificate": authority.intermediate("no ca", is_ca=False).issue(file="d"),
        "unable to get local issuer": authority.intermediate("m").issue(file="e").sending(file="f"),
    }
    for words, identity in flaws.items():
        assert words in verify(authority, identity)


def test_sha1_is_real(tmp_path: Path) -> None:
    weak = make_authority(tmp_path, key="rsa").issue(digest="sha1")

    assert "sha1WithRSAEncryption" in openssl("x509", "-in", str(weak.certificate), "-text")


def test_revocation_list_is_obeyed(authority: Authority, tmp_path: Path) -> None:
    identity, crl = authority.issue(file="revoked"), tmp_path / "crl.pem"
    for revoked, words in ((True, "certificate revoked"), (False, "OK")):
        crl.write_bytes(authority.revoke(*([identity.leaf] if revoked else [])))
        assert words in verify(authority, identity, "-crl_check", "-CRLfile", str(crl))


def test_ocsp_response_is_understood(authority: Authority, tmp_path: Path) -> None:
    identity, path = authority.issue(file="asked-about"), tmp_path / "response.der"
    for status in ("good", "revoked", "unknown"):
        path.write_bytes(ocsp_response(authority, identity.leaf, status=status))
        ca = str(authority.certificate)
        files = ["-issuer", ca, "-cert", str(identity.certificate), "-CAfile", ca]
        said = openssl("ocsp", "-respin", str(path), *files)
        assert "Response verify OK" in said
        assert f": {status}" in said


def test_records_are_found_in_a_stream() -> None:
    records = [tls_raw.record(22, b"abc"), tls_raw.record(23, b""), tls_raw.alert(40)]

    assert records == list(tls_raw.split_records(b"".join(records)))
    assert [records[0], b"\x17\x03"] == list(tls_raw.split_records(records[0] + b"\x17\x03"))


def test_splits() -> None:
    record = tls_raw.record(23, b"abc")

    assert [3] == split_at(3)(0, record)
    assert [] == split_at(8)(0, record)
    assert [[1], [7], [1]] == [split_by_number(n, record) for n in (0, 6, 7)]
    assert [1, 2, 3, 4, 5, 6, 7] == list(split_everywhere(0, record))


# ---- what comes through


def pass_on(data: bytes, shape: Shape) -> tuple[list[bytes], bool]:
    """The pieces that a reader gets who takes all that is there, and whether there was an end."""
    left, right = socket.socketpair()
    pieces: list[bytes] = []
    with left, RecordProxy(right, to_client=shape) as proxy, proxy.client as client:
        left.sendall(data)
        left.shutdown(socket.SHUT_WR)
        client.settimeout(0.2 if shape.then == "stall" else 5.0)
        try:
            while piece := client.recv(65536):
                pieces.append(piece)
        except TimeoutError:
            return pieces, False
    return pieces, True


STREAM = tls_raw.record(22, b"first") + tls_raw.record(23, b"second one")


def test_proxy_passes_all_as_it_is() -> None:
    assert ([STREAM], True) == pass_on(STREAM, Shape())


def test_reader_gets_the_pieces_one_by_one() -> None:
    pieces, ended = pass_on(STREAM, Shape(split=split_at(7)))
    assert ([STREAM[:7], STREAM[7:10], STREAM[10:17], STREAM[17:]], True) == (pieces, ended)

    pieces, ended = pass_on(STREAM, Shape(split=split_everywhere))
    assert ([bytes([value]) for value in STREAM], True) == (pieces, ended)


@pytest.mark.parametrize(("then", "ended"), [("fin", True), ("stall", False)])
def test_limit_counts_bytes(then: str, ended: bool) -> None:
    for limit in (0, 1, 10, 12):
        pieces, end = pass_on(STREAM, Shape(limit=limit, then=then))
        assert (STREAM[:limit], ended) == (b"".join(pieces), end)


def test_half_a_record_comes_with_the_end() -> None:
    pieces, ended = pass_on(STREAM[:-3], Shape(split=split_at(2)))
    assert (STREAM[:-3], True) == (b"".join(pieces), ended)


def test_peers_talk_to_each_other(authority: Authority) -> None:
    """Python's on both sides: what one says in bytes alone, the other understands."""
    left, right = socket.socketpair()
    context = server_context(authority.issue(), VERSION)
    shape = Shape(split=split_everywhere)
    with ShapedPeer(left, context, shape=shape) as server:
        with client_context(authority, VERSION).wrap_socket(
            right, server_hostname="localhost"
        ) as sock:
            sock.sendall(b"hello")
            assert b"hello" == sock.recv(10)
            with Call(sock.unwrap) as ending:
                ending.result().close()
        server.wait()
    assert b"hello" == server.received
    assert server.error is None
    assert sum(server.shaper.records) == server.shaper.sent


def test_cut_peer_leaves_without_goodbye(authority: Authority) -> None:
    left, right = socket.socketpair()
    context = server_context(authority.issue(), VERSION)
    with ShapedPeer(left, context, shape=Shape(limit=100)):
        with right, pytest.raises(ssl.SSLEOFError):
            client_context(authority, VERSION).wrap_socket(right, server_hostname="localhost")
