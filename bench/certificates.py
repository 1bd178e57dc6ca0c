"""Certificates for the works over TLS: an authority and a server's, ECDSA P-256, new for each run.

They are made by the openssl program in a folder that lasts as long as this process; the peers and
the workers find it by BENCH_TLS in their environment.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from .build import BuildError

SERVER_NAME = "localhost"
DAYS = "2"
_REQUEST = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _openssl(*arguments: str) -> None:
    if shutil.which("openssl") is None:
        raise BuildError("no openssl program; on Debian: apt install openssl")
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"openssl {arguments[0]} failed:\n{done.stderr.strip()}")


def _make(name: str, subject: str, folder: Path, extensions: tuple[str, ...], *more: str) -> None:
    added = [part for extension in extensions for part in ("-addext", extension)]
    files = ("-out", str(folder / f"{name}.pem"), "-keyout", str(folder / f"{name}.key"))
    _openssl(*_REQUEST, "-days", DAYS, "-subj", f"/CN={subject}", *files, *added, *more)


@functools.cache
def folder() -> Path:
    """Where ca.pem, server.pem and server.key are; made when first asked for."""
    where = tempfile.TemporaryDirectory(prefix="hardsock-bench-")
    atexit.register(where.cleanup)
    made = Path(where.name)
    _make("ca", "bench authority", made, ("keyUsage=critical,keyCertSign",))
    _make(
        "server",
        SERVER_NAME,
        made,
        (f"subjectAltName=DNS:{SERVER_NAME}", "basicConstraints=critical,CA:FALSE"),
        *("-CA", str(made / "ca.pem"), "-CAkey", str(made / "ca.key")),
    )
    return made
