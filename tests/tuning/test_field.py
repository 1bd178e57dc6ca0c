"""What was tried in the field: each case and each public report, by its name.

A case is a script that showed a fault; a report is somebody else's issue whose situation this tool
must get right. What a test here is too small for has one of its own, which ELSEWHERE names.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support_tune import (
    BINARY,
    CONFLICT,
    DRIFT,
    GLOBAL,
    OK,
    PROFILE,
    REFUSED,
    TOP,
    Root,
    answer,
    profile,
    tune,
)

from hardsock.lab import Namespace

CASES = """
    alias_conflict article_misquotes becomes_python diff_vs_apply effective established
    export_lowers flap glob_noop import_comment kb_facts lint_silent persist_conntrack since_skips
    strict_forever width
""".split()
REPORTS = """
    puppet_sysctl_8 moby_30778 ot_br_posix_2125 bpftune_36 systemd_17156 systemd_32563
    systemd_43362_and_1113 moby_47966_and_nixpkgs_118656 systemd_20919_and_tuned_409
    containerd_5880_and_7097_and_cri_o_1714 ansible_33974 puppet_sysctl_57 ansible_2004
    kubernetes_78977 systemd_39256
""".split()
ELSEWHERE = {
    "becomes_python": ("test_packages.py", "test_the_program_of_a_wheel_needs_libc_alone"),
    "established": ("test_live.py", "test_established_connections_hold_local_ports_too"),
    "kb_facts": ("test_kb.py", "test_facts_that_kernels_have_shown"),
    "width": ("test_screen.py", "test_no_line_is_wider_than_the_terminal"),
}


@pytest.mark.parametrize("name", CASES)
def test_every_case_has_a_test(name: str) -> None:
    if name in ELSEWHERE:
        file, test = ELSEWHERE[name]
        assert f"def {test}(" in (TOP / "tests/tuning" / file).read_text()
    else:
        assert f"test_case_{name}" in globals()


@pytest.mark.parametrize("name", REPORTS)
def test_every_report_has_a_test(name: str) -> None:
    assert f"test_report_{name}" in globals()


def run(ns: Namespace, *args: object) -> Any:
    return ns.exec([str(BINARY), *map(str, args)])


def values(ns: Namespace, *keys: str) -> list[str]:
    script = "from hardsock.lab import inside\nresult = [inside.read_sysctl(k) for k in args]"
    return list(ns.run(script, *keys))


def put(ns: Namespace, key: str, value: str) -> None:
    ns.run("hardsock.lab.inside:write_sysctl", key, value)


# ---- cases


def test_case_alias_conflict(root: Root, tmp_path: Path) -> None:
    root.put("net/ipv4/conf/all/forwarding", "1")
    root.put("net/netfilter/nf_conntrack_max", "262144")
    (root.path / "etc/sysctl.d").mkdir(parents=True)
    (root.path / "etc/sysctl.d/99-cis.conf").write_text(
        "net.ipv4.ip_forward = 0\nnet.nf_conntrack_max = 65536\n"
    )
    file = profile(
        tmp_path / "p.yaml",
        "net.ipv4.conf.all.forwarding: {value: 1}\n"
        "net.netfilter.nf_conntrack_max: {value: 1000000}",
    )
    for command in ("persist", "conflicts"):
        done = root.tune(command, file)
        assert done.returncode == CONFLICT, command
        assert "99-cis.conf:1" in done.stdout
        assert "99-cis.conf:2" in done.stdout


def test_case_article_misquotes(tmp_path: Path) -> None:
    said = {s["key"]: s["article"] for s in answer("show", "article-2023")["settings"]}
    quoted = {key: text for key, text in said.items() if text}
    assert quoted == {
        "net.ipv4.tcp_tw_reuse": "1",
        "net.core.somaxconn": "65535",
        "net.ipv4.ip_local_port_range": '"1024 65535"',
        "fs.file-max": "2097152",
    }
    (tmp_path / "q.conf").write_text('net.ipv4.ip_local_port_range = "1024 65535"\n')
    assert tune("import", tmp_path / "q.conf").returncode == PROFILE


def test_case_diff_vs_apply(ns: Namespace, tmp_path: Path) -> None:
    file = profile(
        tmp_path / "v.yaml",
        "net.ipv4.tcp_syncookies: {value: 0}\nnet.core.rmem_max: {value: 16777216}",
    )
    state = ("--state", tmp_path / "state")
    diff = run(ns, "diff", "baseline", file, *state)
    dry = run(ns, "apply", "-n", "baseline", file, *state)
    assert diff.returncode == dry.returncode == CONFLICT
    assert "tcp_syncookies" in diff.stderr


def test_case_effective(ns: Namespace, tmp_path: Path) -> None:
    assert (
        ns.exec(["ip", "link", "add", "e0", "type", "veth", "peer", "name", "e1"]).returncode == 0
    )
    put(ns, "net.ipv4.conf.e0.rp_filter", "2")
    for name in ("all", "default"):
        put(ns, f"net.ipv4.conf.{name}.rp_filter", "1")
    file = profile(
        tmp_path / "cis.yaml",
        "net.ipv4.conf.all.rp_filter: {value: 1}\nnet.ipv4.conf.default.rp_filter: {value: 1}",
    )
    done = run(ns, "check", "--strict", file)
    assert done.returncode == DRIFT
    assert "e0" in done.stdout


def test_case_export_lowers() -> None:
    done = tune("export", "--to", "sysctl.d", "high-churn-client")
    assert done.returncode == DRIFT
    assert not re.search(
        r"^net\.ipv4\.(tcp_max_tw_buckets|ip_local_port_range) =", done.stdout, re.M
    )


def test_case_flap(ns: Namespace) -> None:
    script = """
