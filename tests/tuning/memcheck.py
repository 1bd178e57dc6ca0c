"""valgrind over reading, applying, reverting and refusing: `make -C tuning valgrind`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support_tune import BINARY, CONFLICT, DRIFT, OK, PROFILE, Root, profile

from support import Unavailable, available


@pytest.mark.slow
def test_no_command_leaks_or_reads_what_is_not_there(root: Root, tmp_path: Path) -> None:
    with available():
        if shutil.which("valgrind") is None:
            raise Unavailable("valgrind is not installed")
    root.listen(40000)
    (root.path / "etc").mkdir()
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: &x y\n")
    conf = tmp_path / "x.conf"
    conf.write_text("net.ipv4.tcp_fin_timeout = 036\n-a.b\n= 1\n")
    disagreeing = [
        str(profile(tmp_path / f"{n}.yaml", f"net.ipv4.tcp_fin_timeout: {{value: {n}}}"))
        for n in (31, 32)
    ]
    cases: list[tuple[int, list[str]]] = [
        (DRIFT, ["check", "all", "-f", "pretty"]),
        (DRIFT, ["check", "all", "-f", "json"]),
        (DRIFT, ["diff", "all", "-f", "tsv"]),
        (OK, ["explain", "tcp_rmem", "tcp_tw_recycle"]),
        (OK, ["list"]),
        (OK, ["show", "long-haul"]),
        (PROFILE, ["lint", str(bad)]),
        (OK, ["apply", "busy-server"]),
        (OK, ["status", "-f", "json"]),
        (OK, ["revert"]),
        (OK, ["persist", "busy-server"]),
        (OK, ["conflicts", "busy-server"]),
        (DRIFT, ["apply", "busy-server", "article-2023", "high-churn-client", "low-latency"]),
        (OK, ["revert", "-f", "json"]),
        (CONFLICT, ["apply", *disagreeing, "-f", "json"]),
        (OK, ["unpersist"]),
        (DRIFT, ["export", "--to", "kubernetes", "busy-server"]),
        (DRIFT, ["import", str(conf)]),
        (DRIFT, ["import", str(conf), "-f", "json"]),
        (PROFILE, ["judge", str(conf)]),
        (PROFILE, ["judge", str(conf), "-f", "json"]),
        (OK, ["persist", "busy-server", "-f", "json"]),
        (OK, ["unpersist", "-f", "json"]),
    ]
    for want, args in cases:
        done = subprocess.run(
            ["valgrind", "-q", "--error-exitcode=99", "--leak-check=full", "--track-fds=no",
             "--errors-for-leak-kinds=all", str(BINARY), *args, "--root", str(root.path)],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == want, (args, done.stderr)
