"""What can go wrong, by cause.

Every exception tells what happened in attributes, not in its text: nothing has to be parsed. All
failures derive from ``OSError``, and from the class that code written for ``socket`` already
catches. ``Cancelled`` is no failure and does not: code that takes an ``OSError`` for an outage, and
tries again, lets it through (docs/adr/0018).
"""

from __future__ import annotations

import errno as _errno

# Where socket and ssl have them from: to import these two takes half as long as all of hardsock.
from _socket import gaierror
from _ssl import SSLCertVerificationError, SSLError

from hardsock._records import Attempt
from hardsock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from hardsock.pool.records import Lent, PoolStats

__all__ = [
    "BadFrame",
    "BreakerOpen",
    "BrokenPipe",
    "Busy",
    "Cancelled",
    "CertificateError",
    "Closed",
    "ConnectError",
    "ConnectionRefused",
    "DeadPeer",
    "DeadlineExceeded",
    "DescriptorWarning",
    "EndOfStream",
    "EscapeWarning",
    "FrameError",
    "FrameTooLarge",
    "HardsockError",
    "LeakWarning",
    "Poisoned",
    "PoolRefused",
    "PoolTimeout",
    "PoolWarning",
    "ProxyError",
    "Reset",
    "ResolveError",
    "SettingWarning",
    "SocketError",
    "TLSError",
    "Truncated",
    "WrongProcess",
]


def _address_text(raw: bytes | None) -> str | None:
    from hardsock import _core  # which imports this module while it is made

    return None if raw is None else _core._format_address(raw)


class HardsockError(Exception):
    """Base of all errors of hardsock: ``SocketError`` and ``Cancelled``."""

    if TYPE_CHECKING:  # Those of OSError, which ``Cancelled`` has of its own.
        errno: int | None
        strerror: str | None

    op: str | None = None
    """The call: ``"connect"``, ``"recv"``, ``"sendall"``, ..."""
    phase: str = "call"
    """Where in the call: ``"start"`` (refused before it did anything), ``"resolve"``, ``"breaker"``,
    ``"proxy"``, ``"socket"``, ``"bind"``, ``"connect"``, ``"tls"``, ``"listen"``, ``"accept"``,
    ``"read"``, ``"write"``, ``"min_rate"``, ``"read_timeout"``, ``"write_timeout"``, ``"finish"``,
    ``"wait"`` (for a connection of a pool); ``"call"``:
    it has no phases."""
    host: str | None = None
    """What was to be connected or listened on, as it was asked for: ``"example.org:443"``."""
    _local: bytes | None = None
    _peer: bytes | None = None
    elapsed: float | None = None
    """Seconds from the beginning of the call to its failure."""
    bytes_done: int = 0
    """Bytes that the call had moved: received and kept, or taken by the kernel to be sent."""
    reason: str | None = None
    """Why a token ended: what was given to ``cancel()``, or the name of the expired token."""
    hint: str | None = "see the class of the error for what it means"
    """One sentence of advice: from measured state where something could be measured."""
    attempts: tuple[Attempt, ...] = ()
    """For connecting: every address that was tried."""

    @property
    def local(self) -> str | None:
        """Our address as text, if known."""
        return _address_text(self._local)

    @property
    def peer(self) -> str | None:
        """The peer's address as text, if known."""
        return _address_text(self._peer)

    def __str__(self) -> str:
        parts = [getattr(self, "strerror", None) or self.__class__.__name__]
        if self.op is not None and not parts[0].startswith(f"{self.op}: "):
            parts[0] = f"{self.op}: {parts[0]}"
        if isinstance(self, DeadlineExceeded) and self.limit is not None:
            parts.append(f"by {self.limit}")
        if self.phase != "call":
            parts.append(f"in phase {self.phase}")
        if self.host is not None and self.host != self.peer:
            parts.append(f"for {self.host}")
        if self.peer is not None:
            parts.append(f"peer {self.peer}")
        if self.elapsed is not None:
            parts.append(f"after {self.elapsed:.3f} s")
        if self.bytes_done:
            parts.append(f"{self.bytes_done} bytes done")
        if self.reason:
            parts.append(f"reason: {self.reason}")
        text = ", ".join(parts)
        if len(self.attempts) > 1:
            text += " [" + "; ".join(str(attempt) for attempt in self.attempts) + "]"
        return f"{text}. {self.hint}" if self.hint else text


