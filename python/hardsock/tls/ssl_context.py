"""An ``ssl.SSLContext`` that leaves hardsock's connections to hardsock's TLS.

Libraries take an ``ssl.SSLContext``, set it up by its methods, and call ``wrap_socket``. This one
keeps what they set, makes a ``TLSConfig`` of it when the first connection is wrapped, and does the
handshake with that. For real sockets it is the standard library's.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from hardsock._core import Connection
from hardsock._fork_locks import renew_in_child
from hardsock.tls.config import Certificate, Source, TLSConfig
from hardsock.tls.tls_socket import TLSSocket

__all__ = ["SSLContext", "ssl_context"]

_ANY_OPTION = (
    ssl.OP_ALL
    | ssl.OP_NO_SSLv2
    | ssl.OP_NO_SSLv3
    | ssl.OP_NO_TLSv1
    | ssl.OP_NO_TLSv1_1
    | ssl.OP_NO_TLSv1_2
    | ssl.OP_NO_TLSv1_3
    | ssl.OP_NO_COMPRESSION
    | ssl.OP_NO_TICKET
    | ssl.OP_NO_RENEGOTIATION
    | ssl.OP_CIPHER_SERVER_PREFERENCE
    | ssl.OP_SINGLE_DH_USE
    | ssl.OP_SINGLE_ECDH_USE
    | ssl.OP_ENABLE_MIDDLEBOX_COMPAT
    | getattr(ssl, "OP_ENABLE_KTLS", 0)
)
_EOF_OPTION = 1 << 7
"""SSL_OP_IGNORE_UNEXPECTED_EOF, which CPython sets: here an end without close_notify is told."""
_VERSIONS: dict[int, Any] = {
    ssl.TLSVersion.TLSv1_2: "TLSv1.2",
    ssl.TLSVersion.TLSv1_3: "TLSv1.3",
}
_TLS12 = int(ssl.TLSVersion.TLSv1_2)
_REQUESTS = {ssl.CERT_NONE: "none", ssl.CERT_OPTIONAL: "optional", ssl.CERT_REQUIRED: "required"}
_CRL_FLAGS = ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_CRL_CHECK_CHAIN
_UNREADABLE = {
    "set_servername_callback": "sni_callback",
    "load_dh_params": "load_dh_params()",
    "set_ecdh_curve": "set_ecdh_curve()",
    "set_psk_client_callback": "set_psk_client_callback()",
    "set_psk_server_callback": "set_psk_server_callback()",
}


def _default_places() -> list[str]:
    """Where OpenSSL looks for whom the system trusts."""
    paths = ssl.get_default_verify_paths()
    return [one for one in (paths.cafile, paths.capath) if one is not None]


def _version_of(one: Any) -> tuple[int, ...]:
    """Of a file, what changes when it is written."""
    if not isinstance(one, (str, os.PathLike)):
        return ()
    try:
        found = os.stat(one)
    except (OSError, ValueError):
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _key_of(*what: Any) -> tuple[Any, ...]:
    """What tells whether it was loaded already: libraries do so again for each connection.

    A file that has been written since is new. To be made before loading, recorded after success.
    """
    return tuple((one, *_version_of(one)) for one in what)


class SSLContext(ssl.SSLContext):
    """See ``hardsock.ssl_context()``, which makes them."""

    _lock: threading.Lock
    _base: TLSConfig | None
    _ca: list[Any]
    _system: bool
    _identities: list[Certificate]
    _alpn: tuple[str, ...]
    _ciphers: str | None
    _refused: list[str]
    _loaded: set[Any]
    _changes: int
    _made: tuple[Any, TLSConfig] | None

    def __new__(cls, protocol: Any = None, *args: Any, **kwargs: Any) -> SSLContext:
        chosen = ssl.PROTOCOL_TLS_CLIENT if protocol is None else protocol
        self = super().__new__(cls, chosen, *args, **kwargs)
        self._lock = threading.Lock()  # Held while the settings are read, which takes long.
        renew_in_child(self)
        self.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as hardsock's default
        self._base = None
        self._ca, self._system, self._identities = [], False, []
        self._alpn, self._ciphers, self._refused = (), None, []
        self._loaded, self._changes, self._made = set(), 0, None
        return self

    # ---- What libraries set, and ssl does not tell again

    def _note(self) -> None:
        self._changes += 1

    def load_verify_locations(
        self, cafile: Any = None, capath: Any = None, cadata: Any = None
    ) -> None:
        """As ``ssl`` has it; hardsock reads the same places when the first connection is wrapped."""
        data = cadata.encode("ascii") if isinstance(cadata, str) else cadata
        places = [None if one is None else os.fsdecode(one) for one in (cafile, capath)]
        key = _key_of("ca", *places, data)
        if any((*places, data)) and key in self._loaded:
            return
        super().load_verify_locations(cafile, capath, cadata)
        self._loaded.add(key)
        found: list[Any] = [one for one in places if one is not None]
        if data is not None:
            found += [bytes(data)] if b"-----BEGIN" in data else _certificates_in(bytes(data))
        self._ca += found
        self._note()

    def load_default_certs(self, purpose: Any = ssl.Purpose.SERVER_AUTH) -> None:
        """As ``ssl`` has it: trust whom the system trusts."""
        super().load_default_certs(purpose)
        self._system = True
        self._note()

    def set_default_verify_paths(self) -> None:
        """As ``ssl`` has it: trust whom the system trusts."""
        super().set_default_verify_paths()
        self._system = True
        self._note()

    def load_cert_chain(self, certfile: Any, keyfile: Any = None, password: Any = None) -> None:
        """As ``ssl`` has it. A client has one chain, the one that was loaded last."""
        secret = password() if callable(password) else password
        key = _key_of("chain", certfile, keyfile, secret)
        if key in self._loaded:
            return
        super().load_cert_chain(certfile, keyfile, secret)
        if not self._is_server():  # The one before it is not loaded any more.
            self._loaded = {one for one in self._loaded if one[0] != key[0]}
        self._loaded.add(key)
        if isinstance(secret, (bytearray, str)):
            secret = secret.encode() if isinstance(secret, str) else bytes(secret)
        one = Certificate(chain=certfile, key=keyfile, password=secret)
        self._identities = [*self._identities, one] if self._is_server() else [one]
        self._note()

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """As ``ssl`` has it."""
        protocols = tuple(alpn_protocols)
        super().set_alpn_protocols(protocols)
        if protocols != self._alpn:
            self._alpn = protocols
            self._note()

    def set_ciphers(self, cipherlist: str, /) -> None:
        """As ``ssl`` has it; what has no forward secrecy is refused when a connection is wrapped."""
        super().set_ciphers(cipherlist)
        self._ciphers = cipherlist
        self._note()

    def _is_server(self) -> bool:
        return self.protocol == ssl.PROTOCOL_TLS_SERVER

    # ---- The settings as a TLSConfig

    def _state(self) -> tuple[Any, ...]:
        return (
            self._changes,
            self.verify_mode,
            self.check_hostname,
            self.minimum_version,
            self.maximum_version,
            self.options,
            self.verify_flags,
            self.security_level,
            self.keylog_filename,
            self.sni_callback,
            self.post_handshake_auth,
        )

    def tls_config(self, server_side: bool = False) -> TLSConfig:
        """Return the ``TLSConfig`` that connections are wrapped with; made anew after a change.

        Raises:
            ValueError: A setting has no counterpart, or has become one that hardsock refuses; the
                message names it.
        """
        state = (server_side, *self._state())
        with self._lock:
            if self._made is None or self._made[0] != state:
                self._made = (state, self._make_config(server_side))
            return self._made[1]

    def _make_config(self, server_side: bool) -> TLSConfig:
        base = self._base
        if base is None:
            return TLSConfig(**self._settings(server_side))
        if server_side != (base.role == "server"):
            raise ValueError(f"server_side={server_side} contradicts the TLSConfig's {base.role!r}")
        return replace(base, alpn=self._alpn) if self._alpn and not base.alpn else base

    def _settings(self, server_side: bool) -> dict[str, Any]:
        self._check_taken_over()
        settings: dict[str, Any] = {
            "role": "server" if server_side else "client",
            "alpn": self._alpn,
            "certificates": tuple(self._identities) or None,
            "insecure_key_log_file": self.keylog_filename,
            "security_level": max(2, self.security_level),
            "strict_certificates": bool(self.verify_flags & ssl.VERIFY_X509_STRICT),
            "whole_chains": not self.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN,
            **self._versions(),
        }
        if self._ciphers is not None and settings["min_version"] == "TLSv1.2":
            settings["ciphers"] = self._ciphers
        if self.options & ssl.OP_NO_TICKET:
            settings |= {"sessions": False} | ({"tickets": 0} if server_side else {})
        if server_side:
            settings["client_certificates"] = self._request(settings["max_version"])
        elif self.verify_mode == ssl.CERT_NONE:
            settings["insecure_skip_verify"] = True
        else:
            settings["insecure_skip_hostname"] = not self.check_hostname
        if not server_side and settings["max_version"] == "TLSv1.3":
            settings["post_handshake_auth"] = bool(self.post_handshake_auth)
        if self.verify_mode != ssl.CERT_NONE:
            settings["ca"] = self._trusted()
        return settings

    def _request(self, max_version: str) -> str:
        """With ``post_handshake_auth`` ``ssl`` asks for none in a handshake of TLS 1.3."""
        if self.verify_mode == ssl.CERT_NONE or not self.post_handshake_auth:
            return _REQUESTS[self.verify_mode]
        if max_version == "TLSv1.2":
            return _REQUESTS[self.verify_mode]
        # With TLS 1.2 ``ssl`` asks in the handshake, by verify_mode.
        required = self.verify_mode == ssl.CERT_REQUIRED
        return "on_request_or_required" if required else "on_request"

    def _trusted(self) -> list[Any] | None:
        if not self._ca and not self._system:
            raise ValueError(
                "the SSLContext verifies and trusts nobody: load_default_certs() or "
                "load_verify_locations() says whom"
            )
        if not self._ca:
            return None
        return [*(_default_places() if self._system else []), *self._ca]

    def _versions(self) -> dict[str, Any]:
        low, high = int(self.minimum_version), int(self.maximum_version)
        low = max(low, _TLS12)
        high = int(ssl.TLSVersion.TLSv1_3) if high < 0 else high
        if self.options & ssl.OP_NO_TLSv1_3 and high > _TLS12:
            high = _TLS12
        if self.options & ssl.OP_NO_TLSv1_2 and low == _TLS12:
            low = int(ssl.TLSVersion.TLSv1_3)
        if high not in _VERSIONS or low not in _VERSIONS or low > high:
            raise ValueError(
                "maximum_version of the SSLContext must allow TLS 1.2 or 1.3, "
                f"got {self.maximum_version!r} and {self.options!r}"
            )
        return {"min_version": _VERSIONS[low], "max_version": _VERSIONS[high]}

    def _check_taken_over(self) -> None:
        """Refuse by name what would be lost silently."""
        lost = list(self._refused)
        if self.sni_callback is not None:
            lost.append("sni_callback")
        if self.verify_flags & _CRL_FLAGS:
            lost.append("verify_flags VERIFY_CRL_CHECK_*: give crl= in a TLSConfig")
        unknown = int(self.options) & ~int(_ANY_OPTION) & ~_EOF_OPTION & 0xFFFFFFFF
        if unknown:
            lost.append(f"options {ssl.Options(unknown)!r}")
        if lost:
            raise ValueError(
                f"hardsock's TLS cannot take over from the SSLContext: {'; '.join(lost)}"
            )

    # ---- Wrapping

    def wrap_socket(
        self,
        sock: Any,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: Any = None,
    ) -> Any:
        """Do the handshake on *sock*: a ``Connection`` becomes a ``TLSSocket``, a socket as ever.

        A ``hardsock.compat.socket.socket`` gives its connection away, and is closed then; a handshake
        that fails closes the connection, too, as ``ssl`` does. A ``Connection`` stays the caller's.
        On a ``TLSSocket``, or a connection that speaks TLS, it is TLS within TLS: with a target
        behind an HTTPS proxy.

        The deadline is that of the scope and of the connection's ``settimeout()``, for the whole
        handshake, and at most that of the TLSConfig (10 s). An end of the stream without
        close_notify raises ``Truncated``, whatever *suppress_ragged_eofs* says.

        Raises:
            TLSError, CertificateError: The handshake failed. They are the classes of ``ssl``, too.
            DeadlineExceeded, Cancelled: The connection is unusable then.
            ValueError: See ``tls_config``; or *session* is given, or *server_hostname* is missing.
        """
        if isinstance(sock, TLSSocket):
            sock.do_handshake()  # of the outer layer, if it was put off
            sock = sock.connection
        give = getattr(sock, "_give", None)  # hardsock.compat.socket: the connection behind it
        if not isinstance(sock, Connection) and (give is None or sock.connection is None):
            return super().wrap_socket(
                sock,
                server_side,
                do_handshake_on_connect,
                suppress_ragged_eofs,
                server_hostname,
                session,
            )
        if session is not None:
            raise ValueError("session must be None: hardsock resumes sessions without being asked")
        if self.check_hostname and not server_side and not server_hostname:
            raise ValueError("check_hostname requires server_hostname")
        name = server_hostname.decode() if isinstance(server_hostname, bytes) else server_hostname
        config = self.tls_config(server_side)
        if give is not None:
            sock = give()
        try:
            wrapped = TLSSocket(
                sock, self, config, server_side, None if server_side else name or None
            )
            if do_handshake_on_connect:
                wrapped.do_handshake()
        except BaseException:
            if give is not None:  # Nobody else has it: closing the given socket does nothing now.
                sock.close()
            raise
        return wrapped


def _refusing(method: str, what: str) -> Callable[..., Any]:
    """For the real sockets as ever; for ours its use is remembered, to be refused by name."""
    original = getattr(ssl.SSLContext, method)

    def call(self: SSLContext, *args: Any) -> Any:
        result = original(self, *args)
        self._refused.append(what)
        self._note()
        return result

    call.__name__, call.__doc__ = method, f"As ``ssl`` has it; hardsock has no counterpart: {what}."
    return call


for _method, _what in _UNREADABLE.items():
    if hasattr(ssl.SSLContext, _method) and _method != "set_servername_callback":
        setattr(SSLContext, _method, _refusing(_method, _what))


# ---- Taking over what somebody else has set up


def _certificates_in(data: bytes) -> list[bytes]:
    """The certificates of a row of them in DER, each by its length (X.690 section 8.1.3)."""
    found = []
    while data:
        size = data[1] if len(data) > 1 else 0
        n = size & 0x7F if size & 0x80 else 0
        end = 2 + n + (int.from_bytes(data[2 : 2 + n], "big") if n else size)
        found.append(data[:end])
        data = data[end:] if end > 1 else b""
    return found


def _alpn_of(given: ssl.SSLContext) -> list[str]:
    """The protocols that a client's context offers: ``ssl`` does not tell, its ClientHello does."""
    out = ssl.MemoryBIO()
    probe = given.wrap_bio(ssl.MemoryBIO(), out, server_hostname="hardsock.invalid")
    try:
        probe.do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = out.read()[9:]  # behind the heads of record and message (RFC 8446 section 4.1.2)
    at = 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 1 + hello[at]
    rest = hello[at + 2 :]
    while len(rest) >= 4:
        kind, size = int.from_bytes(rest[:2], "big"), int.from_bytes(rest[2:4], "big")
        if kind == 16:
            return _names_in(rest[6 : 4 + size])
        rest = rest[4 + size :]
    return []


