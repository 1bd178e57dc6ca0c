"""Rows about certificates: whom they are for, who has signed them, and what they may be used for."""

from __future__ import annotations

from typing import Any

from support.require import need_module

need_module("cryptography")

from cryptography import x509

from support.badssl.world import HOST, Make, Options, Row, Verify, World, by_program
from support.ocsp import ocsp_response
from support.pki import CLIENT, Identity, make_authority, self_signed

_UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\0")


def plain(_world: World) -> list[str]:
    """The server as it is."""
    return []


def lax(_world: World) -> list[str]:
    """The server does not mind weak keys and digests; the client has to."""
    return ["-cipher", "ALL:@SECLEVEL=0"]


def small(_world: World) -> list[str]:
    """The server sends the smallest records that it can."""
    return ["-max_send_frag", "512"]


def good(name: str, make: Make, *, options: Options = plain, **more: Any) -> Row:
    """It must be accepted."""
    return Row(name=name, serve=by_program(make, options), **more)


def bad(
    name: str, make: Make, verify: Verify, says: str, *, options: Options = plain, **more: Any
) -> Row:
    """It must be refused for what *verify* names, in words that match *says*."""
    serve = by_program(make, options)
    return Row(name=name, serve=serve, failure="verify", verify=verify, says=says, **more)


def leaf(file: str, **form: Any) -> Make:
    """A certificate by a good intermediate."""
    return lambda world: world.middle.issue(**{"names": [HOST], "file": file, **form})


def below(file: str, **form: Any) -> Make:
    """A good certificate by an intermediate of this *form*."""
    return lambda world: world.root.intermediate(f"{file} above", **form).issue([HOST], file=file)


def named(file: str, name: x509.GeneralName) -> Make:
    """A certificate with just this alternative name."""
    names = (x509.SubjectAlternativeName([name]), False)
    return leaf(file, names=[], common_name="named", extensions=[names])


# ---- chains


def _deep(world: World, file: str, *, backwards: bool) -> Identity:
    chain = world.root.intermediate(f"{file} 1").intermediate(f"{file} 2").intermediate(f"{file} 3")
    above = chain.chain[::-1] if backwards else chain.chain
    return chain.issue([HOST], file=file).sending(*above, file=f"{file}-sent")


def _with_expired_cross_signature(world: World) -> Identity:
    """A server that still sends the way to an older root, which has expired by now."""
    crossed = world.old_root.cross_sign(world.root, start=-40, days=37)
    above = (*world.middle.chain, crossed, world.old_root.parsed)
    return world.good.sending(*above, file="cross-signed")


def _impostor(world: World) -> Identity:
    """Signed by somebody who only claims to be the root."""
    directory = world.directory / "impostor"
    directory.mkdir(exist_ok=True)
    return make_authority(directory, "badssl root").issue([HOST], file="impostor")


def _with_root(world: World) -> Identity:
    alien = world.stranger.issue([HOST], file="alien")
    return alien.sending(world.stranger.parsed, file="alien-and-root")


def _needless(world: World) -> Identity:
    above = (world.stranger.parsed, world.middle.parsed, world.root.parsed)
    return world.good.sending(*above, file="needless")


def _sha1_below(world: World) -> Identity:
    above = world.rsa_root.intermediate("sha1 middle", digest="sha1")
    return above.issue([HOST], file="sha1-below")


def _too_long(world: World) -> Identity:
    above = world.root.intermediate("path zero", path_length=0).intermediate("path below")
    return above.issue([HOST], file="path-length")


ACCEPTED = [
    good("good", lambda world: world.good),
    good("rsa-2048", lambda world: world.good_rsa),
    good("rsa-8192", World.large_rsa),
    good("ecdsa-p384", leaf("p384", key="p384")),
    good("ed25519", leaf("ed25519", key="ed25519")),
    good("no-common-name", leaf("no-cn", common_name=None)),
    good("common-name-of-another", leaf("cn", common_name="elsewhere.test")),
    good("1000-sans", leaf("1000", names=[*(f"n{i}.badssl.test" for i in range(999)), HOST])),
    good("wildcard", leaf("wildcard", names=["*.badssl.test"])),
    good("upper-case", lambda world: world.good, server_name=HOST.upper()),
    good("trailing-dot", lambda world: world.good, server_name=f"{HOST}."),
    good("address-v4", leaf("v4", names=["127.0.0.1"]), server_name="127.0.0.1"),
    good("address-v6", leaf("v6", names=["2001:db8::1"]), server_name="2001:db8:0::1"),
    good("deep-chain", lambda world: _deep(world, "deep", backwards=False)),
    # Messages of the handshake over several records each.
    good("small-records", lambda world: world.good, options=small),
    # RFC 8446 section 4.4.2: the certificate itself comes first, the others in any order.
    good("reversed-chain", lambda world: _deep(world, "reversed", backwards=True)),
    good("needless-certificates", _needless),
    good("expired-path-beside-a-good-one", _with_expired_cross_signature),
    good("permitted", below("permitted", permitted=["badssl.test"])),
    good("path-length-kept", below("path-kept", path_length=0)),
    # Nobody believes a root for its signature.
    good(
        "sha1-root",
        lambda world: world.sha1_root.issue([HOST], file="below-sha1-root"),
        client=lambda world: {"ca": world.sha1_root.certificate},
    ),
    # What is named as trusted is trusted, root or not.
    good(
        "trusted-intermediate",
        lambda world: world.good,
        client=lambda world: {"ca": world.middle.certificate},
        by_choice=True,
    ),
    good(
        "trusted-leaf",
        lambda world: self_signed(world.directory, names=[HOST], file="pinned"),
        client=lambda world: {"ca": world.directory / "pinned.pem"},
    ),
]

