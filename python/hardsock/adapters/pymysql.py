"""PyMySQL over hardsock: MySQL and MariaDB.

    import hardsock.adapters.pymysql

    conn = hardsock.adapters.pymysql.connect(host="db", user="app", ssl={"ca": "ca.pem"})
    with hardsock.timeout(1.0), conn.cursor() as cursor:
        cursor.execute("select ...")

A scope covers the lookup, connecting, TLS, logging in, each statement and all its rows.
``connect_timeout`` is a total for lookup and connecting, ``read_timeout`` for each packet.

At the deadline PyMySQL's own ``OperationalError`` with ``hardsock.DeadlineExceeded`` as its context;
after a cancel, from any thread, ``hardsock.Cancelled``. The connection is closed then, since the
server may go on with the statement: give it a limit of its own (``max_execution_time``,
``max_statement_time``).

TLS is hardsock's, set up by ``ssl=`` and the ``ssl_*`` parameters; an ``SSLContext`` has to be made by
``hardsock.ssl_context()``. Lost: unix sockets, which stay PyMySQL's own. ``connect(sock=)`` and
``defer_connect`` are public; ``_create_ssl_ctx`` is not. Tested with PyMySQL 1.1 to 1.2.
"""

from __future__ import annotations

import ssl
from importlib.metadata import version
from typing import Any

import pymysql
import pymysql.connections

from hardsock.adapters._dial import Dials
from hardsock.adapters._tls import checked
from hardsock.adapters._versions import check
from hardsock.tls.ssl_context import SSLContext

__all__ = ["Connection", "connect"]

check("PyMySQL", version("PyMySQL"), "1.1", "1.2")

_MODES = {
    **dict.fromkeys(("none", "0", "false", "no"), ssl.CERT_NONE),
    **dict.fromkeys(("required", "1", "true", "yes"), ssl.CERT_REQUIRED),
    "optional": ssl.CERT_OPTIONAL,
}


class Connection(Dials, pymysql.connections.Connection):  # type: ignore[misc,unused-ignore]
    """``pymysql.connections.Connection`` over a ``hardsock.Connection``.

    *dial_limits*: as of ``hardsock.connect(limits=)``.
    """

    def connect(self, sock: Any = None) -> None:
        """As PyMySQL has it; *sock* may be a ``hardsock.Connection``, too."""
        if sock is None and not self.unix_socket:
            source = None if self.bind_address is None else (self.bind_address, 0)
            try:
                sock = self._dial((self.host, self.port), self.connect_timeout, source)
            except OSError as exc:
                raise pymysql.err.OperationalError(
                    pymysql.constants.CR.CR_CONN_HOST_ERROR,
                    f"Can't connect to MySQL server on {self.host!r} ({exc})",
                ) from exc
            self.host_info = f"socket {self.host}:{self.port}"
        super().connect(sock)

    def _force_close(self) -> None:
        """As PyMySQL has it; of rows that were streamed nobody reads the rest any more.

        Its cursors, and their results, would, when they are closed: an AttributeError in the place of the
        error that ended the connection.
        """
        super()._force_close()
        result = getattr(self, "_result", None)
        if result is not None:
            result.unbuffered_active = False

    def _create_ssl_ctx(self, sslp: Any) -> SSLContext:
        """The same settings for hardsock's TLS."""
        if isinstance(sslp, ssl.SSLContext):
            return checked(sslp, "ssl")
        trusted = sslp.get("ca"), sslp.get("capath")
        nobody = not any(trusted)
        made = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.check_hostname = False
        made.verify_mode = _mode(sslp.get("verify_mode"), nobody)
        made.check_hostname = (
            made.verify_mode != ssl.CERT_NONE and not nobody and sslp.get("check_hostname", True)
        )
        if nobody:
            made.load_default_certs()
        else:
            made.load_verify_locations(*trusted)
        if "cert" in sslp:
            made.load_cert_chain(sslp["cert"], sslp.get("key"), sslp.get("password"))
        if "cipher" in sslp:
            made.set_ciphers(sslp["cipher"])
        return made


def _mode(given: Any, nobody: bool) -> ssl.VerifyMode:
    usual = ssl.CERT_NONE if nobody else ssl.CERT_REQUIRED
    if given is None:
        return usual
    if isinstance(given, bool):
        return ssl.CERT_REQUIRED if given else ssl.CERT_NONE
    return _MODES.get(str(given).lower(), usual)


def connect(*args: Any, **kwargs: Any) -> Connection:
    """Make a connection as ``pymysql.connect`` does; see ``Connection``."""
    return Connection(*args, **kwargs)
