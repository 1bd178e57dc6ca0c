"""TLS settings as frozen values, checked in one place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from hardsock import _core
from hardsock._names import names_checked
from hardsock._options import _check_int, _check_seconds
from hardsock._typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from typing import Any

__all__ = ["Certificate", "TLSConfig"]

Source = str | os.PathLike[str] | bytes
"""A file's path, or its content as bytes; PEM or DER."""

_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
TICKET_KEY_SIZE = 80
_MOST_TICKET_KEYS = 3
_CLIENT_CERTIFICATES = ("none", "optional", "required", "on_request", "on_request_or_required")
_BY_STRENGTH = ("none", "on_request", "optional", "on_request_or_required", "required")
_OCSP = ("off", "check", "require")
_SWITCHES = (
    "sessions",
    "post_handshake_auth",
    "strict_certificates",
    "whole_chains",
    "insecure_skip_verify",
    "insecure_skip_hostname",
    "insecure_accept_truncation",
)
_ONLY = {
    "server": ("client_certificates", "tickets", "ticket_keys"),
    "client": ("ocsp", "post_handshake_auth", "insecure_skip_verify", "insecure_skip_hostname"),
}


def _check_source(name: str, value: object) -> str | bytes | None:
    """What the core takes: a path as text, content as bytes."""
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not path or "\0" in path:
            raise ValueError(f"{name} must be a path or bytes, got {value!r}")
        if "-----BEGIN" in path:
            raise ValueError(f"{name} looks like PEM text: give it as bytes, or give a path")
        return path
    raise TypeError(f"{name} must be a path or bytes, not {type(value).__name__}")


def _check_sources(name: str, value: object) -> tuple[str | bytes, ...]:
    if value is None:
        return ()
    if isinstance(value, (str, bytes, os.PathLike)):
        value = (value,)
    if not isinstance(value, Sequence) or not value:
        raise TypeError(f"{name} must be a path, bytes or a sequence of them, got {value!r}")
    found = tuple(_check_source(name, one) for one in value)
    if None in found:
        raise TypeError(f"{name} must hold paths or bytes, got {value!r}")
    return tuple(one for one in found if one is not None)


def _check_text(name: str, value: object) -> None:
    """Text that the core takes as C does: a NUL would silently end it."""
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str or None, not {type(value).__name__}")
    if "\0" in value:
        raise ValueError(f"{name} must not contain a NUL character")


def _check_password(value: object) -> None:
    if value is not None and not isinstance(value, (str, bytes)):
        raise TypeError(f"password must be str, bytes or None, not {type(value).__name__}")
    if value and ("\0" in value if isinstance(value, str) else 0 in value):
        raise ValueError("password must not contain a NUL character")


def _check_switch(name: str, value: object) -> None:
    """On or off: None would leave it open which of the two is safe."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {type(value).__name__}")


def _check_number(name: str, value: object, low: int, high: int) -> None:
    if value is None:
        raise TypeError(f"{name} must be an int, not None")
    _check_int(name, value, low, high)


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


@names_checked
@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Who we are: a certificate with its chain, and the private key for it."""

    chain: Source
    """The certificate first, then the intermediates; a path or bytes, PEM (or DER for one alone)."""
    key: Source | None = field(default=None, repr=False)
    """``None``: the key is in ``chain``."""
    password: str | bytes | None = field(default=None, repr=False)
    """Of an encrypted key; a str is encoded in UTF-8. Without one such a key is an error; nobody is ever asked."""
    ocsp_response: Source | None = field(default=None, repr=False)
    """A DER response that a server staples (RFC 6066 section 8). The one who renews it calls
    ``TLSConfig.reload``. One that the OpenSSL in use would not send is a ``ValueError`` when the
    config is made."""

    def __post_init__(self) -> None:
        if _check_source("chain", self.chain) is None:
            raise TypeError("chain must be a path or bytes, not None")
        _check_source("key", self.key)
        _check_source("ocsp_response", self.ocsp_response)
        _check_password(self.password)

    def _settings(self) -> tuple[str | bytes | None, ...]:
        return (
            _check_source("chain", self.chain),
            _check_source("key", self.key),
            _check_source("ocsp_response", self.ocsp_response),
            self.password,
        )


