"""imaplib over hardsock.

    from hardsock.adapters.imaplib import IMAP4_SSL

    with hardsock.timeout(30), IMAP4_SSL("mail.example.org") as box:
        box.login(user, password)

A scope covers everything in its block; ``timeout=`` is a total for each wait. What ``imaplib``
makes of an error is as ever: some become ``IMAP4.abort``. ``hardsock.Cancelled`` passes through.
Where ``imaplib`` without a context verifies no certificate, this verifies it by whom the system
trusts; ``ssl_context=`` must be made by ``hardsock.ssl_context()``.

It uses ``IMAP4._create_socket``, which is not public and the same in CPython 3.10 to 3.14; without it
the import is an ``ImportError``.
"""

from __future__ import annotations

import imaplib
from typing import Any

from hardsock.adapters._dial import Dials
from hardsock.adapters._hooks import checked_version, overridable
from hardsock.adapters._tls import context_or_default

__all__ = ["IMAP4", "IMAP4_SSL"]

checked_version("imaplib")
overridable(imaplib.IMAP4, "_create_socket", 1, "open")
overridable(imaplib.IMAP4_SSL, "_create_socket", 1)


def _connected(box: Any, timeout: Any) -> Any:
    address = (box.host or None, box.port)
    return box._dial(address) if timeout is None else box._dial(address, timeout)


class IMAP4(Dials, imaplib.IMAP4):
    """``imaplib.IMAP4`` over hardsock; *dial_limits* as of ``hardsock.connect(limits=)``."""

    def _create_socket(self, timeout: Any = None) -> Any:
        return _connected(self, timeout)

    def starttls(self, ssl_context: Any = None) -> Any:
        """As imaplib has it, but for the certificate, which is verified."""
        return super().starttls(context_or_default(ssl_context, "ssl_context"))


class IMAP4_SSL(Dials, imaplib.IMAP4_SSL):
    """``imaplib.IMAP4_SSL`` over hardsock's TLS."""

    def __init__(self, *args: Any, ssl_context: Any = None, **kwargs: Any) -> None:
        ssl_context = context_or_default(ssl_context, "ssl_context")
        super().__init__(*args, ssl_context=ssl_context, **kwargs)

    def _create_socket(self, timeout: Any = None) -> Any:
        plain = _connected(self, timeout)
        try:
            return self.ssl_context.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise
