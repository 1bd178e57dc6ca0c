"""apply, revert, status: transactions, in private namespaces and below fake roots."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from support_tune import (
    BINARY,
    CONFLICT,
    DRIFT,
    GLOBAL,
    OK,
    PARTLY,
    PERMISSION,
    REFUSED,
    RESIDUE,
    SYSTEM,
    USAGE,
    Root,
    profile,
)

from hardsock.lab import Namespace, inside
from support.require import Unavailable, available


def get(ns: Namespace, *keys: str) -> list[str]:
    return [str(ns.run("hardsock.lab.inside:read_sysctl", key)) for key in keys]


def put(ns: Namespace, key: str, value: str) -> None:
    ns.run("hardsock.lab.inside:write_sysctl", key, value)


def run(ns: Namespace, *args: object) -> subprocess.CompletedProcess[str]:
    return ns.exec([str(BINARY), *map(str, args)])


def keys_of(ns: Namespace) -> str:
    """Every readable net.ipv4 setting of the namespace, to compare as one text."""
    return str(ns.run(DUMP))


DUMP = """
import pathlib
lines = []
for p in sorted(pathlib.Path("/proc/sys/net").rglob("*")):
    try:
        if p.is_file() and "mem" not in p.name[-3:]:
            lines.append(f"{p} {p.read_text()!r}")
    except OSError:
        pass
result = "\\n".join(lines)
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_apply_then_revert_restores_every_key(ns: Namespace, state: Path) -> None:
    before = keys_of(ns)
    done = run(ns, "apply", "busy-server", "--state", state)
    assert (done.returncode, done.stderr.count("left out")) == (GLOBAL, 2)
    assert "without the settings of the whole machine" in done.stdout
    assert get(ns, "net.core.somaxconn", "net.ipv4.tcp_migrate_req") == ["65535", "1"]
    assert run(ns, "status", "--state", state).returncode == OK
    assert run(ns, "check", "busy-server").returncode == OK
    assert run(ns, "revert", "--state", state).returncode == OK
    assert keys_of(ns) == before
    assert run(ns, "revert", "--state", state).stdout == "nothing to take back\n"


def test_dry_run_writes_nothing_and_makes_no_state(ns: Namespace, state: Path) -> None:
    before = keys_of(ns)
    done = run(ns, "apply", "busy-server", "--dry-run", "--state", state)
    assert (done.returncode, "would set" in done.stdout) == (GLOBAL, True)
    assert keys_of(ns) == before
    assert not state.exists()


def test_netns_option_reaches_the_namespace_by_pid_and_path(ns: Namespace, state: Path) -> None:
    host = Path("/proc/sys/net/ipv4/tcp_migrate_req").read_text()
    with ns.start("hardsock.lab.inside:wait_for_stop") as other:
        deadline = time.monotonic() + 60
        own = os.stat("/proc/self/ns/net").st_ino
        while os.stat(f"/proc/{other.pid}/ns/net").st_ino == own:
            assert time.monotonic() < deadline
        for name in (str(other.pid), f"/proc/{other.pid}/ns/net"):
            command = [BINARY, "apply", "busy-server", "--netns", name, "--state", state]
            done = subprocess.run(command, capture_output=True)
            if os.geteuid() != 0:  # setns(2) into a namespace that is not below ours
                assert done.returncode == PERMISSION
                continue
            assert done.returncode == GLOBAL
            assert get(ns, "net.ipv4.tcp_migrate_req") == ["1"]
            command = [BINARY, "revert", "--netns", name, "--state", state]
            assert subprocess.run(command, capture_output=True).returncode == OK
            assert get(ns, "net.ipv4.tcp_migrate_req") == ["0"]
    assert Path("/proc/sys/net/ipv4/tcp_migrate_req").read_text() == host


@pytest.mark.parametrize(("low", "start"), [("2048 65535", "2048"), ("600 65000", "500")])
def test_port_range_and_privileged_ports_go_in_the_order_that_works_both_ways(
    ns: Namespace, tmp_path: Path, state: Path, low: str, start: str
) -> None:
    put(ns, "net.ipv4.ip_local_port_range", "1024 65535")
    file = profile(
        tmp_path / "p.yaml",
        f"""
        net.ipv4.ip_unprivileged_port_start: {{value: {start}}}
        net.ipv4.ip_local_port_range: {{value: {low}}}
        """,
    )
    keys = ("net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start")
    assert run(ns, "apply", file, "--state", state).returncode == OK
    assert get(ns, *keys) == [low, start]
    assert run(ns, "revert", "--state", state).returncode == OK
    assert get(ns, *keys) == ["1024 65535", "1024"]


def test_start_above_the_range_is_refused_before_any_write(
    ns: Namespace, tmp_path: Path, state: Path
) -> None:
    file = profile(tmp_path / "p.yaml", "net.ipv4.ip_unprivileged_port_start: {value: 40000}")
    done = run(ns, "apply", file, "--state", state)
    assert done.returncode == CONFLICT
    assert "ip_local_port_range" in done.stderr