@names_checked
@dataclass(frozen=True, kw_only=True)
class TLSConfig:
    """Everything that is decided before a TLS handshake; shared by any number of connections.

    Safe as it is: TLS 1.2 and 1.3, forward secrecy and authenticated encryption only, certificates
    and names verified, no renegotiation, no compression, keys and signatures of at least 112 bits.
    Whatever weakens that has ``insecure_`` in its name. Files are read when it is made: what is
    wrong with them is said there, not at three in the morning.

    Raises:
        ValueError, TypeError: A setting is wrong or contradicts another; the message names them.
        HardsockError: A file cannot be read.
        TLSError: ``ca`` is not given and the system trusts nobody; the message names the places.
    """

    role: Literal["client", "server"] = "client"
    ca: Source | Sequence[Source] | None = None
    """Whom to trust: files, directories (as c_rehash makes them) or bytes. ``None``: a client
    trusts what the system trusts (``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, else OpenSSL's places for
    them, else the bundle of a distribution), a server nobody. What is named here is trusted even if it is no
    root."""
    crl: Source | Sequence[Source] | None = None
    """Revocation lists. With any, each certificate of a chain must be covered by a valid one."""
    certificates: Certificate | Sequence[Certificate] | None = None
    """A server needs one; of several it presents one that is for the name that the client asked for
    (SNI) and that the client can verify; without a name, or with one that none is for, the first
    that the client can verify. A client may have one."""
    client_certificates: Literal[
        "none", "optional", "required", "on_request", "on_request_or_required"
    ] = "none"
    """Server: whether clients must show a certificate that ``ca`` has signed. ``"on_request"``: not in
    the handshake, but when ``Connection.request_client_certificate`` asks; with TLS 1.2, which has no
    such request, as ``"optional"``. ``"on_request_or_required"``: with TLS 1.2 as ``"required"``."""
    alpn: Sequence[str] = ()
    """Application protocols, the preferred first (RFC 7301). A server refuses a client with which
    it has none in common."""
    min_version: Literal["TLSv1.2", "TLSv1.3"] = "TLSv1.2"
    max_version: Literal["TLSv1.2", "TLSv1.3"] = "TLSv1.3"
    ciphers: str | None = None
    """Ciphers of TLS 1.2 as ciphers(1) writes them; none without forward secrecy and authenticated
    encryption is taken."""
    security_level: int = 2
    """Bits that keys, signatures and ciphers must be worth, 2 (112 bits) to 5 (256 bits), as
    SSL_CTX_set_security_level(3) has it."""
    strict_certificates: bool = False
    """Refuse certificates that do not keep to RFC 5280 to the letter (``VERIFY_X509_STRICT``)."""
    whole_chains: bool = False
    """Chains must end at a root: what ``ca`` names is trusted by itself only if it is one."""
    ocsp: Literal["off", "check", "require"] = "check"
    """Client: ``"check"`` refuses a stapled response that is not good, ``"require"`` also that there
    is none. A certificate that says "must staple" (RFC 7633) requires it by itself. Where the
    OpenSSL in use hands over no response this is a ``ValueError`` when the config is made."""
    post_handshake_auth: bool = False
    """Client: let a server ask for the certificate after the handshake (RFC 8446 section 4.6.2), as
    some do for a part of what they serve. It is answered by the call that receives; without one in
    ``certificates`` the answer is that there is none. TLS 1.3 only."""
    sessions: bool = True
    """Resume earlier sessions, which saves the certificates: only under the same name, and only
    verified ones."""
    tickets: int = 2
    """Server: session tickets sent after a full handshake, 0 to 8."""
    ticket_keys: Sequence[bytes] | None = field(default=None, repr=False, compare=False)
    """Server: what session tickets are sealed with, 1 to 3 secrets of 80 random bytes
    (``os.urandom(80)``), so that several processes or machines resume each other's sessions. The
    first one seals, all of them open. Not replaced by themselves: see ``replace_ticket_keys``.
    After a ``reload`` of a server that asks for client certificates they have to be given again,
    so that who is not trusted any more is not resumed. ``None``: made here and replaced twice in
    *session_lifetime*."""
    session_lifetime: int = 7200
    """Seconds from a full handshake in which its session, and those that follow from resuming it, may
    be resumed; less when a certificate of its chain expires before (RFC 8446 section 4.6.1 allows
    seven days at most). Ticket keys are replaced twice in that time."""
    handshake_timeout: float | None = 10.0
    """Seconds for a handshake, within the deadline of the call. ``None``: only that one."""
    insecure_skip_verify: bool = False
    """Client: take any certificate. Anybody in the middle can then read and change everything.
    ``ca`` may stay as it is, and is not read."""
    insecure_skip_hostname: bool = False
    """Client: take any name, if somebody trusted has signed the certificate."""
    insecure_ciphers: str | None = None
    """As ``ciphers``, without any rule; lowers the security level to 0."""
    insecure_accept_truncation: bool = False
    """Take an end without close_notify for an end like any other. Only for protocols that can tell
    by themselves whether a message is whole."""
    insecure_key_log_file: str | os.PathLike[str] | None = None
    """A file to which the secrets of each connection are appended (NSS format), for wireshark."""
    _context: _core.TLSContext = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "_context", _core.TLSContext(self._settings()))
        if self.ticket_keys is not None:
            self._context.give_ticket_keys(_check_ticket_keys(self.ticket_keys))

    def reload(self) -> None:
        """Read every file again; handshakes that begin later use what it says now.

        All or nothing: when a file is wrong the error is raised and nothing changes. Connections
        that exist keep what they began with. Safe at any time, from any thread.
        """
        self._context.reload(self._settings())

    def replace_ticket_keys(self, keys: Sequence[bytes], /) -> None:
        """Seal and open tickets with *keys* from now on, as ``ticket_keys`` has them.

        Give a new key behind the present one to all processes first, then to all in front of it:
        so none is shown a ticket that it cannot open. ``serve_processes`` does that by itself.
        """
        self._context.give_ticket_keys(_check_ticket_keys(keys))
        object.__setattr__(self, "ticket_keys", tuple(keys))

    def __reduce__(self) -> tuple[object, ...]:
        """For another process, which reads the files again."""
        given = {one.name: getattr(self, one.name) for one in fields(self) if one.init}
        return _make, (given,)

    @property
    def sessions_kept(self) -> int:
        """How many sessions a client could resume now."""
        return self._context.sessions_kept

    def _check(self) -> None:
        _check_choice("role", self.role, ("client", "server"))
        _check_choice("client_certificates", self.client_certificates, _CLIENT_CERTIFICATES)
        _check_choice("ocsp", self.ocsp, _OCSP)
        for name in ("min_version", "max_version"):
            _check_choice(name, getattr(self, name), tuple(_VERSIONS))
        for name in _SWITCHES:
            _check_switch(name, getattr(self, name))
        _check_number("tickets", self.tickets, 0, 8)
        _check_number("security_level", self.security_level, 2, 5)
        _check_number("session_lifetime", self.session_lifetime, 1, 604800)
        _check_seconds("handshake_timeout", self.handshake_timeout, 0.001)
        for name in ("ciphers", "insecure_ciphers"):
            _check_text(name, getattr(self, name))
        self._check_contradictions()

    def _check_contradictions(self) -> None:
        for role, names in _ONLY.items():
            for name in names:
                default = type(self).__dataclass_fields__[name].default
                if self.role != role and getattr(self, name) != default:
                    raise ValueError(f"{name} is for role={role!r}, not for role={self.role!r}")
        if _VERSIONS[self.min_version] > _VERSIONS[self.max_version]:
            raise ValueError(
                f"min_version={self.min_version!r} is above max_version={self.max_version!r}"
            )
        if self.ciphers is not None and self.insecure_ciphers is not None:
            raise ValueError("ciphers contradicts insecure_ciphers: give one of them")
        for name in ("ciphers", "insecure_ciphers"):
            if getattr(self, name) is not None and self.min_version == "TLSv1.3":
                raise ValueError(
                    f"{name} are those of TLS 1.2, which min_version='TLSv1.3' excludes"
                )
        if self.insecure_skip_verify and self.crl is not None:
            raise ValueError(
                "insecure_skip_verify contradicts crl: nothing would be checked with it"
            )
        if self.insecure_skip_verify and self.ocsp == "require":
            raise ValueError("insecure_skip_verify contradicts ocsp='require'")
        if self.role == "server" and not self._certificates():
            raise ValueError("certificates must be given for role='server'")
        if self.role == "client" and len(self._certificates()) > 1:
            raise ValueError("certificates must be one at most for role='client'")
        for name, value in (
            ("post_handshake_auth", self.post_handshake_auth),
            ("client_certificates", self.client_certificates),
        ):
            if (
                value in (True, "on_request", "on_request_or_required")
                and self.max_version == "TLSv1.2"
            ):
                raise ValueError(
                    f"{name}={value!r} takes TLS 1.3, which max_version='TLSv1.2' excludes"
                )
        if self.client_certificates != "none" and self.ca is None:
            raise ValueError(
                f"client_certificates={self.client_certificates!r} needs ca: who may sign them"
            )
        if self.role == "server" and self.ca is not None and self.client_certificates == "none":
            raise ValueError("ca has no use for a server with client_certificates='none'")

    def _certificates(self) -> tuple[Certificate, ...]:
        given = self.certificates
        if given is None:
            return ()
        found = (given,) if isinstance(given, Certificate) else given
        if not isinstance(found, Sequence) or not all(
            isinstance(one, Certificate) for one in found
        ):
            raise TypeError(
                f"certificates must be a Certificate or a sequence of them, got {given!r}"
            )
        return tuple(found)

    def _alpn(self) -> bytes:
        if isinstance(self.alpn, (str, bytes)) or not isinstance(self.alpn, Sequence):
            raise TypeError(f"alpn must be a sequence of names, got {self.alpn!r}")
        wire = b""
        for name in self.alpn:
            if not isinstance(name, str) or not 1 <= len(name) <= 255 or not name.isascii():
                raise ValueError(f"alpn names must be 1 to 255 ASCII characters, got {name!r}")
            wire += bytes([len(name)]) + name.encode()
        if len(wire) > 65535:
            raise ValueError(f"alpn must have 65535 bytes in all, got {len(wire)}")
        return wire

    def _settings(self) -> dict[str, object]:
        if isinstance(self.insecure_key_log_file, bytes):
            raise TypeError("insecure_key_log_file must be a path, not bytes")
        log = _check_source("insecure_key_log_file", self.insecure_key_log_file)
        return {
            "server": int(self.role == "server"),
            "system_ca": self.role == "client" and self.ca is None,
            "ca": _check_sources("ca", self.ca),
            "crl": _check_sources("crl", self.crl),
            "identities": tuple(one._settings() for one in self._certificates()),
            "client_certificates": _CLIENT_CERTIFICATES.index(self.client_certificates),
            "alpn": self._alpn(),
            "min_version": _VERSIONS[self.min_version],
            "max_version": _VERSIONS[self.max_version],
            "ciphers": self.ciphers,
            "insecure_ciphers": self.insecure_ciphers,
            "security_level": self.security_level,
            "strict_certificates": self.strict_certificates,
            "whole_chains": self.whole_chains,
            "ocsp": _OCSP.index(self.ocsp),
            "sessions": self.sessions,
            "post_handshake_auth": self.post_handshake_auth,
            "tickets": self.tickets,
            "session_lifetime": self.session_lifetime,
            "handshake_timeout": float("inf")
            if self.handshake_timeout is None
            else self.handshake_timeout,
            "insecure_skip_verify": self.insecure_skip_verify,
            "insecure_skip_hostname": self.insecure_skip_hostname,
            "insecure_accept_truncation": self.insecure_accept_truncation,
            "insecure_key_log_file": log,
        }