class SocketError(HardsockError, OSError):
    """Base of all failures; itself raised when a system call failed (see ``errno``)."""

    hint: str | None = "the kernel refused it: see errno, and the manual page of the call"


class DeadlineExceeded(SocketError, TimeoutError):
    """The deadline of the call, its token, the ambient scope or the connection passed first."""

    hint: str | None = "see phase for where the time went, and limit for what allowed no more"

    limit: str | None = None
    """Which of several limits was the first: ``"timeout=0.5"``, ``"settimeout(0.5)"``, ``"the scope
    NAME"``, ``"the token NAME"``, ``"set_read_deadline"``, ``"set_write_deadline"``,
    ``"set_min_receive_rate"``, ``"read_timeout of the server"``, ``"write_timeout of the server"``,
    ``"handshake_timeout of the TLSConfig"``, ``"dial_timeout of the
    pool"``."""


class PoolTimeout(DeadlineExceeded):
    """No connection of the pool came free in time; the message names who holds them."""

    hint: str | None = (
        "see holders for who has the connections and since when; max_size allows more"
    )

    holders: tuple[Lent, ...] = ()
    """What was lent at that moment, the longest first."""
    stats: PoolStats | None = None
    """The pool's state at that moment."""
    last_dial_error: str | None = None
    """What the last dial that failed said, if one has."""


class PoolRefused(SocketError):
    """The pool would not let the caller wait: ``max_waiting`` do already, or it is a deadlock."""

    hint: str | None = "let fewer callers wait, or allow more with max_waiting and max_size"


class Cancelled(HardsockError):
    """The token or the ambient scope was cancelled; ``reason`` and ``__cause__`` tell by what.

    An ``Exception``, not a ``BaseException``: cancelling is something that other threads do to a
    call, and the caller sees it. No ``OSError``: it is no failure of the network, so a library that
    tries again after one passes it on instead.
    """

    errno = _errno.ECANCELED

    @property
    def strerror(self) -> str | None:  # type: ignore[override]
        """The text; as an ``OSError`` has it."""
        return self.args[1] if len(self.args) > 1 else None

    hint: str | None = "no failure of the peer: reason says why it was cancelled"


class ConnectError(SocketError, ConnectionError):
    """No address could be connected; ``attempts`` has all, ``errno`` is that of the first."""

    hint: str | None = "see attempts for what every address said"


class ConnectionRefused(ConnectError, ConnectionRefusedError):
    """A ConnectError whose first address was refused: nothing listens there."""


class ProxyError(ConnectError):
    """The proxy of ``via=`` was reached and does not connect to the target; the message says why."""

    hint: str | None = "the proxy's log tells more: see status for what it answered"

    status: int | None = None
    """Its HTTP status or SOCKS5 reply; ``None``: it said nothing of the kind."""


class BreakerOpen(ConnectError):
    """A breaker refused: what was asked for has kept failing, and its time is not up yet.

    Nothing was sent. A ``ConnectError``, so that code which handles "cannot be connected" handles
    this, only sooner.
    """

    hint: str | None = (
        "what it protects has kept failing: see last_error, and try again after retry_after seconds"
    )

    address: str | None = None
    """What was refused; of several addresses the one that is due first."""
    retry_after: float | None = None
    """Seconds until it may be tried again, or None: not before ``breaker.reset()``."""
    last_error: str | None = None
    """The class of its last failure: ``"refused"``, ``"timeout"``, ``"tls_certificate"``, ..."""

    def __str__(self) -> str:
        again = "" if self.retry_after is None else f"; again in {self.retry_after:.1f} s"
        return super().__str__() + again


class ResolveError(SocketError, gaierror):
    """The name has no address, or the resolver failed; ``errno`` is an ``EAI_*`` code."""

    hint: str | None = "see what `getent ahosts NAME` says on this machine"


class Reset(SocketError, ConnectionResetError):
    """The peer reset the connection. Whether what was sent has arrived is unknown."""

    hint: str | None = (
        "the peer closed with unread input, aborted, or has restarted; whether it has seen "
        "what was sent is unknown, so repeat only what may be done twice"
    )

    answer: bytes = b""
    """What the peer had said before, when a send found the reset: a server that refuses early often
    answers first. It is still buffered: ``recv`` returns it, too."""


class BrokenPipe(Reset, BrokenPipeError):
    """A Reset that a send found as EPIPE: the peer had closed, or the reset was told before.

    As from a plain socket it is a ``BrokenPipeError``, by which code that sends knows that the peer
    may have answered before it left: that answer can still be read.
    """

    hint: str | None = (
        "the peer had closed before: what it sent until then can still be received; whether "
        "it has seen what was sent is unknown"
    )