def test_refused_value_is_rolled_back(ns: Namespace, tmp_path: Path, state: Path) -> None:
    before = keys_of(ns)
    file = profile(
        tmp_path / "p.yaml",
        """
        net.core.somaxconn: {value: 5000}
        net.ipv4.tcp_ecn: {value: 77}
        """,
    )
    done = run(ns, "apply", file, "--state", state)
    assert done.returncode == PARTLY
    assert "everything is as it was" in done.stdout
    assert keys_of(ns) == before
    assert run(ns, "status", "--state", state).stdout == "nothing is applied\n"


def test_first_value_refused_is_exit_code_five(ns: Namespace, tmp_path: Path, state: Path) -> None:
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_ecn: {value: 77}")
    assert run(ns, "apply", file, "--state", state).returncode == REFUSED


def test_einval_that_changed_two_fields_is_repaired(
    ns: Namespace, tmp_path: Path, state: Path
) -> None:
    # The third number does not fit the kernel's int: it refuses, with two fields changed.
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_wmem: {value: [8192, 32768, 99999999999]}")
    before = get(ns, "net.ipv4.tcp_wmem")
    done = run(ns, "apply", file, "--state", state)
    assert done.returncode == REFUSED
    assert "restored" in done.stdout
    assert get(ns, "net.ipv4.tcp_wmem") == before


def test_reserved_ports_are_added_and_cleared_again(
    ns: Namespace, tmp_path: Path, state: Path
) -> None:
    file = profile(
        tmp_path / "p.yaml", 'net.ipv4.ip_local_reserved_ports: {contains: ["8080", "9000-9010"]}'
    )
    assert run(ns, "apply", file, "--state", state).returncode == OK
    assert get(ns, "net.ipv4.ip_local_reserved_ports") == ["8080,9000-9010"]
    assert run(ns, "revert", "--state", state).returncode == OK
    assert get(ns, "net.ipv4.ip_local_reserved_ports") == [""]


def test_long_port_list_is_written_in_full(ns: Namespace, tmp_path: Path, state: Path) -> None:
    # Every second port: 32 thousand ranges, far more than one page of text.
    ports = ",".join(str(p) for p in range(20001, 32001, 2))
    file = profile(
        tmp_path / "p.yaml", f'net.ipv4.ip_local_reserved_ports: {{contains: ["{ports}"]}}'
    )
    assert run(ns, "apply", file, "--state", state).returncode == OK
    assert ns.run(READ_AT_ONCE) == ports
    assert run(ns, "revert", "--state", state).returncode == OK
    assert get(ns, "net.ipv4.ip_local_reserved_ports") == [""]


# A second read(2) returns end of file, so one read must be large enough.
READ_AT_ONCE = """
import os
fd = os.open("/proc/sys/net/ipv4/ip_local_reserved_ports", os.O_RDONLY)
result = os.read(fd, 1 << 20).decode().strip()
os.close(fd)
"""


def test_reserving_the_whole_range_is_refused(ns: Namespace, tmp_path: Path, state: Path) -> None:
    file = profile(
        tmp_path / "p.yaml", 'net.ipv4.ip_local_reserved_ports: {contains: ["1024-65535"]}'
    )
    done = run(ns, "apply", file, "--state", state)
    assert (done.returncode, "no connect()" in done.stderr) == (CONFLICT, True)


def test_tw_reuse_without_timestamps_is_refused(ns: Namespace, tmp_path: Path, state: Path) -> None:
    put(ns, "net.ipv4.tcp_timestamps", "0")
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_tw_reuse: {value: 1}")
    assert run(ns, "apply", file, "--state", state).returncode == CONFLICT


def test_unknown_congestion_control_is_refused_without_loading_a_module(
    ns: Namespace, tmp_path: Path, state: Path
) -> None:
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_congestion_control: {value: westwood}")
    done = run(ns, "apply", file, "--state", state)
    assert (done.returncode, "loads none" in done.stderr) == (CONFLICT, True)


def test_ip_forward_takes_its_side_effects_back(ns: Namespace, tmp_path: Path, state: Path) -> None:
    put(ns, "net.ipv4.conf.all.accept_redirects", "0")
    put(ns, "net.ipv4.conf.all.accept_redirects", "0")
    before = keys_of(ns)
    file = profile(tmp_path / "p.yaml", "net.ipv4.ip_forward: {value: 1}")
    assert run(ns, "apply", file, "--state", state).returncode == OK
    assert run(ns, "revert", "--state", state).returncode == OK
    assert keys_of(ns) == before


def test_default_of_interfaces_takes_its_copies_back(
    ns: Namespace, tmp_path: Path, state: Path
) -> None:
    before = get(ns, "net.ipv4.conf.default.rp_filter", "net.ipv4.conf.lo.rp_filter")
    file = profile(tmp_path / "p.yaml", "net.ipv4.conf.default.rp_filter: {value: 1}")
    assert run(ns, "apply", file, "--state", state).returncode == OK
    assert run(ns, "revert", "--state", state).returncode == OK
    assert get(ns, "net.ipv4.conf.default.rp_filter", "net.ipv4.conf.lo.rp_filter") == before


