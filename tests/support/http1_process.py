"""An HTTP server in a process of its own, with its own limits: for floods that would take ours.

    python -m support.http1_process '{"driver": "threads", "descriptors": 64, "settings": {...}}'

It prints its port. The end of its input drains it; then it prints its counters and its report.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hardsock as hs
from hardsock.lab.servers.process import clean_environment
from support import serving

if TYPE_CHECKING:
    from support.tls import Identities

__all__ = ["Child", "child"]

_PATIENCE = 60.0


class Child:
    """The server of `child`; after the block ``stats`` and ``report`` say how it went."""

    def __init__(self, port: int) -> None:
        self.address = ("127.0.0.1", port)
        self.stats: dict[str, Any] = {}
        self.report: dict[str, Any] = {}


@contextlib.contextmanager
def child(
    driver: str, ids: Identities | None, *, descriptors: int, **settings: Any
) -> Iterator[Child]:
    """Run it until the end of the block, with so many *descriptors* at most."""
    wanted = {"driver": driver, "descriptors": descriptors, "settings": settings}
    if ids is not None:
        identity = ids.server_identity
        wanted["identity"] = {"chain": str(identity.chain), "key": str(identity.key)}
    process = subprocess.Popen(
        [sys.executable, "-m", "support.http1_process", json.dumps(wanted)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**clean_environment(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=Path(__file__).parent.parent,
    )
    with process:
        assert process.stdout is not None
        try:
            started = Child(int(process.stdout.readline()))
            yield started
            said, _ = process.communicate(timeout=_PATIENCE)
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0
    started.stats, started.report = map(json.loads, said.splitlines())


def main(wanted: dict[str, Any]) -> None:
    """Serve until the input ends."""
    limit = wanted["descriptors"]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    warnings.simplefilter("ignore", hs.SettingWarning)  # Too few descriptors are what is tested.
    settings = wanted["settings"]
    if "identity" in wanted:
        settings["tls"] = hs.TLSConfig(
            role="server", certificates=hs.Certificate(**wanted["identity"])
        )
    with serving.serving(wanted["driver"], **settings) as server:
        print(server.address[1], flush=True)
        sys.stdin.read()
    print(json.dumps(server.stats()._asdict()))
    print(json.dumps(server.report._asdict()))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
