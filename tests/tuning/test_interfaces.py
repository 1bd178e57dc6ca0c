"""conf.all, conf.INTERFACE and patterns: what the kernel uses in the end, and every interface there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support_tune import BINARY, DRIFT, OK, PROFILE, Root, answer, profile, tune

from hardsock.lab import Namespace

CIS = "net.ipv4.conf.all.rp_filter: {value: 1}\nnet.ipv4.conf.default.rp_filter: {value: 1}"


def interface(root: Root, name: str, leaf: str, value: str, family: str = "ipv4") -> None:
    root.put(f"net/{family}/conf/{name}/{leaf}", value)


def effective(root: Root, file: Path) -> list[str]:
    return [f["what"] for f in root.answer("check", file)["findings"] if f["id"] == "effective"]


def test_the_kernel_uses_the_larger_reverse_path_filter(ns: Namespace, tmp_path: Path) -> None:
    """What systemd's default does to a guide that sets conf.all and conf.default alone."""
    file = profile(tmp_path / "p.yaml", CIS)
    script = """
import subprocess
from hardsock.lab import inside
subprocess.run(["ip", "link", "add", "e1", "type", "veth", "peer", "name", "e0"], check=True)
for name, value in (("e0", "2"), ("all", "1"), ("default", "1"), ("e1", "0")):
    inside.write_sysctl(f"net.ipv4.conf.{name}.rp_filter", value)
done = subprocess.run([args[0], "check", "--strict", args[1]], capture_output=True, text=True)
shown = subprocess.run([args[0], "explain", "net/ipv4/conf/e0/rp_filter", "-f", "tsv"],
                       capture_output=True, text=True)
result = [done.returncode, done.stdout, shown.stdout]
"""
    code, text, shown = ns.run(script, str(BINARY), str(file))
    text = " ".join(text.split())
    assert code == DRIFT
    assert "wants net.ipv4.conf.all.rp_filter 1, but the kernel uses 2 on e0: the larger" in text
    assert "net.ipv4.conf.e0.rp_filter\teffective\t2" in shown


@pytest.mark.parametrize(
    ("key", "wanted", "all_", "own", "used"),
    [
        ("ipv4.rp_filter", 1, 1, 0, None),  # max
        ("ipv4.rp_filter", 1, 1, 2, 2),
        ("ipv4.send_redirects", 0, 0, 1, 1),  # or
        ("ipv4.send_redirects", 0, 0, 0, None),
        ("ipv4.accept_source_route", 0, 0, 1, None),  # and
        ("ipv4.log_martians", 1, 1, 0, None),  # or
        ("ipv6.accept_ra", 0, 0, 1, 1),  # conf.all changes nothing
        ("ipv6.disable_ipv6", 0, 0, 1, 1),  # copied when written, which is over
        ("ipv6.disable_ipv6", 0, 1, 1, None),  # the write to come brings it along
    ],
)
def test_each_key_has_its_rule(
    root: Root, tmp_path: Path, key: str, wanted: int, all_: int, own: int, used: int | None
) -> None:
    family, leaf = key.split(".")
    interface(root, "all", leaf, str(all_), family)
    interface(root, "eth0", leaf, str(own), family)
    interface(root, "lo", leaf, str(own), family)
    file = profile(tmp_path / "p.yaml", f"net.{family}.conf.all.{leaf}: {{value: {wanted}}}")
    told = effective(root, file)
    assert len(told) == (used is not None), told
    if used is not None:
        assert f"the kernel uses {used} on eth0" in told[0]
        assert root.tune("check", file).returncode == OK
        assert root.tune("check", file, "--strict").returncode == DRIFT


@pytest.mark.parametrize(("forwards", "used"), [("0", True), ("1", False)])
def test_redirects_depend_on_forwarding(
    root: Root, tmp_path: Path, forwards: str, used: bool
) -> None:
    interface(root, "all", "accept_redirects", "0")
    interface(root, "eth0", "accept_redirects", "1")
    interface(root, "eth0", "forwarding", forwards)
    file = profile(tmp_path / "p.yaml", "net.ipv4.conf.all.accept_redirects: {value: 0}")
    assert bool(effective(root, file)) == used