def test_global_keys_are_left_out_with_the_reason(
    ns: Namespace, tmp_path: Path, state: Path
) -> None:
    file = profile(
        tmp_path / "p.yaml",
        """
        net.core.netdev_max_backlog: {value: 5000}
        net.core.rmem_max: {value: 8388608}
        net.ipv4.tcp_sack: {value: 0}
        """,
    )
    done = run(ns, "apply", file, "--state", state)
    assert done.returncode == GLOBAL
    assert done.stderr.count("first network namespace") == 2
    assert run(ns, "diff", file, "--state", state).returncode == GLOBAL
    assert get(ns, "net.ipv4.tcp_sack") == ["0"]
    assert run(ns, "apply", file, "--state", state, "--strict").returncode != OK


def test_what_this_kernel_lacks_counts_more_than_what_the_machine_holds(
    ns: Namespace, tmp_path: Path, state: Path
) -> None:
    file = profile(
        tmp_path / "p.yaml",
        """
        net.core.netdev_max_backlog: {value: 5000}
        net.ipv4.tcp_sack: {value: 0}
        net.ipv4.nonsense: {value: 1}
        """,
    )
    assert run(ns, "apply", file, "--state", state).returncode == DRIFT
    file.write_text(file.read_text().replace("tcp_sack: {value: 0", "tcp_ecn: {value: 77"))
    refused = run(ns, "apply", file, "--state", state)
    assert refused.returncode == REFUSED, "a failure beats what was left out"


def test_machine_wide_file_limits_are_never_written_from_a_child_namespace(
    ns: Namespace, tmp_path: Path, state: Path
) -> None:
    before = Path("/proc/sys/fs/nr_open").read_text()
    file = profile(tmp_path / "p.yaml", f"fs.nr_open: {{value: {int(before)}}}")
    assert run(ns, "apply", file, "--state", state).returncode == OK
    file = profile(tmp_path / "q.yaml", f"fs.nr_open: {{value: {int(before) - 8}}}")
    done = run(ns, "apply", file, "--dry-run", "--state", state)
    assert (done.returncode, "left out: global" in done.stderr) == (GLOBAL, True)
    assert Path("/proc/sys/fs/nr_open").read_text() == before


def test_value_changed_by_someone_else_is_kept_unless_forced(
    ns: Namespace, tmp_path: Path, state: Path
) -> None:
    file = profile(
        tmp_path / "p.yaml",
        """
        net.ipv4.tcp_fin_timeout: {value: 33}
        net.ipv4.tcp_sack: {value: 0}
        """,
    )
    run(ns, "apply", file, "--state", state)
    put(ns, "net.ipv4.tcp_fin_timeout", "44")
    assert run(ns, "status", "--state", state).returncode == DRIFT
    done = run(ns, "revert", "--state", state)
    assert (done.returncode, "changed by someone else" in done.stdout) == (CONFLICT, True)
    assert get(ns, "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_sack") == ["44", "1"]
    assert "1 taken back, 1 not" in done.stdout
    assert run(ns, "status", "--state", state).returncode == CONFLICT
    assert run(ns, "revert", "--state", state, "--force").returncode == OK
    assert get(ns, "net.ipv4.tcp_fin_timeout") == ["60"]


def test_value_changed_by_someone_else_is_forgotten_with_keep(root: Root, tmp_path: Path) -> None:
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_fin_timeout: {value: 33}")
    root.tune("apply", file)
    root.put("net/ipv4/tcp_fin_timeout", "44")
    assert root.tune("revert").returncode == CONFLICT
    assert root.tune("apply", file).returncode == CONFLICT
    assert root.tune("revert", "--keep", "--force").returncode == USAGE
    assert root.tune("revert", "--keep", "--dry-run").returncode == OK
    assert root.tune("apply", file).returncode == CONFLICT
    done = root.tune("revert", "--keep")
    assert (done.returncode, "0 taken back, 1 not, and forgotten" in done.stdout) == (OK, True)
    assert root.get("net/ipv4/tcp_fin_timeout") == "44"
    assert list(root.path.rglob("*.tx")) == []
    assert root.tune("apply", file).returncode == OK


def interrupt(root: Root) -> None:
    journal = next(root.path.rglob("*.tx"))
    journal.write_text(journal.read_text().replace("state\t1", "state\t0"))


