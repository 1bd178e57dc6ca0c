"""persist, unpersist, conflicts, export, import: sysctl.d files, below fake roots."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from support_tune import (
    BINARY,
    CONFLICT,
    DRIFT,
    OK,
    PROFILE,
    SYSTEM,
    USAGE,
    Root,
    answer,
    profile,
    tune,
)

from support.require import Unavailable, available

ETC = "etc/sysctl.d"
NAME = "90-hardsock.conf"


def write(root: Root, name: str, text: str) -> Path:
    path = root.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def mine(root: Root, tmp_path: Path) -> Path:
    root.put("net/ipv4/conf/eth0/rp_filter", "0")
    return profile(
        tmp_path / "p.yaml",
        """
        net.ipv4.tcp_fin_timeout: {value: 30}
        net.ipv4.conf.eth0.rp_filter: {value: 2}
        """,
    )


def test_persist_writes_one_file_and_unpersist_removes_it(root: Root, mine: Path) -> None:
    before = root.tree()
    (root.path / "etc").mkdir()
    done = root.tune("persist", mine)
    path = root.path / ETC / NAME
    assert (done.returncode, done.stderr) == (OK, "")
    lines = [x for x in path.read_text().splitlines() if not x.startswith("#")]
    assert lines == ["net.ipv4.tcp_fin_timeout = 30", "net.ipv4.conf.eth0.rp_filter = 2"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == [NAME]
    assert root.tree() == before
    assert root.tune("unpersist").returncode == OK
    assert os.listdir(path.parent) == []
    assert root.tune("unpersist").stdout == "nothing to remove\n"


def test_persist_dry_run_only_prints(root: Root, mine: Path) -> None:
    done = root.tune("persist", mine, "--dry-run")
    assert "net.ipv4.tcp_fin_timeout = 30" in done.stdout
    assert not (root.path / "etc").exists()


@pytest.mark.parametrize("kind", ["foreign", "link"])
def test_persist_and_unpersist_leave_what_is_not_ours(root: Root, mine: Path, kind: str) -> None:
    path = write(root, f"{ETC}/{NAME}", "net.ipv4.tcp_fin_timeout = 5\n")
    if kind == "link":
        path.rename(path.with_suffix(".other"))
        path.symlink_to(path.with_suffix(".other"))
    for command in (["persist", mine], ["unpersist"]):
        assert root.tune(*command).returncode == CONFLICT
    assert path.read_text() == "net.ipv4.tcp_fin_timeout = 5\n"


@pytest.mark.parametrize("place", ["etc", "etc/sysctl.d"])
@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_a_link_of_an_image_does_not_lead_out_of_the_root(
    root: Root, mine: Path, tmp_path: Path, place: str, kind: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root.path / place).parent.mkdir(exist_ok=True)
    (root.path / place).symlink_to(outside if kind == "absolute" else "../../outside")
    assert root.tune("persist", mine).returncode == SYSTEM
    assert list(outside.iterdir()) == []
    kept = outside / NAME
    kept.write_text("# Written by hardsock-tune; `hardsock-tune unpersist` removes it.\n")
    root.tune("unpersist")
    assert kept.exists()


@pytest.mark.parametrize("target", ["/usr/lib/sysctl.d", "../usr/lib/sysctl.d"])
def test_a_link_inside_an_image_is_followed_inside_it(root: Root, mine: Path, target: str) -> None:
    (root.path / "usr/lib/sysctl.d").mkdir(parents=True)
    (root.path / "etc").mkdir()
    (root.path / ETC).symlink_to(target)
    assert root.tune("persist", mine).returncode == OK
    assert (root.path / "usr/lib/sysctl.d" / NAME).exists()
    assert root.tune("unpersist").returncode == OK


def test_without_openat2_no_link_of_an_image_is_followed(
    root: Root, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")  # It cannot look under strace.
    if shutil.which("strace") is None:
        with available():
            raise Unavailable("strace is not installed")
    outside = tmp_path / "outside"
    outside.mkdir()
    (root.path / "etc").mkdir()
    (root.path / ETC).symlink_to(outside)
    strace = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=openat2:error=ENOSYS"]
    command = [*strace, BINARY, "persist", mine, "--root", root.path]
    assert subprocess.run(command, capture_output=True).returncode == SYSTEM
    assert list(outside.iterdir()) == []
    (root.path / ETC).unlink()
    assert subprocess.run(command, capture_output=True).returncode == OK
    assert (root.path / ETC / NAME).exists()


@pytest.mark.parametrize("name", ["../x.conf", "x", ".conf", "a/b.conf"])
def test_persist_refuses_names_that_are_no_sysctl_file(root: Root, mine: Path, name: str) -> None:
    (root.path / "etc").mkdir()
    assert root.tune("persist", mine, "--output", name).returncode == USAGE


def test_interface_with_a_pattern_in_its_name_is_not_persisted(root: Root, tmp_path: Path) -> None:
    root.put("net/ipv4/conf/a*b/rp_filter", "0")
    file = profile(tmp_path / "p.yaml", '"net/ipv4/conf/a*b/rp_filter": {value: 2}')
    (root.path / "etc").mkdir()
    done = root.tune("persist", file)
    assert "takes it for a pattern" in done.stderr
    assert "a*b" not in (root.path / ETC / NAME).read_text()


@pytest.mark.parametrize(
    ("files", "winners"),
    [
        ({}, []),
        ({f"{ETC}/10-a.conf": "net.ipv4.tcp_fin_timeout = 5"}, ["systemd-sysctl", "sysctl --system"]),
        ({"etc/sysctl.conf": "net.ipv4.tcp_fin_timeout = 5"}, ["sysctl --system"]),
        ({"usr/lib/sysctl.d/50-x.conf": "net.ipv4.tcp_fin_timeout=30"}, []),
        # Sorted by name without directory; the last one wins.
        (
            {
                "usr/lib/sysctl.d/99-z.conf": "net.ipv4.tcp_fin_timeout = 30",
                f"{ETC}/10-a.conf": "net.ipv4.tcp_fin_timeout = 5",
            },
            [],
        ),
        # Masked by a file of the same name, and by a link to /dev/null.
        (
            {
                "usr/lib/sysctl.d/50-x.conf": "net.ipv4.tcp_fin_timeout = 5",
                f"{ETC}/50-x.conf": "",
            },
            [],
        ),
        # A pattern loses against an exact key, and does not reach what is excluded.
        ({f"{ETC}/50-g.conf": "net.ipv4.tcp_fin_* = 5"}, ["systemd-sysctl", "sysctl --system"]),
        (
            {f"{ETC}/50-g.conf": "net.ipv4.tcp_fin_timeout = 30\nnet.ipv4.tcp_fin_* = 5"},
            [],
        ),
        ({f"{ETC}/50-g.conf": "-net.ipv4.tcp_fin_timeout\nnet.ipv4.tcp_fin_* = 5"}, []),
        # The last line of a name holds, also between assignment and exclusion.
        ({f"{ETC}/50-g.conf": "net.ipv4.tcp_fin_timeout = 5\n-net.ipv4.tcp_fin_timeout"}, []),
        (
            {f"{ETC}/50-g.conf": "-net.ipv4.tcp_fin_timeout\nnet.ipv4.tcp_fin_timeout = 5"},
            ["systemd-sysctl", "sysctl --system"],
        ),
        # An exclusion is of one key; of a pattern it takes back that pattern alone.
        (
            {f"{ETC}/50-g.conf": "net.ipv4.tcp_fin_* = 5\n-net.ipv4.tcp_*_timeout"},
            ["systemd-sysctl", "sysctl --system"],
        ),
        ({f"{ETC}/50-g.conf": "net.ipv4.tcp_fin_* = 5\n-net.ipv4.tcp_fin_*"}, []),
        ({f"{ETC}/50-g.conf": "-net/ipv4/tcp_fin_timeout = 036"}, []),
        ({f"{ETC}/50-g.txt": "net.ipv4.tcp_fin_timeout = 5"}, []),
        ({f"{ETC}/50-g.conf": "# net.ipv4.tcp_fin_timeout = 5\n; net.ipv4.tcp_fin_timeout = 5"}, []),
        (
            {
                "etc/tuned/active_profile": "balanced\n",
                "usr/lib/tuned/balanced/tuned.conf": "[sysctl]\nnet.ipv4.tcp_fin_timeout=5\n",
            },
            ["tuned"],
        ),
    ],
)  # fmt: skip
def test_conflicts_follow_both_loaders(
    root: Root, tmp_path: Path, files: dict[str, str], winners: list[str]
) -> None:
    for name, text in files.items():
        write(root, name, text)
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_fin_timeout: {value: 30}")
    done = root.tune("conflicts", file)
    assert done.returncode == (CONFLICT if winners else OK)
    assert [row["by"] for row in root.answer("conflicts", file)["conflicts"]] == winners


UFW = {
    "etc/ufw/ufw.conf": "ENABLED=yes\n",
    "etc/default/ufw": "# x\nIPT_SYSCTL=/etc/ufw/sysctl.conf\n",
    "etc/ufw/sysctl.conf": "net/ipv4/conf/all/rp_filter=2\nnet/ipv4/ip_forward=1\n",
}
TUNED = {"etc/tuned/active_profile": "mine other\n"}
NETWORKD = "etc/systemd/network/10.network"


@pytest.mark.parametrize(
    ("files", "setters"),
    [
        (UFW, [("ufw", "net.ipv4.ip_forward", "1"), ("ufw", "net.ipv4.conf.all.rp_filter", "2")]),
        ({**UFW, "etc/ufw/ufw.conf": "ENABLED=no\n"}, []),
        (
            {**TUNED, "etc/tuned/mine/tuned.conf": "[main]\ninclude=far\n",
             "usr/lib/tuned/far/tuned.conf": "[sysctl]\nnet.core.somaxconn=>10000\n"},
            [],  # It only raises, and what is wanted is at least 5000.
        ),
        (
            {**TUNED, "etc/tuned/mine/tuned.conf": "[sysctl]\nnet.core.somaxconn=>10\n"
             "vm.swappiness=1\n"},
            [("tuned", "vm.swappiness", "1")],
        ),
        (
            {**TUNED, "etc/tuned/mine/tuned.conf": "[sysctl]\nnet.core.somaxconn=<10\n"},
            [("tuned", "net.core.somaxconn", "10")],
        ),
        (
            {NETWORKD: "[Match]\nName=eth0 wl*\n[Network]\nIPv4ReversePathFilter=strict\n"},
            [("systemd-networkd", "net.ipv4.conf.eth0.rp_filter", "1")],
        ),
        ({NETWORKD: "[Match]\nName=eth1\n[Network]\nIPv4ReversePathFilter=strict\n"}, []),
        ({NETWORKD: "[Network]\nIPv4ReversePathFilter=no\n"}, []),
        ({"usr/bin/dockerd": ""}, [("Docker", "net.ipv4.ip_forward", "1")]),
        (
            {"usr/bin/dockerd": "", "etc/docker/daemon.json": '{"ip-forward" : false}'},
            [],
        ),
        ({"usr/bin/dockerd": "", "etc/docker/daemon.json": "{}"},
         [("Docker", "net.ipv4.ip_forward", "1")]),
        ({"usr/bin/kubelet": ""}, [("kubelet", "kernel.panic", "10")]),
        (
            {"etc/cloud/cloud.cfg.d/99.cfg": "runcmd:\n  - sysctl -w vm.swappiness=1\n"
             "  # sysctl -w kernel.panic=9\n  - [ sysctl, -w, 'kernel.panic=3' ]\n"},
            [("cloud-init", "kernel.panic", "3"), ("cloud-init", "vm.swappiness", "1")],
        ),
        (
            {"usr/sbin/NetworkManager": ""},
            [("NetworkManager", "net.ipv6.conf.eth0.use_tempaddr", "?")],
        ),
    ],
)  # fmt: skip
def test_programs_that_set_a_key_later_are_named(
    root: Root, tmp_path: Path, files: dict[str, str], setters: list[tuple[str, str, str]]
) -> None:
    for name, text in files.items():
        write(root, name, text)
    for key, value in (("net/ipv4/ip_forward", "0"), ("net/ipv4/conf/all/rp_filter", "0"),
                       ("net/ipv4/conf/eth0/rp_filter", "0"), ("vm/swappiness", "60"),
                       ("net/ipv6/conf/eth0/use_tempaddr", "0"), ("kernel/panic", "0")):  # fmt: skip
        root.put(key, value)
    file = profile(
        tmp_path / "p.yaml",
        """
        net.core.somaxconn: {at_least: 10000}
        net.ipv4.ip_forward: {value: 0}
        net.ipv4.conf.all.rp_filter: {value: 0}
        net.ipv4.conf.eth0.rp_filter: {value: 0}
        net.ipv6.conf.eth0.use_tempaddr: {value: 0}
        kernel.panic: {value: 0}
        vm.swappiness: {value: 60}
        """,
    )
    found = root.answer("conflicts", file)["conflicts"]
    assert sorted((row["by"], row["key"], row["value"]) for row in found) == sorted(setters)
    assert all(row["where"].startswith("/") for row in found)


def test_a_profile_of_tuned_that_is_not_found_is_told(root: Root, mine: Path) -> None:
    write(root, "etc/tuned/active_profile", "nowhere\n")
    done = root.tune("conflicts", mine)
    assert (done.returncode, "'nowhere'" in done.stderr or "nowhere of tuned" in done.stderr) == (
        OK, True,
    )  # fmt: skip


@pytest.mark.parametrize("proc", [None, "proc", "proc/sys"])
def test_persist_works_on_an_image_without_a_kernel(tmp_path: Path, proc: str | None) -> None:
    image = tmp_path / "image"
    (image / "etc/sysctl.d").mkdir(parents=True)
    (image / "etc/sysctl.d/10-vendor.conf").write_text("net.ipv4.tcp_max_syn_backlog = 100000\n")
    if proc is not None:
        (image / proc).mkdir(parents=True)
    file = profile(
        tmp_path / "p.yaml",
        """
        net.ipv4.tcp_fin_timeout: {value: 30}
        net.core.somaxconn: {at_least: 65535}
        net.ipv4.tcp_retries2: {at_least: 8}
        net.ipv4.tcp_max_syn_backlog: {at_least: 65535}
        net.ipv4.tcp_max_tw_buckets: {at_least: 65536}
        net.ipv4.conf.*.rp_filter: {value: 2}
        net.netfilter.nf_conntrack_tcp_timeout_close_wait: {value: 3600}
        """,
    )
    done = tune("persist", file, root=image)
    # What depends on the memory of the machine cannot be told here, and is named.
    assert (done.returncode, done.stderr.count("left out")) == (DRIFT, 1), done.stderr
    assert "net.ipv4.tcp_max_tw_buckets: left out: an image does not tell" in done.stderr
    lines = (image / ETC / NAME).read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "net.ipv4.tcp_fin_timeout = 30",
        "net.core.somaxconn = 65535",
        "net.ipv4.tcp_retries2 = 15",
        "net.ipv4.tcp_max_syn_backlog = 100000",
        "net.ipv4.conf.*.rp_filter = 2",
        "net.netfilter.nf_conntrack_tcp_timeout_close_wait = 3600",
    ]
    assert "nf_conntrack" in (image / "etc/modules-load.d" / NAME).read_text()
    assert tune("conflicts", file, root=image).returncode == OK
    assert tune("check", file, root=image).returncode == SYSTEM, "there is nothing to check"
    assert tune("unpersist", root=image).returncode == OK


RESERVED, RANGE = "net.ipv4.ip_local_reserved_ports", "net.ipv4.ip_local_port_range"


@pytest.mark.parametrize("vendor", ["", f"{RESERVED} = 8080\n"], ids=["nothing", "reserved"])
def test_persist_on_an_image_keeps_a_range_and_its_reservation_together(
    tmp_path: Path, vendor: str
) -> None:
    image = tmp_path / "image"
    (image / "etc/sysctl.d").mkdir(parents=True)
    (image / "etc/sysctl.d/95-vendor.conf").write_text(f"{vendor}{RANGE} = 32768 60999\n")
    done = tune("persist", "high-churn-client", root=image)
    text = (image / ETC / NAME).read_text()
    assert RANGE not in text
    assert RESERVED not in text
    # What is not written loses to nobody.
    assert done.returncode == DRIFT, done.stderr
    assert f"{RANGE}: left out: safe only with {RESERVED}" in done.stderr
    assert f"{RESERVED}: left out: " in done.stderr


def test_persist_on_an_image_keeps_the_range_of_another_profile_back(tmp_path: Path) -> None:
    (tmp_path / "image/etc").mkdir(parents=True)
    wide = profile(tmp_path / "wide.yaml", f"{RANGE}: {{value: 1024 65535}}")
    alone = tune("persist", wide, root=tmp_path / "image")
    assert alone.returncode == OK, "nothing was asked about what listens"
    done = tune("persist", wide, "container", root=tmp_path / "image")
    assert (done.returncode, f"{RANGE}: left out" in done.stderr) == (DRIFT, True)
    assert RANGE not in (tmp_path / "image" / ETC / NAME).read_text()


def test_conflicts_of_an_image_are_about_what_is_persisted_there(tmp_path: Path) -> None:
    """Neither the range nor its reservation, which follow what listens on a machine."""
    folder = tmp_path / "image/etc/sysctl.d"
    folder.mkdir(parents=True)
    vendor = folder / "50-vendor.conf"
    vendor.write_text(f"{RANGE} = 32768 60999\n{RESERVED} = 8080\n")
    for command in (["conflicts"], ["persist", "--dry-run"]):
        done = tune(*command, "high-churn-client", root=tmp_path / "image")
        assert (RANGE in done.stdout, RESERVED in done.stdout) == (False, False), command
    assert tune("conflicts", "high-churn-client", root=tmp_path / "image").returncode == OK
    vendor.write_text("net.ipv4.tcp_tw_reuse = 0\n")
    done = tune("conflicts", "high-churn-client", root=tmp_path / "image")
    assert (done.returncode, "net.ipv4.tcp_tw_reuse" in done.stdout) == (CONFLICT, True)


def test_persist_on_a_machine_writes_a_range_and_its_reservation(root: Root) -> None:
    root.listen(8080, 9090)
    (root.path / "etc").mkdir()
    done = root.tune("persist", "high-churn-client")
    assert (done.returncode, "port" in done.stderr) == (OK, False), done.stderr
    lines = (root.path / ETC / NAME).read_text().splitlines()
    assert f"{RANGE} = 1024 65535" in lines
    assert f"{RESERVED} = 8080,9090" in lines


@pytest.mark.parametrize(
    ("kernel", "key", "value", "written"),
    [
        # As they start: a newer kernel, or more memory, starts with more.
        ("5.3.0", "net/core/somaxconn", "128", False),
        ("6.18.0", "net/ipv4/tcp_max_tw_buckets", "16384", False),
        ("6.18.0", "net/ipv4/tcp_max_tw_buckets", "16000", True),
    ],
)
def test_persist_does_not_freeze_what_the_kernel_starts_with(
    root: Root, kernel: str, key: str, value: str, written: bool
) -> None:
    root.put("kernel/osrelease", kernel)
    (root.path / "proc/meminfo").write_text("MemTotal: 3993600 kB\n")
    root.put(key, value)
    (root.path / "etc").mkdir()
    assert root.tune("persist", "baseline").returncode == OK
    lines = (root.path / ETC / NAME).read_text().splitlines()
    assert (f"{key.replace('/', '.')} = {value}" in lines) == written
    assert "net.ipv4.tcp_sack = 1" in lines
    assert any(key.replace("/", ".") in line for line in lines) == written


def test_a_link_to_dev_null_masks(root: Root, tmp_path: Path) -> None:
    write(root, "usr/lib/sysctl.d/50-x.conf", "net.ipv4.tcp_fin_timeout = 5")
    (root.path / ETC).mkdir(parents=True)
    (root.path / ETC / "50-x.conf").symlink_to("/dev/null")
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_fin_timeout: {value: 30}")
    assert root.tune("conflicts", file).returncode == OK


def test_persist_says_who_wins(root: Root, mine: Path) -> None:
    write(root, f"{ETC}/99-last.conf", "net.ipv4.tcp_fin_timeout = 5")
    done = root.tune("persist", mine)
    assert done.returncode == CONFLICT
    assert "/etc/sysctl.d/99-last.conf:1 (systemd-sysctl) sets 5, wanted 30" in done.stdout


KILLED = """name: k
summary: s
settings:
  net.core.somaxconn: {value: 5000, why: w, risk: r}
  net.netfilter.nf_conntrack_max: {value: 300000, why: w, risk: r}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [(None, "k.yaml"), ("busy-server", "k.yaml"), ("k.yaml", "busy-server"), ("k.yaml", None)],
)
def test_killed_at_any_system_call_the_files_are_the_old_or_the_new_ones(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str | None, new: str | None
) -> None:
    """strace kills it at each call in turn: no file is half of one, nor lacks its modules."""
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")  # It cannot look under strace.
    if shutil.which("strace") is None:
        with available():
            raise Unavailable("strace is not installed")
    root.put("net/netfilter/nf_conntrack_max", "262144")
    (root.path / "etc/sysctl.d").mkdir(parents=True)
    (tmp_path / "k.yaml").write_text(KILLED)
    conf = root.path / "etc/sysctl.d/90-hardsock.conf"
    modules = root.path / "etc/modules-load.d/90-hardsock.conf"

    def there() -> list[str | None]:
        return [p.read_text() if p.exists() else None for p in (conf, modules)]

    def words(profile: str | None) -> list[str]:
        if profile is None:
            return ["unpersist"]
        return ["persist", str(tmp_path / profile) if profile.endswith(".yaml") else profile]

    def prepare() -> None:
        assert root.tune("unpersist").returncode == OK
        assert root.tune(*words(old)).returncode == OK

    line = [str(BINARY), *words(new), "--root", str(root.path)]
    prepare()
    before = there()
    trace = tmp_path / "trace"
    subprocess.run(["strace", "-qq", "-o", trace, *line], check=True, capture_output=True)
    after = there()
    assert before != after
    calls = sorted({row.partition("(")[0] for row in trace.read_text().splitlines()})
    killed = 0
    for call in (c for c in calls if c.isidentifier() and "exit" not in c and c != "execve"):
        for n in range(1, 2000):
            prepare()
            inject = f"inject={call}:signal=KILL:when={n}"
            done = subprocess.run(
                ["strace", "-qq", "-o", "/dev/null", "-e", inject, *line], capture_output=True
            )
            got = there()
            assert got[0] in (before[0], after[0]), (call, n)
            assert got[1] in (before[1], after[1]), (call, n)
            if got[0] is not None and "nf_conntrack" in got[0]:
                assert got[1] is not None, "settings without their modules are lost at boot"
            if done.returncode != -signal.SIGKILL:
                break
            killed += 1
            assert root.tune("unpersist").returncode == OK
            left = [p.name for folder in (conf, modules) for p in folder.parent.glob("*")]
            left += [p.name for folder in (conf, modules) for p in folder.parent.glob(".*")]
            assert left == [], "what a killed one leaves goes with the rest"
    print(words(new)[0], "killed", killed, "times")
    assert killed > 50


