"""What somebody does in the first minute after `pip install hardsock`, with nothing else about.

    try_wheel.py [STEP...]    run by the interpreter that the wheel was installed for; all steps, or those
                              named: "contents" and "stripped" are of wheels, not of builds from source

Uses the standard library and the wheel alone: a deadline ends a wait, TLS reaches a local server whose
certificate the system trusts, the demo plays, the programs start. Ends with what was found wrong.

The server's certificate: $HARDSOCK_TRY_CERTIFICATE (a chain and its key in one file, for localhost).
Without it the system's trust store is loaded and nothing is asked of it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import struct
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
    command = [
        SCRIPTS / "hardsock",
        "demo",
        "--plain",
        "--patience",
        "10",
    ]  # a busy machine, or an emulator
    done = subprocess.run(command, capture_output=True, text=True)
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
    for page in ("man1/hardsock.1", "man8/hardsock-tune.8"):
        assert any(f.as_posix().endswith(f"share/man/{page}") for f in files), f"no {page}"
    licenses = {f.name for f in files if f.parent.name == "licenses"}
    assert {"LICENSE", "openssl.txt", "libyaml.txt"} <= licenses, sorted(licenses)
    return ", ".join(f"{name} {version}" for name, version in parts.items())


def sections(program: bytes) -> set[str]:
    """The names of a 64-bit ELF file's sections."""
    (begin,) = struct.unpack_from("<Q", program, 0x28)
    size, count, names = struct.unpack_from("<HHH", program, 0x3A)
    headers = [begin + i * size for i in range(count)]
    (texts,) = struct.unpack_from("<Q", program, headers[names] + 0x18)
    starts = [texts + struct.unpack_from("<I", program, header)[0] for header in headers]
    return {program[at : program.index(b"\0", at)].decode() for at in starts}


def stripped() -> str:
    """What only a debugger reads is most of a program's size."""
    programs = {}
    for file in importlib.metadata.files("hardsock") or []:
        content = file.locate().read_bytes()
        if content[:4] == b"\x7fELF":
            programs[file.name] = sections(content)
    assert {"hardsock-tune"} < set(programs), sorted(programs)
    whole = sorted(n for n, found in programs.items() if found & {".symtab", ".debug_info"})
    assert not whole, f"not stripped: {', '.join(whole)}"
    return f"{len(programs)} programs and modules"


STEPS = {step.__name__: step for step in (contents, stripped, deadline, tls, demo, tune)}


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