@pytest.mark.parametrize(
    ("key", "wanted", "now"),
    [
        ("net/ipv4/tcp_rmem", "value: [8192, 200000, 9000000]", "8192 131072 33554432"),
        ("net/ipv4/tcp_rmem", "value: [8192, 200000, 9000000]", "4096 200000 9000000"),
        ("net/ipv4/ip_local_reserved_ports", 'value: "80,90-95,99"', "80,90-93"),
    ],
)
def test_half_written_value_of_a_killed_apply_is_taken_back(
    root: Root, tmp_path: Path, key: str, wanted: str, now: str
) -> None:
    before = root.get(key)
    file = profile(tmp_path / "p.yaml", f"{key}: {{{wanted}}}")
    root.tune("apply", file)
    root.put(key, now)
    # A transaction that ended wrote all of it, so there this is somebody else's value.
    assert root.tune("revert", "--dry-run").stdout.count("changed by someone else") == 1
    interrupt(root)
    assert root.tune("revert").returncode == OK
    assert root.get(key) == before


def test_foreign_value_after_a_killed_apply_is_still_foreign(root: Root, tmp_path: Path) -> None:
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_rmem: {value: [8192, 200000, 9000000]}")
    root.tune("apply", file)
    root.put("net/ipv4/tcp_rmem", "8192 131072 7000000")
    interrupt(root)
    assert root.tune("revert").returncode == CONFLICT


def test_what_cannot_be_restored_is_residue_with_a_code_of_its_own(
    ns: Namespace, tmp_path: Path, state: Path
) -> None:
    put(ns, "net.ipv4.ip_local_port_range", "1024 65535")
    file = profile(tmp_path / "p.yaml", "net.ipv4.ip_local_port_range: {value: 2048 65535}")
    assert run(ns, "apply", file, "--state", state).returncode == OK
    put(ns, "net.ipv4.ip_unprivileged_port_start", "2000")  # Now the old range is refused.
    done = run(ns, "revert", "--state", state)
    assert (done.returncode, "residue" in done.stdout) == (RESIDUE, True)
    assert run(ns, "status", "--state", state).returncode == CONFLICT
    put(ns, "net.ipv4.ip_unprivileged_port_start", "1024")
    assert run(ns, "revert", "--state", state).returncode == OK
    assert get(ns, "net.ipv4.ip_local_port_range") == ["1024 65535"]


def test_what_one_setting_does_to_another_is_set_right(
    ns: Namespace, tmp_path: Path, state: Path
) -> None:
    # Turning forwarding on turns accept_redirects off, which is as wanted until then.
    before = keys_of(ns)
    file = profile(
        tmp_path / "p.yaml",
        """
        net.ipv4.conf.all.accept_redirects: {value: 1}
        net.ipv4.conf.lo.forwarding: {value: 0}
        net.ipv4.ip_forward: {value: 1}
        """,
    )
    done = run(ns, "apply", file, "--state", state)
    assert done.returncode == OK
    assert done.stdout.count("another setting had changed it") == 2
    assert run(ns, "check", file).returncode == OK
    assert run(ns, "revert", "--state", state).returncode == OK
    assert keys_of(ns) == before


@pytest.mark.parametrize("redirects", [0, 1])
@pytest.mark.parametrize("key", ["net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding"])
def test_keys_that_forwarding_rewrites_come_after_it_both_ways(
    ns: Namespace, tmp_path: Path, state: Path, key: str, redirects: int
) -> None:
    put(ns, "net.ipv4.conf.all.accept_redirects", str(1 - redirects))
    before = keys_of(ns)
    file = profile(
        tmp_path / "p.yaml",
        f"""
        net.ipv4.conf.all.accept_redirects: {{value: {redirects}}}
        {key}: {{value: 1}}
        """,
    )
    assert run(ns, "apply", file, "--state", state).returncode == OK
    assert run(ns, "check", file).returncode == OK
    assert run(ns, "revert", "--state", state).returncode == OK
    assert keys_of(ns) == before


def test_settings_that_undo_each_other_are_rolled_back(
    ns: Namespace, tmp_path: Path, state: Path
) -> None:
    # Two names of one variable, in two units.
    before = keys_of(ns)
    file = profile(
        tmp_path / "p.yaml",
        """
        net.ipv4.neigh.lo.base_reachable_time: {value: 40}
        net.ipv4.neigh.lo.base_reachable_time_ms: {value: 50000}
        """,
    )
    done = run(ns, "apply", file, "--state", state)
    assert (done.returncode, "is not 40 any more" in done.stderr) == (PARTLY, True)
    assert keys_of(ns) == before
    assert list(state.rglob("*.tx")) == []


def test_transactions_stack_and_revert_all_takes_every_one(
    ns: Namespace, tmp_path: Path, state: Path
) -> None:
    one = profile(tmp_path / "1.yaml", "net.ipv4.tcp_fin_timeout: {value: 31}")
    two = profile(tmp_path / "2.yaml", "net.ipv4.tcp_fin_timeout: {value: 32}")
    for file in (one, two):
        assert run(ns, "apply", file, "--state", state).returncode == OK
    assert run(ns, "revert", "--state", state).returncode == OK
    assert get(ns, "net.ipv4.tcp_fin_timeout") == ["31"]
    assert run(ns, "apply", two, "--state", state).returncode == OK
    assert run(ns, "revert", "--all", "--state", state).returncode == OK
    assert get(ns, "net.ipv4.tcp_fin_timeout") == ["60"]