def _names_in(wire: bytes) -> list[str]:
    found = []
    while wire:
        found.append(wire[1 : 1 + wire[0]].decode("ascii"))
        wire = wire[1 + wire[0] :]
    return found


def _take_over(given: ssl.SSLContext, ca: Any) -> SSLContext:
    if given.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise ValueError(
            "given must be a client's SSLContext: the certificate of a server's cannot be read from "
            "it. Give a TLSConfig(role='server', certificates=...)"
        )
    taken = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    taken.check_hostname = given.check_hostname
    taken.verify_mode = given.verify_mode
    taken.minimum_version, taken.maximum_version = given.minimum_version, given.maximum_version
    taken.options, taken.verify_flags = given.options, given.verify_flags
    taken.post_handshake_auth = given.post_handshake_auth
    if given.keylog_filename is not None:
        taken.keylog_filename = given.keylog_filename
    if given.cert_store_stats()["crl"]:
        taken._refused.append("revocation lists: give crl= in a TLSConfig")
    fresh = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if given.get_ciphers() != fresh.get_ciphers():
        names = [one["name"] for one in given.get_ciphers() if "TLS_" not in one["name"][:4]]
        if names:
            taken.set_ciphers(":".join([*names, f"@SECLEVEL={max(2, given.security_level)}"]))
    if given.security_level > taken.security_level:  # for what names no cipher of its own
        ssl.SSLContext.set_ciphers(taken, f"DEFAULT:@SECLEVEL={given.security_level}")
    if protocols := _alpn_of(given):
        taken.set_alpn_protocols(protocols)
    authorities = given.get_ca_certs(binary_form=True)
    if ca is None and authorities:
        taken.load_verify_locations(cadata=b"".join(authorities))
    elif ca is None and given.verify_mode != ssl.CERT_NONE:
        raise ValueError(
            "ca must be given: whom the SSLContext trusts cannot be read from it, since it has loaded "
            "nobody, or looks them up in a directory. ca='system': whom the system trusts"
        )
    return taken


