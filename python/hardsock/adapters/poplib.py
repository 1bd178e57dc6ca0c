"""poplib over hardsock.

    from hardsock.adapters.poplib import POP3_SSL

    with hardsock.timeout(30):
        box = POP3_SSL("mail.example.org")

A scope covers everything in its block; ``timeout=`` is a total for each wait. At a deadline
``hardsock.DeadlineExceeded``, a ``TimeoutError``; after a cancel ``hardsock.Cancelled``. Where
``poplib`` without a context verifies no certificate, this verifies it by whom the system trusts;
``context=`` must be made by ``hardsock.ssl_context()``.

It uses ``POP3._create_socket`` and ``POP3._getline``, which are not public and the same in CPython 3.10
to 3.14; without them the import is an ``ImportError``.
"""

from __future__ import annotations

import poplib
from typing import Any

from hardsock.adapters._dial import Dials
from hardsock.adapters._hooks import checked_version, overridable
from hardsock.adapters._tls import context_or_default
from hardsock.adapters._whole import whole

__all__ = ["POP3", "POP3_SSL"]

checked_version("poplib")
overridable(poplib.POP3, "_create_socket", 1, "__init__")
overridable(poplib.POP3_SSL, "_create_socket", 1)
overridable(poplib.POP3, "_getline", 0, "_getresp", "_getlongresp")


class _Over(Dials):
    file: Any

    def _getline(self) -> Any:
        self.file = whole(self.file)  # It is another one after STLS.
        return super()._getline()  # type: ignore[misc]


class POP3(_Over, poplib.POP3):
    """``poplib.POP3`` over hardsock; *dial_limits* as of ``hardsock.connect(limits=)``."""

    def _create_socket(self, timeout: Any) -> Any:
        return self._dial((self.host, self.port), timeout)

    def stls(self, context: Any = None) -> bytes:
        """As poplib has it, but for the certificate, which is verified."""
        return super().stls(context_or_default(context))


class POP3_SSL(_Over, poplib.POP3_SSL):
    """``poplib.POP3_SSL`` over hardsock's TLS."""

    def __init__(self, *args: Any, context: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, context=context_or_default(context), **kwargs)

    def _create_socket(self, timeout: Any) -> Any:
        plain: Any = self._dial((self.host, self.port), timeout)
        try:
            return self.context.wrap_socket(plain, server_hostname=self.host)  # type: ignore[attr-defined]
        except BaseException:
            plain.close()
            raise
