"""A crowd of idle connections, opened together, survives its own keepalive probes."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.require import Unavailable, available

Record = Callable[[str, object], None]

HERD = Path(__file__).parents[1] / "herd" / "idle_herd.py"


def herd(record: Record, *arguments: str, limit: float) -> dict[str, object]:
    """What it found; that is told at the end of the run as well."""
    with available():
        if subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode:
            raise Unavailable("no network namespace of its own")
        if shutil.which("nft") is None:
            raise Unavailable("no nft")
        if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < int(arguments[1]) + 200:
            raise Unavailable(f"no {arguments[1]} descriptors")
    done = subprocess.run(
        [sys.executable, str(HERD), *arguments],
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    assert done.stdout, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    record("herd", done.stdout.strip())
    assert done.returncode == 0, result
    return result


@pytest.mark.nightly
@pytest.mark.timing
def test_idle_connections_outlive_the_probes_of_their_neighbours(record_property: Record) -> None:
    """18,000 ends, opened within half a second: in step (``--in-step``) thousands of them die.

    What counts is which moments the kernel's timers lead to, ADR 77. With quiet times of 2 to 6 s and
    intervals of 1 and 2 s hundreds died, of one run in two.
    All namespaces share one queue of packets for each core: nothing else may fill it meanwhile. What
    each commit is tested by is the model in tests/c/test_keepalive_herd.c.
    """
    few = ("--connections", "9000", "--dead-after", "15", "--seconds", "40")
    result = herd(record_property, *few, limit=240)
    assert result["noticed"] == result["dead"]


@pytest.mark.nightly
@pytest.mark.timing
def test_nineteen_thousand_idle_connections_stay_for_ten_minutes(record_property: Record) -> None:
    result = herd(record_property, "--connections", "19500", "--seconds", "600", limit=1100)
    assert result["noticed"] == result["dead"]