NAMES = [
    bad("wrong-host", leaf("wrong", names=["a.test"]), Verify.WRONG_NAME, f"for a.test, .*{HOST}"),
    bad("no-names", leaf("no-names", names=[], common_name=HOST), Verify.WRONG_NAME, "no name"),
    bad("nameless", leaf("none", names=[], common_name=None), Verify.WRONG_NAME, "no name"),
    bad("nul-in-name", leaf("nul", names=[f"{HOST}\0.evil.test"]), Verify.WRONG_NAME, "not for"),
    bad(
        "nul-in-common-name",
        leaf("nul-cn", names=[], common_name=f"{HOST}\0.evil.test"),
        Verify.WRONG_NAME,
        "no name",
    ),
    bad(
        "wildcard-two-labels",
        leaf("wild2", names=["*.badssl.test"]),
        Verify.WRONG_NAME,
        r"for \*\.badssl\.test, not for a\.b\.badssl\.test",
        server_name="a.b.badssl.test",
    ),
    bad(
        "wildcard-no-label",
        leaf("wild0", names=["*.badssl.test"]),
        Verify.WRONG_NAME,
        "not for badssl.test",
        server_name="badssl.test",
    ),
    bad("wildcard-partial", leaf("p", names=["go*.badssl.test"]), Verify.WRONG_NAME, "not for"),
    bad("wildcard-inside", leaf("in", names=["good.*.test"]), Verify.WRONG_NAME, "not for"),
    bad("wildcard-all", leaf("all", names=["*"]), Verify.WRONG_NAME, "not for"),
    bad(
        "wildcard-top",
        leaf("top", names=["*.test"]),
        Verify.WRONG_NAME,
        r"for \*\.test",
        server_name="badssl.test",
    ),
    bad(
        "wildcard-address",
        leaf("wild-v4", names=["*.0.0.1"]),
        Verify.WRONG_ADDRESS,
        "not for 127.0.0.1",
        server_name="127.0.0.1",
    ),
    bad(
        "address-as-host-name",
        named("v4-dns", x509.DNSName("127.0.0.1")),
        Verify.WRONG_ADDRESS,
        "not for 127.0.0.1",
        server_name="127.0.0.1",
    ),
    bad(
        "address-as-common-name",
        leaf("v4-cn", names=[], common_name="127.0.0.1"),
        Verify.WRONG_ADDRESS,
        "no name",
        server_name="127.0.0.1",
    ),
    bad(
        "address-of-another",
        leaf("v4-other", names=["127.0.0.2"]),
        Verify.WRONG_ADDRESS,
        r"for 127\.0\.0\.2, not for 127\.0\.0\.1",
        server_name="127.0.0.1",
    ),
    bad(
        "name-as-uri",
        named("uri", x509.UniformResourceIdentifier(f"https://{HOST}")),
        Verify.WRONG_NAME,
        f"not for {HOST}|no name",
    ),
    bad("name-as-mail", named("mail", x509.RFC822Name(f"a@{HOST}")), Verify.WRONG_NAME, "no name"),
    bad("not-permitted", below("other", permitted=["x.test"]), Verify.NOT_PERMITTED, "permitted"),
    bad("excluded", below("excluded", excluded=["badssl.test"]), Verify.EXCLUDED, "excluded"),
]

TIMES = [
    bad("expired", leaf("old", start=-40, days=37), Verify.EXPIRED, f"{HOST} expired 3 days ago"),
    bad("not-yet-valid", leaf("new", start=3, days=9), Verify.NOT_YET_VALID, "valid only in"),
    bad(
        "expired-intermediate",
        below("expired", start=-40, days=37),
        Verify.EXPIRED,
        f"expired above.*{HOST} expired 3 days ago",
    ),
    bad(
        "expired-root",
        lambda world: world.old_root.issue([HOST], file="below-old-root"),
        Verify.EXPIRED,
        "old root.*expired 3 days ago",
        client=lambda world: {"ca": world.old_root.certificate},
    ),
]

