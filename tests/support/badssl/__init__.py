"""Servers that a client must refuse, or must not, after the list of badssl.com; all made here.

`CERTIFICATES` are served by ``openssl s_server``, `PROTOCOLS` by it or by hand-written bytes. Each
row says what the right answer is, and why where that is not plain.

    world = World(directory)
    with row.serve(world) as address:
        hardsock.connect(address, tls=hardsock.TLSConfig(ca=world.trusted), server_name=...)
"""

from __future__ import annotations

from support.badssl.certificates import CERTIFICATES
from support.badssl.protocols import PROTOCOLS
from support.badssl.world import HOST, Row, Verify, World

__all__ = ["CERTIFICATES", "HOST", "PROTOCOLS", "Row", "Verify", "World"]
