"""Stapled OCSP: what a client believes, and what a server of ours hands out."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest

from support.require import need_module

need_module("cryptography")

from cryptography.hazmat.primitives import hashes
from cryptography.x509.ocsp import OCSPResponseStatus

import hardsock as hs
from hardsock.lab.servers.process import find_program
from hardsock.lab.threads import Call
from support.badssl import Verify
from support.ocsp import ocsp_failure, ocsp_response
from support.pki import OCSP_SIGNING, Authority, Identity, make_authority
from support.require import available, require
from support.servers import openssl_s_server

NAME = "db.test"
VERSIONS: tuple[Any, ...] = ("TLSv1.2", "TLSv1.3")
MINUTE = 1 / 1440


class World:
    """A root, an intermediate, a server's certificate, and those who answer for it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = make_authority(directory)
        self.middle = self.root.intermediate()
        self.stranger = make_authority(directory, "stranger")
        elsewhere = directory / "elsewhere"
        elsewhere.mkdir()
        self.impostor = make_authority(elsewhere, "test intermediate")
        self.server = self.middle.issue([NAME])
        self.stapling = self.middle.issue([NAME], must_staple=True, file="must-staple")
        self.other = self.middle.issue([NAME], file="other")

    def delegate(self, issuer: Authority | None = None, **form: Any) -> Identity:
        """Somebody who answers for an *issuer*, the intermediate unless told."""
        form = {"usages": OCSP_SIGNING, "file": "responder", **form}
        return (issuer or self.middle).issue(["responder.test"], **form)

    def about(self, **how: Any) -> bytes:
        """A response about the server's certificate."""
        return ocsp_response(self.middle, self.server.leaf, **how)

    def write(self, response: bytes) -> Path:
        path = self.directory / "response.der"
        path.write_bytes(response)
        return path

    @cached_property
    def ca(self) -> Path:
        return self.root.certificate


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    with available():
        return World(tmp_path_factory.mktemp("ocsp"))


@dataclass(frozen=True)
class Case:
    """A response, and what a client has to make of it: None, it believes it."""

    name: str
    make: Callable[[World], bytes]
    verify: Verify | None = None
    says: str = ""
    withheld: bool = False
    """From 3.6 on the openssl program does not send it; test_tls_verify.c hands it over there."""


def as_delegate(**form: Any) -> Callable[[World], bytes]:
    return lambda world: world.about(delegate=world.delegate(**form))


CASES = [
    Case("good", lambda world: world.about()),
    Case("good-sha256", lambda world: world.about(digest=hashes.SHA256()), withheld=True),
    Case("good-no-next-update", lambda world: world.about(days=None)),
    Case("good-clock-a-minute-behind", lambda world: world.about(start=MINUTE)),
    Case("good-just-out-of-date", lambda world: world.about(start=-1, days=1 - MINUTE)),
    Case("delegate", as_delegate()),
    Case(
        "delegate-not-attached",
        lambda world: world.about(delegate=world.delegate(), attach=False),
        Verify.OCSP_FAILED,
        "signature",
    ),
    Case("delegate-without-eku", as_delegate(usages=()), Verify.OCSP_FAILED, "signature"),
    Case("delegate-of-the-root", lambda world: _by_root(world), Verify.OCSP_FAILED, "signature"),
    Case("delegate-expired", as_delegate(start=-9, days=3), Verify.OCSP_FAILED, "signature"),
    Case(
        "delegate-of-a-stranger",
        lambda world: world.about(delegate=world.delegate(world.stranger)),
        Verify.OCSP_FAILED,
        "signature",
    ),
    Case(
        "signed-by-itself",
        lambda world: world.about(delegate=world.server),
        Verify.OCSP_FAILED,
        "signature",
    ),
    Case(
        "signed-with-another-key",
        lambda world: world.about(signed_by=world.impostor),
        Verify.OCSP_FAILED,
        "signature",
    ),
    Case("broken-signature", lambda world: _broken(world), Verify.OCSP_FAILED, "signature"),
    Case("revoked", lambda world: world.about(status="revoked"), Verify.REVOKED, "keyCompromise"),
    Case(
        "unknown", lambda world: world.about(status="unknown"), Verify.OCSP_UNKNOWN, "not know it"
    ),
    Case("expired", lambda world: world.about(start=-9), Verify.OCSP_FAILED, "out of date"),
    Case("from-the-future", lambda world: world.about(start=1), Verify.OCSP_FAILED, "out of date"),
    Case(
        "old-no-next-update",
        lambda world: world.about(start=-15, days=None),
        Verify.OCSP_FAILED,
        "out of date",
    ),
    Case(
        "revoked-and-expired",  # still no reason to go on
        lambda world: world.about(status="revoked", start=-9),
        Verify.OCSP_FAILED,
        "out of date|revoked",
    ),
    Case(
        "about-another",
        lambda world: ocsp_response(world.middle, world.other.leaf),
        Verify.OCSP_FAILED,
        "another certificate",
        withheld=True,
    ),
    Case(
        "about-one-of-another-issuer",  # with the same serial number
        lambda world: ocsp_response(world.stranger, world.server.leaf, signed_by=world.middle),
        Verify.OCSP_FAILED,
        "signature|another",
        withheld=True,
    ),
    Case("try-later", lambda world: ocsp_failure(), Verify.OCSP_FAILED, "trylater", withheld=True),
    Case(
        "unauthorized",
        lambda world: ocsp_failure(OCSPResponseStatus.UNAUTHORIZED),
        Verify.OCSP_FAILED,
        "unauthorized",
        withheld=True,
    ),
]