@pytest.mark.parametrize("to", ["sysctl.d", "kubernetes", "ansible", "tuned", "nixos"])
def test_export_is_the_golden_one(to: str) -> None:
    text = tune("export", "--to", to, "high-churn-client", "-s", "x=1").stdout
    text = re.sub(r"[0-9a-f]{16}", "HASH", text)
    path = Path(__file__).parent / "golden" / f"export.{to}"
    if os.environ.get("HARDSOCK_UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text


# A file of another tool names no risk, and import invents none.
ALL_BUT_RISK = "--strict=unknown,range,pointless,doubtful,harmful,pattern,why"


def test_what_was_imported_lacks_its_risk_until_somebody_names_it(tmp_path: Path) -> None:
    (tmp_path / "x.conf").write_text("net.ipv4.tcp_fin_timeout = 30\n")
    imported = tmp_path / "x.yaml"
    imported.write_text(tune("import", tmp_path / "x.conf").stdout)
    assert "risk" not in imported.read_text()
    done = tune("lint", imported)
    assert (done.returncode, "does not name its risk [risk]" in done.stderr) == (OK, True)
    assert tune("lint", imported, "--strict").returncode == PROFILE
    imported.write_text(imported.read_text().rstrip() + "\n    risk: None.\n")
    assert tune("lint", imported, "--strict").stderr == ""


def test_exported_sysctl_file_imports_to_the_same_settings(tmp_path: Path) -> None:
    exported = tmp_path / "x.conf"
    exported.write_text(tune("export", "--to", "sysctl.d", "long-haul").stdout)
    imported = tmp_path / "x.yaml"
    imported.write_text(tune("import", exported).stdout)
    assert tune("lint", imported, ALL_BUT_RISK).returncode == OK
    settings = {s["key"]: s["wanted"] for s in answer("show", imported)["settings"]}
    assert settings["net.ipv4.tcp_sack"] == "1"
    # "At least" in the profile: a fixed value would lower a machine that has more.
    assert "net.ipv4.tcp_rmem" not in settings
    assert "tcp_rmem: left out: at least 4096 131072 25000000" in exported.read_text()


@pytest.mark.parametrize("to", ["sysctl.d", "kubernetes", "ansible", "tuned", "nixos"])
@pytest.mark.parametrize("name", ["baseline", "high-churn-client", "long-haul", "busy-server"])
def test_export_never_turns_a_bound_into_a_value(to: str, name: str) -> None:
    done = tune("export", "--to", to, name)
    assert (done.returncode, "settings left out" in done.stderr) == (DRIFT, True)
    for setting in answer("show", name)["settings"]:
        if setting["constraint"] in ("value", "remark", "unset"):
            continue
        quoted = re.escape(setting["key"])
        for line in done.stdout.splitlines():
            if re.search(rf'{quoted}"? ?(=|:$)', line):
                pytest.fail(f"{line}: the profile says {setting['constraint']}")
        if to == "ansible" and setting["constraint"] == "at_least" and "," not in setting["key"]:
            assert re.search(rf'"{quoted}"\n    value: "{{{{ \[', done.stdout) or (
                f"{setting['key']}: left out" in done.stdout
            )


def test_export_of_a_range_without_its_reservation_is_left_out() -> None:
    done = tune("export", "--to", "sysctl.d", "high-churn-client")
    assert "net.ipv4.ip_local_port_range = " not in done.stdout
    assert "port_range: left out: safe only with" in done.stdout


CONNTRACK = "net.netfilter.nf_conntrack_max: {value: 1000000}"


def test_persist_names_the_modules_that_come_first(root: Root, tmp_path: Path) -> None:
    root.put("net/netfilter/nf_conntrack_max", "262144")
    (root.path / "etc").mkdir()
    file = profile(tmp_path / "p.yaml", CONNTRACK)
    done = root.tune("persist", file, "--dry-run")
    assert "nf_conntrack" in done.stdout.splitlines()
    assert list((root.path / "etc").iterdir()) == []
    assert root.tune("persist", file).returncode == OK
    modules = root.path / "etc/modules-load.d/90-hardsock.conf"
    assert modules.read_text().splitlines()[1:] == ["nf_conntrack"]
    assert root.answer("persist", file)["modules_file"] == str(modules)
    other = profile(tmp_path / "o.yaml", "net.ipv4.tcp_sack: {value: 1}")
    assert root.tune("persist", other).returncode == OK
    assert not modules.exists()
    assert root.tune("persist", file).returncode == OK
    assert root.tune("unpersist").returncode == OK
    assert not modules.exists()
    modules.write_text("mine\n")
    assert root.tune("persist", file).returncode == CONFLICT
    assert not (root.path / ETC / "90-hardsock.conf").exists()
    assert root.tune("unpersist").returncode == OK
    assert modules.read_text() == "mine\n"


@pytest.mark.parametrize("to", ["sysctl.d", "kubernetes", "ansible", "tuned", "nixos"])
def test_export_says_of_a_module_that_it_must_be_named_by_somebody(to: str, tmp_path: Path) -> None:
    file = profile(tmp_path / "p.yaml", f"{CONNTRACK}\nnet.nf_conntrack_max: {{value: 1000000}}")
    done = tune("export", "--to", to, file)
    told = "needs module nf_conntrack, which must be named in /etc/modules-load.d: this does not"
    assert f"# net.netfilter.nf_conntrack_max {told}" in done.stdout
    assert done.stderr.count("must be named in /etc/modules-load.d") == 1, "once for each module"
    assert f"net.netfilter.nf_conntrack_max {told}" in done.stderr
    got = answer("export", "--to", to, file)
    assert any(told in message for message in got["messages"])


@pytest.mark.parametrize("to", ["kubernetes", "ansible", "tuned", "nixos"])
def test_export_leaves_a_pattern_out_as_a_pattern(to: str, tmp_path: Path) -> None:
    file = profile(
        tmp_path / "p.yaml",
        "net.ipv4.conf.*.rp_filter: {value: 1}\nnet.ipv4.conf.eth?.rp_filter: {value: 1}",
    )
    done = tune("export", "--to", to, file)
    why = "left out: a pattern, which only sysctl.d takes: use apply and persist there, or "
    assert f"net.ipv4.conf.*.rp_filter: {why}--to sysctl.d" in done.stdout
    assert "eth?.rp_filter: left out: an interface's name that others take" in done.stdout
    whole = tune("export", "--to", "sysctl.d", file).stdout
    assert "\nnet.ipv4.conf.*.rp_filter = 1\n" in whole


def test_export_has_no_empty_words_where_a_profile_gives_no_reason(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("name: t\nsummary: s\nsettings:\n  net.ipv4.tcp_sack: 1\n")
    lines = tune("export", "--to", "sysctl.d", file).stdout.splitlines()
    assert lines[1:] == ["net.ipv4.tcp_sack = 1"]
    assert '- name: "net.ipv4.tcp_sack"\n' in tune("export", "--to", "ansible", file).stdout


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("net.ipv4.conf.all.forwarding", "net.ipv4.ip_forward"),
        ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding"),
        ("net.netfilter.nf_conntrack_max", "net.nf_conntrack_max"),
        ("net.nf_conntrack_max", "net.netfilter.nf_conntrack_max"),
    ],
)
def test_a_variable_with_two_names_has_one_winner(
    root: Root, tmp_path: Path, key: str, other: str
) -> None:
    for name in (key, other):
        root.put(name.replace(".", "/"), "1")
    write(root, f"{ETC}/10-first.conf", f"{key} = 1")
    write(root, f"{ETC}/99-last.conf", f"{other} = 0")
    file = profile(tmp_path / "p.yaml", f"{key}: {{value: 1}}")
    done = root.tune("conflicts", file)
    assert done.returncode == CONFLICT
    assert f"99-last.conf:1, as {other}" in done.stdout
    write(root, f"{ETC}/99-last.conf", f"{other} = 1")
    assert root.tune("conflicts", file).returncode == OK
    both = profile(tmp_path / "b.yaml", f"{key}: {{value: 1}}\n{other}: {{value: 0}}")
    for command in ("apply", "persist", "diff"):
        done = root.tune(command, both)
        assert (done.returncode, "one variable of the kernel" in done.stderr) == (CONFLICT, True)
    # As two profiles, too.
    second = profile(tmp_path / "o.yaml", f"{other}: {{value: 0}}")
    said = done.stderr
    for profiles in ([both], [file, second]):
        done = tune("export", "--to", "sysctl.d", *profiles)
        assert (done.returncode, done.stdout, done.stderr) == (CONFLICT, "", said)
    same = profile(tmp_path / "o.yaml", f"{other}: {{value: 1}}")
    assert tune("export", "--to", "sysctl.d", file, same).returncode == OK


