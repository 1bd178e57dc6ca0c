"""ftplib over hardsock.

    from hardsock.adapters.ftplib import FTP_TLS

    with hardsock.timeout(60), FTP_TLS("ftp.example.org", "user", "password") as ftp:
        ftp.prot_p()
        ftp.retrbinary("RETR big.bin", file.write)

A scope covers everything in its block, both connections; ``timeout=`` is a total for each wait. At
a deadline ``hardsock.DeadlineExceeded``, a ``TimeoutError``; after a cancel ``hardsock.Cancelled``.
Where ``ftplib`` without a context verifies no certificate, this verifies it by whom the system
trusts; ``context=`` must be made by ``hardsock.ssl_context()``. A session of the control connection
is resumed by those of data, as some servers demand.

Lost: active mode (``set_pasv(False)``), which would accept a connection from anywhere, and ``ccc()``.

The methods that it overrides are public; that all connections are made by them is so in CPython 3.10
to 3.14, as is ``FTP_TLS._prot_p``, which is not public. Where it is not so, the import is an
``ImportError``.
"""

from __future__ import annotations

import ftplib
import sys
from typing import Any

from hardsock._dial_limits import DialLimits
from hardsock.adapters._dial import Dials, abandon, checked_limits
from hardsock.adapters._hooks import called, checked_version, overridable
from hardsock.adapters._tls import context_or_default
from hardsock.adapters._whole import whole

__all__ = ["FTP", "FTP_TLS"]

checked_version("ftplib")
overridable(ftplib.FTP, "connect", 4, "__init__")
overridable(ftplib.FTP, "ntransfercmd", 2, "transfercmd")
overridable(ftplib.FTP_TLS, "ntransfercmd", 2)
overridable(ftplib.FTP, "getline", 0, "getmultiline")
called(ftplib.FTP_TLS, "prot_p", "_prot_p")


def _reply_to(ftp: Any, command: str, rest: Any) -> str:
    """What the server says to a command that is to use the data connection."""
    if rest is not None:
        ftp.sendcmd(f"REST {rest}")
    reply = str(ftp.sendcmd(command))
    if reply[0] == "2":  # Some servers answer a LIST with one reply too many.
        reply = ftp.getresp()
    if reply[0] != "1":
        raise ftplib.error_reply(reply)
    return reply


class FTP(Dials, ftplib.FTP):
    """``ftplib.FTP`` over hardsock, passive mode only; *dial_limits* as of ``hardsock.connect(limits=)``."""

    def connect(
        self, host: str = "", port: int = 0, timeout: Any = -999, source_address: Any = None
    ) -> str:
        """As ftplib has it; a greeting that was given up leaves nothing open.

        Raises ValueError where ftplib does, and ``TimeoutError`` or ``hardsock.Cancelled`` when its
        scope ends.
        """
        self.host = host or self.host
        self.port = port if port > 0 else self.port
        self.timeout = self.timeout if timeout == -999 else timeout
        if self.timeout is not None and not self.timeout:
            raise ValueError("Non-blocking socket (timeout=0) is not supported")
        if source_address is not None:
            self.source_address = source_address
        sys.audit("ftplib.connect", self, self.host, self.port)
        sock: Any = self._dial((self.host, self.port), self.timeout, self.source_address)
        self.sock, self.af = sock, sock.family
        try:
            self.file = sock.makefile("r", encoding=self.encoding)
            self.welcome = self.getresp()
        except BaseException:
            abandon(self)
            raise
        return self.welcome

    def getline(self) -> str:
        """As ftplib has it; a line that breaks off is none."""
        self.file: Any = whole(self.file)  # It is another one after AUTH.
        return super().getline()

    def ntransfercmd(self, cmd: str, rest: Any = None) -> Any:
        """As ftplib has it, in passive mode. ValueError: active mode was asked for."""
        if not self.passiveserver:
            raise ValueError("set_pasv(False): active mode is not for hardsock; use passive mode")
        host, port = self.makepasv()
        conn = self._dial((host, port), self.timeout, self.source_address)
        try:
            reply = _reply_to(self, cmd, rest)
        except BaseException:
            conn.close()
            raise
        return conn, ftplib.parse150(reply) if reply[:3] == "150" else None


class FTP_TLS(FTP, ftplib.FTP_TLS):
    """``ftplib.FTP_TLS`` over hardsock's TLS, passive mode only."""

    def __init__(
        self,
        *args: Any,
        context: Any = None,
        dial_limits: DialLimits | None = None,
        **kwargs: Any,
    ) -> None:
        self.dial_limits = checked_limits(dial_limits)
        ours = context_or_default(context)
        try:
            ftplib.FTP_TLS.__init__(self, *args, context=ours, **kwargs)  # type: ignore[call-overload]
        except BaseException:
            abandon(self)
            raise

    def ntransfercmd(self, cmd: str, rest: Any = None) -> Any:
        """As ftplib has it, in passive mode."""
        conn, size = FTP.ntransfercmd(self, cmd, rest)
        if self._prot_p:  # type: ignore[attr-defined]
            try:
                conn = self.context.wrap_socket(conn, server_hostname=self.host)
            except BaseException:
                conn.close()
                raise
        return conn, size

    def ccc(self) -> str:
        """Refused, by a ValueError: nothing plain passes on a connection that has spoken TLS."""
        raise ValueError("ccc(): nothing plain passes on a connection that has spoken TLS")