def _by_root(world: World) -> bytes:
    """Only the issuer itself may name who answers for it (RFC 6960 section 4.2.2.2)."""
    return world.about(delegate=world.delegate(world.root))


def _broken(world: World) -> bytes:
    response = bytearray(world.about())
    response[-1] ^= 1
    return bytes(response)


def ask(address: Any, world: World, version: Any, **settings: Any) -> hs.TLSInfo:
    config = hs.TLSConfig(ca=world.ca, max_version=version, **settings)
    with hs.connect(address, tls=config, server_name=NAME, timeout=30) as conn:
        conn.sendall(b"abc\n")
        assert b"cba\n" == conn.recv_exactly(4, timeout=30)
        assert conn.tls is not None
        return conn.tls


@cache
def program_version() -> tuple[int, ...]:
    """Of the openssl program, which need not be that of the library."""
    says = subprocess.run([find_program("openssl"), "version"], capture_output=True, text=True)
    found = re.match(r"OpenSSL (\d+)\.(\d+)", says.stdout)
    assert found, says.stdout
    return tuple(map(int, found.groups()))


def assert_nothing_came(address: Any, world: World, version: Any, mode: Any) -> None:
    if mode == "check":
        assert "none" == ask(address, world, version, ocsp=mode).ocsp
        return
    with pytest.raises(hs.CertificateError, match=rf"{NAME}.*required here"):
        ask(address, world, version, ocsp=mode)