def _make(given: dict[str, Any]) -> TLSConfig:
    return TLSConfig(**given)


def _check_ticket_keys(keys: object) -> bytes:
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Sequence):
        raise TypeError("ticket_keys must be a sequence of bytes")
    if not 1 <= len(keys) <= _MOST_TICKET_KEYS:
        raise ValueError(f"ticket_keys must be 1 to {_MOST_TICKET_KEYS}, got {len(keys)}")
    for key in keys:
        if not isinstance(key, bytes) or len(key) != TICKET_KEY_SIZE:
            raise ValueError(f"each of ticket_keys must be {TICKET_KEY_SIZE} bytes")
    return b"".join(keys)


_default: list[TLSConfig] = []


def client_config(tls: bool | TLSConfig) -> TLSConfig | None:
    """What ``tls=`` of a client means; ``True`` is one config for all, made when first asked for."""
    if isinstance(tls, TLSConfig):
        if tls.role != "client":
            raise ValueError("tls must be a TLSConfig of role='client' to connect")
        return tls
    if not isinstance(tls, bool):
        raise TypeError(f"tls must be a bool or a TLSConfig, not {type(tls).__name__}")
    if not tls:
        return None
    if not _default:
        _default.append(TLSConfig())  # Two threads at once: one of them is used from then on.
    return _default[0]


