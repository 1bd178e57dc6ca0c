"""Plain values that the core returns."""

from __future__ import annotations

import os

from hardsock._typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime
    from types import CodeType


class Attempt(NamedTuple):
    """One address that a connect tried. Times are seconds since the call began."""

    address: str
    phase: str
    """Where it ended: ``"socket"``, ``"bind"``, ``"connect"``, ``"tls"``; ``"done"`` if it
    connected; ``"skipped"`` if the breaker refused it."""
    errno: int
    """0 when it was called off before it failed."""
    started: float
    ended: float
    tls: str | None = None
    """What its TLS handshake failed of, as ``TLSError.failure``."""

    def __str__(self) -> str:
        if self.phase == "skipped":
            return f"{self.address} skipped by the breaker"
        if self.tls is not None:
            outcome = f"TLS failed ({self.tls})"
        else:
            outcome = os.strerror(self.errno) if self.errno else "called off"
        return f"{self.address} {self.phase} {self.started:.3f}-{self.ended:.3f} s: {outcome}"


class Answer(NamedTuple):
    """One family's answer of a name lookup."""

    family: int
    addresses: tuple[str, ...]
    elapsed: float
    """Seconds."""
    error: str | None


class Resolution(NamedTuple):
    """The answers of a name lookup (none for literals), and the order of attempts (RFC 8305)."""

    answers: tuple[Answer, ...]
    plan: tuple[str, ...]


class Setting(NamedTuple):
    """One socket setting: what was asked for and what the kernel says is in effect."""

    name: str
    asked: int | None
    effective: int | None
    differs: bool
    limited_by: str | None
    """The sysctl to look at when the two differ."""


class PeerCertificate(NamedTuple):
    """Facts about one certificate of a peer."""

    subject: str
    """As RFC 4514 writes it: ``"CN=db.internal,O=Example"``."""
    issuer: str
    names: tuple[str, ...]
    """What it is for: ``"DNS:db.internal"``, ``"IP:192.0.2.1"``, ... (subjectAltName)."""
    serial: str
    """Hexadecimal."""
    not_before: datetime
    not_after: datetime
    """UTC, as ``not_before``."""


class TLSInfo(NamedTuple):
    """What a TLS handshake agreed on."""

    role: str
    """Ours: ``"client"`` or ``"server"``."""
    version: str
    """``"TLSv1.3"`` or ``"TLSv1.2"``."""
    cipher: str
    group: str
    """Of the key exchange, for example ``"X25519"``; empty when the session was resumed without."""
    alpn: str | None
    """The application protocol that was chosen."""
    server_name: str | None
    """What the client asked for (SNI); None for an address."""
    resumed: bool
    verified: bool
    """Whether the peer showed a certificate that was accepted (now, or when the session began)."""
    ocsp: str
    """Client: ``"good"``, ``"none"`` (nothing was stapled, or asked for), ``"skipped"`` (resumed)."""
    tickets: int
    """Session tickets received so far."""
    peer_chain: tuple[bytes, ...]
    """The peer's certificates as it sent them, its own first, in DER."""
    first_byte: float | None
    """Seconds from the beginning of the handshake to the peer's first byte."""
    verified_at: float | None
    """Seconds to the end of the check of its certificate; None when resumed."""
    finished: float | None
    """Seconds to the end of the handshake."""

    @property
    def peer_certificate(self) -> PeerCertificate | None:
        """The peer's own certificate, read; None if it showed none."""
        from datetime import datetime, timezone

        from hardsock import _core  # which imports this module while it is made

        if not self.peer_chain:
            return None
        read = _core.read_certificate(self.peer_chain[0])
        return PeerCertificate(
            read.subject,
            read.issuer,
            tuple(read.names.splitlines()),
            read.serial,
            datetime.fromtimestamp(read.not_before, timezone.utc),
            datetime.fromtimestamp(read.not_after, timezone.utc),
        )


class CloseReport(NamedTuple):
    """How ``Connection.finish()`` found the peer."""

    ending: str
    """``"clean"``: the peer ended its side and acknowledged all of ours. ``"deadline"``: the time
    was up first. ``"reset"``: the peer reset the connection. ``"dead peer"``: it stopped answering.
    ``"truncated"``: a TLS peer did not end its stream (no close_notify): it closed, or sent an alert."""
    unsent: int
    """Bytes that the peer's kernel had not acknowledged (unix sockets: that the peer had not read)."""
    discarded: int
    """Bytes that the peer still sent and that were thrown away."""
    elapsed: float
    """Seconds."""

    @property
    def delivered(self) -> bool:
        """Whether the peer's kernel had everything, and the peer ended in an orderly way."""
        return self.ending == "clean" and self.unsent == 0


class HandshakeStats(NamedTuple):
    """Counters of a listener's TLS handshakes."""

    started: int
    completed: int
    in_progress: int
    silent: int
    """Of those in progress, clients that have not sent a byte yet."""
    fallback: int
    """Of those started, how many with the fallback configuration."""
    failed: dict[str, int]
    """By kind, as ``TLSError.failure`` names them; also ``"timeout"``, ``"reset"``, ``"local"``
    (the listener was closed) and ``"evicted"`` (all places were taken, and this was the client that
    had been silent for the longest). ``"empty"``: clients that left without sending a byte, as scans and
    health checks do."""


class ProxyStats(NamedTuple):
    """Connections of a listener's trusted proxies, by what their PROXY header said."""

    headers: int
    """That named a client."""
    local: int
    """Of a proxy for itself, as in health checks."""
    malformed: int
    """Cut: what came was no header."""
    timeout: int
    """Cut: the header was not there in time."""
    ended: int
    """They left, or were reset, before it was whole."""