def test_profiles_that_disagree_are_a_conflict(ns: Namespace, tmp_path: Path, state: Path) -> None:
    one = profile(tmp_path / "1.yaml", "net.ipv4.tcp_fin_timeout: {value: 31}")
    two = profile(tmp_path / "2.yaml", "net.ipv4.tcp_fin_timeout: {value: 60}")
    assert run(ns, "apply", one, two, "--state", state).returncode == CONFLICT
    assert get(ns, "net.ipv4.tcp_fin_timeout") == ["60"]


@pytest.mark.parametrize("name", ["lo", "all"])
def test_turning_ipv6_off_is_refused_since_revert_cannot_bring_addresses_back(
    ns: Namespace, tmp_path: Path, state: Path, name: str
) -> None:
    key = f"net.ipv6.conf.{name}.disable_ipv6"
    file = profile(tmp_path / "p.yaml", f"{key}: {{value: 1}}")
    before = keys_of(ns)
    done = run(ns, "apply", file, "--state", state)
    assert (done.returncode, "flushes IPv6 addresses" in done.stderr) == (CONFLICT, True)
    assert keys_of(ns) == before
    done = run(ns, "apply", file, "--state", state, "--force", "--dry-run")
    assert (done.returncode, "flushes IPv6 addresses" in done.stdout) == (OK, True)
    assert run(ns, "apply", file, "--state", state, "--force").returncode == OK
    assert get(ns, key) == ["1"]
    assert run(ns, "revert", "--state", state).returncode == OK
    assert keys_of(ns) == before


def test_ipv6_off_for_interfaces_to_come_flushes_nothing(
    ns: Namespace, tmp_path: Path, state: Path
) -> None:
    file = profile(tmp_path / "p.yaml", "net.ipv6.conf.default.disable_ipv6: {value: 1}")
    assert run(ns, "apply", file, "--state", state).returncode == OK
    assert ns.exec(["cat", "/proc/net/if_inet6"]).stdout.startswith("0" * 31 + "1")


@pytest.mark.parametrize(
    ("one", "two", "value"),
    [
        ("value: 31", "at_least: 20", "31"),
        ("at_least: 100", "at_least: 80", "100"),
        ("at_least: 80", "range: [90, 120]", "90"),
        ("at_most: 40", "at_least: 30", "40"),
        ("one_of: [70, 90]", "at_least: 80", "90"),
        ("one_of: [70, 90, 50]", "one_of: [20, 50]", "50"),
        ("value: 31", "at_least: 32", None),
        ("at_most: 30", "at_least: 40", None),
        ("one_of: [70, 90]", "one_of: [20, 50]", None),
    ],
)
def test_profiles_agree_where_one_value_meets_both(
    root: Root, tmp_path: Path, one: str, two: str, value: str | None
) -> None:
    files = [
        profile(tmp_path / f"{i}.yaml", f"net.ipv4.tcp_fin_timeout: {{{want}}}")
        for i, want in enumerate((one, two))
    ]
    for order in (files, files[::-1]):
        assert root.tune("apply", *order).returncode == (CONFLICT if value is None else OK)
        assert root.get("net/ipv4/tcp_fin_timeout") == (value or "60")
        assert root.tune("revert").returncode == OK


def test_ports_to_reserve_follow_the_range_of_another_profile(root: Root, tmp_path: Path) -> None:
    root.listen(8080, 1080)
    file = profile(tmp_path / "p.yaml", "net.ipv4.ip_local_port_range: {value: 2048 65535}")
    assert root.tune("apply", "baseline", file).returncode == OK
    assert root.get("net/ipv4/ip_local_reserved_ports") == "8080"


def test_rules_between_keys_hold_for_all_profiles_together(root: Root, tmp_path: Path) -> None:
    def write(name: str, settings: str) -> Path:
        return profile(tmp_path / f"{name}.yaml", settings)

    reuse = write("reuse", "net.ipv4.tcp_tw_reuse: {value: 1}")
    stamps = write("stamps", "net.ipv4.tcp_timestamps: {value: 0}")
    assert root.tune("apply", reuse, stamps, "--dry-run").returncode == CONFLICT
    start = write("start", "net.ipv4.ip_unprivileged_port_start: {value: 40000}")
    ports = write("range", "net.ipv4.ip_local_port_range: {value: 40000 65000}")
    assert root.tune("apply", start, "--dry-run").returncode == CONFLICT
    assert root.tune("apply", start, ports, "--dry-run").returncode == OK