def test_import_reads_numbers_as_the_kernel_and_leaves_out_the_rest(tmp_path: Path) -> None:
    conf = tmp_path / "s.conf"
    conf.write_text(
        "net.ipv4.tcp_fin_timeout = 036\nnet.ipv4.tcp_fastopen=0x403\n"
        "kernel.core_pattern = |/bin/sh\nnet.ipv4.tcp_tw_recycle = 1\nnet.ipv4.*.rp_filter = 1\n"
        'net.ipv4.tcp_sack = "1"\nnonsense\nnet.core.somaxconn = 1\nnet.core.somaxconn = 2\n'
        "net.ipv4.tcp_rmem = 1 2\n"
    )
    done = tune("import", conf)
    assert done.returncode == DRIFT
    assert re.findall(r'"(net[^"]*)":\n    value: "([^"]*)"', done.stdout) == [
        ("net.ipv4.tcp_fin_timeout", "30"),
        ("net.ipv4.tcp_fastopen", "1027"),
        ("net.core.somaxconn", "2"),
    ]
    assert len(done.stderr.splitlines()) == 8
    assert "3 settings imported, 6 lines left out" in done.stderr
    (tmp_path / "i.yaml").write_text(done.stdout)
    assert tune("lint", tmp_path / "i.yaml").returncode == OK


