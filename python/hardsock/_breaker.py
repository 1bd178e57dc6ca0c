"""What a breaker makes of exceptions."""

from __future__ import annotations

# Where socket and ssl have them from: to import these two takes half as long as all of hardsock.
from _socket import gaierror
from _ssl import SSLCertVerificationError, SSLError

from hardsock._errors import (
    BreakerOpen,
    Busy,
    Cancelled,
    Closed,
    FrameError,
    Poisoned,
)
from hardsock._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from hardsock._core import Breaker, Permit
    from hardsock.connecting.connect import Address

__all__ = ["Guard", "failure_of"]

# About us, or about a name, or about an earlier call: nothing that trying again would show.
_NOT_COUNTED = (
    BreakerOpen,
    Busy,
    Cancelled,
    Closed,
    Poisoned,
    MemoryError,
    FileNotFoundError,
    gaierror,
)
# asyncio's was a class of its own before Python 3.11; trio's derives from nothing in common.
_TIMEOUTS = ("TimeoutError", "TooSlowError")
_VERSION_REASONS = (
    "NO_PROTOCOLS_AVAILABLE",
    "NO_SHARED_CIPHER",
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY",
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "UNSUPPORTED_PROTOCOL",
    "WRONG_SSL_VERSION",
)


def _is_timeout(exc: Exception) -> bool:
    return any(cls.__name__ in _TIMEOUTS for cls in type(exc).__mro__)


def _failure_of_tls(exc: SSLError) -> str:
    if isinstance(exc, SSLCertVerificationError):
        return "tls_certificate"
    return "tls_version" if getattr(exc, "reason", None) in _VERSION_REASONS else "tls_other"


def _failure_of_os(exc: OSError) -> str:
    from hardsock import _core  # which imports this module while it is made

    if isinstance(exc, ConnectionRefusedError):
        return "refused"
    if isinstance(exc, (ConnectionResetError, BrokenPipeError)):
        return "reset"
    if isinstance(exc, ConnectionAbortedError):
        return "timeout"
    return _core._failure_of_errno(exc.errno) if exc.errno else "application"


def failure_of(exc: BaseException) -> str:
    """Name the class of failure that an exception stands for."""
    if not isinstance(exc, Exception) or isinstance(exc, _NOT_COUNTED):
        return "not_counted"  # KeyboardInterrupt and the loops' cancellations are no Exceptions.
    if _is_timeout(exc):
        return "deadline"
    if isinstance(exc, SSLError):
        return _failure_of_tls(exc)
    if isinstance(exc, EOFError):
        return "reset"
    if isinstance(exc, OSError) and not isinstance(exc, FrameError):
        return _failure_of_os(exc)
    return "application"


class Guard:
    """A permit for as long as a ``with`` block lasts; made by ``Breaker.guard``."""

    def __init__(
        self,
        breaker: Breaker,
        key: Address,
        ignore: type[BaseException] | tuple[type[BaseException], ...],
    ) -> None:
        isinstance(None, ignore)  # TypeError now rather than in the middle of a failure.
        self._breaker = breaker
        self._key = key
        self._ignore = ignore
        self._permit: Permit | None = None

    def __enter__(self) -> Permit:
        if self._permit is not None:
            raise RuntimeError("this guard is in use: make one for each with block")
        self._permit = self._breaker.permit(self._key)
        return self._permit

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            ignored = exc is not None and isinstance(exc, self._ignore)
            permit.record("not_counted" if ignored else exc)
