"""The face of an ``ssl.SSLSocket`` on a connection that speaks hardsock's TLS."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hardsock._core import CancelToken, Connection
from hardsock._records import PeerCertificate, TLSInfo
from hardsock._scope import current
from hardsock.tls.config import TLSConfig

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["TLSSocket"]

_NAMES = {  # RFC 4514 section 3, and what OpenSSL calls others
    "C": "countryName",
    "CN": "commonName",
    "DC": "domainComponent",
    "L": "localityName",
    "O": "organizationName",
    "OU": "organizationalUnitName",
    "ST": "stateOrProvinceName",
    "STREET": "streetAddress",
    "UID": "userId",
}
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_KINDS = {"IP": "IP Address"}
_HOT = ("recv", "recv_into", "send", "sendall", "makefile", "_is_quiet")
"""Methods that are the connection's own: they cost no more than without this face."""
_LOCAL = frozenset(
    """abort audit bind cancel_on_end fileno get_inheritable getblocking getpeername getsockname
    getsockopt gettimeout mark_clean pending set_half_closed_timeout set_inheritable
    set_min_receive_rate set_read_deadline set_write_deadline setblocking setsockopt settimeout
    shutdown state tcp_info _expect_no_more _join_slots _leave_departures _leave_slots
    _is_quiet _lost_output _set_idle_timeout _set_turns""".split()
)
"""What passes no byte of the stream, and therefore does not want the handshake first."""


def _split(text: str, at: str) -> list[str]:
    """Split at *at* where no backslash stands before it (RFC 4514 section 2.4)."""
    parts, current, escaped = [], "", False
    for char in text:
        if char == at and not escaped:
            parts.append(current)
            current = ""
        else:
            current += char
        escaped = char == "\\" and not escaped
    return [*parts, current]


def _unescaped(text: str) -> str:
    out, at = bytearray(), 0
    while at < len(text):
        if text[at] != "\\":
            out += text[at].encode()
            at += 1
            continue
        digits = text[at + 1 : at + 3]
        if len(digits) == 2 and all(one in "0123456789abcdefABCDEF" for one in digits):
            out += bytes.fromhex(digits)
            at += 3
        else:
            out += text[at + 1 : at + 2].encode()
            at += 2
    return out.decode("utf-8", "replace")