@pytest.mark.parametrize(
    ("line", "rc", "kept", "said"),
    [
        ("net.ipv4.tcp_sack = 0 # off", OK, 'value: "0"', ""),
        ("net.ipv4.tcp_sack = 0\t;off", OK, 'why: "off (', ""),
        ("net.ipv4.tcp_rmem = 4096 131072 6291456 # three", OK, '"4096 131072 6291456"', ""),
        ("# to see the loss\nnet.ipv4.tcp_sack = 0", OK, 'why: "to see the loss (', ""),
        ("# net.ipv4.x = 1\nnet.ipv4.tcp_sack = 0", OK, 'why: "Imported from', ""),
        ("# other\n\nnet.ipv4.tcp_sack = 0", OK, 'why: "Imported from', ""),
        ("net.ipv4.tcp_congestion_control = bbr # fast", DRIFT, "tcp_timestamps", "a comment"),
        ("net.ipv4.tcp_sack = 0#off", DRIFT, "tcp_timestamps", "not a plain decimal"),
        ('net.ipv4.ip_local_port_range = "1024 65535"', DRIFT, "tcp_timestamps", "decimal"),
        ("-net.ipv4.conf.eth0.rp_filter", DRIFT, "tcp_timestamps", "excludes"),
        ("nonsense", DRIFT, "tcp_timestamps", "1 lines left out"),
        ("net.ipv4.tcp_sack = 0\nnet.ipv4.tcp_sack = 1", OK, 'value: "1"', ":3, which holds"),
    ],
)
def test_import_loses_nothing_silently(
    tmp_path: Path, line: str, rc: int, kept: str, said: str
) -> None:
    conf = tmp_path / "x.conf"
    conf.write_text(f"net.ipv4.tcp_timestamps = 1\n{line}\n")
    done = tune("import", conf)
    assert (done.returncode, kept in done.stdout, said in done.stderr) == (rc, True, True), done
    again = tmp_path / "p.yaml"
    again.write_text(done.stdout)
    assert tune("lint", again).returncode == OK