def test_second_tool_at_the_same_time_is_a_conflict(root: Root) -> None:
    assert root.tune("apply", "busy-server").returncode == OK
    fd = os.open(root.path / "run/hardsock-tune/root", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert root.tune("revert").returncode == CONFLICT
        assert root.tune("status").returncode == OK
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("pattern", "other"), [(r"cookie\t\d+", "cookie\t1"), (r"boot\t.*", "boot\tanother")]
)
def test_journal_of_another_namespace_or_boot_is_left_alone(
    ns: Namespace, tmp_path: Path, state: Path, pattern: str, other: str
) -> None:
    one = profile(tmp_path / "1.yaml", "net.ipv4.tcp_fin_timeout: {value: 33}")
    two = profile(tmp_path / "2.yaml", "net.ipv4.tcp_sack: {value: 0}")
    run(ns, "apply", one, "--state", state)
    foreign = next(state.rglob("*.tx"))
    text = re.sub(pattern, other, foreign.read_text()).replace("state\t1", "state\t0")
    foreign.write_text(text)
    done = run(ns, "revert", "--state", state)
    assert (done.returncode, done.stdout) == (OK, "nothing to take back\n")
    assert "left alone" in done.stderr
    assert run(ns, "apply", two, "--state", state).returncode == OK
    done = run(ns, "status", "--state", state, "--format", "tsv")
    assert (done.returncode, done.stdout) == (OK, "2\tok\tnet.ipv4.tcp_sack\t1\t0\t0\n")
    assert run(ns, "revert", "--state", state).returncode == OK
    assert get(ns, "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_sack") == ["33", "1"]
    assert foreign.read_text() == text


def test_a_file_that_is_no_journal_stops_nothing(root: Root) -> None:
    root.tune("apply", "busy-server")
    store = next(root.path.rglob("*.tx")).parent
    for name in ("1.tx", "0000002.tx", "000002.tx~", "+00003.tx", "x.tx"):
        (store / name).write_text("garbage")
    assert root.tune("status").returncode == OK
    assert root.tune("apply", "high-churn-client").returncode == OK
    assert root.tune("revert", "--all").returncode == OK


@pytest.mark.parametrize("damage", ["", "garbage\n", "cut"])
def test_damaged_journal_is_not_believed(root: Root, damage: str) -> None:
    root.tune("apply", "busy-server")
    journal = next(root.path.rglob("*.tx"))
    journal.write_text(journal.read_text()[:-4] if damage == "cut" else damage)
    assert root.tune("revert").returncode == SYSTEM
    assert root.tune("apply", "high-churn-client").returncode == SYSTEM


@pytest.mark.parametrize("path", ["net/core/../../kernel/core_pattern", "kernel/core_pattern", ""])
def test_journal_that_names_a_forbidden_file_is_not_believed(root: Root, path: str) -> None:
    root.put("kernel/core_pattern", "core")
    root.tune("apply", "busy-server")
    journal = next(root.path.rglob("*.tx"))
    line = f"set\t{path}\t|/bin/sh\tcore\n"
    journal.write_text(journal.read_text().replace("end\n", line + "end\n"))
    assert root.tune("revert").returncode == SYSTEM
    assert root.get("kernel/core_pattern") == "core"


def test_journal_and_its_directory_are_private(root: Root) -> None:
    root.tune("apply", "busy-server")
    assert os.stat(next(root.path.rglob("*.tx"))).st_mode & 0o777 == 0o600
    assert os.stat(root.path / "run/hardsock-tune").st_mode & 0o777 == 0o700


def test_state_directory_that_others_may_write_is_refused(root: Root, tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    done = root.tune("apply", "busy-server", "--state", loose)
    assert done.returncode == PERMISSION


def test_nothing_to_do_is_no_transaction(root: Root) -> None:
    root.tune("apply", "busy-server")
    assert root.tune("apply", "busy-server").stdout.startswith("nothing to do")
    assert len(list(root.path.rglob("*.tx"))) == 1


def test_interface_that_is_gone_is_no_reason_to_stop(root: Root, tmp_path: Path) -> None:
    root.put("net/ipv4/conf/eth0/rp_filter", "0")
    file = profile(tmp_path / "p.yaml", "net.ipv4.conf.eth0.rp_filter: {value: 2}")
    done = root.tune("apply", file)
    assert (done.returncode, "no longer follows conf.default" in done.stdout) == (OK, True)
    shutil.rmtree(root.path / "proc/sys/net/ipv4/conf/eth0")
    assert root.tune("revert").returncode == OK


def test_read_only_proc_still_answers_for_equal_values(tmp_path: Path, state: Path) -> None:
    with available(), Namespace() as namespace:
        namespace.run(MAKE_READ_ONLY)
        same = profile(tmp_path / "1.yaml", "net.ipv4.tcp_sack: {value: 1}")
        other = profile(tmp_path / "2.yaml", "net.ipv4.tcp_sack: {value: 0}")
        assert run(namespace, "apply", same, "--state", state).returncode == OK
        done = run(namespace, "apply", other, "--state", state)
        assert done.returncode == PERMISSION
        assert "Read-only" in done.stderr


MAKE_READ_ONLY = """
import ctypes
from hardsock.lab import inside
inside.check_isolated("mnt")
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(b"/proc/sys", b"/proc/sys", None, ctypes.c_ulong(4096), None) == 0
assert libc.mount(None, b"/proc/sys", None, ctypes.c_ulong(4096 | 32 | 1), None) == 0
"""


def test_unprivileged_user_may_write_in_a_namespace_of_its_own() -> None:
    if os.geteuid() != 0:
        pytest.skip("cannot become another user")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        binary = shutil.copy(BINARY, folder)
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, binary], capture_output=True, text=True
        )
    with available():
        if "SKIP" in done.stdout:
            raise Unavailable(done.stdout)
    assert json.loads(done.stdout) == {
        "apply": GLOBAL,
        "value": "65535",
        "revert": OK,
        "after": "4096",
    }


