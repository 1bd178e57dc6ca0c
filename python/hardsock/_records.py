"""Plain values that the core returns."""

from __future__ import annotations

import os

from hardsock._typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime
    from types import CodeType


class Attempt(NamedTuple):
    """One address that a connect tried. Times are seconds since the call began.

    Attributes:
        address: As text: ``"192.0.2.1:443"``, ``"[2001:db8::1]:443"``.
        phase: Where it ended: ``"socket"``, ``"bind"``, ``"connect"``, ``"tls"``; ``"done"`` if it
            connected; ``"skipped"`` if the breaker refused it.
        errno: 0 when it was called off before it failed.
        started: When it began.
        ended: When it ended, or was called off.
        tls: What its TLS handshake failed of, as ``TLSError.failure``.
    """

    address: str
    phase: str
    errno: int
    started: float
    ended: float
    tls: str | None = None

    def __str__(self) -> str:
        if self.phase == "skipped":
            return f"{self.address} skipped by the breaker"
        if self.tls is not None:
            outcome = f"TLS failed ({self.tls})"
        else:
            outcome = os.strerror(self.errno) if self.errno else "called off"
        return f"{self.address} {self.phase} {self.started:.3f}-{self.ended:.3f} s: {outcome}"


class Answer(NamedTuple):
    """One family's answer of a name lookup.

    Attributes:
        family: ``socket.AF_INET`` or ``socket.AF_INET6``.
        addresses: As text, in the order of the answer; empty if there were none.
        elapsed: Seconds.
        error: What the system's resolver said (``gai_strerror(3)``); ``None``: nothing was wrong.
    """

    family: int
    addresses: tuple[str, ...]
    elapsed: float
    error: str | None


class Resolution(NamedTuple):
    """The answers of a name lookup (none for literals), and the order of attempts (RFC 8305).

    Attributes:
        answers: One for each family that was asked for.
        plan: Addresses as text, in the order in which a connect would try them.
    """

    answers: tuple[Answer, ...]
    plan: tuple[str, ...]


class Setting(NamedTuple):
    """One socket setting: what was asked for and what the kernel says is in effect.

    Attributes:
        name: The kernel's, as in ``SO_RCVBUF``.
        asked: What was asked for; ``None``: nothing.
        effective: What the kernel says; ``None``: it does not say.
        differs: Whether less or something else is in effect than was asked for.
        limited_by: The sysctl to look at when the two differ.
    """

    name: str
    asked: int | None
    effective: int | None
    differs: bool
    limited_by: str | None


class PeerCertificate(NamedTuple):
    """Facts about one certificate of a peer.

    Attributes:
        subject: As RFC 4514 writes it: ``"CN=db.internal,O=Example"``.
        issuer: Who signed it, written as ``subject``.
        names: What it is for: ``"DNS:db.internal"``, ``"IP:192.0.2.1"``, ... (subjectAltName).
        serial: Hexadecimal.
        not_before: When it begins to be valid, in UTC.
        not_after: When it ceases to be, in UTC.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    serial: str
    not_before: datetime
    not_after: datetime


class TLSInfo(NamedTuple):
    """What a TLS handshake agreed on.

    Attributes:
        role: Ours: ``"client"`` or ``"server"``.
        version: ``"TLSv1.3"`` or ``"TLSv1.2"``.
        cipher: By OpenSSL's name, as ``"TLS_AES_256_GCM_SHA384"``.
        group: Of the key exchange, for example ``"X25519"``; empty when the session was resumed
            without.
        alpn: The application protocol that was chosen.
        server_name: What the client asked for (SNI); None for an address.
        resumed: Whether an earlier session went on, and no certificates were sent.
        verified: Whether the peer showed a certificate that was accepted (now, or when the session
            began).
        ocsp: Client: ``"good"``, ``"none"`` (nothing was stapled, or asked for), ``"skipped"``
            (resumed).
        tickets: Session tickets received so far.
        peer_chain: The peer's certificates as it sent them, its own first, in DER.
        first_byte: Seconds from the beginning of the handshake to the peer's first byte.
        verified_at: Seconds to the end of the check of its certificate; None when resumed.
        finished: Seconds to the end of the handshake.
    """

    role: str
    version: str
    cipher: str
    group: str
    alpn: str | None
    server_name: str | None
    resumed: bool
    verified: bool
    ocsp: str
    tickets: int
    peer_chain: tuple[bytes, ...]
    first_byte: float | None
    verified_at: float | None
    finished: float | None

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
    """How ``Connection.finish()`` found the peer.

    Attributes:
        ending: ``"clean"``: the peer ended its side and acknowledged all of ours. ``"deadline"``:
            the time was up first. ``"reset"``: the peer reset the connection. ``"dead peer"``: it
            stopped answering. ``"truncated"``: a TLS peer did not end its stream (no close_notify):
            it closed, or sent an alert.
        unsent: Bytes that the peer's kernel had not acknowledged (unix sockets: that the peer had
            not read).
        discarded: Bytes that the peer still sent and that were thrown away.
        elapsed: Seconds.
    """

    ending: str
    unsent: int
    discarded: int
    elapsed: float

    @property
    def delivered(self) -> bool:
        """Whether the peer's kernel had everything, and the peer ended in an orderly way."""
        return self.ending == "clean" and self.unsent == 0


