"""Certificates made when a test runs, by a private authority, with the openssl program."""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hardsock.lab.servers.process import find_program

DEFAULT_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Authority:
    """A certificate authority whose *certificate* a test's client trusts."""

    directory: Path
    certificate: Path
    key: Path

    def issue(
        self, names: Sequence[str] = DEFAULT_NAMES, *, days: int = 30, file: str = "server"
    ) -> tuple[Path, Path]:
        """A server's (certificate, key) for *names* (host names and addresses)."""
        alternatives = ",".join(f"{_kind(name)}:{name}" for name in names)
        return _request(
            self.directory / f"{file}.pem",
            *("-CA", str(self.certificate), "-CAkey", str(self.key)),
            *("-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={alternatives}"),
            *("-addext", "basicConstraints=critical,CA:FALSE", "-days", str(days)),
        )


def make_authority(directory: Path) -> Authority:
    """A new authority with its files in *directory*; raises `PeerMissing` without openssl."""
    certificate, key = _request(
        directory / "ca.pem",
        *("-subj", "/CN=hardsock test authority", "-days", "30"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    return Authority(directory, certificate, key)


def _kind(name: str) -> str:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "DNS"
    return "IP"


def _request(certificate: Path, *options: str) -> tuple[Path, Path]:
    key = certificate.with_suffix(".key")
    argv = [find_program("openssl"), "req", "-x509", "-new", "-noenc", "-newkey", "ec"]
    argv += ["-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*argv, *options], check=True, capture_output=True, timeout=30.0)
    return certificate, key
