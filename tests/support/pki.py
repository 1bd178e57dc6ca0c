"""Certificates made when a test runs: good ones, and ones with any flaw that a client must see.

    authority = make_authority(directory)
    certificate, key = authority.issue(["db.test", "10.0.0.1"])       # files, for any program
    expired = authority.issue(["db.test"], start=-40, days=37, file="expired")

The content of files is what counts: an `Identity` reads its certificates from them when asked.
`Form` lists what may be asked for; flaws that the library would not make are made in the DER.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from support.require import need_module

need_module("cryptography")

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

DEFAULT_NAMES = ("localhost", "127.0.0.1", "::1")
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)
CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
OCSP_SIGNING = (ExtendedKeyUsageOID.OCSP_SIGNING,)

PrivateKey = Any  # of any kind that the library has: they share no base class
KeyKind = Literal["ec", "p192", "p384", "ed25519", "rsa", "rsa1024"]

_SHA256_RSA = bytes.fromhex("06092a864886f70d01010b")
_SHA1_RSA = bytes.fromhex("06092a864886f70d010105")


def now() -> datetime.datetime:
    """The present, to the second, as certificates have it."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


# ---- keys

_MAKERS: dict[str, Callable[[], PrivateKey]] = {
    "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p192": lambda: ec.generate_private_key(ec.SECP192R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
}


@cache
def slow_key(kind: str, owner: str) -> PrivateKey:
    """One key for each *owner* in this process: RSA keys take a while."""
    return _MAKERS[kind]()


def make_key(kind: str, owner: str) -> PrivateKey:
    """A new key, except for RSA, where an owner has the same one each time."""
    return slow_key(kind, owner) if kind.startswith("rsa") else _MAKERS[kind]()


def key_pem(key: PrivateKey) -> bytes:
    """The private *key*, not encrypted."""
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


# ---- what a certificate may say


@dataclass(frozen=True, kw_only=True)
class Form:
    """What to certify; the defaults are a good server's certificate.

    Attributes:
        names: Its alternative names: host names and addresses.
        common_name: Of the subject; None is a subject with nothing in it, "" takes the first name.
        start: Day on which it becomes valid, from now.
        days: For how many days it is valid.
        key: What kind of key it is for.
        public_key: Certify this one instead; there is no private key then.
        usages: Extended key usages; empty leaves the extension out.
        is_ca: Whether it may sign others; None leaves basicConstraints out.
        path_length: How many authorities may stand below it.
        may_sign: Whether keyUsage allows to sign certificates; None leaves keyUsage out.
        permitted: Name constraints: domains it may sign for.
        excluded: Name constraints: domains it may not sign for.
        must_staple: Whether it says that it is only good with a stapled OCSP response.
        digest: "sha256", or "sha1" by an issuer that has an RSA key.
        broken_signature: Whether the signature is wrong.
        extensions: More of them, each with whether it is critical.
    """

    names: Sequence[str] = DEFAULT_NAMES
    common_name: str | None = ""
    start: float = -1
    days: float = 31
    key: KeyKind = "ec"
    public_key: PrivateKey = None
    usages: Sequence[ObjectIdentifier] = SERVER
    is_ca: bool | None = False
    path_length: int | None = None
    may_sign: bool | None = False
    permitted: Sequence[str] = ()
    excluded: Sequence[str] = ()
    must_staple: bool = False
    digest: str = "sha256"
    broken_signature: bool = False
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = ()


_AUTHORITY: dict[str, Any] = {"names": (), "usages": (), "is_ca": True, "may_sign": True}


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _subject(form: Form) -> x509.Name:
    if form.common_name is None:
        return x509.Name([])
    text = form.common_name or (form.names[0] if form.names else "nobody")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _key_usage(form: Form) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not form.may_sign,
        key_cert_sign=bool(form.may_sign),
        crl_sign=bool(form.may_sign),
        # For the old ciphers without forward secrecy.
        key_encipherment=form.key.startswith("rsa") and not form.may_sign,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _extensions(form: Form) -> list[tuple[x509.ExtensionType, bool]]:
    found: list[tuple[x509.ExtensionType, bool]] = []
    if form.is_ca is not None:
        found.append((x509.BasicConstraints(form.is_ca, form.path_length), True))
    if form.may_sign is not None:
        found.append((_key_usage(form), True))
    if form.names:
        names = x509.SubjectAlternativeName([_general_name(name) for name in form.names])
        found.append((names, form.common_name is None))
    if form.usages:
        found.append((x509.ExtendedKeyUsage(form.usages), False))
    if form.permitted or form.excluded:
        constraints = x509.NameConstraints(
            [x509.DNSName(name) for name in form.permitted] or None,
            [x509.DNSName(name) for name in form.excluded] or None,
        )
        found.append((constraints, True))
    if form.must_staple:
        found.append((x509.TLSFeature([x509.TLSFeatureType.status_request]), False))
    return [*found, *form.extensions]


def _digest_for(key: PrivateKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _sign(
    form: Form, public_key: PrivateKey, issuer: x509.Name, issuer_key: PrivateKey
) -> x509.Certificate:
    begin = now() + datetime.timedelta(days=form.start)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(form))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=form.days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
    )
    for extension, critical in _extensions(form):
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign(issuer_key, _digest_for(issuer_key))
    if form.digest == "sha1":
        certificate = _signed_with_sha1(certificate, issuer_key)
    return _with_broken_signature(certificate) if form.broken_signature else certificate


