"""smtplib over hardsock.

    from hardsock.adapters.smtplib import SMTP

    with hardsock.timeout(30), SMTP("mail.example.org", 587) as smtp:
        smtp.starttls()
        smtp.send_message(message)

A scope covers everything in its block; ``timeout=`` is a total for each wait. What ``smtplib`` makes
of an error is as ever: most become ``SMTPServerDisconnected``, with ``hardsock.DeadlineExceeded`` as
their context. ``hardsock.Cancelled`` passes through. Where ``smtplib`` without a context verifies no
certificate, this verifies it by whom the system trusts; ``context=`` must be made by
``hardsock.ssl_context()``.

It uses ``SMTP._get_socket``, which is not public and the same in CPython 3.10 to 3.14; without it the
import is an ``ImportError``.
"""

from __future__ import annotations

import smtplib
from typing import Any

from hardsock.adapters._dial import Dials, abandon
from hardsock.adapters._hooks import checked_version, overridable
from hardsock.adapters._tls import context_or_default
from hardsock.adapters._whole import whole

__all__ = ["LMTP", "SMTP", "SMTP_SSL"]

checked_version("smtplib")
overridable(smtplib.SMTP, "_get_socket", 3, "connect")
overridable(smtplib.SMTP_SSL, "_get_socket", 3)


class _Over(Dials):
    source_address: Any
    file: Any
    sock: Any

    def getreply(self) -> Any:
        """As smtplib has it; a reply that breaks off is none."""
        if self.sock is not None:
            self.file = whole(self.sock.makefile("rb") if self.file is None else self.file)
        return super().getreply()  # type: ignore[misc]

    def _get_socket(self, host: str, port: int, timeout: Any) -> Any:
        if timeout is not None and not timeout:
            raise ValueError("Non-blocking socket (timeout=0) is not supported")
        return self._dial((host, port), timeout, self.source_address)

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        """As smtplib has it; a greeting that was given up leaves nothing open."""
        try:
            return super().connect(*args, **kwargs)  # type: ignore[misc]
        except BaseException:
            abandon(self)
            raise

    def starttls(self, *, context: Any = None) -> Any:
        """As smtplib has it, but for the certificate, which is verified."""
        return super().starttls(context=context_or_default(context))  # type: ignore[misc]


class SMTP(_Over, smtplib.SMTP):  # type: ignore[misc]
    """``smtplib.SMTP`` over hardsock; *dial_limits* as of ``hardsock.connect(limits=)``."""


class LMTP(_Over, smtplib.LMTP):  # type: ignore[misc]
    """``smtplib.LMTP`` over hardsock, for TCP; a path of a unix socket is as in smtplib."""


class SMTP_SSL(_Over, smtplib.SMTP_SSL):  # type: ignore[misc]
    """``smtplib.SMTP_SSL`` over hardsock's TLS."""

    def __init__(self, *args: Any, context: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, context=context_or_default(context), **kwargs)

    def _get_socket(self, host: str, port: int, timeout: Any) -> Any:
        plain = super()._get_socket(host, port, timeout)
        try:
            return self.context.wrap_socket(plain, server_hostname=self._host)  # type: ignore[attr-defined]
        except BaseException:
            plain.close()
            raise