def test_one_interface_is_held_against_conf_all(root: Root, tmp_path: Path) -> None:
    interface(root, "all", "rp_filter", "2")
    interface(root, "eth0", "rp_filter", "1")
    file = profile(tmp_path / "p.yaml", "net.ipv4.conf.eth0.rp_filter: {value: 1}")
    assert "the kernel uses 2 on eth0" in effective(root, file)[0]


@pytest.mark.parametrize(
    ("key", "wanted", "all_", "default", "later"),
    [
        ("ipv6.accept_ra", 0, 0, 1, 1),  # conf.all changes nothing
        ("ipv4.rp_filter", 1, 1, 2, 2),  # max
        ("ipv4.rp_filter", 1, 1, 0, None),
        ("ipv4.accept_source_route", 0, 0, 1, None),  # and
        ("ipv4.send_redirects", 0, 0, 1, 1),  # or
    ],
)
def test_an_interface_that_appears_later_is_foreseen(
    root: Root, tmp_path: Path, key: str, wanted: int, all_: int, default: int, later: int | None
) -> None:
    family, leaf = key.split(".")
    interface(root, "all", leaf, str(all_), family)
    interface(root, "default", leaf, str(default), family)
    text = f"net.{family}.conf.all.{leaf}: {{value: {wanted}}}"
    told = effective(root, profile(tmp_path / "p.yaml", text))
    assert len(told) == (later is not None), told
    if later is not None:
        assert f"uses {later} on interfaces that appear later (conf.default)" in told[0]
    both = f"{text}\nnet.{family}.conf.default.{leaf}: {{value: {wanted}}}"
    assert effective(root, profile(tmp_path / "q.yaml", both)) == []


def test_a_new_interface_does_what_was_foreseen(ns: Namespace, tmp_path: Path) -> None:
    file = profile(tmp_path / "p.yaml", "net.ipv6.conf.all.accept_ra: {value: 0}")
    script = """
import subprocess
from hardsock.lab import inside
def run(*words):
    return subprocess.run([args[0], *words], capture_output=True, text=True).stdout
inside.write_sysctl("net.ipv6.conf.all.accept_ra", "0")
foreseen = [run("check", args[1]), run("explain", "net.ipv6.conf.all.accept_ra", "-f", "tsv")]
subprocess.run(["ip", "link", "add", "e1", "type", "veth", "peer", "name", "e0"], check=True)
result = [*foreseen, run("explain", "net.ipv6.conf.e0.accept_ra", "-f", "tsv")]
"""
    told, before, after = ns.run(script, str(BINARY), str(file))
    assert "uses 1 on interfaces that appear later" in " ".join(told.split())
    assert "effective\t1 on interfaces that appear later" in before
    assert "effective\t1\n" in after


def test_diff_tells_what_comes_of_it_on_interfaces(root: Root, tmp_path: Path) -> None:
    """As if it were applied: the wanted 1 beside the 2 of an interface."""
    interface(root, "all", "rp_filter", "0")
    interface(root, "eth0", "rp_filter", "2")
    file = profile(tmp_path / "p.yaml", "net.ipv4.conf.all.rp_filter: {value: 1}")
    done = root.tune("diff", file)
    assert done.returncode == DRIFT
    assert "+net.ipv4.conf.all.rp_filter = 1" in done.stdout
    assert "# profile t wants net.ipv4.conf.all.rp_filter 1, but the kernel uses 2 on eth0" in (
        " ".join(done.stdout.split())
    )
    findings = root.answer("diff", file)["findings"]
    assert [f["id"] for f in findings] == ["effective"]
    assert "#" not in root.tune("diff", file, "-f", "tsv").stdout


