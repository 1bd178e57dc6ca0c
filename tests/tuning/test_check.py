"""check, diff, explain, list, show, lint: everything that only reads."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support_tune import (
    BINARY,
    CONFLICT,
    DRIFT,
    OK,
    PERMISSION,
    PROFILE,
    SYSTEM,
    TOP,
    USAGE,
    Root,
    answer,
    profile,
    tune,
)

GOLDEN = Path(__file__).parent / "golden"
SHIPPED = sorted(p.stem for p in (TOP / "tuning/profiles").glob("*.yaml"))


def compare(name: str, text: str) -> None:
    path = GOLDEN / name
    if text.startswith(("{", "[")):
        json.loads(text)
    if os.environ.get("HARDSOCK_UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize("form", ["pretty", "tsv", "json"])
@pytest.mark.parametrize("command", ["check", "diff", "apply", "status"])
def test_output_is_the_golden_one(root: Root, command: str, form: str) -> None:
    root.listen(40000, 8080)
    args = ["busy-server"] if command != "status" else []
    if command == "status":
        root.tune("apply", "busy-server")
    done = root.tune(command, *args, "--format", form)
    text = done.stdout.replace(str(root.path), "ROOT")
    if command == "status":
        text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", text)
    compare(f"{command}.{form}", text)


EXPLAINED = ["tcp_rmem", "tcp_tw_recycle", "net.ipv4.tcp_fastopen_key", "net.ipv4.tcp_mem",
             "net.ipv4.conf.eth0/100.rp_filter", "net.ipv4.nonsense"]  # fmt: skip


@pytest.mark.parametrize("form", ["pretty", "tsv", "json"])
@pytest.mark.parametrize(
    ("command", "args"),
    [("explain", EXPLAINED), ("list", []), ("show", ["article-2023", "-s", "x=1"])],
)
def test_output_of_what_is_known_is_the_golden_one(
    root: Root, command: str, args: list[str], form: str
) -> None:
    done = root.tune(command, *args, "--format", form)
    # One of the explained keys is known to nobody.
    assert done.returncode == (USAGE if command == "explain" else OK)
    assert ("nor to this kernel" in done.stderr) == (command == "explain")
    compare(f"{command}.{form}", done.stdout.replace(str(root.path), "ROOT"))


@pytest.mark.parametrize("form", ["pretty", "tsv", "json"])
@pytest.mark.parametrize("command", ["revert", "persist", "unpersist", "import", "conflicts"])
def test_output_about_files_is_the_golden_one(
    root: Root, tmp_path: Path, command: str, form: str
) -> None:
    (root.path / "etc/sysctl.d").mkdir(parents=True)
    last = root.path / "etc/sysctl.d/99-last.conf"
    last.write_text("net.core.somaxconn = 128\nnet.ipv4.tcp_fin_timeout = 036\nkernel.panic = 1\n")
    root.listen(40000)
    args: list[object] = ["busy-server"] if command in ("persist", "conflicts") else []
    if command == "import":
        args = [last]
    if command == "unpersist":
        root.tune("persist", "busy-server")
    if command == "revert":
        root.tune("apply", "busy-server")
        root.put("net/core/somaxconn", "1000")
    done = root.tune(command, *args, "--format", form)
    text = re.sub(r"[0-9a-f]{16}", "HASH", done.stdout.replace(str(root.path), "ROOT"))
    compare(f"{command}.{form}", text)


def test_a_stock_machine_passes_the_baseline(root: Root) -> None:
    assert root.tune().returncode == OK


def memory(root: Root, mib: int) -> None:
    (root.path / "proc/meminfo").write_text(f"MemTotal: {mib * 1024} kB\nMemFree: 100 kB\n")


# What the kernel does with so much memory: net/ipv4/tcp.c, tcp_init, and mm/mm_init.c,
# alloc_large_system_hash. A machine tells a little less than it has.
@pytest.mark.parametrize(
    ("mib", "kernel", "half", "syn"),
    [(58, "6.18.0", 256, 128), (117, "6.1.0", 512, 128), (240, "5.4.0", 1024, 128),
     (475, "6.18.0", 2048, 128), (475, "4.15.0-213-generic", 2048, 128),
     (3900, "5.15.0", 16384, 256), (3900, "5.4.0", 16384, 128), (15900, "6.12.0", 65536, 1024),
     (500000, "7.2.0", 262144, 4096)],
)  # fmt: skip
def test_a_stock_machine_passes_with_any_memory(
    root: Root, mib: int, kernel: str, half: int, syn: int
) -> None:
    memory(root, mib)
    root.put("kernel/osrelease", kernel)
    root.put("net/ipv4/tcp_max_tw_buckets", str(half))
    root.put("net/ipv4/tcp_max_orphans", str(half))
    root.put("net/ipv4/tcp_max_syn_backlog", str(syn))
    if kernel.startswith("4."):
        root.put("net/core/somaxconn", "128")
    assert root.tune("check", "--strict").returncode == OK
    for key, value in (("tcp_max_tw_buckets", half), ("tcp_max_syn_backlog", syn)):
        (row,) = root.answer("explain", f"net.ipv4.{key}")["answers"]
        assert row["computed"].startswith(f"{value} on this machine: "), row
    # Less than this memory gives, and less than harms nobody.
    root.put("net/ipv4/tcp_max_tw_buckets", str(min(half, 2048) - 1))
    assert root.tune("check").returncode == DRIFT


def test_the_kernel_itself_tells_its_connection_hash(root: Root) -> None:
    """From Linux 6.1 on; below zero where a child namespace shares it."""
    for entries, half in (("2048", "1024"), ("-2048", "1024"), ("512", "256")):
        root.put("net/ipv4/tcp_ehash_entries", entries)
        root.put("net/ipv4/tcp_max_tw_buckets", half)
        assert root.tune("check").returncode == OK
    root.put("net/ipv4/tcp_max_tw_buckets", "255")
    assert root.tune("check").returncode == DRIFT


def test_what_other_defaults_follow_from_memory(root: Root) -> None:
    """Numbers that booted kernels showed (tuning/kb/seen.yaml), with 476 and 469 MiB."""

    def computed(key: str, kib: int, kernel: str) -> str:
        (root.path / "proc/meminfo").write_text(f"MemTotal: {kib} kB\n")
        root.put("kernel/osrelease", kernel)
        (row,) = root.answer("explain", key)["answers"]
        return str(row["computed"]).partition(" on this machine: ")[0]

    old, new = (487144, "5.10.0"), (471148, "7.2.13")
    for key, one, two in (
        ("net.netfilter.nf_conntrack_buckets", "4096", "4096"),
        ("net.netfilter.nf_conntrack_max", "16384", "4096"),
        ("net.nf_conntrack_max", "16384", "4096"),
        ("net.netfilter.nf_conntrack_expect_max", "64", "64"),
        ("net.ipv4.tcp_max_orphans", "2048", "2048"),
    ):
        assert (computed(key, *old), computed(key, *new)) == (one, two), key
    for kib, kernel, buckets in (
        (1 << 21, "5.10.0", "16384"), (1 << 23, "5.10.0", "65536"),
        (1 << 21, "5.15.0", "65536"), (1 << 23, "6.12.0", "262144"), (1 << 16, "6.12.0", "1024"),
    ):  # fmt: skip
        assert computed("net.netfilter.nf_conntrack_buckets", kib, kernel) == buckets
    # Of free memory at the start, which nobody is told: near is near.
    for key, seen in (
        ("net.ipv4.tcp_mem", "5316 7090 10632"), ("net.ipv4.udp_mem", "10635 14180 21270"),
        ("kernel.threads-max", "3581"), ("fs.file-max", "45148"),
        ("net.ipv4.tcp_rmem", "4096 131072 3630112"), ("net.ipv4.tcp_wmem", "4096 16384 3630112"),
    ):  # fmt: skip
        text = computed(key, *new)
        assert text.startswith("about ")
        numbers = [int(n) for n in text.removeprefix("about ").split()]
        pairs = zip(numbers, map(int, seen.split()), strict=True)
        assert all(abs(n - m) <= 0.06 * m for n, m in pairs), (key, text)


def test_every_default_that_is_computed_can_be(root: Root) -> None:
    memory(root, 1000)
    files = [path.read_text() for path in (TOP / "tuning/kb").glob("*.yaml")]
    n = sum(text.count("\n    computed: ") + text.count("\n    near: ") for text in files)
    keys = [line.split("\t")[0] for line in tune("list", "--keys", "-f", "tsv").stdout.splitlines()]
    rows = [r for r in root.answer("explain", *keys)["answers"] if r.get("computed")]
    assert len(rows) == n > 9
    assert all(" on this machine: " in row["computed"] for row in rows)
    (root.path / "proc/meminfo").unlink()
    rows = [r for r in root.answer("explain", *keys)["answers"] if r.get("computed")]
    assert len(rows) == n
    assert not any(" on this machine: " in row["computed"] for row in rows)


def test_an_empty_list_of_reserved_ports_says_what_it_leaves_open(root: Root) -> None:
    def said() -> tuple[str, str]:
        settings = {s["key"]: s for s in root.answer("check")["profiles"][0]["settings"]}
        found = settings["net.ipv4.ip_local_reserved_ports"]
        assert found["reason"] in " ".join(root.tune("check").stdout.split())
        return found["status"], found["reason"]

    assert said() == ("ok", "nobody listens inside the range unreserved")
    root.listen(40000, 8080)
    status, reason = said()
    assert (status, reason.split(" are ")[0]) == ("ok", "40000")


def test_check_without_arguments_is_the_baseline(root: Root) -> None:
    assert root.answer()["profiles"][0]["name"] == "baseline"


def test_drift_is_exit_code_one_and_changes_nothing(root: Root) -> None:
    before = root.tree()
    assert root.tune("check", "busy-server").returncode == DRIFT
    assert root.tune("diff", "busy-server").returncode == DRIFT
    assert root.tree() == before


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profiles_pass_strict_lint(name: str) -> None:
    done = tune("lint", name, "--strict")
    assert done.returncode == OK
    # What is doubtful has its risk named, and is told all the same.
    assert all(": note: " in line for line in done.stderr.splitlines())


def test_every_shipped_profile_is_built_in() -> None:
    assert [p["name"] for p in answer("list", env={"HOME": "/nonexistent"})["profiles"]] == SHIPPED


def test_container_profile_holds_namespaced_keys_only() -> None:
    done = tune("show", "container", "--format", "tsv")
    for line in done.stdout.splitlines():
        facts = dict(
            x.split("\t")[1:3]
            for x in tune("explain", line.split("\t")[0], "--format", "tsv").stdout.splitlines()
        )
        assert facts["scope"] == "namespace"


@pytest.mark.parametrize(
    ("text", "status"),
    [("60", "ok"), ("036", "drift"), ("0x3c", "ok"), ("074", "ok"), ("61", "drift")],
)
def test_numbers_are_compared_as_the_kernel_reads_them(
    root: Root, tmp_path: Path, text: str, status: str
) -> None:
    root.put("net/ipv4/tcp_fin_timeout", text)
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_fin_timeout: {value: 60}")
    assert root.answer("check", file)["profiles"][0]["settings"][0]["status"] == status


@pytest.mark.parametrize("text", ["1,2-4", "1-4", "4,3,2,1", "1-2,3-4"])
def test_port_lists_are_compared_as_sets(root: Root, tmp_path: Path, text: str) -> None:
    root.put("net/ipv4/ip_local_reserved_ports", text)
    file = profile(tmp_path / "p.yaml", 'net.ipv4.ip_local_reserved_ports: {value: "1-4"}')
    assert root.tune("check", file).returncode == OK


@pytest.mark.parametrize(
    ("constraint", "current", "wanted"),
    [
        ("at_least: 100", "50", "100"),
        ("at_least: 100", "150", "150"),
        ("at_most: 100", "150", "100"),
        ("range: [10, 20]", "5", "10"),
        ("range: [10, 20]", "25", "20"),
        ("range: [10, 20]", "15", "15"),
        ("one_of: [7, 9]", "9", "9"),
        ("one_of: [7, 9]", "8", "7"),
    ],
)
def test_a_constraint_wants_the_nearest_value(
    root: Root, tmp_path: Path, constraint: str, current: str, wanted: str
) -> None:
    root.put("net/ipv4/tcp_fin_timeout", current)
    file = profile(tmp_path / "p.yaml", f"net.ipv4.tcp_fin_timeout: {{{constraint}}}")
    item = root.answer("check", file)["profiles"][0]["settings"][0]
    assert item["wanted"] == wanted
    assert item["status"] == ("ok" if wanted == current else "drift")


def test_at_least_holds_for_each_field(root: Root, tmp_path: Path) -> None:
    root.put("net/ipv4/tcp_rmem", "4096\t200000\t300000")
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_rmem: {at_least: [4096, 131072, 6291456]}")
    assert root.answer("check", file)["profiles"][0]["settings"][0]["wanted"] == (
        "4096 200000 6291456"
    )


def test_ports_of_services_inside_the_range_to_be_are_reserved_and_added(
    root: Root, tmp_path: Path
) -> None:
    """Those that the kernel cannot have picked, and those that a profile names."""
    key = "net.ipv4.ip_local_reserved_ports"
    stated = profile(tmp_path / "p.yaml", f"{key}: {{contains: [40000, listening]}}")
    root.put("net/ipv4/ip_local_reserved_ports", "50000")
    root.listen(40000, 40001, 50000, 8080, 22)
    for name, wanted in (
        ("baseline", "50000"), ("high-churn-client", "8080,50000"), (stated, "40000,50000"),
    ):  # fmt: skip
        settings = root.answer("check", name)["profiles"][0]["settings"]
        (found,) = [s for s in settings if s["key"] == key]
        assert (found["wanted"], found["status"]) == (
            wanted, "ok" if wanted == "50000" else "drift",
        )  # fmt: skip


def test_what_listens_inside_the_range_is_told_for_information(root: Root) -> None:
    root.listen(40000, 40001, 50000, 8080)
    root.put("net/ipv4/ip_local_reserved_ports", "50000")
    (finding,) = root.answer()["findings"]
    assert (finding["id"], finding["severity"]) == ("ports-unreserved", "info")
    assert finding["what"].startswith("ports 40000-40001 are listened on inside")
    assert root.tune("check", "--strict").returncode == OK


def test_variables_are_worked_out_and_overridden(root: Root) -> None:
    def rmem(*args: str) -> str:
        settings = root.answer("check", "long-haul", *args)["profiles"][0]["settings"]
        return str(next(s for s in settings if s["key"] == "net.ipv4.tcp_rmem")["wanted"])

    root.put("net/ipv4/tcp_rmem", "4096 131072 6291456")
    assert rmem() == "4096 131072 25000000"
    assert rmem("--set", "rtt_ms=200") == "4096 131072 50000000"


@pytest.mark.parametrize(
    ("expression", "number"),
    [("min(3, 2)", "2"), ("max(3, 2) + 1", "4"), ("pow2(5)", "8"), ("pow2(8)", "8"),
     ("pow2(0)", "1"), ("less(a, 9, 1, 2)", "2"), ("less(1, 2, min(5, 6), 7)", "5"),
     ("min (max(1, 2), (3))", "2")],
)  # fmt: skip
def test_functions_of_expressions(tmp_path: Path, expression: str, number: str) -> None:
    head = "name: t\nsummary: s\nvariables: {a: 9}\n"
    line = f'net.ipv4.tcp_fin_timeout: {{value: "${{{expression}}}"}}'
    done = tune("show", profile(tmp_path / "p.yaml", line, head), "-f", "tsv")
    assert done.stdout.split("\t")[2] == number, done.stderr


@pytest.mark.parametrize(
    "expression",
    [
        "${a * a * a}",
        "${1 / 0}",
        "${b}",
        "${(1}",
        "${1 +}",
        "${",
        "${odd(1)}",
        "${min(1)}",
        "${min(1, 2, 3)}",
        "${less(1, 2, 3)}",
        "${pow2()}",
        "${pow2(9223372036854775807)}",
        "${pow2(0 - 1)}",
        "${" + "max(1, " * 20 + "1" + ")" * 20 + "}",
    ],
)
def test_bad_arithmetic_is_refused(tmp_path: Path, expression: str) -> None:
    head = "name: t\nsummary: s\nvariables: {a: 9000000000}\n"
    file = profile(
        tmp_path / "p.yaml", f'net.ipv4.tcp_fin_timeout: {{value: "{expression}"}}', head
    )
    assert tune("lint", file).returncode == PROFILE


def test_missing_keys_are_told_apart(root: Root, tmp_path: Path) -> None:
    root.put("kernel/osrelease", "6.1.0")
    (root.path / "sys/module").mkdir(parents=True)
    root.file("net/core/netdev_max_backlog").unlink()
    file = profile(
        tmp_path / "p.yaml",
        """
        net.ipv4.tcp_tw_reuse_delay: {value: 1000}
        net.netfilter.nf_conntrack_tcp_timeout_time_wait: {value: 60}
        net.ipv4.tcp_mem: {value: [1024, 2048, 4096]}
        net.ipv4.conf.eth7.rp_filter: {value: 2}
        net.ipv4.nonsense: {value: 1}
        """,
    )
    settings = root.answer("check", file)["profiles"][0]["settings"]
    assert [(s["status"], s["reason"].split(";")[0].split(":")[0]) for s in settings] == [
        ("missing", "added in Linux 6.14"),
        ("missing", "module nf_conntrack is not loaded"),
        ("global", "global"),
        ("missing", "no such network interface here"),
        ("missing", "not known to this kernel, nor to this tool"),
    ]
    assert root.tune("check", file).returncode == OK
    assert root.tune("check", file, "--strict").returncode == DRIFT


@pytest.mark.parametrize(
    ("kernel", "status"), [("6.1.0-50-cloud-amd64", "global"), ("6.12.1", "missing")]
)
def test_what_an_older_kernel_kept_for_the_machine_is_global_there(
    root: Root, tmp_path: Path, kernel: str, status: str
) -> None:
    """In a child namespace, where neither can be seen."""
    root.put("kernel/osrelease", kernel)
    root.file("net/core/netdev_max_backlog").unlink()
    file = profile(tmp_path / "p.yaml", "net.core.optmem_max: {value: 20480}")
    (setting,) = root.answer("check", file)["profiles"][0]["settings"]
    assert (setting["status"], root.tune("check", "--strict", file).returncode) == (
        status, OK if status == "global" else DRIFT,
    )  # fmt: skip


def test_a_key_that_is_there_is_compared_whatever_the_version_says(root: Root) -> None:
    root.put("kernel/osrelease", "5.10.0-33-amd64")

    def item() -> tuple[str, str | None]:
        settings = root.answer("check", "busy-server")["profiles"][0]["settings"]
        found = next(s for s in settings if s["key"] == "net.ipv4.tcp_migrate_req")
        return found["status"], found["reason"]

    assert item() == ("drift", None)
    root.file("net/ipv4/tcp_migrate_req").unlink()
    assert item() == ("skipped", "wants Linux 5.14; this is 5.10.0-33-amd64")


def test_diff_tells_what_apply_would_do(root: Root, tmp_path: Path) -> None:
    """Conflicts, what is left out, and nothing that is not a step."""
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_syncookies: {value: 0}")
    for command in (["diff"], ["apply", "-n"]):
        done = root.tune(*command, "baseline", file)
        assert (done.returncode, done.stdout) == (CONFLICT, ""), command
        assert "profile baseline wants 1 to 2, profile t wants 0" in done.stderr
    root.put("fs/suid_dumpable", "1")
    file = profile(
        tmp_path / "p.yaml", "fs.suid_dumpable: {value: 0}\nnet.ipv4.tcp_sack: {value: 0}"
    )
    done = root.tune("diff", file, "-f", "tsv")
    assert (done.returncode, done.stdout) == (DRIFT, "net.ipv4.tcp_sack\t1\t0\n")
    assert "fs.suid_dumpable: left out" in done.stderr


def test_a_key_that_is_only_checked_is_not_applied(root: Root, tmp_path: Path) -> None:
    root.put("fs/suid_dumpable", "1")
    file = profile(tmp_path / "p.yaml", "fs.suid_dumpable: {value: 0}")
    assert tune("lint", file, "--strict").returncode == OK
    assert root.tune("check", file).returncode == DRIFT
    done = root.tune("apply", file)
    assert (done.returncode, root.get("fs/suid_dumpable")) == (DRIFT, "1")
    assert "apply does not set it: it is part of the machine's security" in done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "tcp_tw_recycle",
        "net.ipv4.tcp_user_timeout",
        "net/ipv4/tcp_fack",
        "net.ipv6.conf.all.rp_filter",
    ],
)
def test_keys_that_are_gone_or_never_were_are_explained(name: str) -> None:
    done = tune("explain", name)
    assert done.returncode == OK
    assert "meaning" in done.stdout


def test_a_secret_is_explained_but_never_read(root: Root) -> None:
    root.put("net/ipv4/tcp_fastopen_key", "00112233-44556677-8899aabb-ccddeeff")
    done = root.tune("explain", "net.ipv4.tcp_fastopen_key")
    assert "secret" in done.stdout
    assert "00112233" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "net..ipv4",
        "/net/ipv4/tcp_rmem",
        "net/../net/core/somaxconn",
        "net/./core/somaxconn",
        "net/core/",
        "net core somaxconn",
        "x" * 300,
    ],
)
def test_names_with_path_tricks_are_refused(name: str) -> None:
    assert tune("explain", name).returncode == USAGE


@pytest.mark.parametrize(
    "key",
    [
        "kernel.core_pattern",
        "kernel.modprobe",
        "kernel.modules_disabled",
        "kernel.kexec_load_disabled",
        "vm.drop_caches",
        "net.ipv4.route.flush",
        "net.ipv4.tcp_fastopen_key",
        "net.ipv6.conf.lo.stable_secret",
        "fs.nonsense",
    ],
)
def test_keys_outside_the_allow_list_are_refused(tmp_path: Path, key: str) -> None:
    file = profile(tmp_path / "p.yaml", f"{key}: {{value: 1}}")
    done = tune("lint", file)
    assert done.returncode == PROFILE
    assert f"p.yaml:4:3: '{key}'" in done.stderr


def test_interface_names_with_dots_stars_and_brackets_are_one_component(
    root: Root, tmp_path: Path
) -> None:
    for name in ("eth0.100", "a*b", "x[1]"):
        root.put(f"net/ipv4/conf/{name}/rp_filter", "0")
    file = profile(
        tmp_path / "p.yaml",
        """
        net.ipv4.conf.eth0/100.rp_filter: {value: 0}
        net/ipv4/conf/a*b/rp_filter: {value: 0}
        'net.ipv4.conf.x[1].rp_filter': {value: 0}
        """,
    )
    settings = root.answer("check", file)["profiles"][0]["settings"]
    assert [(s["key"], s["status"]) for s in settings] == [
        ("net.ipv4.conf.eth0/100.rp_filter", "ok"),
        ("net.ipv4.conf.a*b.rp_filter", "ok"),
        ("net.ipv4.conf.x[1].rp_filter", "ok"),
    ]


def test_a_symbolic_link_below_proc_sys_is_not_followed(root: Root, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("4096\n")
    root.file("net/core/somaxconn").unlink()
    root.file("net/core/somaxconn").symlink_to(tmp_path / "outside")
    settings = root.answer()["profiles"][0]["settings"]
    item = next(s for s in settings if s["key"] == "net.core.somaxconn")
    assert (item["status"], item["current"]) == ("denied", None)
    assert root.tune().returncode == PERMISSION


def test_a_root_that_has_no_proc_is_a_system_error(tmp_path: Path) -> None:
    assert tune("check", root=tmp_path).returncode == SYSTEM


def test_a_full_disk_under_the_answer_is_a_system_error(root: Root) -> None:
    import subprocess

    from support_tune import BINARY

    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [str(BINARY), "check", "--root", str(root.path)], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == SYSTEM


def test_colour_is_for_terminals_and_by_wish_alone(root: Root) -> None:
    assert "\033" not in root.tune("check").stdout
    assert "\033[32m" in root.tune("check", env={"HARDSOCK_COLOR": "always"}).stdout
    assert "\033" not in root.tune("check", env={"NO_COLOR": "1"}).stdout


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense",),
        ("--nonsense",),
        ("--format", "xml"),
        ("--set", "x"),
        ("explain",),
        ("lint",),
        ("apply",),
        ("show",),
        (
            "check",
            "--netns",
            "/proc",
        ),
    ],
)
def test_wrong_usage_is_exit_code_two(args: tuple[str, ...]) -> None:
    assert tune(*args).returncode == USAGE


def test_help_names_every_exit_code() -> None:
    text = tune("--help").stdout
    for number in range(10):
        assert f" {number} " in text


def test_user_profiles_come_from_config_directories(root: Root, tmp_path: Path) -> None:
    config = tmp_path / "config/hardsock/profiles"
    config.mkdir(parents=True)
    profile(config / "mine.yaml", "net.ipv4.tcp_sack: {value: 1}", "name: mine\nsummary: m\n")
    system = root.path / "etc/hardsock/profiles"
    system.mkdir(parents=True)
    profile(system / "ours.yaml", "net.ipv4.tcp_sack: {value: 1}", "name: ours\nsummary: m\n")
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert root.tune("check", "mine", env=env).returncode == OK
    assert root.tune("check", "ours").returncode == OK
    assert root.tune("check", "mine").returncode == PROFILE


@pytest.mark.parametrize("fault", ["owner", "mode"])
@pytest.mark.parametrize("place", ["system", "user"])
def test_a_profile_that_others_may_write_does_not_shadow_a_built_in_one(
    root: Root, tmp_path: Path, place: str, fault: str
) -> None:
    config = tmp_path / "config"
    folder = (config if place == "user" else root.path / "etc") / "hardsock/profiles"
    folder.mkdir(parents=True)
    head = "name: baseline\nsummary: s\n"
    file = profile(folder / "baseline.yaml", "net.ipv4.tcp_sack: {value: 0}", head)
    env = {"XDG_CONFIG_HOME": str(config)}
    assert root.tune("check", env=env).returncode == DRIFT
    if fault == "mode":
        file.chmod(0o666)
    elif os.geteuid() == 0:
        os.chown(file, 12345, 12345)
    else:
        pytest.skip("cannot give a file away")
    done = root.tune("check", env=env)
    assert (done.returncode, "belongs to somebody else" in done.stderr) == (PERMISSION, True)
    assert root.tune("check", file, env=env).returncode == DRIFT


def test_extends_overrides_key_by_key_and_stops_circles(root: Root, tmp_path: Path) -> None:
    system = root.path / "etc/hardsock/profiles"
    system.mkdir(parents=True)
    for name, other in (("a", "b"), ("b", "a")):
        profile(
            system / f"{name}.yaml",
            "net.ipv4.tcp_sack: {value: 1}",
            f"name: {name}\nsummary: s\nextends: {other}\n",
        )
    assert "circle" in root.tune("lint", "a").stderr
    file = profile(
        tmp_path / "p.yaml",
        "net.ipv4.tcp_sack: {value: 0}",
        "name: t\nsummary: s\nextends: [baseline]\n",
    )
    settings = root.answer("check", file)["profiles"][0]["settings"]
    assert [s["status"] for s in settings if s["key"] == "net.ipv4.tcp_sack"] == ["drift"]
    assert len(settings) == 12


@pytest.mark.parametrize(("value", "code"), [("0", OK), ("1", DRIFT)])
def test_old_kernel_that_still_has_a_removed_key_must_have_it_off(
    root: Root, value: str, code: int
) -> None:
    root.put("kernel/osrelease", "4.9.0")
    root.put("net/ipv4/tcp_tw_recycle", value)
    assert root.tune("check", "baseline").returncode == code
    assert root.tune("apply", "baseline").returncode == OK
    assert root.get("net/ipv4/tcp_tw_recycle") == "0"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("check", "nonsense"), PROFILE, "no profile 'nonsense'"),
        (("diff", "./nonsense"), PROFILE, "cannot read profile"),
        (("lint", "baseline"), OK, None),
        (("show",), USAGE, "show wants one profile"),
    ],
)
def test_json_is_a_document_also_when_a_command_has_nothing_to_show(
    args: tuple[str, ...], code: int, said: str | None
) -> None:
    done = tune(*args, "--format", "json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["exit"]) == (code, code)
    assert document["command"] == args[0]
    assert [said in m for m in document["messages"]] == ([True] if said else [])
    assert done.stderr == "".join(f"hardsock-tune: {m}\n" for m in document["messages"])


def test_a_conflict_is_a_json_document_too(root: Root, tmp_path: Path) -> None:
    files = [
        profile(tmp_path / f"{n}.yaml", f"net.ipv4.tcp_fin_timeout: {{value: {n}}}")
        for n in (31, 32)
    ]
    document = root.answer("apply", *files)
    assert (document["exit"], document["verdict"], document["changes"]) == (7, "conflict", [])
    assert "tcp_fin_timeout" in document["messages"][0]


def test_names_that_are_no_utf8_do_not_spoil_the_answer(root: Root, tmp_path: Path) -> None:
    name = os.fsdecode(b"v\xff\x9b\xed\xa0\x80\xc2\x9b\xc3\xa9")
    root.put(f"net/ipv4/conf/{name}/rp_filter", "0")
    root.put("net/ipv4/conf/default/rp_filter", "0")
    file = profile(tmp_path / "p.yaml", "net.ipv4.conf.default.rp_filter: {value: 1}")
    assert root.tune("apply", file).returncode == OK
    root.put(f"net/ipv4/conf/{name}/rp_filter", "2")
    lost = "\N{REPLACEMENT CHARACTER}"
    keys = [c["key"] for c in root.answer("revert")["changes"]]
    assert f"net.ipv4.conf.v{lost * 5}\x9b\N{LATIN SMALL LETTER E WITH ACUTE}.rp_filter" in keys
    key = f"net.ipv4.conf.{name}.rp_filter"
    assert f"conf.v{'?' * 7}\N{LATIN SMALL LETTER E WITH ACUTE}" in root.tune("explain", key).stdout
    assert f"conf.v{'?' * 7}" in root.tune("explain", key, "--format", "tsv").stdout


def test_a_look_at_many_profiles_reads_each_key_once(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")  # It cannot look under strace.
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    log = tmp_path / "log"
    command = ["strace", "-qq", "-o", log, "-e", "trace=openat2,openat", BINARY, "check", "all"]
    subprocess.run([*command, "--root", root.path], capture_output=True)
    read = [
        line.split('"')[1]
        for line in log.read_text().splitlines()
        if re.search(r'"(net|vm|fs|kernel)/.*O_RDONLY', line)
        and not re.search("O_DIRECTORY|O_PATH", line)
    ]
    again = {key for key in read if read.count(key) > 1}
    # Asked to tell the first namespace, before anything is remembered.
    assert again <= {"net/core/netdev_max_backlog"}
    assert len(read) > 50