class DeadPeer(SocketError, ConnectionAbortedError):
    """The peer stopped answering: keepalive, TCP_USER_TIMEOUT or retransmissions gave up."""

    hint: str | None = (
        "the peer's host or the network is gone, or has forgotten the connection: connect "
        "again; SocketOptions(dead_after=) says how soon that is noticed"
    )


class Truncated(SocketError, EOFError):
    """The peer ended its stream in the middle of what was asked for."""

    hint: str | None = (
        "the peer failed, or speaks another protocol; what had come can still be read"
    )


class EndOfStream(Truncated):
    """The peer ended its stream in an orderly way, between two messages."""

    hint: str | None = "the peer has ended its stream and will send no more: connect again"


class Poisoned(SocketError, BrokenPipeError):
    """An earlier call left half a message in this direction; it cannot be used any more."""

    hint: str | None = "half a message is out, or was lost: nothing can follow it, so connect again"


class Closed(SocketError):
    """The object was closed here, before or during the call."""

    hint: str | None = (
        "this program closed it, perhaps in another thread, or gave it back to its pool"
    )


class WrongProcess(Closed):
    """The object was made before a fork, by the parent process; here it can only be closed."""

    hint: str | None = (
        "make it after the fork, or leave it to the parent: two processes cannot share one"
    )


class Busy(SocketError):
    """Another call is using this direction: a connection has one reader and one writer."""

    hint: str | None = (
        "one call at a time in each direction: use a lock, or a connection for each thread or task"
    )


class TLSError(SocketError, SSLError):
    """TLS failed; ``phase`` is ``"tls"`` when it was the handshake. ``failure`` says of what.

    The connection is unusable afterwards.
    """

    hint: str | None = "see failure for what went wrong, and the peer's log for its side of it"

    if TYPE_CHECKING:
        reason: Any  # OpenSSL's for ssl.SSLError; here, as everywhere, why a token ended
    failure: str = "protocol"
    """``"empty"``: the peer left before it sent a byte. ``"aborted"``: it left in the middle.
    ``"alert"``: it refused, see ``alert``. ``"http"``: plain HTTP on a TLS port. ``"not_tls"``:
    something else. ``"verify"``: the peer's certificate. ``"version"``, ``"cipher"``, ``"alpn"``:
    nothing in common. ``"plaintext"``: unread bytes from before an upgrade. ``"protocol"``: a
    message or record that may not be. ``"local"``: called off, or failed, on this side."""
    alert: int | None = None
    """The alert that the peer sent (RFC 8446 section 6)."""


class CertificateError(TLSError, SSLCertVerificationError):
    """The peer's certificate is not accepted; the message says whose it is and what is wrong."""

    hint: str | None = "see verify_message for what is wrong with which certificate"

    failure: str = "verify"
    verify_code: int = 0
    """OpenSSL's X509_V_ERR_*, or 0 when there was no certificate."""
    verify_message: str = ""


class FrameError(SocketError):
    """What the peer sent, or what was to be sent, is no frame that the framing allows."""

    hint: str | None = "the peer speaks another protocol or another framing: compare both ends"


class FrameTooLarge(FrameError):
    """A frame is larger than ``max_size``."""

    hint: str | None = (
        "raise max_size if such frames are expected: else the peer is broken or hostile"
    )

    limit: int | None = None
    """The ``max_size`` that it exceeds."""
    size: int | None = None
    """Bytes of its payload, or None if that is not known."""
    recoverable: bool = False
    """Whether the stream can go on: with a larger limit (``on_too_long="keep"``), or behind the
    frame, which was skipped (``"skip"``)."""
    discarded: int = 0
    """Bytes of it that were thrown away, its separator or header included."""


class BadFrame(FrameError):
    """A length that is negative or cannot be, or a CR or LF where a line may not have one."""


class LeakWarning(ResourceWarning):
    """A connection that a pool had lent was thrown away instead of returned."""


class EscapeWarning(UserWarning):
    """A connection leaves hardsock, and its deadlines and its place in the ledger with it."""


class PoolWarning(UserWarning):
    """A pool is used in a way that defeats it."""


class DescriptorWarning(UserWarning):
    """Descriptors are running out; see ``fd_watch``."""


class SettingWarning(UserWarning):
    """The kernel silently changed a setting that was asked for."""