def test_import_of_a_missing_file_is_a_system_error(tmp_path: Path) -> None:
    assert tune("import", tmp_path / "none").returncode == SYSTEM


def test_install_puts_everything_in_its_place_and_uninstall_takes_it_away(tmp_path: Path) -> None:
    from support_tune import TOP

    make = ["make", "-s", "-C", str(TOP / "tuning"), f"DESTDIR={tmp_path}", "PREFIX=/usr"]
    subprocess.run([*make, "install"], check=True)
    shipped = {f"usr/share/hardsock/profiles/{p.name}" for p in TOP.glob("tuning/profiles/*.yaml")}
    expected = {
        "usr/sbin/hardsock-tune",
        "usr/share/man/man8/hardsock-tune.8",
        "usr/share/bash-completion/completions/hardsock-tune",
        "usr/share/zsh/site-functions/_hardsock-tune",
        "usr/share/hardsock/hardsock-tune.schema.json",
        "usr/lib/systemd/system/hardsock-tune-check.service",
        "usr/lib/systemd/system/hardsock-tune-check.timer",
    }

    def found() -> set[str]:
        return {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}

    assert found() == expected | shipped
    done = subprocess.run(
        [tmp_path / "usr/sbin/hardsock-tune", "--version"], capture_output=True, text=True
    )
    assert done.stdout.startswith("hardsock-tune ")
    subprocess.run([*make, "uninstall"], check=True)
    assert found() == set()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "kernel.core_pattern = x\n",
        "net.ipv4.*.rp_filter = 1\n",
        "net.ipv4.conf.e*.rp_filter = 1\n",
        "nonsense\n",
    ],
)
def test_import_of_nothing_prints_no_profile(tmp_path: Path, text: str) -> None:
    conf = tmp_path / "s.conf"
    conf.write_text(text)
    done = tune("import", conf)
    assert (done.returncode, done.stdout) == (PROFILE, "")
    assert "nothing in it that a profile could hold" in done.stderr


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"net.ipv4.unknown_x = a\xffb", "no plain UTF-8"),
        (b"net.ipv4.unknown_x = a\x07b", "no plain UTF-8"),
        (b"net.ipv4.conf.\xff.rp_filter = 1", "no plain UTF-8"),
        (b"-kernel.modprobe", "left out: -kernel.modprobe is outside"),
        (b"net.ipv4.unknown_x = ${a}", "work out"),
        (b"net.ipv4.unknown_x =", "change nothing"),
        (b"net.ipv4.tcp_fin_timeout =", "left out"),
        (b"net.ipv4.tcp_rmem = 3 2 1", "must rise"),
    ],
)
def test_import_leaves_out_what_lint_would_refuse(tmp_path: Path, line: bytes, why: str) -> None:
    conf = tmp_path / "s.conf"
    conf.write_bytes(line + b"\nnet.ipv4.tcp_sack = 1\nnet.ipv4.ip_local_reserved_ports =\n")
    done = tune("import", conf)
    assert (done.returncode, why in done.stderr) == (DRIFT, True)
    (tmp_path / "i.yaml").write_text(done.stdout)
    assert tune("lint", tmp_path / "i.yaml", ALL_BUT_RISK).returncode == OK
    settings = answer("show", tmp_path / "i.yaml")["settings"]
    assert [(s["key"], s["wanted"]) for s in settings] == [
        ("net.ipv4.tcp_sack", "1"),
        ("net.ipv4.ip_local_reserved_ports", "not set"),
    ]