def _name(text: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    """A distinguished name as ``getpeercert()`` has it, the widest part first."""
    found = []
    for group in reversed(_split(text, ",")) if text else []:
        pairs = [one.partition("=") for one in _split(group, "+")]
        found.append(tuple((_NAMES.get(k.strip(), k.strip()), _unescaped(v)) for k, _, v in pairs))
    return tuple(found)


def _alternative(text: str) -> tuple[str, str]:
    kind, _, value = text.partition(":")
    if kind == "IP" and ":" in value:  # as OpenSSL prints it, without "::"
        value = ":".join(f"{int(g, 16):X}" for g in ipaddress.ip_address(value).exploded.split(":"))
    return _KINDS.get(kind, kind), value


def _time(at: datetime) -> str:
    """As OpenSSL prints it (ASN1_TIME_print): English whatever the locale, the day without a zero."""
    return f"{_MONTHS[at.month - 1]} {at.day:2} {at:%H:%M:%S %Y} GMT"


def _certificate(found: PeerCertificate) -> dict[str, Any]:
    return {
        "subject": _name(found.subject),
        "issuer": _name(found.issuer),
        "version": 3,
        "serialNumber": found.serial.upper(),
        "notBefore": _time(found.not_before),
        "notAfter": _time(found.not_after),
        "subjectAltName": tuple(_alternative(one) for one in found.names),
    }


class TLSSocket:
    """What ``hardsock.ssl_context().wrap_socket(conn)`` returns: code written for ``ssl`` uses it.

    It has the methods of an ``ssl.SSLSocket``. Reading, writing, files, timeouts and everything
    else are those of ``connection``, with its deadlines, tokens and place in the ledger. It is no
    instance of ``ssl.SSLSocket``, whose own methods would not know the connection.

    One thread may read while another writes. Closing either closes both. ``session`` is ``None``: sessions are resumed without being asked.
    """

    connection: Connection
    """The connection, on which the handshake was done."""
    context: ssl.SSLContext
    """The context that made it."""
    server_side: bool
    server_hostname: str | None
    session: None = None

    def __init__(
        self,
        connection: Connection,
        context: ssl.SSLContext,
        config: TLSConfig,
        server_side: bool,
        server_hostname: str | None,
    ) -> None:
        self.connection = connection
        self.context = context
        self.server_side = server_side
        self.server_hostname = server_hostname
        self._config = config
        self._io_refs = 0
        self._let_go = False
        self._shaken = False  # by this: the connection may have spoken TLS before, with a proxy
        self._turn = threading.Lock()
        self._tried: CancelToken | None = None
        """Of the last turn that began; cancelled when that has ended."""

    def _bind_hot(self) -> None:
        # Before the handshake these would be the plain connection's.
        for name in _HOT:
            setattr(self, name, getattr(self.connection, name))

    def __getattr__(self, name: str) -> Any:
        if name == "connection":  # not made yet
            raise AttributeError(name)
        found = getattr(self.connection, name)
        if name in _LOCAL or not callable(found) or self._shaken:
            return found
        return self._after_handshake(name, found)

    def _after_handshake(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """The *method* of the connection, which passes nothing before the handshake was done.

        As with ``ssl``, the first call that reads or writes does the handshake. What belongs to an
        event loop would block it, and is refused.
        """
        if name.startswith("_op_"):
            raise ValueError(f"handshake not done yet: do_handshake() must precede {name[4:]}()")

        def call(*args: Any, **kwargs: Any) -> Any:
            if not (self.connection.poisoned or self.connection.closed):  # else it says so itself
                self.do_handshake()
            return method(*args, **kwargs)

        return call

    # ---- the handshake and its end

    def do_handshake(self, block: bool = False) -> None:
        """Do the handshake, if ``do_handshake_on_connect=False`` has put it off.

        The first call that reads or writes does so, too: nothing plain is sent or taken. Of two
        threads one does it, and the other waits until that has ended, or its own time is up.
        """
        while not self._shaken and not self._turn.acquire(blocking=False):
            self._wait_for_other()
        if self._shaken:
            return
        self._tried = tried = CancelToken(name="another thread's handshake")
        try:
            self.connection.upgrade_to_tls(self._config, server_name=self.server_hostname)
            self._bind_hot()
            self._shaken = True
        finally:
            self._turn.release()
            tried.cancel()

    def _wait_for_other(self) -> None:
        tried, ambient = self._tried, current()
        if tried is None:
            return  # It has begun this moment.
        limits = (tried,) if ambient is None else (tried, ambient)
        token = CancelToken.linked(limits, timeout=self.connection.gettimeout())
        token.wait()
        if not tried.cancelled:
            token.check()

    def unwrap(self) -> Connection:
        """End the TLS stream (close_notify) and wait for the peer's end of it.

        What the peer still sends until then is dropped. The connection that is returned can only
        be closed: nothing plain passes where there was TLS. ValueError: there was no handshake.
        """
        self._info()
        self.connection.close_write()
        while self.connection.recv(65536):
            pass
        return self.connection

    def _agreed(self) -> TLSInfo | None:
        return self.connection.tls if self._shaken else None

    def _info(self) -> TLSInfo:
        info = self._agreed()
        if info is None:
            raise ValueError("handshake not done yet")
        return info

    # ---- what was agreed on

    def version(self) -> str | None:
        """``"TLSv1.3"`` or ``"TLSv1.2"``; ``None`` before the handshake."""
        info = self._agreed()
        return None if info is None else info.version

    def cipher(self) -> tuple[str, str, int] | None:
        """Name, version and secret bits of the cipher."""
        info = self._agreed()
        if info is None:
            return None
        name = info.cipher
        bits = 128 if "128" in name.partition("SHA")[0] else 256
        return name, info.version, bits

    def selected_alpn_protocol(self) -> str | None:
        """The application protocol that was chosen, if any (RFC 7301)."""
        info = self._agreed()
        return None if info is None else info.alpn

    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:
        """The peer's certificate as ``ssl`` has it: in DER, or as a dict, empty if not verified."""
        info = self._info()
        if not info.peer_chain:
            return None
        if binary_form:
            return info.peer_chain[0]
        found = info.peer_certificate if info.verified else None
        return {} if found is None else _certificate(found)

    def get_unverified_chain(self) -> list[bytes]:
        """The peer's certificates as it sent them, in DER."""
        return list(self._info().peer_chain)

    @property
    def session_reused(self) -> bool | None:
        """Whether an earlier session was resumed."""
        info = self._agreed()
        return None if info is None else info.resumed

    def selected_npn_protocol(self) -> None:
        """``None``: NPN is gone."""

    def compression(self) -> None:
        """``None``: there is none."""

    def shared_ciphers(self) -> None:
        """``None``: not kept."""

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        """As ``Connection.channel_binding``; ``None`` before the handshake.

        ``"tls-unique"`` is ``None``: TLS 1.3 has none, and that of TLS 1.2 may be somebody else's,
        too (RFC 9266 section 1).
        """
        if cb_type not in ("tls-unique", "tls-server-end-point", "tls-exporter"):
            raise ValueError(
                "cb_type must be 'tls-server-end-point', 'tls-exporter' or 'tls-unique', "
                f"got {cb_type!r}"
            )
        if cb_type == "tls-unique" or not self._shaken:
            return None
        return self.connection.channel_binding(cb_type)  # type: ignore[arg-type]

    def verify_client_post_handshake(self) -> None:
        """Ask for the client's certificate; the answer comes in with what is received.

        ``connection.request_client_certificate()`` waits for it. Raises ssl.SSLError if the client
        cannot be asked (RFC 8446 section 4.6.2), which changes nothing.
        """
        if self.context.verify_mode == ssl.CERT_NONE or not self.server_side:
            raise ssl.SSLError("a server that verifies clients can ask them, no other")
        self.connection.request_client_certificate(
            required=self.context.verify_mode == ssl.CERT_REQUIRED, wait=False
        )

    # ---- as a socket

    def read(self, len: int = 1024, buffer: Any = None) -> bytes | int:
        """As ``recv``, or ``recv_into`` with a *buffer*."""
        if buffer is None:
            return bytes(self.recv(len))
        return int(self.recv_into(buffer, min(len, memoryview(buffer).nbytes)))

    def write(self, data: Any) -> int:
        """Send what the kernel takes at once, as ``send``."""
        return int(self.send(data))

    def detach(self) -> int:
        """Refused, as the connection does: nothing plain may follow TLS, nor come in its place."""
        self._info()
        return self.connection.detach()

    def close(self) -> None:
        """Close the connection; as with ``ssl``, files of other code on it keep it open."""
        self._let_go = True
        if self._io_refs <= 0:
            self.connection.close()

    def _decref_socketios(self) -> None:
        """What a ``socket.SocketIO`` that other code made on it calls when it closes."""
        self._io_refs = max(0, self._io_refs - 1)
        if self._let_go:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<hardsock.TLSSocket on {self.connection!r}>"
