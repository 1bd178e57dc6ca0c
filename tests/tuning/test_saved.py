"""check --from and --baseline: machines of which only a saved `sysctl -a` is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support_tune import BINARY, DEFAULTS, DRIFT, OK, SYSTEM, USAGE, Root, answer, profile, tune

from hardsock.lab import Namespace


def save(path: Path, **changes: str | None) -> Path:
    """Write DEFAULTS as sysctl prints them; keys of changes have _ for dots after the first."""
    values: dict[str, str | None] = {k.replace("/", "."): v for k, v in DEFAULTS.items()}
    for name, value in changes.items():
        values[name.replace("__", ".")] = value
    lines = [f"{key} = {value}" for key, value in values.items() if value is not None]
    path.write_text("\n".join(lines) + "\n")
    return path


def settings(got: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {s["key"]: s for p in got["profiles"] for s in p["settings"]}


def test_a_saved_machine_is_checked_as_a_running_one(tmp_path: Path) -> None:
    good = save(tmp_path / "good.txt")
    assert tune("check", "--strict", "--from", good).returncode == OK
    bad = save(tmp_path / "bad.txt", net__ipv4__tcp_sack="0", net__core__somaxconn="128")
    got = answer("check", "--from", bad)
    drift = {key for key, s in settings(got).items() if s["status"] == "drift"}
    assert drift == {"net.ipv4.tcp_sack", "net.core.somaxconn"}
    assert (got["exit"], got["kernel"], got["findings"]) == (DRIFT, "6.18.0", [])


def test_its_kernel_is_the_one_in_the_file(tmp_path: Path) -> None:
    old = save(tmp_path / "old.txt", kernel__osrelease="4.15.0", net__core__somaxconn="128")
    assert tune("check", "--from", old).returncode == OK


@pytest.mark.parametrize(
    ("more", "code"),
    [
        # A list of settings tells the memory by the number of threads, or the hash itself.
        ({"kernel__threads-max": "1870"}, OK),
        ({"net__ipv4__tcp_ehash_entries": "2048"}, OK),
        ({"kernel__threads-max": "9999"}, DRIFT),
        ({}, DRIFT),
    ],
)
def test_a_small_stock_machine_passes_the_baseline(
    tmp_path: Path, more: dict[str, str], code: int
) -> None:
    file = save(
        tmp_path / "a.txt",
        kernel__osrelease="4.15.0-213-generic",
        net__core__somaxconn="128",
        net__ipv4__tcp_max_tw_buckets="1024",
        net__ipv4__tcp_max_orphans="1024",
        **more,
    )
    assert tune("check", "--strict", "--from", file).returncode == code


def test_a_key_that_is_not_in_the_file_is_missing_with_that_reason(tmp_path: Path) -> None:
    file = save(tmp_path / "a.txt", net__ipv4__tcp_sack=None)
    got = settings(answer("check", "--from", file))["net.ipv4.tcp_sack"]
    assert (got["status"], got["reason"].startswith(f"not in {file}")) == ("missing", True)
    assert tune("check", "--strict", "--from", file).returncode == DRIFT


def test_explain_shows_the_value_of_the_saved_machine(tmp_path: Path) -> None:
    file = save(tmp_path / "a.txt", net__ipv4__tcp_fin_timeout="33")
    assert "tcp_fin_timeout = 33" in tune("explain", "tcp_fin_timeout", "--from", file).stdout


@pytest.mark.parametrize("command", ["apply", "revert", "status", "persist", "diff", "conflicts"])
def test_what_changes_a_machine_takes_no_saved_one(tmp_path: Path, command: str) -> None:
    done = tune(command, "baseline", "--from", save(tmp_path / "a.txt"))
    assert (done.returncode, "--from is for check" in done.stderr) == (USAGE, True)
    assert tune(command, "--baseline", tmp_path / "a.txt").returncode == USAGE


def test_a_file_without_settings_is_told(root: Root, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("sysctl: cannot stat /proc/sys\n\n# nothing\n")
    for option in ("--from", "--baseline"):
        done = tune("check", option, file)
        assert (done.returncode, "holds no setting" in done.stderr) == (USAGE, True)
        assert tune("check", option, tmp_path / "none").returncode == SYSTEM
    assert tune("check", "--from", save(file), "--root", root.path).returncode == USAGE


def test_two_hosts_are_compared_key_by_key(root: Root, tmp_path: Path) -> None:
    here = save(tmp_path / "here.txt")
    there = save(
        tmp_path / "there.txt", net__ipv4__tcp_sack="0", net__ipv4__tcp_ecn="2", fs__file_nr="9 0 9"
    )
    assert tune("check", "--from", here, "--baseline", here).returncode == OK
    got = answer("check", "--from", here, "--baseline", there)
    rows = settings(got)
    differ = {key: (s["current"], s["wanted"]) for key, s in rows.items() if s["status"] == "drift"}
    assert differ == {"net.ipv4.tcp_sack": ("1", "0")}
    assert rows["net.ipv4.tcp_ecn"]["status"] == "missing"
    assert "kernel.osrelease" not in rows, "not a setting"
    assert got["exit"] == DRIFT
    assert root.tune("check", "--baseline", there).returncode == DRIFT
    shown = root.tune("check", "--baseline", there).stdout
    assert "tcp_sack" in shown
    assert "tcp_timestamps" not in shown, "only what differs has a line"
    both = answer("check", "--from", here, "--baseline", there, "baseline")
    assert [p["name"] for p in both["profiles"]] == ["baseline-host", "baseline"]


def test_values_are_compared_as_values(tmp_path: Path) -> None:
    here = save(tmp_path / "1.txt", net__ipv4__ip_local_reserved_ports="1,2,3")
    there = save(tmp_path / "2.txt", net__ipv4__ip_local_reserved_ports="1-3")
    there.write_text(there.read_text().replace("\t", " "))
    assert tune("check", "--from", here, "--baseline", there).returncode == OK


def test_of_a_value_with_several_lines_the_first_counts(tmp_path: Path) -> None:
    file = save(tmp_path / "a.txt", net__ipv4__tcp_fin_timeout="33")
    file.write_text(file.read_text() + "net.ipv4.tcp_fin_timeout = 44\n")
    assert "= 33" in tune("explain", "tcp_fin_timeout", "--from", file).stdout


def test_interfaces_of_a_saved_machine_are_those_in_the_file(tmp_path: Path) -> None:
    names = ("all", "default", "eth0", "eth0/100")
    text = "".join(f"net.ipv4.conf.{name}.rp_filter = 0\n" for name in names)
    file = tmp_path / "a.txt"
    file.write_text(text + "net.ipv4.conf.eth0.forwarding = 0\n")
    wanted = profile(tmp_path / "p.yaml", "net.ipv4.conf.*.rp_filter: {value: 2}")
    got = settings(answer("check", wanted, "--from", file))
    assert sorted(got) == sorted(f"net.ipv4.conf.{name}.rp_filter" for name in names)


def test_waivers_are_those_of_the_saved_host(tmp_path: Path) -> None:
    file = save(tmp_path / "a.txt", net__ipv4__tcp_sack="0", kernel__hostname="db-1")
    waivers = tmp_path / "w.yaml"
    for hosts, code in (("db-*", OK), ("web-*", DRIFT)):
        waivers.write_text(
            "waivers:\n  net.ipv4.tcp_sack:\n    {reason: r, until: 2999-01-01, "
            f'hosts: ["{hosts}"]}}\n'
        )
        assert tune("check", "--from", file, "--waivers", waivers).returncode == code


def test_a_namespace_differs_from_its_saved_self_by_what_was_changed(
    ns: Namespace, tmp_path: Path
) -> None:
    """What sysctl(8) itself prints, of a real kernel."""
    file = tmp_path / "a.txt"
    file.write_text(ns.exec(["sysctl", "-a"]).stdout)
    command = [str(BINARY), "check", "--baseline", str(file), "-f", "json"]
    assert json.loads(ns.exec(command).stdout)["exit"] == OK
    assert ns.exec(["sysctl", "-w", "net.ipv4.tcp_fin_timeout=33"]).returncode == OK
    rows = settings(json.loads(ns.exec(command).stdout))
    assert [k for k, s in rows.items() if s["status"] == "drift"] == ["net.ipv4.tcp_fin_timeout"]
    assert len(rows) > 300
