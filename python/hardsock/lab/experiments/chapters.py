"""What the index of the experiments says around them: the advice, and what often stands instead."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CHAPTERS", "WRONG", "Chapter"]


@dataclass(frozen=True)
class Chapter:
    """A part of the index: what to know, and the experiments that show it.

    Attributes:
        title: Its heading.
        text: What to know, in a paragraph.
        names: Its experiments, in the order of the page.
    """

    title: str
    text: str
    names: tuple[str, ...]


CHAPTERS = (
    Chapter(
        "Connecting",
        "A connection begins with a name, goes on with one address or several, and ends, often, with "
        "TLS. A timeout that covers one of these parts covers none: what counts for the caller is the "
        "time until there is a connection. So a deadline is a point in time for all of it. On a lossy "
        "path a deadline below one second never sees the second SYN.",
        (
            "dns-hang",
            "tls-starvation",
            "far-away",
            "lossy",
            "tls-lossy",
            "broken-service",
            "dial-storm",
        ),
    ),
    Chapter(
        "Sending and receiving",
        "TCP carries bytes, not messages. What was written at once is read in pieces, what was written "
        "in pieces is read at once, and a short write is no error. Wait with poll, not by sleeping; "
        "write a message in one call; give every message a length or an end, and a limit.",
        ("nagle", "sleepy-reader", "messages", "endless-line"),
    ),
    Chapter(
        "Ending",
        "A close sends FIN and returns, and tells nothing of what the peer got. With unread input it "
        "sends RST instead, and that may destroy what was sent before. To know that all arrived: end the "
        "sending direction, read to the peer's end, close.",
        ("half-close", "linger-zero", "reset-storm"),
    ),
    Chapter(
        "Keeping connections",
        "A pool saves round trips and ports, and it brings faults of its own: connections that nobody "
        "gives back, slots that a stuck dial holds, peers that have gone meanwhile. It must account for "
        "each connection, and ask the kernel before it lends one.",
        (
            "ports",
            "loopback-ports",
            "held-ports",
            "fin-timeout",
            "wide-range",
            "pool-leak",
            "stale-keepalive",
            "dead-peer",
            "short-patience",
        ),
    ),
    Chapter(
        "Serving",
        "A server is limited by descriptors, memory and time, in this order. Its limits belong below "
        "those of the kernel, and what it cannot do it refuses, in an orderly way. What nobody waits for "
        "any more is not worth working on.",
        (
            "descriptors",
            "idle-flood",
            "backlog",
            "tuned-together",
            "thread-collapse",
            "keepalive-workers",
            "syn-scan",
            "deadline-lost",
            "cancel-lost",
        ),
    ),
)
"""The chapters of the index page, in their order, with the experiments of each."""

WRONG = (
    (
        "*`SO_LINGER` with zero seconds, to recycle sockets fast.* It sends RST and destroys what is in "
        "flight; a plain close sends FIN in the background. [Shown](linger-zero.md). `SO_LINGER` with five "
        "seconds blocks up to five seconds for delivery (socket(7))."
    ),
    (
        "*A smaller `tcp_fin_timeout`, against TIME_WAIT.* TIME_WAIT lasts 60 s, fixed. `tcp_tw_reuse` helps "
        "connects alone, and is on for loopback by default, which [hides the failure from tests](loopback-ports.md). "
        "[Shown](fin-timeout.md)."
    ),
    (
        "*A larger `somaxconn`, for a longer queue.* A listener keeps the backlog that it asked for when it "
        "called `listen`. [Shown](tuned-together.md)."
    ),
    (
        "*A larger `fs.file-max`, against EMFILE.* That limit is the process's, `RLIMIT_NOFILE`. "
        "[What it does](descriptors.md)."
    ),
    (
        "*`TCP_USER_TIMEOUT`, to find dead peers.* On an idle connection it does nothing; keepalive does "
        "nothing while data is unacknowledged. Both are needed. [Shown](dead-peer.md); and a short one ends "
        "who is [at work](short-patience.md). The former overrides the probe count (tcp(7))."
    ),
    (
        "*Sleeping and trying again after EAGAIN.* poll waits for as long as it takes, and not longer. "
        "[Shown](sleepy-reader.md)."
    ),
    (
        "*Fall back to older TLS after failures.* That is what an attacker waits for: a "
        "[fallback](../tls.md) here is another configuration of the same strength."
    ),
    "*A port range of 1024 to 65535.* It takes ports from servers, unless they are reserved. [Shown](wide-range.md).",
    (
        "*Count SYN scans in `accept`.* A scan never gets there: only the kernel's tables, a packet filter "
        "or a capture see it. [Shown](syn-scan.md)."
    ),
)
"""What is often advised and does not hold: the advice in Markdown, and what is true."""