import socket, subprocess
def check():
    return subprocess.run([args[0], "check", "-q", "baseline"], capture_output=True).returncode
before = check()
sock = socket.socket(); sock.bind(("127.0.0.1", 0)); sock.listen()
during = check()
sock.close()
result = [before, during, check()]
"""
    assert ns.run(script, str(BINARY)) == [OK, OK, OK]


def test_case_glob_noop(ns: Namespace, tmp_path: Path) -> None:
    put(ns, "net.ipv4.conf.lo.rp_filter", "0")
    file = profile(tmp_path / "p.yaml", "'net.ipv4.conf.*.rp_filter': {value: 1}")
    done = run(ns, "check", file)
    assert (done.returncode, "net.ipv4.conf.lo.rp_filter" in done.stdout) == (DRIFT, True)


def test_case_import_comment(tmp_path: Path) -> None:
    file = tmp_path / "x.conf"
    file.write_text("net.ipv4.tcp_syncookies = 0 # off\nnet.ipv4.tcp_sack = 1\n")
    done = tune("import", file)
    assert done.returncode == OK
    assert 'value: "0"' in done.stdout
    assert "off" in done.stdout, "the author's words are kept"


def test_case_lint_silent(tmp_path: Path) -> None:
    lines = {
        "net.ipv4.tcp_syncookies": "0",
        "net.ipv4.tcp_timestamps": "0",
        "net.ipv4.tcp_tw_reuse": "1",
        "net.ipv4.tcp_sack": "0",
        "net.ipv4.tcp_abort_on_overflow": "1",
        "net.ipv4.ip_local_port_range": "1024 65535",
    }
    conf, file = tmp_path / "v.conf", tmp_path / "v.yaml"
    conf.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
    file.write_text(tune("import", conf).stdout)
    done = tune("lint", "--strict=harmful,doubtful", file, "-f", "json")
    assert done.returncode == PROFILE
    for key in lines:
        assert re.search(rf"{re.escape(key)} = .*\[(harmful|doubtful)\]", done.stderr), key


def test_case_persist_conntrack(root: Root, tmp_path: Path) -> None:
    root.put("net/netfilter/nf_conntrack_max", "262144")
    (root.path / "etc/sysctl.d").mkdir(parents=True)
    file = profile(tmp_path / "p.yaml", "net.netfilter.nf_conntrack_max: {value: 1000000}")
    assert root.tune("persist", file).returncode == OK
    modules = (root.path / "etc/modules-load.d/90-hardsock.conf").read_text()
    assert "\nnf_conntrack\n" in modules


def test_case_since_skips(root: Root, tmp_path: Path) -> None:
    root.put("kernel/osrelease", "5.10.262")
    root.put("net/ipv4/tcp_migrate_req", "0")
    file = profile(tmp_path / "p.yaml", 'net.ipv4.tcp_migrate_req: {value: 1, since: "5.14"}')
    (setting,) = root.answer("check", "--strict", file)["profiles"][0]["settings"]
    assert setting["status"] == "drift"


def test_case_strict_forever(root: Root, tmp_path: Path) -> None:
    """What happened before the last check is over."""
    (root.path / "proc/net/netstat").write_text(
        "TcpExt: ListenOverflows ListenDrops\nTcpExt: 5 5\n"
    )
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_sack: {value: 1}")
    history = ("--history", tmp_path / "history")
    root.tune("check", "--strict", file, *history)
    assert root.tune("check", "--strict", file, *history).returncode == OK


# ---- public reports


def test_report_puppet_sysctl_8(ns: Namespace, tmp_path: Path) -> None:
    """Values with tabs inside are those that were asked for with blanks: nothing to do again."""
    file = profile(tmp_path / "p.yaml", "net.ipv4.ip_local_port_range: {value: 40000 65535}")
    state = ("--state", tmp_path / "state")
    assert run(ns, "apply", file, *state).returncode == OK
    assert run(ns, "check", file).returncode == OK
    again = run(ns, "apply", file, *state)
    assert (again.returncode, "40000 65535 ->" in again.stdout) == (OK, False)


def test_report_moby_30778(ns: Namespace, tmp_path: Path) -> None:
    """A setting of the machine that a container cannot have is told apart from an unknown one."""
    file = profile(tmp_path / "p.yaml", "net.core.netdev_max_backlog: {value: 5000}")
    done = run(ns, "apply", file, "--state", tmp_path / "state")
    assert done.returncode == GLOBAL
    assert "machine" in done.stdout + done.stderr


def test_report_ot_br_posix_2125(root: Root, tmp_path: Path) -> None:
    """A VLAN's interface has a dot in its name: slashes, or a slash for the dot."""
    root.put("net/ipv6/conf/eth0.10/accept_ra", "1")
    for key in ("net/ipv6/conf/eth0.10/accept_ra", "net.ipv6.conf.eth0/10.accept_ra"):
        file = profile(tmp_path / "p.yaml", f"{key}: {{value: 2}}")
        assert root.tune("apply", file).returncode == OK, key
        assert root.get("net/ipv6/conf/eth0.10/accept_ra") == "2"
        assert root.tune("revert").returncode == OK


