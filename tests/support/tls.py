"""What tests of TLS share: identities of a private authority, configs that trust it, and pairs.

An `Identities` owns a directory with an authority; whatever it issues is made when it is asked for.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import hardsock as hs
from hardsock.lab.servers.process import find_program
from hardsock.lab.threads import Call
from support.pki import CLIENT, DEFAULT_NAMES, Authority, make_authority


def openssl(*arguments: str | Path, data: bytes = b"") -> bytes:
    """Run the openssl program; its output."""
    argv = [find_program("openssl"), *map(str, arguments)]
    return subprocess.run(argv, check=True, capture_output=True, input=data, timeout=30.0).stdout


class Identities:
    """An authority in *directory*, and what it issues."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority: Authority = make_authority(directory)
        self._count = 0

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.authority.certificate

    @cached_property
    def server_identity(self) -> hs.Certificate:
        """For localhost and its addresses."""
        return self.issue()

    @cached_property
    def client_identity(self) -> hs.Certificate:
        """For a client called alice."""
        return self.issue(("alice.test",), usages=CLIENT)

    def issue(self, names: Sequence[str] = DEFAULT_NAMES, **form: Any) -> hs.Certificate:
        """A new valid certificate for *names*; see `support.pki.Form` for the rest."""
        self._count += 1
        chain, key = self.authority.issue(names, file=f"issued-{self._count}", **form)
        return hs.Certificate(chain=chain, key=key)

    def issue_between(
        self,
        begin: timedelta,
        end: timedelta,
        names: Sequence[str] = DEFAULT_NAMES,
        **form: Any,
    ) -> hs.Certificate:
        """As issue, but valid from now + *begin* to now + *end*."""
        self._count += 1
        day = timedelta(days=1)
        chain, key = self.authority.issue(
            names,
            file=f"between-{self._count}",
            start=begin / day,
            days=(end - begin) / day,
            **form,
        )
        return hs.Certificate(chain=chain, key=key)

    def crl(self) -> Path:
        """A revocation list that revokes nothing."""
        path = self.directory / "list.crl"
        path.write_bytes(self.authority.revoke())
        return path

    def client(self, **settings: Any) -> hs.TLSConfig:
        """A client's config that trusts the authority."""
        return hs.TLSConfig(**({"ca": self.ca} | settings))

    def server(self, **settings: Any) -> hs.TLSConfig:
        """A server's config with an identity."""
        return hs.TLSConfig(role="server", **({"certificates": self.server_identity} | settings))


@contextmanager
def tls_pair(
    client: hs.TLSConfig, server: hs.TLSConfig, *, confirm: bool = True, **connecting: Any
) -> Iterator[tuple[hs.Connection, hs.Connection]]:
    """(the client's, the server's) connection, secured."""
    with hs.listen(("127.0.0.1", 0), tls=server) as listener:
        with Call(listener.accept, timeout=60) as accepting:
            ours = hs.connect(listener.address, tls=client, timeout=60, **connecting)
            with ours:
                theirs = accepting.result()
                with theirs:
                    if confirm:
                        ours.confirm(timeout=60)
                    yield ours, theirs