def ssl_context(
    given: ssl.SSLContext | TLSConfig | None = None,
    *,
    ca: Source | Sequence[Source] | None = None,
    certificates: Certificate | None = None,
) -> SSLContext:
    """Make an ``ssl.SSLContext`` whose ``wrap_socket(conn)`` keeps hardsock's TLS and deadline.

    For libraries that take an ``SSLContext``. Their calls to set it up work as ever, and count. A
    connection that is wrapped with it stays in the ledger, and is returned with the face of an
    ``ssl.SSLSocket`` (``TLSSocket``). With a real socket it is an ``SSLContext`` like any other.

    Args:
        given: ``None``: a client that trusts whom the system trusts, as
            ``ssl.create_default_context()``. A ``TLSConfig`` of either role: just that, whatever a
            library sets up later, but for ALPN if it has none. An ``SSLContext`` of a client: versions, verification, trusted certificates, ciphers, ALPN
            (by looking at its ClientHello), options and key log are taken over. Its own certificate
            cannot even be seen from outside: give *certificates*.
        ca: Whom to trust, in place of what *given* says; ``"system"``: whom the system trusts.
        certificates: The client's certificate.

    Raises:
        ValueError: Something cannot be read from *given*, or has no counterpart; the message names
            it, here or when the first connection is wrapped.
        TypeError: *given* is something else.
    """
    if isinstance(given, TLSConfig):
        if ca is not None or certificates is not None:
            raise ValueError("ca and certificates are those of the TLSConfig: give them there")
        return _of_config(given)
    if given is None:
        made = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if ca is None:
            ca = "system"
    elif isinstance(given, SSLContext):
        raise ValueError("given is hardsock's already: use it as it is")
    elif isinstance(given, ssl.SSLContext):
        made = _take_over(given, ca)
    else:
        raise TypeError(
            f"given must be an SSLContext, a TLSConfig or None, not {type(given).__name__}"
        )
    if ca is not None:
        _trust(made, ca)
    if certificates is not None:
        made._identities = [certificates]
        made._note()
    return made


def _trust(context: SSLContext, ca: Any) -> None:
    if ca == "system":
        context.load_default_certs()
        return
    for one in [ca] if isinstance(ca, (str, bytes, os.PathLike)) else ca:
        if isinstance(one, bytes):
            pem = b"-----BEGIN" in one
            context.load_verify_locations(cadata=one.decode("ascii") if pem else one)
        elif os.path.isdir(one):
            context.load_verify_locations(capath=one)
        else:
            context.load_verify_locations(cafile=one)


def _of_config(config: TLSConfig) -> SSLContext:
    """Whose further setting up starts from what *config* says."""
    server = config.role == "server"
    made = SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = getattr(ssl.TLSVersion, config.min_version.replace(".", "_"))
    made.maximum_version = getattr(ssl.TLSVersion, config.max_version.replace(".", "_"))
    if config.insecure_skip_verify or config.insecure_skip_hostname:
        made.check_hostname = False
    if config.insecure_skip_verify:
        made.verify_mode = ssl.CERT_NONE
    if config.client_certificates != "none":
        optional = config.client_certificates == "optional"
        made.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
    made.post_handshake_auth = config.post_handshake_auth or config.client_certificates.startswith(
        "on_request"
    )
    made._base = config
    return made