def test_report_bpftune_36(ns: Namespace, tmp_path: Path) -> None:
    """A number that ran over is negative: doubted before, refused by the kernel, nothing changed."""
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_wmem: {value: [4096, 87380, 99999999999]}")
    before = values(ns, "net.ipv4.tcp_wmem")
    done = run(ns, "apply", file, "--state", tmp_path / "state")
    assert done.returncode == REFUSED
    assert values(ns, "net.ipv4.tcp_wmem") == before
    negative = profile(
        tmp_path / "n.yaml", "net.ipv4.tcp_rmem: {value: [4096, 87380, -2126562996]}"
    )
    assert tune("lint", negative).returncode == PROFILE


def test_report_systemd_17156(root: Root, tmp_path: Path) -> None:
    """`-net.ipv4.conf.all.key` takes a key out of a pattern, for both loaders."""
    for name in ("all", "default", "eth0"):
        root.put(f"net/ipv4/conf/{name}/promote_secondaries", "0")
    (root.path / "etc/sysctl.d").mkdir(parents=True)
    (root.path / "etc/sysctl.d/50.conf").write_text(
        "net.ipv4.conf.*.promote_secondaries = 1\n-net.ipv4.conf.all.promote_secondaries\n"
    )
    file = profile(tmp_path / "p.yaml", "'net.ipv4.conf.*.promote_secondaries': {value: 0}")
    rows = root.answer("conflicts", file)["conflicts"]
    by_systemd = {row["key"].split(".")[3] for row in rows if row["by"] == "systemd-sysctl"}
    assert "all" not in by_systemd
    assert "eth0" in by_systemd


def test_report_systemd_32563(ns: Namespace, tmp_path: Path) -> None:
    """systemd's own pattern sets 2 on interfaces: 1 in conf.all does not rule them."""
    test_case_effective(ns, tmp_path)


def test_report_systemd_43362_and_1113(root: Root, tmp_path: Path) -> None:
    """A key of conntrack is not there yet when sysctl.d is read."""
    test_case_persist_conntrack(root, tmp_path)


def test_report_moby_47966_and_nixpkgs_118656(root: Root, tmp_path: Path) -> None:
    """Somebody sets forwarding under its other name."""
    test_case_alias_conflict(root, tmp_path)


@pytest.mark.parametrize("place", ["etc/tuned", "usr/lib/tuned"])
def test_report_systemd_20919_and_tuned_409(root: Root, tmp_path: Path, place: str) -> None:
    """tuned sets its own value later, and which one."""
    root.put("vm/swappiness", "60")
    (root.path / "etc/tuned").mkdir(parents=True)
    (root.path / "etc/tuned/active_profile").write_text("mine\n")
    folder = root.path / place / "mine"
    folder.mkdir(parents=True)
    (folder / "tuned.conf").write_text("[sysctl]\nvm.swappiness = 1\n")
    file = profile(tmp_path / "p.yaml", "vm.swappiness: {value: 60}")
    (row,) = root.answer("conflicts", file)["conflicts"]
    assert (row["by"], row["value"]) == ("tuned", "1")


