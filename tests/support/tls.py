"""What tests of TLS share: identities of a private authority, configs that trust it, and pairs.

An `Identities` owns a directory with an authority; whatever it issues is made when it is asked for.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import hardsock as hs
from hardsock.lab.servers.process import find_program
from hardsock.lab.threads import Call
from support.certs import DEFAULT_NAMES, Authority, make_authority

_CA_CONFIG = """
[ca]
default_ca = this
[this]
database = {directory}/index.txt
new_certs_dir = {directory}
certificate = {authority.certificate}
private_key = {authority.key}
rand_serial = yes
unique_subject = no
default_md = sha256
default_crl_days = 30
policy = anything
copy_extensions = copy
[anything]
commonName = supplied
"""


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
        return self.issue(("alice.test",))

    def issue(self, names: Sequence[str] = DEFAULT_NAMES) -> hs.Certificate:
        """A new valid certificate for *names*."""
        self._count += 1
        chain, key = self.authority.issue(names, file=f"issued-{self._count}")
        return hs.Certificate(chain=chain, key=key)

    def issue_between(
        self, begin: timedelta, end: timedelta, names: Sequence[str] = DEFAULT_NAMES
    ) -> hs.Certificate:
        """As issue, but valid from now + *begin* to now + *end*."""
        valid = self.issue(names)
        request = self.directory / "request.csr"
        chain = self.directory / f"between-{self._count}.pem"
        assert valid.key is not None
        # The names are copied from the request, which has them from the valid certificate.
        openssl(
            *("x509", "-x509toreq", "-copy_extensions", "copyall", "-in", str(valid.chain)),
            *("-key", str(valid.key), "-out", request),
        )
        now = datetime.now(timezone.utc)
        dates = [f"{now + span:%Y%m%d%H%M%SZ}" for span in (begin, end)]
        self._ca("-in", request, "-out", chain, "-startdate", dates[0], "-enddate", dates[1])
        return hs.Certificate(chain=chain, key=valid.key)

    def crl(self) -> Path:
        """A revocation list that revokes nothing."""
        path = self.directory / "list.crl"
        self._ca("-gencrl", "-out", path)
        return path

    def client(self, **settings: Any) -> hs.TLSConfig:
        """A client's config that trusts the authority."""
        return hs.TLSConfig(**({"ca": self.ca} | settings))

    def server(self, **settings: Any) -> hs.TLSConfig:
        """A server's config with an identity."""
        return hs.TLSConfig(role="server", **({"certificates": self.server_identity} | settings))

    def _ca(self, *arguments: str | Path) -> None:
        config = self.directory / "ca.cnf"
        config.write_text(_CA_CONFIG.format(directory=self.directory, authority=self.authority))
        (self.directory / "index.txt").touch()
        openssl("ca", "-batch", "-notext", "-config", config, *arguments)


@contextmanager
def tls_pair(
    client: hs.TLSConfig, server: hs.TLSConfig, *, confirm: bool = True, **connecting: Any
) -> Iterator[tuple[hs.Connection, hs.Connection]]:
    """(the client's, the server's) connection, secured."""
    with hs.listen(("127.0.0.1", 0), tls=server) as listener:
        with Call(listener.accept, timeout=10) as accepting:
            ours = hs.connect(listener.address, tls=client, timeout=10, **connecting)
            with ours:
                theirs = accepting.result()
                with theirs:
                    if confirm:
                        ours.confirm(timeout=10)
                    yield ours, theirs