def server_context(tls: TLSConfig | None) -> _core.TLSContext | None:
    """What the core takes for ``tls=`` of a listener."""
    if tls is None:
        return None
    if not isinstance(tls, TLSConfig):
        raise TypeError(f"tls must be a TLSConfig or None, not {type(tls).__name__}")
    if tls.role != "server":
        raise ValueError("tls must be a TLSConfig of role='server' to listen")
    return tls._context


def _weaker_demands(config: TLSConfig, than: TLSConfig) -> list[str]:
    """In what of the settings that both roles have *config* asks for less."""
    found = []
    if _VERSIONS[config.min_version] < _VERSIONS[than.min_version]:
        found.append("min_version")
    if config.security_level < than.security_level:
        found.append("security_level")
    found += [
        name
        for name in ("strict_certificates", "whole_chains")
        if getattr(than, name) and not getattr(config, name)
    ]
    if than.ciphers is not None and config.ciphers != than.ciphers:
        found.append("ciphers")
    return found


def _weaker(config: TLSConfig, than: TLSConfig) -> list[str]:
    """In what *config*, of a server, asks for less than the other one."""
    found = [
        name
        for name in ("insecure_ciphers", "insecure_accept_truncation", "insecure_key_log_file")
        if getattr(config, name) and getattr(config, name) != getattr(than, name)
    ]
    found += _weaker_demands(config, than)
    rank = _BY_STRENGTH.index
    if rank(config.client_certificates) < rank(than.client_certificates):
        found.append("client_certificates")
    if than.client_certificates != "none":
        found += [n for n in ("ca", "crl") if getattr(config, n) != getattr(than, n)]
    return found