UNPRIVILEGED = """
import ctypes, json, os, subprocess, sys, tempfile
libc = ctypes.CDLL(None, use_errno=True)
os.setgroups([]); os.setgid(65534); os.setuid(65534); libc.prctl(4, 1, 0, 0, 0)
before = os.stat("/proc/self/ns/net").st_ino
if libc.unshare(0x10000000 | 0x40000000) != 0:
    print("SKIP no user namespaces"); sys.exit()
open("/proc/self/setgroups", "w").write("deny")
open("/proc/self/uid_map", "w").write("0 65534 1")
open("/proc/self/gid_map", "w").write("0 65534 1")
assert os.stat("/proc/self/ns/net").st_ino != before
read = lambda: open("/proc/sys/net/core/somaxconn").read().strip()
with tempfile.TemporaryDirectory() as state:
    run = lambda *a: subprocess.run([sys.argv[1], *a, "--state", state], capture_output=True)
    out = {"apply": run("apply", "busy-server").returncode, "value": read()}
    out |= {"revert": run("revert").returncode, "after": read()}
print(json.dumps(out))
"""


# kill -9 at every system call of apply and of revert: strace delivers the signal.

SWEPT = {
    "order": """
        net.core.somaxconn: {value: 5000}
        net.ipv4.tcp_fin_timeout: {value: 33}
        net.ipv4.tcp_rmem: {value: [8192, 200000, 9000000]}
        net.ipv4.ip_local_port_range: {value: 2048 65535}
        net.ipv4.ip_unprivileged_port_start: {value: 2048}
    """,
    # One setting to keep, one to change, and others that change by themselves.
    "side effects": """
        net.ipv4.ip_forward: {value: 1}
        net.ipv4.conf.all.accept_redirects: {value: 1}
        net.ipv4.conf.lo.forwarding: {value: 0}
        net.ipv4.conf.default.rp_filter: {value: 1}
    """,
    # Going back turns accept_redirects to 1, which it was neither before nor after.
    "side effects of going back": "net.ipv4.ip_forward: {value: 1}",
    # The kernel refuses the last one with two fields changed.
    "refused": """
        net.core.somaxconn: {value: 5000}
        net.ipv4.tcp_wmem: {value: [8192, 32768, 99999999999]}
    """,
}