def test_report_containerd_5880_and_7097_and_cri_o_1714(ns: Namespace) -> None:
    """A runtime listens on a port that the kernel picked: no drift, and none to be reserved."""
    test_case_flap(ns)


def test_report_ansible_33974(tmp_path: Path) -> None:
    """A key that stands in a file twice: which one holds is told."""
    file = tmp_path / "x.conf"
    file.write_text("net.core.somaxconn = 1024\nnet.ipv4.tcp_sack = 1\nnet.core.somaxconn = 8192\n")
    done = tune("import", file)
    assert "net.core.somaxconn is set again" in done.stderr
    assert 'value: "8192"' in done.stdout
    assert '"1024"' not in done.stdout


def test_report_puppet_sysctl_57(ns: Namespace, tmp_path: Path) -> None:
    """Values of three numbers are equal however many blanks stand between: nothing to do again."""
    wanted = {"tcp_rmem": [4096, 87380, 8388608], "tcp_wmem": [4096, 65536, 8388608]}
    file = profile(
        tmp_path / "p.yaml",
        "\n".join(f"net.ipv4.{key}: {{value: {value}}}" for key, value in wanted.items()),
    )
    state = ("--state", tmp_path / "state")
    assert run(ns, "apply", file, *state).returncode == OK
    assert values(ns, "net.ipv4.tcp_wmem") == ["4096 65536 8388608"]
    assert run(ns, "check", file).returncode == OK
    again = run(ns, "apply", file, *state)
    assert (again.returncode, " -> " in again.stdout) == (OK, False)
    spaced = profile(tmp_path / "s.yaml", "net.ipv4.tcp_wmem: {value: '4096  65536   8388608'}")
    assert run(ns, "diff", spaced).stdout == ""


def test_report_ansible_2004(root: Root, tmp_path: Path) -> None:
    """The kernel's answer has tabs: what was written has been taken."""
    root.put("kernel/sem", "32000\t1024000000\t500\t32000")
    conf, file = tmp_path / "x.conf", tmp_path / "x.yaml"
    conf.write_text("kernel.sem = 250 32000 100 128\n")
    file.write_text(tune("import", conf).stdout)
    assert root.tune("apply", file).returncode == OK
    root.put("kernel/sem", "250\t32000\t100\t128")
    assert root.tune("check", "--strict=missing", file).returncode == OK
    again = root.tune("apply", file)
    assert (again.returncode, " -> " in again.stdout) == (OK, False)


def test_report_kubernetes_78977(ns: Namespace) -> None:
    """What a pod has of its own, what is the machine's and seen, and what is hidden there."""
    scopes = {
        "fs.inotify.max_user_watches": "global",
        "net.core.somaxconn": "namespace",
        "net.ipv4.tcp_max_syn_backlog": "namespace",
        "net.core.netdev_max_backlog": "global",
    }
    rows = json.loads(run(ns, "explain", "-f", "json", *scopes).stdout)["answers"]
    assert {row["key"]: row["scope"].split()[0].strip(",;:") for row in rows} == scopes
    hidden = {row["key"] for row in rows if "absent" in row}
    assert {
        key for key, row in zip(scopes, rows, strict=True) if row.get("value") is None
    } == hidden


def test_report_systemd_39256(root: Root, tmp_path: Path) -> None:
    """An interface that is made and renamed later has a dot in its name: its line waits for it."""
    (root.path / "etc/sysctl.d").mkdir(parents=True)
    line = "net.ipv4.conf.renamed0/10.rp_filter = 0\n"
    (root.path / "etc/sysctl.d/50.conf").write_text(line)
    file = profile(tmp_path / "p.yaml", "net.ipv4.conf.renamed0/10.rp_filter: {value: 0}")
    (row,) = root.answer("check", file)["profiles"][0]["settings"]
    assert (row["key"], row["status"]) == ("net.ipv4.conf.renamed0/10.rp_filter", "missing")
    root.put("net/ipv4/conf/renamed0.10/rp_filter", "2")
    assert root.tune("check", file).returncode == DRIFT
    assert root.tune("apply", file).returncode == OK
    assert root.get("net/ipv4/conf/renamed0.10/rp_filter") == "0"
    assert line in root.tune("export", "--to", "sysctl.d", file).stdout