@pytest.mark.parametrize("mode", ["check", "require"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_stapled(case: Case, mode: str, world: World) -> None:
    response = world.write(case.make(world))
    with require(openssl_s_server(world.server, ["-status_file", str(response)])) as server:
        for version in VERSIONS:
            if case.withheld and program_version() >= (3, 6):
                assert_nothing_came(server.address, world, version, mode)
                continue
            if case.verify is None:
                assert "good" == ask(server.address, world, version, ocsp=mode).ocsp
                continue
            with pytest.raises(hs.CertificateError) as caught:
                ask(server.address, world, version, ocsp=mode)
            assert case.verify == caught.value.verify_code, str(caught.value)
            assert re.search(f"{NAME}.*({case.says})", str(caught.value)), str(caught.value)


def test_response_is_not_asked_for_when_off(world: World) -> None:
    response = world.write(world.about(status="revoked"))
    with require(openssl_s_server(world.server, ["-status_file", str(response)])) as server:
        for version in VERSIONS:
            assert "none" == ask(server.address, world, version, ocsp="off").ocsp


def test_nothing_stapled_is_an_error_only_where_that_was_asked_for(world: World) -> None:
    with require(openssl_s_server(world.server)) as server:
        for version in VERSIONS:
            assert "none" == ask(server.address, world, version).ocsp
            with pytest.raises(hs.CertificateError, match=rf"{NAME}.*required here"):
                ask(server.address, world, version, ocsp="require")


def test_must_staple_is_obeyed(world: World) -> None:
    with require(openssl_s_server(world.stapling)) as server:
        for version in VERSIONS:
            with pytest.raises(hs.CertificateError, match=rf"{NAME}.*certificate requires one"):
                ask(server.address, world, version)
    response = world.write(ocsp_response(world.middle, world.stapling.leaf))
    with require(openssl_s_server(world.stapling, ["-status_file", str(response)])) as server:
        for version in VERSIONS:
            assert "good" == ask(server.address, world, version).ocsp


# ---- a server of ours


def config_of(world: World, response: Any, who: Identity | None = None) -> hs.TLSConfig:
    who = who or world.server
    own = hs.Certificate(chain=who.certificate, key=who.key, ocsp_response=response)
    return hs.TLSConfig(role="server", certificates=own)


def by_our_server(world: World, response: bytes) -> hs.TLSInfo:
    """What a client of ours makes of it."""
    client = hs.TLSConfig(ca=world.ca)
    with hs.listen(("127.0.0.1", 0), tls=config_of(world, response)) as listener:
        with Call(swallow, listener):
            try:
                with hs.connect(listener.address, tls=client, server_name=NAME, timeout=30) as conn:
                    assert conn.tls is not None
                    return conn.tls
            finally:
                listener.close()


def swallow(listener: hs.Listener) -> None:
    """Accept and close, until the listener is closed."""
    try:
        while True:
            listener.accept(timeout=60).close()
    except hs.Closed:
        pass


def test_our_server_staples_what_it_was_given(world: World) -> None:
    nothing = b"\x30\x03\x0a\x01\x00"  # "successful", and no more
    with pytest.raises(hs.CertificateError, match="OCSP"):
        by_our_server(world, nothing)
    assert "good" == by_our_server(world, world.about()).ocsp
    with pytest.raises(hs.CertificateError, match="revoked"):
        by_our_server(world, world.about(status="revoked"))


def test_our_server_sends_a_response_or_refuses_to_take_it(world: World) -> None:
    """A newer OpenSSL may send only some: never left out without a word."""
    assert "good" == by_our_server(world, world.about(digest=hashes.SHA256())).ocsp
    with pytest.raises(
        (ValueError, hs.CertificateError), match=r"ocsp_response|another certificate"
    ):
        by_our_server(world, ocsp_response(world.middle, world.other.leaf))


def test_each_certificate_of_ours_has_its_own_response(world: World) -> None:
    """The one that the name chooses decides which response is stapled."""
    second = world.middle.issue(["second.test"], file="second")
    identities = [
        hs.Certificate(
            chain=who.certificate,
            key=who.key,
            ocsp_response=ocsp_response(world.middle, who.leaf),
        )
        for who in (world.server, second)
    ]
    server = hs.TLSConfig(role="server", certificates=identities)
    client = hs.TLSConfig(ca=world.ca, ocsp="require", sessions=False)
    with hs.listen(("127.0.0.1", 0), tls=server) as listener:
        with Call(swallow, listener):
            try:
                for name in (NAME, "second.test"):
                    address = listener.address
                    with hs.connect(address, tls=client, server_name=name, timeout=30) as conn:
                        assert conn.tls is not None
                        assert "good" == conn.tls.ocsp
            finally:
                listener.close()


def test_our_server_hands_out_the_new_response_after_a_reload(world: World) -> None:
    path = world.write(world.about(status="revoked"))
    server = config_of(world, path)
    client = hs.TLSConfig(ca=world.ca, ocsp="require")
    with hs.listen(("127.0.0.1", 0), tls=server) as listener, Call(swallow, listener):
        try:
            with pytest.raises(hs.CertificateError, match="revoked"):
                hs.connect(listener.address, tls=client, server_name=NAME, timeout=30)
            world.write(world.about())
            server.reload()
            with hs.connect(listener.address, tls=client, server_name=NAME, timeout=30) as conn:
                assert conn.tls is not None
                assert "good" == conn.tls.ocsp
        finally:
            listener.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_openssl_program_sees_the_response(version: str, world: World) -> None:
    with available():
        program = find_program("openssl")
    with hs.listen(("127.0.0.1", 0), tls=config_of(world, world.about())) as listener:
        address = f"127.0.0.1:{listener.address[1]}"
        with Call(swallow, listener):
            try:
                argv = [program, "s_client", "-connect", address, "-status"]
                argv += ["-servername", NAME, "-CAfile", str(world.ca), "-verify_return_error"]
                argv += ["-tls1_2" if version == "TLSv1.2" else "-tls1_3"]
                done = subprocess.run(
                    argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20
                )
            finally:
                listener.close()
    assert "OCSP Response Status: successful (0x0)" in done.stdout, done.stderr
    assert "Cert Status: good" in done.stdout


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("who", ["server", "stapling"])
def test_a_resumed_session_has_no_response_to_check(who: str, version: Any, world: World) -> None:
    """There is no certificate in it either; both were checked when the session began."""
    identity = getattr(world, who)
    response = world.write(ocsp_response(world.middle, identity.leaf))
    mode: Any = "require" if who == "server" else "check"
    config = hs.TLSConfig(ca=world.ca, ocsp=mode, max_version=version)
    states = []
    with require(openssl_s_server(identity, ["-status_file", str(response)])) as server:
        for _ in range(2):
            with hs.connect(server.address, tls=config, server_name=NAME, timeout=30) as conn:
                conn.sendall(b"abc\n")
                assert b"cba\n" == conn.recv_exactly(4, timeout=30)
                assert conn.tls is not None
                states.append((conn.tls.resumed, conn.tls.ocsp))
    assert [(False, "good"), (True, "skipped")] == states
