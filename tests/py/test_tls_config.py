"""TLSConfig and Certificate: what is wrong is said when they are made, and by name."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hardsock as hs
from hardsock.lab.threads import run_threaded
from support.tls import Identities, openssl, tls_pair

Change = Callable[[Path], None]


def path_of(source: Any) -> Path:
    assert source is not None
    return Path(source)


# ---- Values


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"role": "both"}, "role must be one of 'client', 'server', got 'both'"),
        ({"ocsp": True}, "ocsp must be one of 'off', 'check', 'require', got True"),
        (
            {"client_certificates": "yes"},
            "must be one of 'none', 'optional', 'required', 'on_request', 'on_request_or_required', got",
        ),
        ({"min_version": "TLSv1.1"}, "min_version must be one of 'TLSv1.2', 'TLSv1.3', got"),
        ({"max_version": 0x0304}, "max_version must be one of 'TLSv1.2', 'TLSv1.3', got 772"),
        ({"security_level": 1}, "security_level must be"),
        ({"security_level": 6}, "security_level must be"),
        ({"tickets": -1}, "tickets must be in 0..8, got -1"),
        ({"tickets": 9}, "tickets must be in 0..8, got 9"),
        ({"session_lifetime": 0}, "session_lifetime must be in 1..604800, got 0"),
        ({"session_lifetime": 604801}, "session_lifetime must be in 1..604800, got 604801"),
        ({"handshake_timeout": 0}, "handshake_timeout must be in 0.001..86400 seconds, got 0"),
        ({"handshake_timeout": -1.5}, "handshake_timeout must be in .* seconds, got -1.5"),
        ({"handshake_timeout": float("nan")}, "handshake_timeout must be in .* got nan"),
        ({"alpn": ("h2", "")}, "alpn names must be 1 to 255 ASCII characters, got ''"),
        ({"alpn": ("x" * 256,)}, "alpn names must be 1 to 255 ASCII characters, got 'xxx"),
        ({"alpn": ("gr\u00fc\u00df",)}, "alpn names must be 1 to 255 ASCII characters, got"),
        ({"alpn": (b"h2",)}, "alpn names must be 1 to 255 ASCII characters, got b'h2'"),
        ({"alpn": ("x" * 255,) * 300}, "alpn must have 65535 bytes in all, got 76800"),
        ({"ca": ""}, "ca must be a path or bytes, got ''"),
        ({"ca": "a\0b"}, r"ca must be a path or bytes, got 'a\\x00b'"),
        ({"ca": "-----BEGIN CERTIFICATE-----"}, "ca looks like PEM text: give it as bytes"),
        ({"crl": ["ok", ""]}, "crl must be a path or bytes, got ''"),
        ({"insecure_key_log_file": ""}, "insecure_key_log_file must be a path"),
        ({"ciphers": "ECDHE+AESGCM\0:ALL"}, "ciphers must not contain a NUL character"),
        ({"insecure_ciphers": "ALL\0"}, "insecure_ciphers must not contain a NUL character"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named_with_what_is_right(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hs.TLSConfig(**setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"sessions": 1}, "sessions must be a bool, not int"),
        ({"sessions": None}, "sessions must be a bool, not NoneType"),
        ({"insecure_skip_verify": "no"}, "insecure_skip_verify must be a bool, not str"),
        ({"insecure_skip_hostname": None}, "insecure_skip_hostname must be a bool, not NoneType"),
        ({"whole_chains": 1}, "whole_chains must be a bool, not int"),
        ({"strict_certificates": None}, "strict_certificates must be a bool"),
        ({"insecure_accept_truncation": 0}, "insecure_accept_truncation must be a bool, not int"),
        ({"tickets": 2.0}, "tickets must be an int or None, not float"),
        ({"tickets": True}, "tickets must be an int or None, not bool"),
        ({"tickets": None}, "tickets must be an int, not None"),
        ({"session_lifetime": None}, "session_lifetime must be an int, not None"),
        ({"session_lifetime": "1h"}, "session_lifetime must be an int or None, not str"),
        ({"handshake_timeout": "10"}, "handshake_timeout must be a number of seconds or None"),
        ({"handshake_timeout": True}, "handshake_timeout must be a number of seconds or None"),
        ({"ciphers": ["ECDHE"]}, "ciphers must be a str or None, not list"),
        ({"insecure_ciphers": b"ALL"}, "insecure_ciphers must be a str or None, not bytes"),
        ({"alpn": "h2"}, "alpn must be a sequence of names, got 'h2'"),
        ({"alpn": b"h2"}, "alpn must be a sequence of names, got b'h2'"),
        ({"alpn": 5}, "alpn must be a sequence of names, got 5"),
        ({"ca": 5}, "ca must be a path, bytes or a sequence of them, got 5"),
        ({"ca": []}, r"ca must be a path, bytes or a sequence of them, got \[\]"),
        ({"ca": [None]}, r"ca must hold paths or bytes, got \[None\]"),
        ({"ca": [5]}, "ca must be a path or bytes, not int"),
        ({"crl": {"x"}}, "crl must be a path, bytes or a sequence of them, got {'x'}"),
        ({"certificates": "x.pem"}, "certificates must be a Certificate or a sequence of them"),
        ({"certificates": ["x.pem"]}, "certificates must be a Certificate or a sequence of them"),
        ({"certificates": 5}, "certificates must be a Certificate or a sequence of them, got 5"),
        ({"insecure_key_log_file": b"x"}, "insecure_key_log_file must be a path, not bytes"),
        ({"insecure_key_log_file": 5}, "insecure_key_log_file must be a path"),
    ],
    ids=str,
)
def test_a_wrong_type_is_named_with_what_is_right(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        hs.TLSConfig(**setting)


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ({"chain": None}, TypeError, "chain must be a path or bytes, not None"),
        ({"chain": 5}, TypeError, "chain must be a path or bytes, not int"),
        ({"chain": ""}, ValueError, "chain must be a path or bytes, got ''"),
        ({"chain": "c", "key": 5}, TypeError, "key must be a path or bytes, not int"),
        ({"chain": "c", "key": "-----BEGIN X"}, ValueError, "key looks like PEM text"),
        ({"chain": "c", "ocsp_response": 5}, TypeError, "ocsp_response must be a path or bytes"),
        ({"chain": "c", "password": 5}, TypeError, "password must be str, bytes or None, not int"),
        ({"chain": "c", "password": "a\0b"}, ValueError, "password must not contain a NUL"),
        ({"chain": "c", "password": b"a\0b"}, ValueError, "password must not contain a NUL"),
    ],
    ids=str,
)
def test_a_certificate_checks_its_own(
    setting: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        hs.Certificate(**setting)


def test_secrets_are_not_shown() -> None:
    shown = repr(hs.Certificate(chain="c.pem", key=b"secret", password="secret"))
    assert shown == "Certificate(chain='c.pem')"


# ---- Contradictions


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"client_certificates": "optional"}, "client_certificates is for role='server'"),
        ({"tickets": 0}, "tickets is for role='server', not for role='client'"),
        (
            {"min_version": "TLSv1.3", "max_version": "TLSv1.2"},
            "min_version='TLSv1.3' is above max_version='TLSv1.2'",
        ),
        (
            {"ciphers": "ECDHE+AESGCM", "insecure_ciphers": "ALL"},
            "ciphers contradicts insecure_ciphers",
        ),
        ({"ciphers": "ECDHE+AESGCM", "min_version": "TLSv1.3"}, "^ciphers are those of TLS 1.2"),
        ({"insecure_ciphers": "ALL", "min_version": "TLSv1.3"}, "^insecure_ciphers are those of"),
        ({"insecure_skip_verify": True, "crl": "c"}, "insecure_skip_verify contradicts crl"),
        (
            {"insecure_skip_verify": True, "ocsp": "require"},
            "insecure_skip_verify contradicts ocsp='require'",
        ),
    ],
    ids=str,
)
def test_a_contradiction_of_a_client_names_both(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hs.TLSConfig(**setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"certificates": None}, "certificates must be given for role='server'"),
        ({"certificates": []}, "certificates must be given for role='server'"),
        ({"ocsp": "require"}, "ocsp is for role='client', not for role='server'"),
        ({"insecure_skip_verify": True}, "insecure_skip_verify is for role='client'"),
        ({"insecure_skip_hostname": True}, "insecure_skip_hostname is for role='client'"),
        ({"client_certificates": "required"}, "client_certificates='required' needs ca"),
        ({"client_certificates": "optional"}, "client_certificates='optional' needs ca"),
        ({"ca": "c"}, "ca has no use for a server with client_certificates='none'"),
    ],
    ids=str,
)
def test_a_contradiction_of_a_server_names_both(
    ids: Identities, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ids.server(**setting)


def test_a_client_has_one_identity_at_most(ids: Identities) -> None:
    with pytest.raises(ValueError, match="certificates must be one at most for role='client'"):
        ids.client(certificates=[ids.client_identity, ids.server_identity])


def test_a_config_is_for_its_role(ids: Identities) -> None:
    with pytest.raises(ValueError, match="tls must be a TLSConfig of role='client' to connect"):
        hs.connect(("127.0.0.1", 1), tls=ids.server())
    with pytest.raises(ValueError, match="tls must be a TLSConfig of role='server' to listen"):
        hs.listen(("127.0.0.1", 0), tls=ids.client())
    with pytest.raises(TypeError, match="tls must be a bool or a TLSConfig, not str"):
        hs.connect(("127.0.0.1", 1), tls="yes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tls must be a TLSConfig or None, not bool"):
        hs.listen(("127.0.0.1", 0), tls=True)  # type: ignore[arg-type]


def test_what_is_for_tls_is_refused_without_it() -> None:
    with pytest.raises(ValueError, match="server_name has no use without tls"):
        hs.connect(("127.0.0.1", 1), server_name="x")
    with pytest.raises(ValueError, match="commit='tls' has no use without tls"):
        hs.connect(("127.0.0.1", 1), commit="tls")
    with pytest.raises(ValueError, match="commit must be 'tcp' or 'tls', got 'tcp4'"):
        hs.connect(("127.0.0.1", 1), tls=True, commit="tcp4")  # type: ignore[arg-type]
    for setting in ({"max_handshakes": 5}, {"handshake_rate": 5}):
        with pytest.raises(ValueError, match="has no use without tls"):
            hs.listen(("127.0.0.1", 0), **setting)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_handshakes": 0}, "max_handshakes must be in 1..1048576, got 0"),
        ({"max_handshakes": 1 << 21}, "max_handshakes must be in 1..1048576"),
        ({"handshake_rate": 0}, "handshake_rate must be in 1..1000000000, got 0"),
    ],
    ids=str,
)
def test_a_listener_checks_its_handshake_limits(
    ids: Identities, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        hs.listen(("127.0.0.1", 0), tls=ids.server(), **setting)


# ---- Files

SOURCES = ("ca", "crl", "chain", "key", "ocsp_response")
HOLDS = {
    "ca": "certificate",
    "crl": "revocation list",
    "chain": "certificate",
    "key": "private key",
    "ocsp_response": "OCSP response",
}


def with_source(ids: Identities, name: str, source: Any) -> hs.TLSConfig:
    """A config in which *source* is the only thing that may be wrong."""
    if name in ("ca", "crl"):
        return ids.client(**{name: source})
    good = ids.server_identity
    parts = {"chain": good.chain, "key": good.key, name: source}
    return ids.server(certificates=hs.Certificate(**parts))


@pytest.mark.parametrize("name", SOURCES)
def test_a_file_that_is_not_there_is_an_error_with_its_errno(
    ids: Identities, name: str, tmp_path: Path
) -> None:
    with pytest.raises(hs.HardsockError) as caught:
        with_source(ids, name, tmp_path / "nothing")
    assert caught.value.errno == errno.ENOENT
    assert str(tmp_path / "nothing") in str(caught.value)
    assert name in str(caught.value) or name == "chain"


@pytest.mark.parametrize("name", SOURCES)
def test_an_empty_file_is_an_error_that_names_it(
    ids: Identities, name: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match=f"empty (holds|is) no {HOLDS[name]}"):
        with_source(ids, name, tmp_path / "empty")


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("junk", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"0\x82"])
def test_junk_bytes_are_an_error(ids: Identities, name: str, junk: bytes) -> None:
    with pytest.raises(ValueError, match=r"\(bytes\) (holds|is) (no|a damaged)"):
        with_source(ids, name, junk)


@pytest.mark.parametrize("name", ["ca", "chain"])
def test_a_certificate_that_is_cut_or_changed_is_damaged(
    ids: Identities, name: str, tmp_path: Path
) -> None:
    whole = (ids.ca if name == "ca" else path_of(ids.server_identity.chain)).read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:100] + whole[104:]):
        (tmp_path / "c.pem").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"c\.pem holds a damaged certificate"):
            with_source(ids, name, tmp_path / "c.pem")
    (tmp_path / "c.pem").write_bytes(whole + whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"c\.pem holds a damaged certificate"):
        with_source(ids, name, tmp_path / "c.pem")


def test_a_key_of_another_certificate_names_both(ids: Identities) -> None:
    other = ids.issue()
    with pytest.raises(ValueError, match=r"issued-\d+\.key does not belong to certificate"):
        with_source(ids, "key", other.key)


def test_a_key_may_be_in_the_chain_s_file(ids: Identities, tmp_path: Path) -> None:
    good = ids.server_identity
    both = tmp_path / "both.pem"
    both.write_bytes(path_of(good.key).read_bytes() + path_of(good.chain).read_bytes())
    with tls_pair(ids.client(), ids.server(certificates=hs.Certificate(chain=both))) as (ours, _):
        assert ours.tls is not None
    with pytest.raises(ValueError, match=r"key: .* holds no private key"):
        ids.server(certificates=hs.Certificate(chain=good.chain))


@pytest.mark.parametrize("form", ["traditional", "pkcs8"])
def test_an_encrypted_key_needs_its_password(ids: Identities, form: str, tmp_path: Path) -> None:
    good = ids.server_identity
    key = tmp_path / "encrypted.key"
    if form == "pkcs8":
        openssl("pkcs8", "-topk8", "-in", str(good.key), "-passout", "pass:right", "-out", key)
    else:
        openssl("ec", "-in", str(good.key), "-aes256", "-passout", "pass:right", "-out", key)

    def make(password: str | bytes | None) -> hs.TLSConfig:
        return ids.server(certificates=hs.Certificate(chain=good.chain, key=key, password=password))

    for right in ("right", b"right"):
        with tls_pair(ids.client(), make(right)) as (ours, _):
            assert ours.tls is not None
    for wrong in (None, "wrong", "", "x" * 5000, b"wrong", b"", b"right\n"):
        with pytest.raises(
            ValueError, match=r"encrypted\.key is encrypted; give the right password"
        ):
            make(wrong)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_files_and_bytes_and_der_and_pem_are_the_same(ids: Identities, as_bytes: bool) -> None:
    def der_of(path: Any, name: str, *command: str) -> Path:
        out = ids.directory / name
        openssl(*command, "-in", str(path), "-outform", "DER", "-out", out)
        return out

    def given(path: Any) -> Any:
        return path_of(path).read_bytes() if as_bytes else str(path)

    good = ids.server_identity
    crl = ids.crl()
    crl_der = der_of(crl, "crl.der", "crl")
    chain_der, ca_der = der_of(good.chain, "c.der", "x509"), der_of(ids.ca, "ca.der", "x509")
    for chain, ca, revoked in ((good.chain, ids.ca, crl), (chain_der, ca_der, crl_der)):
        identity = hs.Certificate(chain=given(chain), key=given(good.key))
        client = hs.TLSConfig(ca=given(ca), crl=given(revoked))
        with tls_pair(client, ids.server(certificates=identity)) as (ours, _):
            assert ours.tls is not None
            assert ours.tls.verified


@pytest.mark.parametrize("form", ["plain", "pkcs8"])
def test_a_key_may_be_der(ids: Identities, form: str, tmp_path: Path) -> None:
    good = ids.server_identity
    key = tmp_path / "key.der"
    if form == "plain":
        openssl("ec", "-in", str(good.key), "-outform", "DER", "-out", key)
    else:
        openssl(
            *("pkcs8", "-topk8", "-nocrypt", "-in", str(good.key)), "-outform", "DER", "-out", key
        )
    for source in (key, key.read_bytes()):
        with tls_pair(ids.client(), with_source(ids, "key", source)) as (ours, _):
            assert ours.tls is not None


def test_every_certificate_is_tried_against_the_rules_when_it_is_given(ids: Identities) -> None:
    """Not when the first client asks for its name."""
    weak = ids.issue(("weak.test",), key="rsa1024")
    with pytest.raises(ValueError, match=r"chain: .* too small"):
        ids.server(certificates=weak)
    with pytest.raises(ValueError, match=r"chain: .* too small"):
        ids.server(certificates=[ids.server_identity, weak])


def test_a_damaged_list_behind_a_good_one_is_an_error(ids: Identities, tmp_path: Path) -> None:
    good = ids.crl().read_bytes()
    (tmp_path / "two.crl").write_bytes(good + good[: len(good) // 2])
    with pytest.raises(ValueError, match=r"crl: .*two\.crl"):
        ids.client(crl=tmp_path / "two.crl")


def test_ca_may_stay_when_nothing_is_verified(ids: Identities, tmp_path: Path) -> None:
    """It is one switch for trying something out, and needs no other change."""
    stranger = Identities(tmp_path)
    for ca in (ids.ca, stranger.ca, tmp_path / "missing.pem"):
        client = ids.client(ca=ca, insecure_skip_verify=True)
        with tls_pair(client, ids.server()) as (ours, _):
            assert ours.tls is not None
            assert not ours.tls.verified


def test_a_password_of_bytes_is_taken_as_it_is(ids: Identities, tmp_path: Path) -> None:
    good = ids.server_identity
    password = b"\xff\xfe not UTF-8"
    (tmp_path / "password").write_bytes(password)
    key = tmp_path / "encrypted.key"
    openssl(
        "pkcs8",
        "-topk8",
        "-in",
        str(good.key),
        "-passout",
        f"file:{tmp_path / 'password'}",
        "-out",
        key,
    )
    ids.server(certificates=hs.Certificate(chain=good.chain, key=key, password=password))


def test_a_key_log_is_a_file_and_opening_it_never_waits(ids: Identities, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/null")):
        with pytest.raises((ValueError, hs.HardsockError), match="insecure_key_log_file"):
            ids.client(insecure_key_log_file=path)


def test_a_directory_of_authorities_is_looked_up_by_hash(ids: Identities, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(ids.ca.read_bytes())
    openssl("rehash", tmp_path)
    with tls_pair(ids.client(ca=tmp_path), ids.server()) as (ours, _):
        assert ours.tls is not None
        assert ours.tls.verified


def test_a_client_that_would_trust_nobody_is_not_made(
    ids: Identities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with pytest.raises(hs.TLSError, match=r"SSL_CERT_FILE.*SSL_CERT_DIR.*give ca=") as caught:
        hs.TLSConfig()
    assert caught.value.failure == "local"
    with pytest.raises(ValueError, match=r"ca: directory .*openssl rehash"):
        hs.TLSConfig(ca=tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(ids.ca))
    with tls_pair(hs.TLSConfig(), ids.server()) as (ours, _):
        assert ours.tls is not None
        assert ours.tls.verified


def test_a_key_log_that_cannot_be_opened_is_an_error(ids: Identities, tmp_path: Path) -> None:
    with pytest.raises(hs.HardsockError, match="insecure_key_log_file") as caught:
        ids.client(insecure_key_log_file=tmp_path / "nowhere" / "log")
    assert caught.value.errno == errno.ENOENT
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(hs.HardsockError) as caught:
        ids.client(insecure_key_log_file=tmp_path / "link")
    assert caught.value.errno == errno.ELOOP


# ---- Ciphers


@pytest.mark.parametrize(
    ("ciphers", "message"),
    [
        ("nonsense", 'ciphers: "nonsense": no cipher match'),
        ("", "no cipher match"),
        ("AES128-SHA", "AES128-SHA has no forward secrecy or no authenticated encryption"),
        ("ECDHE+AESGCM:AES128-GCM-SHA256", "AES128-GCM-SHA256 has no forward secrecy"),
        ("ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES128-SHA256 has no forward secrecy or no"),
        ("ALL", "has no forward secrecy or no authenticated encryption; insecure_ciphers takes"),
    ],
)
def test_ciphers_may_narrow_the_rules_and_not_widen_them(ciphers: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hs.TLSConfig(ciphers=ciphers)


def test_insecure_ciphers_that_are_none_are_named(ids: Identities) -> None:
    with pytest.raises(ValueError, match='insecure_ciphers: "nonsense": no cipher match'):
        hs.TLSConfig(insecure_ciphers="nonsense")


def test_ciphers_are_what_is_negotiated(ids: Identities) -> None:
    name = "ECDHE-ECDSA-CHACHA20-POLY1305"
    old = {"max_version": "TLSv1.2"}
    with tls_pair(ids.client(ciphers=name, **old), ids.server(**old)) as (ours, theirs):
        assert ours.tls is not None
        assert theirs.tls is not None
        assert ours.tls.cipher == theirs.tls.cipher == name


def test_insecure_ciphers_are_taken_as_they_are(ids: Identities) -> None:
    old = {"max_version": "TLSv1.2", "insecure_ciphers": "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"}
    with tls_pair(ids.client(**old), ids.server(**old)) as (ours, _):
        assert ours.tls is not None
        assert ours.tls.cipher == "ECDHE-ECDSA-AES128-SHA"


# ---- Reloading


def replace(target: hs.Certificate, source: hs.Certificate) -> None:
    """Put another identity into the files of *target*."""
    path_of(target.chain).write_bytes(path_of(source.chain).read_bytes())
    path_of(target.key).write_bytes(path_of(source.key).read_bytes())


def names_of(conn: hs.Connection) -> tuple[str, ...]:
    assert conn.tls is not None
    assert conn.tls.peer_certificate is not None
    return conn.tls.peer_certificate.names


def test_reload_is_for_later_handshakes_and_old_connections_go_on(ids: Identities) -> None:
    mine = ids.issue(("localhost", "127.0.0.1", "old.test"))
    server, client = ids.server(certificates=mine), ids.client(sessions=False)
    with tls_pair(client, server) as (old, old_peer):
        replace(mine, ids.issue(("localhost", "127.0.0.1", "new.test")))
        with tls_pair(client, server) as (unchanged, _):
            assert "DNS:old.test" in names_of(unchanged), "nothing is read unasked"
        server.reload()
        with tls_pair(client, server) as (fresh, _):
            assert "DNS:new.test" in names_of(fresh)
        assert "DNS:old.test" in names_of(old)
        old.sendall(b"still here")
        assert old_peer.recv_exactly(10, timeout=30) == b"still here"


@pytest.mark.parametrize("broken", ["chain", "key", "missing"])
def test_reload_is_all_or_nothing(ids: Identities, broken: str) -> None:
    mine = ids.issue(("localhost", "127.0.0.1", "before.test"))
    server, client = ids.server(certificates=mine), ids.client(sessions=False)
    replace(mine, ids.issue(("localhost", "127.0.0.1", "after.test")))
    bad = path_of(mine.chain if broken == "chain" else mine.key)
    if broken == "missing":
        bad.unlink()
    else:
        bad.write_text("junk")
    with pytest.raises((ValueError, hs.HardsockError), match=str(bad)):
        server.reload()
    with tls_pair(client, server) as (conn, _):
        assert "DNS:before.test" in names_of(conn)


def test_reload_of_a_listener_s_config_is_seen_by_the_listener(ids: Identities) -> None:
    mine = ids.issue(("localhost", "127.0.0.1", "one.test"))
    server, client = ids.server(certificates=mine), ids.client(sessions=False)
    with hs.serve(lambda conn: None, ("127.0.0.1", 0), tls=server, drain_timeout=30) as running:
        with hs.connect(running.address, tls=client, timeout=30) as conn:
            assert "DNS:one.test" in names_of(conn)
        replace(mine, ids.issue(("localhost", "127.0.0.1", "two.test")))
        server.reload()
        with hs.connect(running.address, tls=client, timeout=30) as conn:
            assert "DNS:two.test" in names_of(conn)


def test_reload_under_load_breaks_no_handshake(ids: Identities) -> None:
    server, client = ids.server(), ids.client()
    done = threading.Event()
    rounds, visitors = 25, 2

    def visit(index: int) -> int:
        if index == visitors:
            count = 0
            while not done.is_set():
                server.reload()
                client.reload()
                count += 1
            return count
        try:
            for _ in range(rounds):
                with hs.connect(running.address, tls=client, timeout=60) as conn:
                    conn.sendall(b"x")
                    assert conn.recv_exactly(1, timeout=60) == b"x"
        finally:
            done.set()
        return rounds

    def echo(conn: hs.Connection) -> None:
        with conn:
            conn.sendall(conn.recv_exactly(1, timeout=60), timeout=60)

    with hs.serve(echo, ("127.0.0.1", 0), tls=server, drain_timeout=30) as running:
        counts = run_threaded(visit, visitors + 1)
    assert counts[visitors] > 0
    assert counts[:visitors] == [rounds] * visitors