def test_import_leaves_out_an_exclusion_that_lint_would_refuse(tmp_path: Path) -> None:
    conf = tmp_path / "s.conf"
    conf.write_bytes(b"net.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.\xff.rp_filter\n")
    done = tune("import", conf)
    assert (done.returncode, "2: left out: -" in done.stderr) == (DRIFT, True)
    assert "no plain UTF-8" in done.stderr
    (tmp_path / "i.yaml").write_text(done.stdout)
    settings = answer("show", tmp_path / "i.yaml")["settings"]
    assert [(s["key"], s["wanted"]) for s in settings] == [("net.ipv4.conf.*.rp_filter", "2")]


def test_import_says_when_a_profile_cannot_hold_that_much(tmp_path: Path) -> None:
    conf = tmp_path / "s.conf"
    conf.write_text("".join(f"net.ipv4.conf.eth{i}.rp_filter = 1\n" for i in range(600)))
    done = tune("import", conf)
    assert (done.returncode, done.stdout) == (PROFILE, "")
    assert "600 settings are more than one profile may hold" in done.stderr
    assert len(answer("import", conf)["settings"]) == 600


def test_import_lists_settings_for_programs(tmp_path: Path) -> None:
    conf = tmp_path / "s.conf"
    conf.write_text("net.ipv4.tcp_sack = 0x1\nkernel.modprobe = x\n")
    document = answer("import", conf)
    assert document["settings"] == [
        {"key": "net.ipv4.tcp_sack", "value": "1", "file": str(conf), "line": 1,
         "constraint": "value", "optional": False}
    ]  # fmt: skip
    assert len(document["messages"]) == 2
    assert (document["verdict"], document["exit"]) == ("drift", DRIFT)
    assert tune("import", conf, "--format", "tsv").stdout == (
        f"net.ipv4.tcp_sack\t1\t{conf}\t1\tvalue\t\n"
    )


