"""A listener whose TLS settings keep failing falls back to others that its user has given it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.peers import PeerScript
from hardsock.lab.threads import Call
from hardsock.lab.waits import poll_until
from support.pki import make_authority


class Setup:
    """A certificate, and clients that trust it."""

    def __init__(self, directory: Path) -> None:
        authority = make_authority(directory)
        chain, key = authority.issue()
        self.certificate = hs.Certificate(chain=chain, key=key)
        self.modern = hs.TLSConfig(ca=authority.certificate)
        self.old = hs.TLSConfig(ca=authority.certificate, max_version="TLSv1.2", sessions=False)

    def server(self, **settings: Any) -> hs.TLSConfig:
        return hs.TLSConfig(role="server", certificates=self.certificate, **settings)


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup(tmp_path_factory.mktemp("fallback"))


@contextmanager
def accepting(listener: hs.Listener) -> Iterator[None]:
    """Accepts and closes, until the end of the block."""

    def run() -> None:
        for conn in listener:
            conn.close()

    with Call(run) as call:
        try:
            yield
        finally:
            listener.close()
        call.result(30)


def shake(listener: hs.Listener, config: hs.TLSConfig, source: str = "127.0.0.1") -> str:
    """The version that came out of it, or the kind of failure."""
    sock = socket.socket()
    sock.bind((source, 0))
    sock.connect(listener.address)
    with hs.adopt(sock) as conn:
        try:
            conn.upgrade_to_tls(config, server_name="localhost", timeout=30)
        except hs.TLSError as exc:
            return exc.failure
        assert conn.tls is not None
        return conn.tls.version


def test_failures_in_a_row_bring_the_fallback_and_a_probe_brings_the_main_settings_back(
    setup: Setup,
) -> None:
    breaker = hs.Breaker(failures=5, failure_rate=None, open_time=5.0, jitter=0)
    with hs.listen(
        ("127.0.0.1", 0),
        tls=setup.server(min_version="TLSv1.3"),
        tls_fallback=setup.server(),
        tls_breaker=breaker,
        insecure_allow_weaker_fallback=True,
    ) as listener:
        with accepting(listener):
            assert [shake(listener, setup.old, f"127.0.0.{i}") for i in range(1, 6)] == [
                "alert"
            ] * 5
            # A client reads the alert before the thread that accepts has counted it.
            assert poll_until(
                lambda: [one.state for one in breaker.states()] == ["open"], timeout=60
            )
            assert shake(listener, setup.old) == "TLSv1.2"
            assert shake(listener, setup.modern) == "TLSv1.3"
            stats = listener.stats().handshakes
            assert stats is not None
            assert stats.fallback == 2
            assert stats.failed["version"] == 5
            hs.CancelToken().wait(timeout=5.05)  # until the breaker asks for a probe
            assert shake(listener, setup.modern) == "TLSv1.3"
            assert shake(listener, setup.old) == "alert"


def test_clients_that_speak_no_tls_bring_no_fallback(setup: Setup) -> None:
    breaker = hs.Breaker(failures=2)
    config = setup.server()
    with hs.listen(
        ("127.0.0.1", 0), tls=config, tls_fallback=setup.server(), tls_breaker=breaker
    ) as listener:
        with accepting(listener):
            for rubbish in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100, b"\x16\x03\x01\x00"):
                with hs.connect(listener.address, timeout=30) as conn:
                    conn.sendall(rubbish)
                    conn.finish(timeout=30)
            stats = listener.stats().handshakes
            assert stats is not None
            assert (stats.started, stats.fallback) == (4, 0)
            assert stats.failed["empty"] == 1
            assert stats.failed["http"] == 1
            assert stats.failed["not_tls"] == 1
            assert stats.failed["aborted"] == 1
            assert breaker.states() == []


WEAKER = [
    ({"min_version": "TLSv1.3"}, {}, "min_version"),
    ({}, {"insecure_ciphers": "ALL"}, "insecure_ciphers"),
    ({"ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384"}, {}, "ciphers"),
    ({}, {"insecure_accept_truncation": True}, "insecure_accept_truncation"),
]


@pytest.mark.parametrize(("main", "fallback", "name"), WEAKER, ids=[row[2] for row in WEAKER])
def test_a_weaker_fallback_needs_a_word(
    setup: Setup, main: dict[str, Any], fallback: dict[str, Any], name: str
) -> None:
    tls, weaker = setup.server(**main), setup.server(**fallback)
    with pytest.raises(ValueError, match=f"weaker than tls in {name}.*insecure_allow_weaker"):
        hs.listen(("127.0.0.1", 0), tls=tls, tls_fallback=weaker)
    with hs.listen(
        ("127.0.0.1", 0), tls=tls, tls_fallback=weaker, insecure_allow_weaker_fallback=True
    ):
        pass


def test_client_certificates_may_not_be_dropped_in_silence(setup: Setup, tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    tls = setup.server(client_certificates="required", ca=authority.certificate)
    with pytest.raises(ValueError, match="weaker than tls in client_certificates, ca"):
        hs.listen(("127.0.0.1", 0), tls=tls, tls_fallback=setup.server())


def test_parts_of_a_fallback_that_have_no_use_are_refused(setup: Setup) -> None:
    tls = setup.server()
    with pytest.raises(ValueError, match="tls_fallback has no use without tls"):
        hs.listen(("127.0.0.1", 0), tls_fallback=tls)
    with pytest.raises(ValueError, match="tls_breaker has no use without tls_fallback"):
        hs.listen(("127.0.0.1", 0), tls=tls, tls_breaker=hs.Breaker())
    with pytest.raises(ValueError, match="insecure_allow_weaker_fallback has no use"):
        hs.listen(("127.0.0.1", 0), tls=tls, insecure_allow_weaker_fallback=True)
    with pytest.raises(ValueError, match="role='server'"):
        hs.listen(("127.0.0.1", 0), tls=tls, tls_fallback=hs.TLSConfig())


def test_a_breaker_leaves_an_address_alone_whose_handshakes_stall(
    setup: Setup,
) -> None:
    breaker = hs.Breaker(failures=2, patience=0.1)
    config = hs.TLSConfig(insecure_skip_verify=True, handshake_timeout=0.2)
    with PeerScript([("recv_until_eof",)], connections=2) as peer:
        for _ in range(2):
            with pytest.raises(hs.DeadlineExceeded) as caught:
                hs.connect(peer.address, tls=config, breaker=breaker, timeout=30)
            assert caught.value.phase == "tls"
        with pytest.raises(hs.BreakerOpen) as refused:
            hs.connect(peer.address, tls=config, breaker=breaker, timeout=30)
        assert refused.value.last_error == "timeout"
