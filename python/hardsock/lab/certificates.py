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
    """Make a certificate that has signed itself, for a server of a test.

    A client that is to accept it trusts the file itself: ``TLSConfig(ca=certificate)``. It is good
    for one day.

    Args:
        directory: Where ``certificate.pem`` and ``key.pem`` are written; what is there is replaced.
        names: Host names and addresses that it is for, as its subjectAltName (RFC 5280, 4.2.1.6).

    Returns:
        The paths of the certificate and of its key, as PEM.

    Raises:
        PeerMissing: There is no openssl program; an ``Unavailable``.
        subprocess.CalledProcessError: openssl refuses, as for a directory that is not there.
        subprocess.TimeoutExpired: It took longer than 30 seconds.
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