def test_persist_and_unpersist_answer_programs_too(root: Root, mine: Path) -> None:
    write(root, f"{ETC}/99-last.conf", "net.ipv4.tcp_fin_timeout = 5")
    file = str(root.path / ETC / NAME)
    settings = [
        {"key": "net.ipv4.tcp_fin_timeout", "value": "30"},
        {"key": "net.ipv4.conf.eth0.rp_filter", "value": "2"},
    ]
    document = root.answer("persist", mine, "--dry-run")
    assert (document["action"], document["file"], document["exit"]) == ("would write", file, OK)
    assert (document["settings"], document["conflicts"]) == (settings, [])
    document = root.answer("persist", mine)
    assert (document["action"], document["settings"]) == ("wrote", settings)
    assert [c["by"] for c in document["conflicts"]] == ["systemd-sysctl", "sysctl --system"]
    assert document["exit"] == CONFLICT
    lines = root.tune("persist", mine, "--format", "tsv").stdout.splitlines()
    assert lines[:2] == [f"wrote\t{file}", "set\tnet.ipv4.tcp_fin_timeout\t30"]
    assert lines[3].split("\t")[:3] == ["conflict", "net.ipv4.tcp_fin_timeout", "systemd-sysctl"]
    assert root.answer("unpersist", "--dry-run")["action"] == "would remove"
    assert root.tune("unpersist", "--format", "tsv").stdout == f"removed\t{file}\n"
    document = root.answer("unpersist")
    assert (document["action"], document["file"]) == ("nothing to remove", file)


