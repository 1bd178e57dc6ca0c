"""What the rows have in common: authorities, slow keys, and what a row says."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from hardsock.lab.servers.process import find_program
from support.pki import Authority, Identity, make_authority
from support.servers import openssl_s_server

HOST = "good.badssl.test"
Address = tuple[str, int]


class Verify(IntEnum):
    """OpenSSL's X509_V_ERR_*, as far as a row expects them."""

    NO_CRL = 3
    SIGNATURE = 7
    CRL_SIGNATURE = 8
    NOT_YET_VALID = 9
    EXPIRED = 10
    CRL_EXPIRED = 12
    SELF_SIGNED = 18
    SELF_SIGNED_ABOVE = 19
    NO_ISSUER = 20
    REVOKED = 23
    PATH_LENGTH = 25
    PURPOSE = 26
    CRITICAL_EXTENSION = 34
    NOT_PERMITTED = 47
    EXCLUDED = 48
    WRONG_NAME = 62
    WRONG_ADDRESS = 64
    WEAK_KEY = 66
    WEAK_CA_KEY = 67
    WEAK_DIGEST = 68
    OCSP_NEEDED = 73
    OCSP_FAILED = 74
    OCSP_UNKNOWN = 75
    INVALID_CA = 79


class World:
    """Authorities, some of whom the client trusts, and files that several rows use."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = make_authority(directory, "badssl root")
        self.rsa_root = make_authority(directory, "badssl rsa root", key="rsa")
        self.middle = self.root.intermediate("badssl intermediate")
        self.stranger = make_authority(directory, "badssl stranger")

    @property
    def trusted(self) -> list[Path]:
        """Whom a client trusts if its row says nothing else."""
        return [self.root.certificate, self.rsa_root.certificate]

    @cached_property
    def good(self) -> Identity:
        """Nothing is wrong with it."""
        return self.middle.issue([HOST], file="good")

    @cached_property
    def good_rsa(self) -> Identity:
        """Nothing is wrong with it either; for ciphers that need RSA."""
        return self.rsa_root.issue([HOST], key="rsa", file="good-rsa")

    @cached_property
    def old_root(self) -> Authority:
        """An authority whose own certificate has expired."""
        return make_authority(self.directory, "old root", start=-40, days=37)

    @cached_property
    def sha1_root(self) -> Authority:
        """An authority with an RSA key that has signed its own certificate with SHA-1."""
        return make_authority(self.directory, "sha1 root", key="rsa", digest="sha1")

    def large_rsa(self) -> Identity:
        """A certificate for an RSA key of 8192 bits.

        Five primes take seconds where two would take minutes, and the client cannot tell.
        """
        key = self.directory / "rsa8192.key"
        if not key.exists():
            run_openssl(
                *("genpkey", "-algorithm", "RSA", "-out", str(key)),
                *("-pkeyopt", "rsa_keygen_bits:8192", "-pkeyopt", "rsa_keygen_primes:5"),
            )
        public = load_pem_public_key(run_openssl("pkey", "-pubout", "-in", str(key)))
        made = self.middle.issue([HOST], file="rsa8192-leaf", public_key=public)
        return Identity(made.certificate, key)

    def dh_parameters(self, bits: int) -> Path:
        """A file with a group of *bits*."""
        path = self.directory / f"dh{bits}.pem"
        if not path.exists():
            run_openssl("dhparam", "-out", str(path), str(bits))
        return path

    def write(self, name: str, content: bytes) -> Path:
        """A file with *content*."""
        path = self.directory / name
        path.write_bytes(content)
        return path


def run_openssl(*arguments: str) -> bytes:
    """What the program prints; raises `PeerMissing` without it."""
    argv = [find_program("openssl"), *arguments]
    return subprocess.run(argv, check=True, capture_output=True, timeout=300.0).stdout


Serve = Callable[[World], AbstractContextManager[Address]]
Make = Callable[[World], Identity]
Options = Callable[[World], Sequence[str]]


def nothing(_world: World) -> Mapping[str, Any]:
    """No further settings."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One server, and what a client has to make of it.

    Attributes:
        serve: Runs it.
        name: For the list.
        failure: What the client's error names as the kind of failure; None: it must accept.
        verify: OpenSSL's code for what is wrong with the certificate.
        alert: The alert that the server sends.
        says: What the error's text must hold, as a regular expression.
        server_name: For whom the client takes it.
        client: Further settings of the client.
        versions: The TLS versions that the client tries it with, one after the other.
        by_choice: Whether a careful client may decide otherwise than hardsock.
    """

    name: str
    serve: Serve
    failure: str | None = None
    verify: Verify | None = None
    alert: int | None = None
    says: str = ""
    server_name: str = HOST
    client: Callable[[World], Mapping[str, Any]] = nothing
    versions: Sequence[str] = ("TLSv1.2", "TLSv1.3")
    by_choice: bool = False


def by_program(make: Make, options: Options) -> Serve:
    """Served by ``openssl s_server``, which sends each line back reversed."""

    @contextmanager
    def serve(world: World) -> Iterator[Address]:
        identity = make(world)
        with openssl_s_server(identity, options(world)) as server:
            yield server.address

    return serve
