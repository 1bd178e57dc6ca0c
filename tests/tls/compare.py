"""The same hard cases for Python's ssl (and asyncio) and for hardsock, side by side.

Prints what each of them did, as measured in this run: `probes.py` has the cases, `support.badssl` the
servers that a client must refuse, or must not. `make compare` runs it, in about a minute.
"""

from __future__ import annotations

import json
import platform
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TOP / "python"), str(TOP / "tests")]

import hardsock as hs  # noqa: E402
from support.badssl import CERTIFICATES, PROTOCOLS, Row, World  # noqa: E402
from support.compared import keep  # noqa: E402
from support.pki import make_authority  # noqa: E402

LIBRARIES = ("ssl", "hardsock")
CONNECTIONS = 20
LIMIT_S = 600.0  # for one library in one case; a busy machine takes minutes for the handshakes of the herd
PROBES = str(Path(__file__).with_name("probes.py"))


def probe(name: str, library: str, directory: str, *more: str) -> tuple[list[Any], str | None]:
    """(what it printed, how it crashed) when run in a process of its own."""
    argv = [sys.executable, PROBES, name, library, directory, *more]
    done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=LIMIT_S)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode > 0:
        raise RuntimeError(f"{name} with {library} failed")
    return lines, signal.Signals(-done.returncode).name if done.returncode else None


# ---- the six cases, in words


def two_threads(library: str, directory: str) -> str:
    kinds: list[str | None] = []
    while len(kinds) < CONNECTIONS:
        lines, crash = probe("p1", library, directory, str(CONNECTIONS - len(kinds)))
        kinds += lines if crash is None else [*lines, f"the process: {crash}"]
    found = Counter(kind for kind in kinds if kind is not None)
    details = ", ".join(f"{kind} {count}" for kind, count in found.items())
    return f"{found.total()} of {CONNECTIONS} broken" + (f" ({details})" if details else "")


def result(name: str, library: str, directory: str) -> dict[str, Any]:
    lines, crash = probe(name, library, directory)
    if crash is not None:
        raise RuntimeError(f"{name} with {library}: {crash}")
    (line,) = lines
    return dict(line)


def half_close(library: str, directory: str) -> str:
    return f"then recv gives {result('p2', library, directory)['read']}"


def truncation(library: str, directory: str) -> str:
    return f"recv gives {result('p3', library, directory)['read']}"


def silent_client(library: str, directory: str) -> str:
    found = result("p4", library, directory)
    back = "still blocked" if found["hung"] else "back"
    served = "served" if found["served"] else "not served"
    return f"{back} after {found['seconds']:.1f} s, the next client {served}"


def write_only(library: str, directory: str) -> str:
    found = result("p5", library, directory)
    return f"{found['complete']} of {found['of']} complete"


def idle(library: str, directory: str) -> str:
    return f"{result('p6', library, directory)['bytes'] / 1024:.1f} KiB"


CASES = [
    ("one thread sends, another receives", two_threads, LIBRARIES),
    ("end our direction, and read on", half_close, LIBRARIES),
    ("the peer leaves without close_notify", truncation, LIBRARIES),
    ("accept for 0.5 s, a silent client first", silent_client, LIBRARIES),
    ("a client writes 400 kB and closes", write_only, LIBRARIES),
    ("memory of an idle connection", idle, ("ssl", "asyncio", "hardsock", "hardsock.aio")),
]


# ---- the list of badssl.com


def ask_with_ssl(address: Any, row: Row, world: World, version: str) -> None:
    settings = {"ca": world.trusted, **row.client(world)}
    context = ssl.create_default_context(cafile=None, cadata=sources(settings["ca"]))
    context.maximum_version = getattr(ssl.TLSVersion, version.replace(".", "_"))
    if "crl" in settings:
        lists = world.write("lists.pem", sources(settings["crl"]).encode())
        context.load_verify_locations(lists)
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN
    if "certificates" in settings:
        own = settings["certificates"]
        context.load_cert_chain(own.chain, own.key)
    with socket.create_connection(address, timeout=10) as raw:
        with context.wrap_socket(raw, server_hostname=row.server_name) as sock:
            sock.sendall(b"abc\n")
            if sock.recv(4) != b"cba\n":
                raise ssl.SSLError("no answer")


def ask_with_hardsock(address: Any, row: Row, world: World, version: str) -> None:
    settings = {"ca": world.trusted, "max_version": version, **row.client(world)}
    config = hs.TLSConfig(**settings)
    with hs.connect(address, tls=config, server_name=row.server_name, timeout=10) as conn:
        conn.sendall(b"abc\n", timeout=10)
        conn.recv_exactly(4, timeout=10)


def sources(given: Any) -> str:
    """Files and bytes, all in one."""
    many = given if isinstance(given, list) else [given]
    return "".join(one.decode() if isinstance(one, bytes) else one.read_text() for one in many)


ASK = {"ssl": ask_with_ssl, "hardsock": ask_with_hardsock}


def accepts(library: str, address: Any, row: Row, world: World, version: str) -> bool:
    try:
        ASK[library](address, row, world, version)
    except (OSError, ValueError):  # ValueError: ssl's for a name that it cannot ask for
        return False
    return True


def badssl(directory: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row with each TLS version that it is for: what was wrong, and for which library."""
    world = World(directory)
    wrong: dict[tuple[str, str], list[str]] = {}
    rows = [row for row in (*CERTIFICATES, *PROTOCOLS) if not row.by_choice]
    asked = 0
    for row in rows:
        asked += len(row.versions)
        for library in LIBRARIES:
            with row.serve(world) as address:
                for version in row.versions:
                    accepted = accepts(library, address, row, world, version)
                    if accepted != (row.failure is None):
                        verdict = "accepted" if accepted else "refused"
                        wrong.setdefault((library, verdict), []).append(f"{row.name} ({version})")
    for verdict in ("accepted", "refused"):
        title = f"wrongly {verdict}, of badssl.com's list: {len(rows)} servers, {asked} handshakes"
        cells = {}
        for library in LIBRARIES:
            names = wrong.get((library, verdict), [])
            cells[library] = f"{len(names)}" + (f": {', '.join(names)}" if names else "")
        yield title, cells


def compared(folder: str) -> Iterator[tuple[str, dict[str, str]]]:
    for title, run, libraries in CASES:
        yield title, {library: run(library, folder) for library in libraries}
    yield from badssl(Path(folder))


def main() -> None:
    versions = {"Python": platform.python_version(), "OpenSSL": ssl.OPENSSL_VERSION}
    print(", ".join(f"{name} {version}" for name, version in versions.items()) + "\n")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_authority(Path(folder), "ca").issue()
        for title, cells in compared(folder):
            print(title)
            for library, text in cells.items():
                print(f"    {library:<14} {text}", flush=True)
            rows.append((title, cells))
    columns = list(dict.fromkeys(library for _title, cells in rows for library in cells))
    keep("tls", "TLS", columns, rows, versions)


if __name__ == "__main__":
    main()
