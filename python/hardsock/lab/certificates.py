"""Certificates for experiments, made on the spot by the openssl program."""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hardsock.lab.servers.process import find_program

_LIMIT = 30.0


def make_certificate(
    directory: Path, names: Sequence[str] = ("localhost", "127.0.0.1")
) -> tuple[Path, Path]:
    """A certificate for *names* that has signed itself, and its key, as PEM files in *directory*.

    A client that is to accept it trusts the file itself. Raises `PeerMissing` without openssl.
    """
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    alternatives = ",".join(f"{_kind(name)}:{name}" for name in names)
    argv = [find_program("openssl"), "req", "-x509", "-new", "-noenc", "-days", "1"]
    argv += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    argv += ["-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={alternatives}"]
    argv += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(argv, check=True, capture_output=True, timeout=_LIMIT)
    return certificate, key


def _kind(name: str) -> str:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "DNS"
    return "IP"
