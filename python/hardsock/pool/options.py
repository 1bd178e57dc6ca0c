"""What a pool may do, as a frozen value, checked in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from hardsock._names import names_checked

__all__ = ["PoolOptions"]

_SIZES = ("max_per_endpoint", "min_idle", "max_idle", "max_waiting")
_SECONDS_OR_NEVER = ("idle_timeout", "max_lifetime", "leak_after", "ping_after")
_SECONDS = ("dial_timeout", "ping_timeout")


def _size(name: str, value: object, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not low <= value <= 2**20:
        raise ValueError(f"{name} must be in {low}..{2**20}, got {value}")


def _seconds(name: str, value: object, zero: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(
            f"{name} must be a {'non-negative' if zero else 'positive'}, finite "
            f"number of seconds, got {value!r}"
        )


@names_checked
@dataclass(frozen=True, kw_only=True)
class PoolOptions:
    """The settings of a pool. Times are in seconds; ``None`` means no limit.

    What contradicts itself is refused, with both names in the message.

    Attributes:
        max_size: Connections at most, lent ones and dials included.
        max_per_endpoint: The same for each of several endpoints.
        min_idle: Connections that are kept ready, dialled ahead of demand and not ended for being
            idle.
        max_idle: Idle connections at most: more are closed when they are returned.
        max_waiting: Callers that may wait; one more is refused at once (``PoolRefused``).
        max_dials: Dials at the same time. A TLS handshake that takes longer than 250 ms is not
            counted, and another dial begins while callers wait: it may be waiting for a server that
            is stuck.
        dials_per_second: Dials begun per second, on average; ``max_dials`` may begin at once.
        dial_timeout: For one dial: lookup, every address, TLS. Callers have their own deadlines
            besides.
        backoff_min: After a failed dial the endpoint is left alone, twice as long with each one in
            a row; a random half to the whole of that.
        backoff_max: The longest that an endpoint is left alone.
        keep_trying: When a dial fails and nothing else can serve who waits, they get its error;
            with this they go on waiting until their own deadlines.
        idle_timeout: Idle connections end after this. Keep it below what a NAT gateway or the
            server allows.
        max_lifetime: Connections end after this, when they are idle or returned, never under a
            borrower.
        lifetime_jitter: Percent of ``max_lifetime`` by which each connection's may be shorter, at
            random.
        probe_after: The kernel is asked before a connection is lent again, whether the peer is
            still there and has said nothing that nobody asked for: one system call, about a quarter
            of a microsecond. More than 0: only if the connection was idle for longer and is not
            watched yet. What that risks: bytes that a peer sends behind its answer are read by the
            next borrower as its own answer, and a peer that closes right after its answer gives the
            next borrower ``Reset``. Only for peers that do neither.
        reuse: When a connection that was used may be lent again. ``"marked"``: if
            ``conn.mark_clean()`` was called after the last byte, which says that the answer is
            complete. ``"answered"``: besides, if something was received after the last byte sent,
            nothing is left unread, and the borrower did not fail. Only the first is safe: a late
            part of an answer must not reach the next borrower.
        order: Which idle connection is lent: the one returned last (fewer stay in use), or first
            (all do).
        leak_after: A connection lent for longer is reported: see ``Pool``'s *on_leak*.
        ping: A request and exactly the answer to it, for instance ``(b"PING\\r\\n",
            b"+PONG\\r\\n")``.
        ping_after: Idle for longer, a connection is pinged, again and again; one that fails is
            closed.
        ping_timeout: How long the whole answer to a ping may take; without it by then the
            connection is closed.
        refuse_deadlock: A thread or task that would wait while it holds all connections itself is
            refused.
        trace_frames: Frames of the borrower's stack to keep with each lease, beside the place
            itself: about 0.1 us for each.
        trace_every: Of so many leases one is kept with its whole stack; 0: none.
    """

    max_size: int = 10
    max_per_endpoint: int | None = None
    min_idle: int = 0
    max_idle: int | None = None
    max_waiting: int | None = None
    max_dials: int = 4
    dials_per_second: float | None = None
    dial_timeout: float = 10.0
    backoff_min: float = 0.05
    backoff_max: float = 5.0
    keep_trying: bool = False
    idle_timeout: float | None = 60.0
    max_lifetime: float | None = 1800.0
    lifetime_jitter: int = 10
    probe_after: float = 0.0
    reuse: Literal["marked", "answered"] = "marked"
    order: Literal["latest", "oldest"] = "latest"
    leak_after: float | None = None
    ping: tuple[bytes, bytes] | None = None
    ping_after: float | None = None
    ping_timeout: float = 5.0
    refuse_deadlock: bool = False
    trace_frames: int = 0
    trace_every: int = 0

    def __post_init__(self) -> None:
        _size("max_size", self.max_size, 1)
        _size("max_dials", self.max_dials, 1)
        for name in _SIZES:
            if getattr(self, name) is not None:
                _size(name, getattr(self, name), 1 if name in ("max_per_endpoint",) else 0)
        for name in ("trace_frames", "trace_every"):
            _size(name, getattr(self, name), 0)
        for name in _SECONDS_OR_NEVER:
            if getattr(self, name) is not None:
                _seconds(name, getattr(self, name))
        for name in (*_SECONDS, "backoff_min", "backoff_max"):
            _seconds(name, getattr(self, name))
        _seconds("probe_after", self.probe_after, zero=True)
        if self.dials_per_second is not None:
            _seconds("dials_per_second", self.dials_per_second)
        if self.reuse not in ("marked", "answered"):
            raise ValueError(f"reuse must be 'marked' or 'answered', got {self.reuse!r}")
        if self.order not in ("latest", "oldest"):
            raise ValueError(f"order must be 'latest' or 'oldest', got {self.order!r}")
        self._check_ping()
        self._check_contradictions()

    def _check_ping(self) -> None:
        if (self.ping is None) != (self.ping_after is None):
            raise ValueError("ping and ping_after go together: give both or neither")
        if self.ping is None:
            return
        if not (
            isinstance(self.ping, tuple)
            and len(self.ping) == 2
            and all(isinstance(part, bytes) and 0 < len(part) <= 256 for part in self.ping)
        ):
            raise ValueError("ping must be two bytes objects of 1 to 256 bytes")

    def _check_contradictions(self) -> None:
        def below(low: str, high: str, strictly: bool = False) -> None:
            a, b = getattr(self, low), getattr(self, high)
            if a is not None and b is not None and (a > b or (strictly and a == b)):
                raise ValueError(
                    f"{low}={a} and {high}={b} contradict each other: {low} must "
                    f"{'be less than' if strictly else 'not exceed'} {high}"
                )

        below("min_idle", "max_size")
        below("min_idle", "max_idle")
        below("max_idle", "max_size")
        below("max_per_endpoint", "max_size")
        below("backoff_min", "backoff_max")
        below("leak_after", "max_lifetime")
        below("ping_after", "max_lifetime", strictly=True)
        if self.min_idle == 0:
            below("ping_after", "idle_timeout", strictly=True)

    def _for_core(self) -> dict[str, Any]:
        skip = ("reuse", "order", "ping", "dials_per_second", "trace_frames", "trace_every")
        settings = {
            item.name: getattr(self, item.name) for item in fields(self) if item.name not in skip
        }
        settings["reuse_answered"] = self.reuse == "answered"
        settings["oldest_first"] = self.order == "oldest"
        if self.dials_per_second is not None:
            settings["dial_interval"] = 1 / self.dials_per_second
        if self.ping is not None:
            settings["ping"], settings["pong"] = self.ping
        return settings