SWEEP = """
import os, subprocess
from hardsock.lab import inside
inside.check_isolated("net")
binary, file, state, name = args
keys = ["net.core.somaxconn", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
        "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ip_forward", "net.ipv4.conf.all.accept_redirects",
        "net.ipv4.conf.default.forwarding", "net.ipv4.conf.lo.forwarding",
        "net.ipv4.conf.default.rp_filter", "net.ipv4.conf.lo.rp_filter"]
values = lambda: [inside.read_sysctl(k) for k in keys]
if "going back" in name:
    inside.write_sysctl("net.ipv4.conf.all.accept_redirects", "0")
before = values()
killed, problems = 0, []

def sweep(command, ready):
    global killed
    line = [binary, command, *([file] if command == "apply" else []), "--state", state]
    # strace counts each kind of call by itself.
    assert ready()
    trace = state + ".trace"
    subprocess.run(["strace", "-qq", "-o", trace, *line], capture_output=True)
    calls = sorted({row.partition("(")[0] for row in open(trace) if row[0].isalpha()})
    subprocess.run([binary, "revert", "--state", state], capture_output=True)
    for call in calls:
        for n in range(1, 2000):
            if not ready():
                problems.append(["not ready", command, call, n])
                return
            inject = f"inject={call}:signal=KILL:when={n}"
            done = subprocess.run(["strace", "-qq", "-o", "/dev/null", "-e", inject, *line],
                                  capture_output=True)
            killed += done.returncode == -9
            back = subprocess.run([binary, "revert", "--state", state],
                                  capture_output=True, text=True)
            if back.returncode != 0 or values() != before:
                problems.append([command, call, n, back.stdout + back.stderr, values()])
                return
            if done.returncode != -9:
                break
    left = subprocess.run([binary, "revert", "--state", state], capture_output=True)
    if left.returncode != 0 or values() != before:
        problems.append([command, "end", values()])

def applied():
    return subprocess.run([binary, "apply", file, "--state", state],
                          capture_output=True).returncode == 0

sweep("apply", lambda: True)
if name != "refused":
    sweep("revert", applied)
result = {"killed": killed, "problems": problems}
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEPT)
def test_kill_at_any_system_call_is_recovered_by_revert(
    ns: Namespace, tmp_path: Path, state: Path, name: str
) -> None:
    if shutil.which("strace") is None:
        with available():
            raise Unavailable("strace is not installed")
    file = profile(tmp_path / "p.yaml", SWEPT[name])
    result: dict[str, Any] = ns.run(SWEEP, str(BINARY), str(file), str(state), name, timeout=300)
    print(name, "killed", result["killed"], "times")
    assert result["problems"] == []
    assert result["killed"] > 100


def test_inside_is_really_another_namespace(ns: Namespace) -> None:
    assert ns.run("hardsock.lab.inside:namespace_inode", "net") != inside.namespace_inode("net")


def test_blanks_around_a_word_do_not_reach_the_kernel(
    ns: Namespace, tmp_path: Path, state: Path
) -> None:
    file = profile(tmp_path / "p.yaml", 'net.ipv4.tcp_congestion_control: {value: "reno "}')
    assert run(ns, "apply", file, "--state", state).returncode == OK
    assert get(ns, "net.ipv4.tcp_congestion_control") == ["reno"]
    assert run(ns, "revert", "--state", state).returncode == OK


def test_allowed_congestion_controls_are_saved_with_the_chosen_one(
    root: Root, tmp_path: Path
) -> None:
    root.put("net/ipv4/tcp_congestion_control", "cubic")
    root.put("net/ipv4/tcp_available_congestion_control", "reno cubic bbr")
    root.put("net/ipv4/tcp_allowed_congestion_control", "reno cubic")
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_congestion_control: {value: bbr}")
    assert root.tune("apply", file).returncode == OK
    # What a kernel would have done by itself; noted when the transaction ended, so put in there.
    root.put("net/ipv4/tcp_allowed_congestion_control", "reno cubic bbr")
    journal = next(root.path.rglob("*.tx"))
    journal.write_text(journal.read_text().replace("\treno cubic\n", "\treno cubic bbr\n"))
    assert root.tune("revert").returncode == OK
    assert root.get("net/ipv4/tcp_allowed_congestion_control") == "reno cubic"


def test_a_file_system_other_than_proc_is_not_believed() -> None:
    with available(), Namespace() as namespace:
        done = namespace.run(
            "import subprocess\nfrom hardsock.lab import inside\n"
            "inside.mount_tmpfs('/proc/sys')\n"
            "done = subprocess.run([args[0], 'check'], capture_output=True, text=True)\n"
            "result = [done.returncode, done.stderr]",
            str(BINARY),
        )
    assert done == [SYSTEM, "hardsock-tune: /proc/sys is not the kernel's (no proc file system)\n"]


def test_a_root_whose_links_lead_out_is_not_worked_on(root: Root, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (root.path / "run").rmdir()
    (root.path / "run").symlink_to(tmp_path / "outside")
    assert root.tune("apply", "busy-server").returncode == SYSTEM
    assert list((tmp_path / "outside").iterdir()) == []
    (root.path / "proc").rename(tmp_path / "proc")
    (root.path / "proc").symlink_to(tmp_path / "proc")
    assert root.tune("check").returncode == SYSTEM


@pytest.mark.parametrize("spelling", ["//", "/.", "/usr/..", "link"])
def test_the_real_root_is_the_real_one_however_it_is_spelled(
    ns: Namespace, tmp_path: Path, state: Path, spelling: str
) -> None:
    (tmp_path / "link").symlink_to("/")
    path = tmp_path / "link" if spelling == "link" else spelling
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_fin_timeout: {value: 33}")
    done = run(ns, "apply", file, "--state", state, "--root", path)
    assert (done.returncode, done.stderr) == (OK, "")
    assert [p.name[:4] for p in state.iterdir()] == ["net-"]
    assert get(ns, "net.ipv4.tcp_fin_timeout") == ["33"]
    assert run(ns, "revert", "--state", state).returncode == OK


def test_status_says_that_what_root_applied_is_not_known(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("cannot become another user")
    with available(), Namespace() as namespace, tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        done = namespace.run(STATUS_OF_ANOTHER, str(shutil.copy(BINARY, folder)))
    assert done[0] == [OK, "nothing is applied\n"]
    assert done[1][0] == PERMISSION
    assert "only root may read that" in done[1][1]


STATUS_OF_ANOTHER = """
import os, subprocess
from hardsock.lab import inside
inside.mount_tmpfs("/run")
os.chmod("/run", 0o755)
os.mkdir("/run/user", 0o755)
os.chown("/run/user", 65534, 65534)
def status():
    done = subprocess.run([args[0], "status"], user=65534, group=65534, extra_groups=[],
                          env={"XDG_RUNTIME_DIR": "/run/user"}, capture_output=True, text=True)
    return [done.returncode, done.stdout + done.stderr]
result = [status()]
assert subprocess.run([args[0], "apply", "baseline"], capture_output=True).returncode in (0, 10)
os.makedirs("/run/hardsock-tune", mode=0o700, exist_ok=True)
result.append(status())
"""
