"""Waivers per host with a reason and an end, and --strict by class."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from support_tune import DRIFT, OK, PERMISSION, PROFILE, USAGE, Root, profile, tune

TODAY = datetime.datetime.now(datetime.timezone.utc).date()
NEXT_YEAR, LAST_YEAR = (f"{TODAY.year + n}-06-30" for n in (1, -1))


def waivers(root: Root, text: str) -> Path:
    file = root.path / "etc/hardsock/waivers.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("waivers:\n" + text)
    return file


def one(name: str, until: str, more: str = "") -> str:
    return f"  {name}: {{reason: an old switch, until: {until}{more}}}\n"


def status_of(got: dict[str, list[dict[str, list[dict[str, str]]]]], key: str) -> list[str]:
    return [s["status"] for p in got["profiles"] for s in p["settings"] if s["key"] == key]


@pytest.mark.parametrize("name", ["net.ipv4.tcp_sack", "net/ipv4/tcp_sack"])
def test_a_waived_setting_fails_no_check_and_says_why(root: Root, name: str) -> None:
    root.put("net/ipv4/tcp_sack", "0")
    assert root.tune("check", "--strict").returncode == DRIFT
    waivers(root, one(name, NEXT_YEAR))
    got = root.answer("check", "--strict")
    assert (got["exit"], status_of(got, "net.ipv4.tcp_sack")) == (OK, ["waived"])
    shown = root.tune("check").stdout
    assert f"waived until {NEXT_YEAR}: an old switch" in " ".join(shown.split())
    assert root.tune("check", "--strict=waived").returncode == DRIFT


def test_a_waiver_changes_nothing_of_what_apply_does(root: Root) -> None:
    root.put("net/ipv4/tcp_sack", "0")
    waivers(root, one("net.ipv4.tcp_sack", NEXT_YEAR))
    assert "tcp_sack" in root.tune("diff", "baseline").stdout
    root.tune("apply", "baseline")
    assert root.get("net/ipv4/tcp_sack") == "1"


def test_a_waiver_that_has_ended_is_a_finding_where_it_is_still_needed(root: Root) -> None:
    waivers(root, one("net.ipv4.tcp_sack", LAST_YEAR) + one("ports-unreserved", LAST_YEAR))
    assert root.answer("check")["findings"] == [], "nothing needs them"
    root.put("net/ipv4/tcp_sack", "0")
    root.listen(40000)
    got = root.answer("check")
    assert (got["exit"], "drift" in status_of(got, "net.ipv4.tcp_sack")) == (DRIFT, True)
    ended = [f["subject"] for f in got["findings"] if f["id"] == "waiver-ended"]
    assert ended == ["net.ipv4.tcp_sack", "ports-unreserved"]


def test_today_is_the_last_day_of_a_waiver(root: Root) -> None:
    root.put("net/ipv4/tcp_sack", "0")
    late = TODAY + datetime.timedelta(days=1)  # It may become tomorrow while the test runs.
    waivers(root, one("net.ipv4.tcp_sack", f"{late:%Y-%m-%d}"))
    assert root.tune("check").returncode == OK
    waivers(root, one("net.ipv4.tcp_sack", f"{TODAY - datetime.timedelta(days=1):%Y-%m-%d}"))
    assert root.tune("check").returncode == DRIFT


@pytest.mark.parametrize(
    ("hosts", "waived"),
    [("[web-1]", True), ('["web-*"]', True), ('[db-1, "web-?"]', True), ("[web-2]", False)],
)
def test_a_waiver_is_for_the_hosts_that_it_names(root: Root, hosts: str, waived: bool) -> None:
    root.put("kernel/hostname", "web-1")
    root.put("net/ipv4/tcp_sack", "0")
    waivers(root, one("net.ipv4.tcp_sack", NEXT_YEAR, f", hosts: {hosts}"))
    assert root.tune("check").returncode == (OK if waived else DRIFT)


def test_a_pattern_waives_every_interface(root: Root, tmp_path: Path) -> None:
    for name in ("all", "default", "eth0"):
        root.put(f"net/ipv4/conf/{name}/accept_redirects", "1")
    file = profile(tmp_path / "p.yaml", 'net.ipv4.conf.*.accept_redirects: {value: "0"}')
    assert root.tune("check", file).returncode == DRIFT
    waivers(root, one('"net.ipv4.conf.*.accept_redirects"', NEXT_YEAR))
    got = root.answer("check", file)
    assert [s["status"] for s in got["profiles"][0]["settings"]] == ["waived"] * 3


def test_a_missing_key_may_be_waived(root: Root, tmp_path: Path) -> None:
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_tw_reuse_delay: {value: 1000}")
    assert root.tune("check", "--strict", file).returncode == DRIFT
    waivers(root, one("net.ipv4.tcp_tw_reuse_delay", NEXT_YEAR))
    assert root.tune("check", "--strict", file).returncode == OK


def test_a_waived_finding_counts_nowhere_but_is_told(root: Root) -> None:
    (root.path / "proc/net/sockstat").write_text("TCP: inuse 5 orphan 0 tw 131000 alloc 6 mem 5\n")
    assert root.tune("check", "--strict").returncode == DRIFT
    waivers(root, one("time-wait-full", NEXT_YEAR))
    got = root.answer("check", "--strict")
    (finding,) = got["findings"]
    assert (got["exit"], finding["waived"]) == (OK, f"until {NEXT_YEAR}: an old switch")
    assert "waived" in root.tune("check").stdout
    assert root.tune("check", "--strict=waived").returncode == DRIFT
    assert "time-wait-full" not in root.tune("check", "-f", "prometheus").stdout
    sarif = json.loads(root.tune("check", "-f", "sarif").stdout)
    (result,) = sarif["runs"][0]["results"]
    assert result["suppressions"][0]["kind"] == "external"


def test_a_waived_setting_is_suppressed_for_other_programs(root: Root) -> None:
    root.put("net/ipv4/tcp_sack", "0")
    waivers(root, one("net.ipv4.tcp_sack", NEXT_YEAR))
    sarif = json.loads(root.tune("check", "-f", "sarif").stdout)["runs"][0]
    assert sarif["results"][0]["suppressions"][0]["justification"].startswith("waived until")
    assert [rule["id"] for rule in sarif["tool"]["driver"]["rules"]] == [
        "baseline/net.ipv4.tcp_sack"
    ]
    assert "<skipped" in root.tune("check", "-f", "junit").stdout
    metrics = root.tune("check", "-f", "prometheus").stdout
    assert 'settings{profile="baseline",status="waived"} 1' in metrics


BAD = [
    ("  net.ipv4.tcp_sack: {until: 2027-01-31}\n", "needs a reason"),
    ("  net.ipv4.tcp_sack: {reason: r}\n", "until"),
    ("  net.ipv4.tcp_sack: {reason: r, until: 31.1.2027}\n", "a day such as"),
    ("  net.ipv4.tcp_sack: {reason: r, until: 2027-02-29}\n", "a day such as"),
    ("  net.ipv4.tcp_sack: {reason: r, until: 2027-13-01}\n", "a day such as"),
    ("  net.ipv4.tcp_sack: {reason: r, until: 2027-00-10}\n", "a day such as"),
    ("  net.ipv4.tcp_sack: {reason: r, until: 2027-1x-10}\n", "a day such as"),
    ("  net.ipv4.tcp_sack: {reason: r, until: 2027-01-31, host: x}\n", "unknown field"),
    ("  net.ipv4.tcp_sack: {reason: r, until: 2027-01-31, hosts: x}\n", "list"),
    ("  net.ipv4.tcp_sack: forever\n", "reason"),
    ("  net.ipv4..x: {reason: r, until: 2027-01-31}\n", "net.ipv4..x"),
    ("  []\n", "waivers: alone"),
]


@pytest.mark.parametrize(("text", "word"), BAD)
def test_a_bad_waiver_is_refused_with_its_place(root: Root, text: str, word: str) -> None:
    file = waivers(root, text)
    done = root.tune("check")
    assert (done.returncode, word in done.stderr) == (PROFILE, True), done.stderr
    assert "waivers.yaml:" in done.stderr
    assert root.tune("diff", "baseline").returncode == OK, "which has nothing to do with them"
    assert file.exists()


def test_29_february_is_a_day_of_leap_years(root: Root) -> None:
    waivers(root, one("net.ipv4.tcp_sack", "2028-02-29") + one("x", "2000-02-29"))
    assert root.tune("check").returncode == OK
    waivers(root, one("net.ipv4.tcp_sack", "2100-02-29"))
    assert root.tune("check").returncode == PROFILE


def test_waivers_that_everybody_may_write_are_not_used(root: Root, tmp_path: Path) -> None:
    waivers(root, one("net.ipv4.tcp_sack", NEXT_YEAR)).chmod(0o666)
    done = root.tune("check")
    assert (done.returncode, "everybody may write it" in done.stderr) == (PERMISSION, True)
    named = tmp_path / "mine.yaml"
    named.write_text("waivers:\n" + one("net.ipv4.tcp_sack", NEXT_YEAR))
    root.put("net/ipv4/tcp_sack", "0")
    assert root.tune("check", "--waivers", named).returncode == OK
    assert root.tune("check", "--waivers", tmp_path / "none.yaml").returncode == PROFILE


def test_strict_by_class_counts_what_it_names(root: Root, tmp_path: Path) -> None:
    (root.path / "proc/net/sockstat").write_text("TCP: inuse 5 orphan 0 tw 131000 alloc 6 mem 5\n")
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_tw_reuse_delay: {value: 1000}")
    assert root.tune("check", file).returncode == OK
    assert root.tune("check", "--strict=missing", file).returncode == DRIFT
    assert root.tune("check", "--strict=warning", "baseline").returncode == DRIFT
    assert root.tune("check", "--strict=critical", file).returncode == OK
    assert root.tune("check", "--strict=critical,missing", file).returncode == DRIFT
    done = root.tune("check", "--strict=all")
    assert (done.returncode, "they are missing, warning" in done.stderr) == (USAGE, True)
    assert root.tune("check", "--strict=").returncode == USAGE


def test_strict_by_class_of_lint_and_judge(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("name: p\nsummary: s\nsettings:\n  net.ipv4.nonsense: {value: 1, why: w}\n")
    assert tune("lint", "--strict=unknown", file).returncode == PROFILE
    assert tune("lint", "--strict=harmful", file).returncode == OK
    file.write_text("name: p\nsummary: s\nsettings:\n  net.ipv4.tcp_sack: 1\n")
    assert tune("lint", "--strict=why", file).returncode == PROFILE
    assert tune("lint", "--strict=risk", file).returncode == PROFILE
    assert tune("lint", "--strict=doubtful", file).returncode == OK
    conf = tmp_path / "a.conf"
    conf.write_text("net.ipv4.nonsense = 1\n")
    assert tune("judge", "--strict=unknown", conf).returncode == PROFILE
    assert tune("judge", "--strict=repeated", conf).returncode == DRIFT


@pytest.mark.parametrize("kernel", ["4.15.0-213-generic", "5.3.0", "4.4.0"])
def test_a_stock_machine_below_5_4_passes_the_baseline(root: Root, kernel: str) -> None:
    root.put("kernel/osrelease", kernel)
    root.put("net/core/somaxconn", "128")
    root.put("net/ipv4/tcp_tw_recycle", "0")
    assert root.tune("check", "--strict", "baseline").returncode == OK
    assert root.tune("diff", "baseline").returncode == OK, "nor would apply touch it"
    assert root.answer("check", "busy-server")["exit"] == DRIFT
    root.put("net/core/somaxconn", "100")
    assert root.tune("check", "baseline").returncode == DRIFT


def test_128_is_no_default_of_a_newer_kernel(root: Root) -> None:
    root.put("net/core/somaxconn", "128")
    assert root.tune("check", "baseline").returncode == DRIFT


def test_a_default_that_will_do_pulls_no_other_profile_down(root: Root, tmp_path: Path) -> None:
    root.put("kernel/osrelease", "4.15.0")
    root.put("net/core/somaxconn", "128")
    file = profile(tmp_path / "p.yaml", "net.core.somaxconn: {at_least: 1000}")
    root.tune("apply", "baseline", file)
    assert root.get("net/core/somaxconn") == "1000"
