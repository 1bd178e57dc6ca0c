"""valgrind over reading, applying, reverting and refusing: `make -C tuning valgrind`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support_tune import BINARY, CONFLICT, DRIFT, OK, PROFILE, Root, profile

from support.require import Unavailable, available


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
    tuned, play, saved, waivers = (tmp_path / n for n in ("t.conf", "p.yml", "s.txt", "w.yaml"))
    tuned.write_text("[variables]\na=1\n[sysctl]\nnet.ipv4.tcp_sack=${a}\nvm.swappiness=${b}\n")
    play.write_text("- sysctl: name=net.ipv4.tcp_sack value=1\n- sysctl: {name: x.y}\n")
    saved.write_text("net.ipv4.tcp_sack = 1\nnet.core.somaxconn = 4096\n")
    waivers.write_text("waivers: {net.ipv4.tcp_sack: {reason: r, until: 2999-01-01}}\n")
    root.put("net/ipv4/tcp_sack", "0")
    root.listen(40000, 40002)
    cases: list[tuple[int, list[str]]] = [
        (DRIFT, ["check", "all", "-f", "pretty"]),
        (DRIFT, ["check", "all", "-f", "json"]),
        (CONFLICT, ["diff", "all", "-f", "tsv"]),
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
        (DRIFT, ["import", str(tuned)]),
        (DRIFT, ["import", str(play)]),
        (PROFILE, ["import", "--system"]),
        (OK, ["check", "--from", str(saved), "--baseline", str(saved)]),
        (DRIFT, ["check", "--history", str(tmp_path / "history"), "--waivers", str(waivers)]),
        (DRIFT, ["check", "--history", str(tmp_path / "history"), "-f", "sarif"]),
        (DRIFT, ["recommend"]),
        (DRIFT, ["recommend", "-f", "json"]),
        (PROFILE, ["judge", str(conf)]),
        (PROFILE, ["judge", str(conf), "-f", "json"]),
        (OK, ["persist", "busy-server", "-f", "json"]),
        (OK, ["unpersist", "-f", "json"]),
    ]
    for want, args in cases:
        done = subprocess.run(
            ["valgrind", "-q", "--error-exitcode=99", "--leak-check=full", "--track-fds=no",
             "--errors-for-leak-kinds=all", str(BINARY), *args,
             *([] if "--from" in args else ["--root", str(root.path)])],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == want, (args, done.stderr)
