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


def test_a_stock_machine_with_512_mb_passes_too(root: Root) -> None:
    root.put("net/ipv4/tcp_max_tw_buckets", "2048")
    root.put("net/ipv4/tcp_max_orphans", "2048")
    assert root.tune("check", "--strict").returncode == OK


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


def test_listening_ports_inside_the_range_are_reserved_and_added(root: Root) -> None:
    root.put("net/ipv4/ip_local_reserved_ports", "50000")
    root.listen(40000, 8080, 22)
    settings = {s["key"]: s for s in root.answer("check")["profiles"][0]["settings"]}
    assert settings["net.ipv4.ip_local_reserved_ports"]["wanted"] == "40000,50000"
    settings = {
        s["key"]: s for s in root.answer("check", "high-churn-client")["profiles"][0]["settings"]
    }
    assert settings["net.ipv4.ip_local_reserved_ports"]["wanted"] == "8080,40000,50000"


def test_overlap_of_listeners_and_range_is_a_finding(root: Root) -> None:
    root.listen(40000)
    finding = next(f for f in root.answer()["findings"] if f["id"] == "ports-overlap")
    assert finding["advice"] == "set net.ipv4.ip_local_reserved_ports to 40000"


def test_variables_are_worked_out_and_overridden(root: Root) -> None:
    def rmem(*args: str) -> str:
        settings = root.answer("check", "long-haul", *args)["profiles"][0]["settings"]
        return str(next(s for s in settings if s["key"] == "net.ipv4.tcp_rmem")["wanted"])

    root.put("net/ipv4/tcp_rmem", "4096 131072 6291456")
    assert rmem() == "4096 131072 25000000"
    assert rmem("--set", "rtt_ms=200") == "4096 131072 50000000"


@pytest.mark.parametrize(
    "expression", ["${a * a * a}", "${1 / 0}", "${b}", "${(1}", "${1 +}", "${"]
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
