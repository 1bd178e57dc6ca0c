"""What somebody does in the first minute after `pip install hardsock`, with nothing else about.

    try_wheel.py [STEP...]    run by the interpreter that the wheel was installed for

Uses the standard library and the wheel alone: a deadline ends a wait, TLS reaches a local server whose
certificate the system trusts, the demo plays, the programs start. Ends with what was found wrong.

The server's certificate: $HARDSOCK_TRY_CERTIFICATE (a chain and its key in one file, for localhost).
Without it the system's trust store is loaded and nothing is asked of it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

import hardsock as hs

SCRIPTS = Path(sysconfig.get_path("scripts"))


def deadline() -> str:
    with hs.listen("127.0.0.1:0") as listener:
        begin = time.monotonic()
        try:
            listener.accept(timeout=0.05)
        except hs.DeadlineExceeded:
            return f"accept() ended after {time.monotonic() - begin:.2f} s"
    raise AssertionError("accept() did not end by its deadline")


def tls() -> str:
    config = hs.TLSConfig()  # Raises if no trust store is found.
    if not (certificate := os.environ.get("HARDSOCK_TRY_CERTIFICATE")):
        return "the system's trust store was found"
    server = hs.TLSConfig(role="server", certificates=[hs.Certificate(chain=certificate)])
    with hs.listen("127.0.0.1:0", tls=server) as listener:

        def answer() -> None:
            with listener.accept(timeout=10) as conn:
                conn.sendall(conn.recv_exactly(4, timeout=10), timeout=10)

        thread = threading.Thread(target=answer)
        thread.start()
        # A bare system may have no /etc/hosts, so no name localhost.
        where = {"tls": config, "server_name": "localhost"}
        with hs.connect(listener.address, timeout=10, **where) as conn:
            conn.sendall(b"ping")
            assert conn.recv_exactly(4, timeout=10) == b"ping"
            assert conn.tls is not None
            assert conn.tls.verified
            said = conn.tls.version
        thread.join()
    return f"{said} with a certificate that the system trusts"


def demo() -> str:
    done = subprocess.run([SCRIPTS / "hardsock", "demo"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return f"{len(done.stdout.splitlines())} lines"


def tune() -> str:
    program = SCRIPTS / "hardsock-tune"
    assert program.read_bytes()[:4] == b"\x7fELF", "hardsock-tune is no native program"
    done = subprocess.run([program, "--version"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def contents() -> str:
    files = importlib.metadata.files("hardsock") or []
    (sbom,) = (f for f in files if f.parent.name == "sboms")
    parts = {c["name"]: c["version"] for c in json.loads(sbom.read_text())["components"]}
    running = hs.openssl_version().split()[1]
    assert running == parts["openssl"], f"runs OpenSSL {running}, its SBOM says {parts['openssl']}"
    licenses = {f.name for f in files if f.parent.name == "licenses"}
    assert {"LICENSE", "openssl.txt", "libyaml.txt"} <= licenses, sorted(licenses)
    return ", ".join(f"{name} {version}" for name, version in parts.items())


STEPS = {step.__name__: step for step in (contents, deadline, tls, demo, tune)}


def main(names: list[str]) -> int:
    print(f"hardsock {hs.__version__} on Python {sys.version.split()[0]}")
    wrong = 0
    for step in [STEPS[name] for name in names] or STEPS.values():
        try:
            print(f"  ok    {step.__name__}: {step()}", flush=True)
        except Exception as exc:
            wrong += 1
            print(f"  WRONG {step.__name__}: {type(exc).__name__}: {exc}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