def _weaker_client(config: TLSConfig, than: TLSConfig) -> list[str]:
    """In what *config*, of a client, asks for less than the other one."""
    found = [
        field.name
        for field in fields(config)
        if field.name.startswith("insecure_")
        and getattr(config, field.name)
        and getattr(config, field.name) != getattr(than, field.name)
    ]
    found += _weaker_demands(config, than)
    ocsp = ("off", "check", "require").index
    if ocsp(config.ocsp) < ocsp(than.ocsp):
        found.append("ocsp")
    return found + [n for n in ("ca", "crl") if getattr(config, n) != getattr(than, n)]


def check_client_fallback(
    tls: TLSConfig | None,
    fallback: TLSConfig | None,
    breaker: _core.Breaker | None,
    allow_weaker: bool,
) -> None:
    """Refuse what contradicts itself, and a fallback that is weaker unless that is allowed."""
    if fallback is None:
        if breaker is not None:
            raise ValueError("tls_breaker has no use without tls_fallback")
        if allow_weaker:
            raise ValueError("insecure_allow_weaker_fallback has no use without tls_fallback")
        return
    if tls is None:
        raise ValueError("tls_fallback has no use without tls")
    if not isinstance(fallback, TLSConfig):
        raise TypeError(f"tls_fallback must be a TLSConfig, not {type(fallback).__name__}")
    if fallback.role != "client":
        raise ValueError("tls_fallback must be a TLSConfig of role='client' to connect")
    if breaker is None:
        raise ValueError(
            "tls_fallback needs tls_breaker=hardsock.Breaker(), shared by all connects"
        )
    weaker = _weaker_client(fallback, tls)
    if weaker and not allow_weaker:
        raise ValueError(
            f"tls_fallback is weaker than tls in {', '.join(weaker)}: the one who makes handshakes fail "
            "gets it. If that is meant, say insecure_allow_weaker_fallback=True"
        )


def fallback_settings(
    tls: TLSConfig | None,
    fallback: TLSConfig | None,
    breaker: _core.Breaker | None,
    allow_weaker: bool,
) -> dict[str, Any]:
    """What the core takes about the fallback of a listener; nothing if there is none."""
    if fallback is None:
        if breaker is not None:
            raise ValueError("tls_breaker has no use without tls_fallback")
        if allow_weaker:
            raise ValueError("insecure_allow_weaker_fallback has no use without tls_fallback")
        return {}
    if tls is None:
        raise ValueError("tls_fallback has no use without tls")
    context = server_context(fallback)
    weaker = _weaker(fallback, tls)
    if weaker and not allow_weaker:
        raise ValueError(
            f"tls_fallback is weaker than tls in {', '.join(weaker)}: the one who makes handshakes fail "
            "gets it. If that is meant, say insecure_allow_weaker_fallback=True"
        )
    return {
        "tls_fallback": context,
        "tls_breaker": _core.Breaker() if breaker is None else breaker,
    }