def test_explain_shows_each_interface_and_where_the_kernel_combines(root: Root) -> None:
    for name, value in (("all", "1"), ("default", "0"), ("eth0", "2"), ("eth1", "0"), ("lo", "0")):
        interface(root, name, "rp_filter", value)
    row = root.answer("explain", "net.ipv4.conf.all.rp_filter")["answers"][0]
    *interfaces, later = row["effective"].split(", ")
    assert sorted(interfaces) == ["1 on eth1", "2 on eth0"]
    assert later == "1 on interfaces that appear later"
    assert row["rule"].startswith("include/linux/inetdevice.h:")
    one = root.answer("explain", "net.ipv4.conf.eth1.rp_filter")["answers"][0]
    assert one["effective"] == "1"


def test_every_combined_key_names_the_line_that_combines(root: Root) -> None:
    files = (BINARY.parents[3] / "tuning/kb").glob("*.yaml")
    text = "".join(file.read_text() for file in files)
    assert text.count("    combine: ") == text.count("    rule_source: ") > 80


PATTERN = "net.ipv4.conf.*.rp_filter: {value: 1}"


def rows(root: Root, *args: Any) -> dict[str, str]:
    return {
        row["key"].removeprefix("net.ipv4.conf.").removesuffix(".rp_filter"): row["status"]
        for row in root.answer("check", *args)["profiles"][0]["settings"]
    }


def test_a_pattern_means_every_interface(root: Root, tmp_path: Path) -> None:
    for name, value in (("all", "1"), ("default", "0"), ("eth0", "2"), ("lo", "0")):
        interface(root, name, "rp_filter", value)
    file = profile(tmp_path / "p.yaml", f"net.ipv4.conf.lo.rp_filter: {{value: 0}}\n{PATTERN}")
    assert tune("lint", "--strict", file).returncode == OK
    want = {"all": "ok", "default": "drift", "eth0": "drift", "lo": "ok"}
    assert rows(root, file) == want
    assert root.tune("apply", file).returncode == OK
    assert set(rows(root, file).values()) == {"ok"}
    assert root.get("net/ipv4/conf/lo/rp_filter") == "0"
    interface(root, "eth1", "rp_filter", "2")
    assert rows(root, file)["eth1"] == "drift"
    assert root.tune("revert").returncode == OK
    assert root.get("net/ipv4/conf/eth0/rp_filter") == "2"


def test_a_pattern_without_any_interface_is_missing(root: Root, tmp_path: Path) -> None:
    file = profile(tmp_path / "p.yaml", PATTERN)
    assert rows(root, file) == {"*": "missing"}
    assert root.tune("check", file, "--strict").returncode == DRIFT


def test_a_pattern_is_persisted_exported_and_imported_as_one(root: Root, tmp_path: Path) -> None:
    for name, value in (("all", "1"), ("eth0", "2"), ("lo", "0")):
        interface(root, name, "rp_filter", value)
    (root.path / "etc").mkdir()
    file = profile(tmp_path / "p.yaml", f"net.ipv4.conf.lo.rp_filter: {{value: 0}}\n{PATTERN}")
    assert root.tune("persist", file).returncode == OK
    written = root.path / "etc/sysctl.d/90-hardsock.conf"
    lines = [line for line in written.read_text().splitlines() if not line.startswith("#")]
    assert lines == ["net.ipv4.conf.lo.rp_filter = 0", "net.ipv4.conf.*.rp_filter = 1"]
    assert root.tune("conflicts", file).returncode == OK
    exported = tune("export", "--to", "sysctl.d", file)
    assert (exported.returncode, "conf.*.rp_filter = 1" in exported.stdout) == (OK, True)
    imported = tmp_path / "i.yaml"
    imported.write_text(tune("import", written).stdout)
    keys = [s["key"] for s in answer("show", imported)["settings"]]
    assert keys == ["net.ipv4.conf.lo.rp_filter", "net.ipv4.conf.*.rp_filter"]


def test_another_star_is_the_name_of_an_interface_and_doubted(tmp_path: Path) -> None:
    file = profile(tmp_path / "p.yaml", "net.ipv4.conf.eth*.rp_filter: {value: 1}")
    assert "an interface of that very name" in tune("lint", file).stderr
    assert tune("lint", "--strict", file).returncode == PROFILE
