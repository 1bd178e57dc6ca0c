"""Responses of an OCSP responder, good ones and those that must not be believed."""

from __future__ import annotations

import datetime
from typing import Literal

from support.require import need_module

need_module("cryptography")

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from support.pki import Authority, Identity, now

_STATUS = {
    "good": ocsp.OCSPCertStatus.GOOD,
    "revoked": ocsp.OCSPCertStatus.REVOKED,
    "unknown": ocsp.OCSPCertStatus.UNKNOWN,
}


def ocsp_response(
    issuer: Authority,
    about: x509.Certificate,
    *,
    status: Literal["good", "revoked", "unknown"] = "good",
    start: float = -1,
    days: float | None = 7,
    delegate: Identity | None = None,
    attach: bool = True,
    signed_by: Authority | None = None,
    digest: hashes.HashAlgorithm | None = None,
) -> bytes:
    """What a responder says *about* a certificate of *issuer*, in DER.

    Args:
        start: Day from now of which it tells (thisUpdate).
        days: For how many days it is to be believed; None leaves nextUpdate out.
        delegate: Who answers for the issuer, in its own name.
        attach: Whether the delegate's certificate comes with it.
        signed_by: Who really answers, in its own name, which may be the same.
        digest: By which hash it names the certificate; SHA-1 unless told, as RFC 6960 has it.
    """
    this_update = now() + datetime.timedelta(days=start)
    revoked = status == "revoked"
    answerer = delegate or signed_by or issuer
    signer = answerer.leaf if isinstance(answerer, Identity) else answerer.parsed
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=about,
            issuer=issuer.parsed,
            algorithm=digest or hashes.SHA1(),
            cert_status=_STATUS[status],
            this_update=this_update,
            next_update=None if days is None else this_update + datetime.timedelta(days=days),
            revocation_time=this_update if revoked else None,
            revocation_reason=x509.ReasonFlags.key_compromise if revoked else None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.NAME, signer)
    )
    if delegate is not None and attach:
        builder = builder.certificates([delegate.leaf])
    return builder.sign(answerer.private_key, hashes.SHA256()).public_bytes(Encoding.DER)


def ocsp_failure(status: ocsp.OCSPResponseStatus = ocsp.OCSPResponseStatus.TRY_LATER) -> bytes:
    """A responder that could not answer, in DER."""
    return ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)