class PeerStats(NamedTuple):
    """What a listener's ``PeerLimits`` did."""

    refused_connections: int
    """Reset: one peer had as many connections as it may."""
    refused_network: int
    """Reset: it and its neighbours had."""
    refused_rate: int
    """Reset: it came too fast."""
    untracked: int
    """Let in uncounted: the table was full of peers that had connections."""
    tracked: int
    """Peers and networks in the table now."""


class ListenerStats(NamedTuple):
    """Counters of a listener since it was made."""

    accepted: int
    shed: int
    """Clients turned away with a reset for want of descriptors."""
    exhausted: int
    """Times that descriptors or memory had run out."""
    aborted: int
    """Clients that left before they were accepted."""
    network_errors: int
    denied: int
    unverified: int
    """Connections that did not inherit the listener's options and were set one by one."""
    backlog_asked: int | None
    """None when the listening socket was adopted."""
    backlog_effective: int | None
    """What the kernel granted (net.core.somaxconn caps it); None for unix sockets."""
    queue_length: int | None
    """Connections waiting to be accepted now; None for unix sockets."""
    handshakes: HandshakeStats | None
    """None without TLS."""
    proxy: ProxyStats | None
    """None without *proxy_protocol*."""
    peers: PeerStats | None
    """None without *peer_limits*."""


class BreakerState(NamedTuple):
    """What a breaker knows of one key. Times are as ``time.monotonic()`` tells them."""

    key: str
    state: str
    """``"closed"``, ``"open"`` or ``"half_open"``."""
    in_a_row: int
    """Failures since the last success."""
    window_calls: int
    """Calls within the window, as far as the key was known."""
    window_failures: int
    openings: int
    """How often it was opened in close succession: each doubles the time."""
    opened_at: float | None
    """None while it is closed."""
    retry_at: float | None
    """When somebody may try again; None while it is closed, or if that is never."""
    last_error: str | None
    last_error_at: float | None
    calls: int
    """Since the key is known, which it is from its first failure on; as are the next three."""
    failures: int
    refused: int
    opened: int


class BreakerStats(NamedTuple):
    """Counters of a breaker since it was made, and two gauges: ``keys`` and ``keys_open``."""

    permitted: int
    refused: int
    would_refuse: int
    """Let through by a dry run alone; not in ``permitted``."""
    forced: int
    """Permitted for want of another address of the same name."""
    probes: int
    expired_probes: int
    """Probes that were not reported in time, and whose place was given to another."""
    successes: int
    failures: int
    not_counted: int
    """Reports that say nothing about the peer: cancels, local limits, deadlines too near."""
    late: int
    """Reports from before the state changed: they changed nothing."""
    opened: int
    half_opened: int
    closed: int
    evicted: int
    """Keys forgotten for want of room."""
    keys: int
    """That are known: those that have failed."""
    keys_open: int
    by_class: dict[str, int]
    """Failures by class."""


# What the core tells the package, in its own units: nanoseconds, and call sites as (code, offset).


class OpenedRecord(NamedTuple):
    """A Connection or Listener object that is open."""

    how: str
    """``"connect"``, ``"accept"``, ``"adopt"``, ``"listen"`` or ``"lent"``."""
    serial: int
    fd: int
    local: str | None
    peer: str | None
    code: CodeType | None
    """Where it was opened, with *offset*."""
    offset: int
    since_ns: int
    """As ``time.monotonic_ns()``."""
    thread: int
    owner: object
    """What the context said; ``None``: nothing."""


class DroppedRecord(NamedTuple):
    """One that was thrown away open."""

    how: str
    serial: int
    text: str
    """Its ``repr()``."""
    code: CodeType | None
    offset: int
    since_ns: int
    thread: int
    owner: object


class LeaseRecord(NamedTuple):
    """A connection that a pool has lent."""

    id: int
    thread: int
    task: int
    """``id()`` of the task; 0: none."""
    code: CodeType | None
    offset: int
    age_ns: int
    times_lent: int
    bytes_sent: int
    bytes_received: int
    endpoint: int
    """Its index among the pool's."""
    fd: int
    overdue: bool


class BorrowerRecord(NamedTuple):
    """A call site that borrows from a pool, and what came of it."""

    code: CodeType | None
    offset: int
    lent: int
    acquired: int
    lost: int
    overdue: int
    dirty: int
    held_max_ns: int
    held_sum_ns: int


class PoolSocketRecord(NamedTuple):
    """What a pool has open, and what the kernel says of it."""

    lent: bool
    fd: int
    """-1: it was closed meanwhile."""
    peer: str | None
    tcp_state: int
    """A number of ``linux/tcp_states``; -1: unknown, or not of TCP."""


class FdRecord(NamedTuple):
    """A descriptor that is open."""

    fd: int
    kind: str
    """As in ``fd_inventory()``."""
    device: int
    inode: int
    target: str
    """What the link in ``/proc/self/fd`` says."""


class FdSocketRecord(NamedTuple):
    """What the kernel says of a descriptor that is a socket."""

    family: int
    type: int
    listens: bool
    state: str | None
    local: str | None
    peer: str | None


class CertificateRecord(NamedTuple):
    """What a certificate says."""

    subject: str
    issuer: str
    names: str
    """One in each line."""
    serial: str
    not_before: int
    """Seconds since 1970, UTC."""
    not_after: int
