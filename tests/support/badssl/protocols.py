"""Rows about the protocol: old versions, old ciphers, and what is no TLS at all.

What the openssl program would not do (RC4 and 3DES are not built in any more) is done by hand: a
ServerHello that chooses it although nobody has offered it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hardsock.lab.peers import PeerScript, Step
from support import tls_raw
from support.badssl.world import HOST, Address, Make, Row, Serve, World, by_program
from support.pki import CLIENT, Identity

HANDSHAKE_FAILURE, UNKNOWN_CA, PROTOCOL_VERSION, CERTIFICATE_REQUIRED = 40, 48, 70, 116


# ---- by the openssl program


def refused_by_it(name: str, *options: str, alert: int = HANDSHAKE_FAILURE, **more: Any) -> Row:
    """The server finds nothing in common with what the client offers, and says so."""
    serve = by_program(lambda world: world.good_rsa, lambda _world: options)
    says = f"{HOST} refused: alert {alert}"
    return Row(name=name, serve=serve, failure="alert", alert=alert, says=says, **more)


def _old(version: str) -> list[str]:
    return [version, "-cipher", "ALL:@SECLEVEL=0"]


def _cipher(name: str) -> list[str]:
    return ["-tls1_2", "-cipher", f"{name}:@SECLEVEL=0"]


def _dhe(bits: int) -> Row:
    cipher = _cipher("DHE-RSA-AES128-GCM-SHA256")
    serve = by_program(
        lambda world: world.good_rsa,
        lambda world: [*cipher, "-dhparam", str(world.dh_parameters(bits))],
    )
    alert = HANDSHAKE_FAILURE
    return Row(name=f"dh-{bits}", serve=serve, failure="alert", alert=alert, says="refused")


OLD = [
    refused_by_it("tls-1.0", *_old("-tls1"), alert=PROTOCOL_VERSION, versions=["TLSv1.3"]),
    refused_by_it("tls-1.1", *_old("-tls1_1"), alert=PROTOCOL_VERSION, versions=["TLSv1.3"]),
    # A hello of 1.2 has no list of versions: the old server takes it, and then likes no cipher.
    refused_by_it("tls-1.0-for-1.2", *_old("-tls1"), versions=["TLSv1.2"]),
    refused_by_it("tls-1.1-for-1.2", *_old("-tls1_1"), versions=["TLSv1.2"]),
    refused_by_it("null", *_cipher("eNULL"), versions=["TLSv1.2"]),
    refused_by_it("anonymous", *_cipher("aNULL"), versions=["TLSv1.2"]),
    refused_by_it("static-rsa", *_cipher("kRSA"), versions=["TLSv1.2"]),
    refused_by_it("cbc", *_cipher("ECDHE-RSA-AES128-SHA256"), versions=["TLSv1.2"], by_choice=True),
    refused_by_it("weak-group", "-groups", "prime192v1", *_cipher("ECDHE"), versions=["TLSv1.2"]),
    # Smaller and broken groups are the same to a client that takes no DHE: see chooses-dhe.
    _dhe(1024),
    refused_by_it("dh-2048", *_cipher("DHE-RSA-AES128-GCM-SHA256"), by_choice=True),
    Row(
        name="ecdsa-p192",
        serve=by_program(
            lambda world: world.middle.issue([HOST], key="p192", file="p192"),
            lambda _world: _cipher("ALL"),
        ),
        failure="alert",
        alert=HANDSHAKE_FAILURE,
        versions=["TLSv1.2"],
    ),
    # RFC 8446 sets no limit; OpenSSL reads at most 100 kB, so that a peer cannot fill our memory.
    Row(
        name="10000-sans",
        serve=by_program(
            lambda world: world.middle.issue(
                [*(f"n{i}.badssl.test" for i in range(9999)), HOST], file="10000"
            ),
            lambda _world: [],
        ),
        failure="protocol",
        says=f"{HOST}.*excessive message size",
    ),
]


# ---- client certificates


def asks(name: str, alert: int | None, client: Make | None, version: str) -> Row:
    """The server wants a certificate that its root has signed."""

    def options(world: World) -> Sequence[str]:
        return ["-Verify", "3", "-verify_return_error", "-CAfile", str(world.root.certificate)]

    def settings(world: World) -> dict[str, Any]:
        import hardsock as hs

        if client is None:
            return {}
        certificate, key = client(world)
        return {"certificates": hs.Certificate(chain=certificate, key=key)}

    return Row(
        name=f"client-{name}-{version[-3:]}",
        serve=by_program(lambda world: world.good, options),
        failure=None if alert is None else "alert",
        alert=alert,
        client=settings,
        versions=[version],
    )


def _client(world: World) -> Identity:
    return world.middle.issue(["alice"], usages=CLIENT, file="alice")


def _unknown_client(world: World) -> Identity:
    return world.stranger.issue(["mallory"], usages=CLIENT, file="mallory")


CLIENTS = [
    asks("cert", None, _client, "TLSv1.2"),
    asks("cert", None, _client, "TLSv1.3"),
    asks("cert-missing", HANDSHAKE_FAILURE, None, "TLSv1.2"),
    asks("cert-missing", CERTIFICATE_REQUIRED, None, "TLSv1.3"),
    asks("cert-unknown", UNKNOWN_CA, _unknown_client, "TLSv1.2"),
    asks("cert-unknown", UNKNOWN_CA, _unknown_client, "TLSv1.3"),
]


# ---- by hand


def by_hand(*steps: Step) -> Serve:
    """A peer that reads the ClientHello and plays *steps*."""

    @contextmanager
    def serve(_world: World) -> Iterator[Address]:
        script = [("call", tls_raw.read_record), *steps]
        # A client may leave with a reset: how hardsock does it is another test.
        with PeerScript(script, check=False) as peer:
            assert isinstance(peer.address, tuple)
            yield peer.address

    return serve


def says(name: str, failure: str, text: str, *steps: Step, alert: int | None = None) -> Row:
    """The peer says what no server may; the client must answer with *failure*."""
    serve = by_hand(*steps)
    return Row(
        name=name, serve=serve, failure=failure, alert=alert, says=text, versions=["TLSv1.3"]
    )


def chooses(name: str, failure: str, text: str, cipher: int, **hello: Any) -> Row:
    """A ServerHello with something that the client did not offer."""
    wrong = tls_raw.server_hello(cipher, **hello)
    return says(name, failure, text, ("send", wrong), ("recv_until_eof",))


def talks(name: str, failure: str, text: str, answer: bytes, **more: Any) -> Row:
    """The peer answers the hello with *answer*, and waits."""
    return says(name, failure, text, ("send", answer), ("recv_until_eof",), **more)


_HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
_GOOD = tls_raw.ECDHE_RSA

BY_HAND = [
    chooses("chooses-rc4", "cipher", "cipher returned", tls_raw.RC4_SHA),
    chooses("chooses-3des", "cipher", "cipher returned", tls_raw.TRIPLE_DES_SHA),
    chooses("chooses-export", "cipher", "cipher returned", tls_raw.EXPORT_RC4),
    chooses("chooses-null", "cipher", "cipher returned", tls_raw.NULL_SHA256),
    chooses("chooses-anonymous", "cipher", "cipher returned", tls_raw.ANONYMOUS),
    chooses("chooses-static-rsa", "cipher", "cipher returned", tls_raw.STATIC_RSA),
    chooses("chooses-dhe", "cipher", "cipher returned", tls_raw.DHE_RSA),
    chooses("chooses-cbc", "cipher", "cipher returned", tls_raw.ECDHE_RSA_CBC),
    chooses("chooses-a-cipher-of-1.3", "cipher", "cipher", tls_raw.AES_128_GCM_1_3),
    chooses("chooses-ssl-3", "version", "version|protocol", _GOOD, version=tls_raw.SSL3),
    chooses("chooses-tls-1.0", "version", "version|protocol", _GOOD, version=tls_raw.TLS10),
    chooses("chooses-tls-1.1", "version", "version|protocol", _GOOD, version=tls_raw.TLS11),
    chooses(
        "downgraded",  # somebody in the middle has taken TLS 1.3 out of the hello
        "protocol",
        "inappropriate fallback",
        _GOOD,
        random_end=tls_raw.DOWNGRADED_TO_1_2,
    ),
    chooses("compresses", "protocol", "compression", _GOOD, compression=1),
    # RFC 5746: without it an attacker can put bytes of their own before ours.
    chooses("renegotiates-insecurely", "protocol", "renegotiation", _GOOD, extensions=None),
    chooses("unasked-extension", "protocol", "extension", _GOOD, extensions=[(0x3374, b"\2h2")]),
    talks("plain-http", "http", f"{HOST} speaks plain HTTP", _HTTP),
    talks("ssh", "not_tls", f"{HOST} does not speak TLS", b"SSH-2.0-OpenSSH_9.2\r\n"),
    talks("smtp", "not_tls", f"{HOST} does not speak TLS", b"220 mail.test ESMTP\r\n"),
    talks("zeros", "not_tls", f"{HOST} does not speak TLS", bytes(100)),
    talks("oversize-record", "protocol", "too long|too large", b"\x16\x03\x03\xff\xff" + bytes(99)),
    talks("data-before-keys", "protocol", HOST, tls_raw.record(23, b"hello")),
    talks("empty-message", "protocol", HOST, tls_raw.record(22, tls_raw.message(2, b""))),
    talks("warning-flood", "protocol", "warn", tls_raw.alert(90, level=1) * 50),
    talks("refuses", "alert", f"{HOST} refused: alert 80", tls_raw.alert(80), alert=80),
    says("leaves", "empty", f"{HOST} closed the connection without", ("close",)),
    says("leaves-midway", "aborted", f"{HOST} closed.*middle", ("send", b"\x16\x03"), ("close",)),
]

PROTOCOLS: list[Row] = [*OLD, *CLIENTS, *BY_HAND]
