"""What `check` prints for other programs: Prometheus, JUnit and SARIF, read by libraries for them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support_tune import BINARY, DRIFT, OK, SYSTEM, USAGE, Root, profile


def metrics(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Parse as a scrape does; a series that stands twice is an error."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            series = (sample.name.removeprefix("hardsock_tune_"), frozenset(sample.labels.items()))
            assert series not in found
            found[series] = sample.value
    return found


def labels(**names: str) -> frozenset[tuple[str, str]]:
    return frozenset(names.items())


def test_prometheus_says_what_drifts_and_how_much(root: Root) -> None:
    root.put("net/core/somaxconn", "128")
    done = root.tune("check", "baseline", "busy-server", "-f", "prometheus")
    assert done.returncode == DRIFT
    found = metrics(done.stdout)
    for name in ("baseline", "busy-server"):
        key = labels(profile=name, key="net.core.somaxconn")
        assert found["setting_as_wanted", key] == 0
    assert found["setting_as_wanted", labels(profile="baseline", key="net.ipv4.tcp_sack")] == 1
    assert found["settings", labels(profile="baseline", status="drift")] == 1
    assert found["check_exit_code", labels()] == DRIFT
    assert found["check_timestamp_seconds", labels()] > 1.7e9


def test_prometheus_counts_findings_once_a_kind(root: Root) -> None:
    (root.path / "proc/net/netstat").write_text(
        "TcpExt: ListenOverflows ListenDrops\nTcpExt: 5 5\n"
    )
    found = metrics(root.tune("check", "-f", "prometheus").stdout)
    kinds = [dict(series[1])["id"] for series in found if series[0] == "findings"]
    assert "listen-overflows" in kinds
    assert len(kinds) == len(set(kinds))


def test_labels_hold_any_text(root: Root, tmp_path: Path) -> None:
    name = 'eth"0\\x'
    root.put(f"net/ipv4/conf/{name}/rp_filter", "0")
    file = profile(tmp_path / "p.yaml", f"'net/ipv4/conf/{name}/rp_filter': {{value: 1}}")
    done = root.tune("check", file, "-f", "prometheus")
    keys = {dict(series[1])["key"] for series in metrics(done.stdout) if "setting_as" in series[0]}
    assert any('eth"0\\x' in key for key in keys), (done.stdout, done.stderr)
    case = junit(root.tune("check", file, "-f", "junit").stdout).find("testsuite/testcase")
    assert case is not None
    assert 'eth"0\\x' in case.attrib["name"]


def junit(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def test_junit_has_a_case_a_setting(root: Root) -> None:
    root.put("net/core/somaxconn", "128")
    root.file("net/ipv4/tcp_migrate_req").unlink()
    done = root.tune("check", "busy-server", "-f", "junit")
    assert done.returncode == DRIFT
    suite = junit(done.stdout).find("testsuite")
    assert suite is not None
    cases = {case.attrib["name"]: case for case in suite}
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "skipped")}
    assert counts["tests"] == len(cases)
    assert counts["failures"] == sum(case.find("failure") is not None for case in suite)
    assert counts["skipped"] == sum(case.find("skipped") is not None for case in suite)
    failure = cases["net.core.somaxconn"].find("failure")
    assert failure is not None
    assert failure.attrib["message"] == "net.core.somaxconn is 128, wanted: at least 65535"
    assert cases["net.ipv4.tcp_migrate_req"].find("skipped") is not None


def test_sarif_has_a_result_a_drift_with_its_rule(root: Root) -> None:
    root.put("net/core/somaxconn", "128")
    done = root.tune("check", "busy-server", "-f", "sarif")
    answer: Any = json.loads(done.stdout)
    assert answer["version"] == "2.1.0"
    (run,) = answer["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(rules) == len(set(rules))
    results = {result["ruleId"]: result for result in run["results"] if result["level"] == "error"}
    assert set(results) == set(rules)
    result = results["busy-server/net.core.somaxconn"]
    assert result["message"]["text"] == "net.core.somaxconn is 128, wanted: at least 65535"
    place = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert place == "proc/sys/net/core/somaxconn"


def test_output_is_replaced_whole_and_readable_for_others(root: Root, tmp_path: Path) -> None:
    file = tmp_path / "hardsock.prom"
    file.write_text("old\n")
    before = file.stat().st_ino
    old = os.umask(0o077)
    try:
        done = root.tune("check", "-f", "prometheus", "-o", file)
    finally:
        os.umask(old)
    assert [done.returncode, done.stdout] == [OK, ""]
    assert metrics(file.read_text())
    assert file.stat().st_ino != before
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["hardsock.prom"]


def test_output_that_cannot_be_written_leaves_the_old_one(root: Root, tmp_path: Path) -> None:
    missing = root.tune("check", "-f", "prometheus", "-o", tmp_path / "no/such.prom")
    assert missing.returncode == SYSTEM
    assert "--output: " in missing.stderr
    (tmp_path / "folder").mkdir()
    taken = root.tune("check", "-f", "prometheus", "-o", tmp_path / "folder")
    assert taken.returncode == SYSTEM
    assert not list(tmp_path.glob("*.new"))


def test_full_disk_leaves_the_old_output(root: Root, tmp_path: Path) -> None:
    file = tmp_path / "hardsock.prom"
    file.write_text("old\n")
    # A file may not grow beyond a block: what a full disk does, for any user.
    script = f"trap '' XFSZ; ulimit -f 1; exec {BINARY} check all -f json -R {root.path} -o {file}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == SYSTEM
    assert file.read_text() == "old\n"
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("command", ["list", "status", "diff"])
def test_other_commands_refuse_the_formats_of_check(root: Root, command: str) -> None:
    done = root.tune(command, "-f", "junit")
    assert done.returncode == USAGE
    assert f"--format: {command} knows pretty, tsv and json" in done.stderr