TRUST = [
    bad(
        "self-signed",
        lambda world: self_signed(world.directory, names=[HOST]),
        Verify.SELF_SIGNED,
        f"{HOST} is self-signed",
    ),
    bad(
        "untrusted-root",
        lambda world: world.stranger.issue([HOST], file="untrusted"),
        Verify.NO_ISSUER,
        f"{HOST}.*badssl stranger",
    ),
    bad(
        "untrusted-root-sent", _with_root, Verify.SELF_SIGNED_ABOVE, "badssl stranger.*not trusted"
    ),
    bad("root-of-the-same-name", _impostor, Verify.NO_ISSUER, "badssl root"),
    bad(
        "incomplete-chain",
        lambda world: world.good.sending(file="incomplete"),
        Verify.NO_ISSUER,
        f"{HOST}.*badssl intermediate.*not sent",
    ),
    bad("broken-signature", leaf("broken", broken_signature=True), Verify.SIGNATURE, "signature"),
]

STRENGTH = [
    bad(
        "sha1-leaf",
        lambda world: world.rsa_root.issue([HOST], digest="sha1", file="sha1-leaf"),
        Verify.WEAK_DIGEST,
        f"{HOST}.*too weak",
        options=lax,
    ),
    bad("sha1-intermediate", _sha1_below, Verify.WEAK_DIGEST, "sha1 middle.*weak", options=lax),
    bad(
        "rsa-1024",
        leaf("rsa1024", key="rsa1024"),
        Verify.WEAK_KEY,
        f"{HOST}.*key too weak",
        options=lax,
    ),
    bad(
        "rsa-1024-intermediate",
        below("rsa1024", key="rsa1024"),
        Verify.WEAK_CA_KEY,
        "rsa1024 above.*key too weak",
        options=lax,
    ),
]

PURPOSES = [
    bad("client-certificate", leaf("client", usages=CLIENT), Verify.PURPOSE, f"{HOST}.*purpose"),
    bad("intermediate-for-clients", below("eku", usages=CLIENT), Verify.PURPOSE, "eku above"),
    bad("leaf-as-intermediate", below("false", is_ca=False), Verify.INVALID_CA, "false above"),
    # RFC 5280 section 6.1.4 (k): without basicConstraints it is no authority, whatever else it says.
    bad("intermediate-without-constraints", below("bc", is_ca=None), Verify.INVALID_CA, "bc above"),
    bad("intermediate-may-not-sign", below("ku", may_sign=False), Verify.INVALID_CA, "ku above"),
    bad("path-length", _too_long, Verify.PATH_LENGTH, "path length"),
    bad(
        "unknown-critical-extension",
        leaf("critical", extensions=[(_UNKNOWN, True)]),
        Verify.CRITICAL_EXTENSION,
        f"{HOST}.*critical extension",
    ),
]


# ---- revocation


def _must_staple(world: World) -> Identity:
    return world.middle.issue([HOST], must_staple=True, file="must-staple")


def _stapled(world: World, identity: Identity, status: Any) -> list[str]:
    staple = ocsp_response(world.middle, identity.leaf, status=status)
    return ["-status_file", str(world.write(f"{status}.der", staple))]


def _revoked_middle(world: World) -> dict[str, Any]:
    return {"crl": [world.root.revoke(world.middle.parsed), world.middle.revoke()]}


REVOCATION = [
    good(
        "crl-without-it",
        lambda world: world.good,
        client=lambda world: {"crl": [world.root.revoke(), world.middle.revoke()]},
    ),
    bad(
        "revoked",
        lambda world: world.good,
        Verify.REVOKED,
        f"{HOST} is revoked",
        client=lambda world: {
            "crl": [world.root.revoke(), world.middle.revoke(world.good.leaf)],
        },
    ),
    bad(
        "revoked-intermediate",
        lambda world: world.good,
        Verify.REVOKED,
        "badssl intermediate.*is revoked",
        client=_revoked_middle,
    ),
    bad(
        "crl-of-the-root-only",
        lambda world: world.good,
        Verify.NO_CRL,
        f"{HOST}.*CRL",
        client=lambda world: {"crl": world.root.revoke()},
    ),
    bad(
        "crl-expired",
        lambda world: world.good,
        Verify.CRL_EXPIRED,
        "CRL has expired",
        client=lambda world: {
            "crl": [world.root.revoke(), world.middle.revoke(start=-40, days=37)]
        },
    ),
    bad(
        "crl-by-an-impostor",
        lambda world: world.good,
        Verify.CRL_SIGNATURE,
        "CRL signature",
        client=lambda world: {
            "crl": [world.root.revoke(), world.middle.revoke(key=world.stranger.private_key)]
        },
    ),
    good(
        "stapled-good",
        lambda world: world.good,
        options=lambda world: _stapled(world, world.good, "good"),
    ),
    bad(
        "stapled-revoked",
        lambda world: world.good,
        Verify.REVOKED,
        f"{HOST}.*revoked",
        options=lambda world: _stapled(world, world.good, "revoked"),
    ),
    bad("must-staple-without-staple", _must_staple, Verify.OCSP_NEEDED, f"{HOST}.*requires one"),
]

CERTIFICATES: list[Row] = [
    *ACCEPTED,
    *NAMES,
    *TIMES,
    *TRUST,
    *STRENGTH,
    *PURPOSES,
    *REVOCATION,
]