def test_persist_holds_profiles_to_each_other_as_apply_does(root: Root, tmp_path: Path) -> None:
    (root.path / "etc").mkdir()
    reuse = profile(tmp_path / "1.yaml", "net.ipv4.tcp_tw_reuse: {value: 1}")
    stamps = profile(tmp_path / "2.yaml", "net.ipv4.tcp_timestamps: {value: 0}")
    other = profile(tmp_path / "3.yaml", "net.ipv4.tcp_timestamps: {value: 1}")
    assert root.tune("persist", reuse, stamps).returncode == CONFLICT
    assert root.tune("persist", stamps, other).returncode == CONFLICT
    assert not (root.path / ETC).exists()
    assert root.tune("persist", other, other).returncode == OK
    assert (root.path / ETC / NAME).read_text().count("tcp_timestamps") == 1


def test_export_has_no_lines_of_its_own_for_programs() -> None:
    done = tune("export", "--to", "nixos", "baseline", "--format", "tsv")
    assert (done.returncode, done.stdout, "--format json" in done.stderr) == (USAGE, "", True)


@pytest.mark.parametrize("command", ["diff", "apply", "persist"])
def test_thresholds_that_would_lose_packets_are_refused(
    root: Root, tmp_path: Path, command: str
) -> None:
    place = "net/ipv4/neigh/default/gc_thresh"
    for i, number in enumerate((128, 512, 1024), 1):
        root.put(f"{place}{i}", str(number))
    name = place.replace("/", ".")
    file = profile(tmp_path / "p.yaml", f"{name}2: {{value: 2048}}")
    done = root.tune(command, "--dry-run", file) if command != "diff" else root.tune(command, file)
    assert done.returncode == CONFLICT
    assert f"{name}2: 2048 is not below {name}3 (1024): " in done.stderr
    # What stands there already is no affair of other settings.
    root.put(f"{place}2", "4096")
    root.put("net/ipv4/tcp_sack", "0")
    other = profile(tmp_path / "o.yaml", "net.ipv4.tcp_sack: {value: 1}")
    assert root.tune("diff", other).returncode == DRIFT
    both = profile(tmp_path / "b.yaml", f"{name}2: {{value: 2048}}\n{name}3: {{value: 8192}}")
    assert root.tune("diff", both).returncode == DRIFT
