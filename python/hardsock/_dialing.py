"""What ``connect`` does around an attempt when it was asked to: another try of a handshake that was
lost, and the client's fallback for TLS.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from hardsock._core import Breaker, CancelToken, Permit
from hardsock._errors import BreakerOpen, ConnectError, DeadlineExceeded, Reset, TLSError
from hardsock._scope import current
from hardsock.tls.config import TLSConfig, check_client_fallback, client_config

__all__ = ["Dialing", "dialing"]

_LOST = ("empty", "aborted", "reset", "timeout")
"""Ways of a handshake to end in which neither side has said no."""
_SILENT = (*_LOST, "local", "evicted")
"""Those that say nothing about the settings: the main configuration is not to blame."""
_MOST_TRIES = 10
_FIRST_PAUSE = 0.05
_MOST_KEY = 118  # of a breaker, in bytes


def _was_lost(exc: BaseException) -> bool:
    """Whether the handshake may be tried again: it went under, and nobody refused it."""
    if isinstance(exc, DeadlineExceeded):  # The call's own deadline leaves nothing to try with.
        return exc.phase == "tls"
    if isinstance(exc, ConnectError):  # It was connected, and reset before the first byte.
        return exc.errno == errno.ECONNRESET
    return isinstance(exc, (TLSError, Reset)) and getattr(exc, "failure", None) in _LOST


def _left_of(token: CancelToken) -> float | None:
    """What its deadline leaves; None: it has none, or was cancelled before that."""
    left = token.remaining
    return None if left and token.cancelled else left


@dataclass
class Dialing:
    """One call of ``connect``: which settings the next attempt takes, and whether there is one."""

    tries: int
    main: TLSConfig | bool
    fallback: TLSConfig | None
    breaker: Breaker | None
    key: str
    _begun: int = 0
    _permit: Permit | None = None

    def choose(self) -> TLSConfig | bool:
        """The settings of the attempt that begins now."""
        self._begun += 1
        self._permit = None
        if self.fallback is None or self.breaker is None:
            return self.main
        try:
            self._permit = self.breaker.permit(self.key)
        except BreakerOpen:
            return self.fallback
        return self.main

    def succeeded(self) -> None:
        """The attempt has a connection."""
        if self._permit is not None:
            self._permit.record()

    def failed(
        self, exc: BaseException, left: float | None, token: CancelToken | None
    ) -> float | None:
        """Seconds to wait before another attempt; None: there is none.

        *exc* is what the caller raises then: it tells more than the end of a pause that no attempt
        would have followed, wherever the deadline is set. A cancel is for the pause to raise.
        """
        permit, self._permit = self._permit, None
        if permit is not None:
            refused = isinstance(exc, TLSError) and exc.failure not in _SILENT
            # Never a class that opens at once: the one who is between can make a handshake fail.
            permit.record("tls_other" if refused else "not_counted")
        if self._begun >= self.tries or not _was_lost(exc):
            return None
        pause = 0.0 if self._begun == 1 else _FIRST_PAUSE * 2.0 ** (self._begun - 2)
        limits = [left, *(_left_of(one) for one in (token, current()) if one is not None)]
        return None if any(one is not None and one <= pause for one in limits) else pause


def dialing(
    address: object,
    server_name: str | None,
    tls: bool | TLSConfig,
    *,
    tries: int,
    fallback: TLSConfig | None,
    breaker: Breaker | None,
    allow_weaker: bool,
) -> Dialing:
    """Check what ``connect`` was given, and make a ``Dialing`` of it."""
    if isinstance(tries, bool) or not isinstance(tries, int):
        raise TypeError(f"handshake_tries must be an int, not {type(tries).__name__}")
    if not 1 <= tries <= _MOST_TRIES:
        raise ValueError(f"handshake_tries must be 1 to {_MOST_TRIES}, got {tries}")
    if tries > 1 and not tls:
        raise ValueError("handshake_tries has no use without tls")
    check_client_fallback(client_config(tls), fallback, breaker, allow_weaker)
    key = f"tls of {server_name or ''} at {address!r}"
    if len(key.encode()) > _MOST_KEY:
        import hashlib  # Not with hardsock, which few give such names.

        key = f"tls of {hashlib.sha256(key.encode()).hexdigest()}"
    return Dialing(tries, tls, fallback, breaker, key)
