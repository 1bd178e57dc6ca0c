"""paho-mqtt over hardsock.

    from hardsock.adapters.paho import Client

    client = Client(paho.mqtt.client.CallbackAPIVersion.VERSION2)
    client.connect("broker.example.org")

Connecting (lookup, TCP, TLS) ends by ``client.connect_timeout`` as a total, by a scope, and by a cancel;
the connection is in the ledger, and dies with a dead peer. TLS is hardsock's: ``tls_set()`` as ever, or
``tls_set_context(hardsock.ssl_context())``.

Lost: the loop waits in select() of its own, which no scope ends (``client.disconnect()`` does); proxies;
websockets.

Tested with paho-mqtt 2.0 to 2.2. What is not public there and used here:
``Client._create_socket_connection`` and ``_create_unix_socket_connection``, which are there to be
overridden, and ``_ssl_wrap_socket``.
"""

from __future__ import annotations

import ssl
from importlib.metadata import version
from typing import Any

import paho.mqtt.client

from hardsock._dial_limits import DialLimits
from hardsock._scope import timeout
from hardsock.adapters._dial import Dials, checked_limits
from hardsock.adapters._tls import checked
from hardsock.adapters._versions import check
from hardsock.connecting.connect import connect
from hardsock.tls.ssl_context import SSLContext

__all__ = ["Client"]

check("paho-mqtt", version("paho-mqtt"), "2.0", "2.2")


class Client(Dials, paho.mqtt.client.Client):
    """``paho.mqtt.client.Client`` over hardsock.

    The parameters are the same, and *dial_limits* as of ``hardsock.connect(limits=)``.
    """

    def __init__(self, *args: Any, dial_limits: DialLimits | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # Before anything can fail: paho's __del__ wants it.
        self.dial_limits = checked_limits(dial_limits)
        if self._transport == "websockets":
            raise ValueError("transport must be 'tcp' or 'unix': no websockets over hardsock")

    def tls_set(
        self,
        ca_certs: Any = None,
        certfile: Any = None,
        keyfile: Any = None,
        cert_reqs: ssl.VerifyMode | None = None,
        tls_version: Any = None,
        ciphers: str | None = None,
        keyfile_password: Any = None,
        alpn_protocols: list[str] | None = None,
    ) -> None:
        """As paho has it, for hardsock's TLS: 1.2 and 1.3, so *tls_version* is ignored."""
        made = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if certfile is not None:
            made.load_cert_chain(certfile, keyfile, keyfile_password)
        if cert_reqs == ssl.CERT_NONE:
            made.check_hostname = False
        made.verify_mode = ssl.CERT_REQUIRED if cert_reqs is None else cert_reqs
        if ca_certs is not None:
            made.load_verify_locations(ca_certs)
        else:
            made.load_default_certs()
        if ciphers is not None:
            made.set_ciphers(ciphers)
        if alpn_protocols is not None:
            made.set_alpn_protocols(alpn_protocols)
        self.tls_set_context(made)
        self.tls_insecure_set(cert_reqs == ssl.CERT_NONE)

    def _create_socket_connection(self) -> Any:
        if self._get_proxy():
            raise ValueError(
                "proxy_set: no proxies over hardsock's paho; use hardsock.connect(via=)"
            )
        source = (self._bind_address, self._bind_port)
        return self._dial(
            (self._host, self._port),
            self._connect_timeout,
            None if source == ("", 0) else source,
        )

    def _create_unix_socket_connection(self) -> Any:
        return connect(f"unix:{self._host}", timeout=self._connect_timeout, limits=self.dial_limits)

    def _ssl_wrap_socket(self, tcp_sock: Any) -> Any:
        try:
            context = checked(self._ssl_context, "context")
            with timeout(self._connect_timeout, name="connect_timeout"):
                return context.wrap_socket(tcp_sock, server_hostname=self._host)
        except BaseException:
            tcp_sock.close()
            raise