# ---- what the library would not make


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _assemble(body: bytes, algorithm: bytes, signature: bytes) -> x509.Certificate:
    identifier = _tlv(0x30, algorithm + b"\x05\x00")
    der = _tlv(0x30, body + identifier + _tlv(0x03, b"\0" + signature))
    return x509.load_der_x509_certificate(der)


def _signed_with_sha1(certificate: x509.Certificate, issuer_key: PrivateKey) -> x509.Certificate:
    body = certificate.tbs_certificate_bytes.replace(_SHA256_RSA, _SHA1_RSA, 1)
    signature = issuer_key.sign(body, padding.PKCS1v15(), hashes.SHA1())
    return _assemble(body, _SHA1_RSA, signature)


def _with_broken_signature(certificate: x509.Certificate) -> x509.Certificate:
    """The last bit is another; the signature of the right form, an ECDSA one included."""
    der = bytearray(certificate.public_bytes(Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_certificate(bytes(der))


# ---- who has one


class Identity(NamedTuple):
    """Two files: a certificate with the intermediates above it, and its private key."""

    certificate: Path
    key: Path

    @property
    def chain(self) -> list[x509.Certificate]:
        """The certificate, then the intermediates."""
        return x509.load_pem_x509_certificates(self.certificate.read_bytes())

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate itself."""
        return self.chain[0]

    @property
    def private_key(self) -> PrivateKey:
        """The key itself."""
        return load_pem_private_key(self.key.read_bytes(), None)

    def sending(self, *above: x509.Certificate, file: str) -> Identity:
        """The same one that sends these *above* its certificate; in *file*, beside the other."""
        path = self.certificate.with_name(f"{file}.pem")
        return Identity(write_chain(path, [self.leaf, *above]), self.key)


def write_chain(path: Path, chain: Sequence[x509.Certificate]) -> Path:
    """Write a *chain* as PEM."""
    path.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    return path


@dataclass(frozen=True)
class Authority:
    """Who signs certificates.

    Attributes:
        directory: Where all its files are.
        certificate: Its own, for the one who trusts it.
        parsed: The same.
        private_key: What it signs with.
        chain: What those whom it certifies send above their own certificate.
    """

    directory: Path
    certificate: Path
    parsed: x509.Certificate
    private_key: PrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    def issue(
        self, names: Sequence[str] = DEFAULT_NAMES, *, file: str = "server", **form: Any
    ) -> Identity:
        """Certify *names*; see `Form` for what else may be said."""
        wanted = Form(names=names, **form)
        key = make_key(wanted.key, file)
        public_key = wanted.public_key or key.public_key()
        leaf = _sign(wanted, public_key, self.parsed.subject, self.private_key)
        certificate = write_chain(self.directory / f"{file}.pem", [leaf, *self.chain])
        key_file = certificate.with_suffix(".key")
        if wanted.public_key is None:
            key_file.write_bytes(key_pem(key))
        return Identity(certificate, key_file)

    def intermediate(self, name: str = "test intermediate", **form: Any) -> Authority:
        """An authority below this one; *name* also names its files."""
        wanted = Form(**{"common_name": name, **_AUTHORITY, **form})
        key = make_key(wanted.key, name)
        certificate = _sign(wanted, key.public_key(), self.parsed.subject, self.private_key)
        return self._below(name, certificate, key)

    def _below(self, name: str, certificate: x509.Certificate, key: PrivateKey) -> Authority:
        path = write_chain(self.directory / f"{name.replace(' ', '-')}.pem", [certificate])
        return Authority(self.directory, path, certificate, key, (certificate, *self.chain))

    def cross_sign(self, other: Authority, **form: Any) -> x509.Certificate:
        """A certificate of this authority for the name and the key of the *other*."""
        name = other.parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        wanted = Form(**{"common_name": str(name), **_AUTHORITY, **form})
        return _sign(wanted, other.private_key.public_key(), self.parsed.subject, self.private_key)

    def revoke(
        self,
        *revoked: x509.Certificate,
        start: float = -1,
        days: float = 31,
        key: PrivateKey = None,
    ) -> bytes:
        """A revocation list in PEM, signed with *key* if there is one."""
        begin = now() + datetime.timedelta(days=start)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.parsed.subject)
            .last_update(begin)
            .next_update(begin + datetime.timedelta(days=days))
        )
        for certificate in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(begin)
                .add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), False)
                .build()
            )
        signer = key or self.private_key
        return builder.sign(signer, _digest_for(signer)).public_bytes(Encoding.PEM)


def make_authority(
    directory: Path, name: str = "hardsock test authority", **form: Any
) -> Authority:
    """A root with its files in *directory*; *name* also names them."""
    wanted = Form(**{"common_name": name, **_AUTHORITY, **form})
    key = make_key(wanted.key, name)
    certificate = _sign(wanted, key.public_key(), _subject(wanted), key)
    path = write_chain(directory / f"{name.replace(' ', '-')}.pem", [certificate])
    return Authority(directory, path, certificate, key)


def self_signed(directory: Path, *, file: str = "self-signed", **form: Any) -> Identity:
    """A certificate that nobody but its owner has signed."""
    wanted = Form(**form)
    key = make_key(wanted.key, file)
    certificate = _sign(wanted, key.public_key(), _subject(wanted), key)
    path = write_chain(directory / f"{file}.pem", [certificate])
    path.with_suffix(".key").write_bytes(key_pem(key))
    return Identity(path, path.with_suffix(".key"))