class HandshakeStats(NamedTuple):
    """Counters of a listener's TLS handshakes.

    Attributes:
        started: Handshakes begun.
        completed: Of these, those that gave a connection.
        in_progress: Of these, those that go on now.
        silent: Of those in progress, clients that have not sent a byte yet.
        fallback: Of those started, how many with the fallback configuration.
        failed: By kind, as ``TLSError.failure`` names them; also ``"timeout"``, ``"reset"``,
            ``"local"`` (the listener was closed) and ``"evicted"`` (all places were taken, and this
            was the client that had been silent for the longest). ``"empty"``: clients that left
            without sending a byte, as scans and health checks do.
    """

    started: int
    completed: int
    in_progress: int
    silent: int
    fallback: int
    failed: dict[str, int]


class ProxyStats(NamedTuple):
    """Connections of a listener's trusted proxies, by what their PROXY header said.

    Attributes:
        headers: That named a client.
        local: Of a proxy for itself, as in health checks.
        malformed: Cut: what came was no header.
        timeout: Cut: the header was not there in time.
        ended: They left, or were reset, before it was whole.
    """

    headers: int
    local: int
    malformed: int
    timeout: int
    ended: int


class PeerStats(NamedTuple):
    """What a listener's ``PeerLimits`` did.

    Attributes:
        refused_connections: Reset: one peer had as many connections as it may.
        refused_network: Reset: it and its neighbours had.
        refused_rate: Reset: it came too fast.
        untracked: Let in uncounted: the table was full of peers that had connections.
        tracked: Peers and networks in the table now.
    """

    refused_connections: int
    refused_network: int
    refused_rate: int
    untracked: int
    tracked: int


class ListenerStats(NamedTuple):
    """Counters of a listener since it was made.

    Attributes:
        accepted: Connections that came to be.
        shed: Clients turned away with a reset for want of descriptors.
        exhausted: Times that descriptors or memory had run out.
        aborted: Clients that left before they were accepted.
        network_errors: Clients whose connection had an error of the network when it was accepted
            (accept(2)).
        denied: Clients that a packet filter kept out (EPERM).
        unverified: Connections that did not inherit the listener's options and were set one by one.
        backlog_asked: None when the listening socket was adopted.
        backlog_effective: What the kernel granted (net.core.somaxconn caps it); None for unix
            sockets.
        queue_length: Connections waiting to be accepted now; None for unix sockets.
        handshakes: None without TLS.
        proxy: None without *proxy_protocol*.
        peers: None without *peer_limits*.
    """

    accepted: int
    shed: int
    exhausted: int
    aborted: int
    network_errors: int
    denied: int
    unverified: int
    backlog_asked: int | None
    backlog_effective: int | None
    queue_length: int | None
    handshakes: HandshakeStats | None
    proxy: ProxyStats | None
    peers: PeerStats | None


class BreakerState(NamedTuple):
    """What a breaker knows of one key. Times are as ``time.monotonic()`` tells them.

    Attributes:
        key: Whose calls are counted together: an address as text, or what the caller named.
        state: ``"closed"``, ``"open"`` or ``"half_open"``.
        in_a_row: Failures since the last success.
        window_calls: Calls within the window, as far as the key was known.
        window_failures: Of ``window_calls``, those that failed.
        openings: How often it was opened in close succession: each doubles the time.
        opened_at: When it was opened last; ``None`` while it is closed.
        retry_at: When somebody may try again; None while it is closed, or if that is never.
        last_error: The class of the last failure, as in ``by_class``; ``None``: none yet.
        last_error_at: When that was; ``None``: none yet.
        calls: Reported, since the key is known, which it is from its first failure on; as are the
            next three.
        failures: Of ``calls``, those that failed.
        refused: Calls that were not permitted.
        opened: How often it was opened.
    """

    key: str
    state: str
    in_a_row: int
    window_calls: int
    window_failures: int
    openings: int
    opened_at: float | None
    retry_at: float | None
    last_error: str | None
    last_error_at: float | None
    calls: int
    failures: int
    refused: int
    opened: int


class BreakerStats(NamedTuple):
    """Counters of a breaker since it was made, and two gauges: ``keys`` and ``keys_open``.

    Attributes:
        permitted: Calls that were let through, probes among them.
        refused: Calls that were not.
        would_refuse: Let through by a dry run alone; not in ``permitted``.
        forced: Permitted for want of another address of the same name.
        probes: Of those permitted, trials of a key that had been open.
        expired_probes: Probes that were not reported in time, and whose place was given to another.
        successes: Reports of calls that went well.
        failures: Reports of calls that failed.
        not_counted: Reports that say nothing about the peer: cancels, local limits, deadlines too
            near.
        late: Reports from before the state changed: they changed nothing.
        opened: Times that a key went from closed or half-open to open.
        half_opened: Times that one went from open to half-open, for a probe.
        closed: Times that one was closed again.
        evicted: Keys forgotten for want of room.
        keys: That are known: those that have failed.
        keys_open: Of these, how many are open now.
        by_class: Failures by class.
    """

    permitted: int
    refused: int
    would_refuse: int
    forced: int
    probes: int
    expired_probes: int
    successes: int
    failures: int
    not_counted: int
    late: int
    opened: int
    half_opened: int
    closed: int
    evicted: int
    keys: int
    keys_open: int
    by_class: dict[str, int]


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
