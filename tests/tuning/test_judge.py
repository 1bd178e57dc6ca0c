"""judge: a verdict on each line of a file that somebody else wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support_tune import DRIFT, OK, PROFILE, SYSTEM, TOP, USAGE, answer, profile, tune

DUBIOUS = sorted((Path(__file__).parent / "dubious").glob("*.conf"))

LINES = [
    # What the line is, the line, the verdict, a word of the reason.
    ("default", "net.core.somaxconn = 4096", "fine", "start with"),
    ("sensible", "net.core.somaxconn = 65535", "fine", None),
    ("slashes", "net/core/somaxconn = 65535", "fine", None),
    ("pattern", "net.ipv4.conf.*.rp_filter = 2", "fine", None),
    ("excluded", "-net.ipv4.conf.eth0.rp_filter", "fine", "excludes"),
    ("vm", "vm.swappiness = 10", "fine", None),
    ("harmful", "net.ipv4.tcp_timestamps = 0", "harmful", None),
    ("gone", "net.ipv4.tcp_tw_recycle = 1", "pointless", "cannot be set"),
    ("range", "net.ipv4.tcp_frto = 9", "range", "range"),
    ("nothing known", "net.ipv4.tcp_base_mss = 1200", "unjudged", "neither harm nor good"),
    ("looked into", "net.ipv4.tcp_mtu_probing = 1", "fine", "black hole"),
    ("falling", "net.ipv4.ip_local_port_range = 60000 50000", "invalid", "rise"),
    ("many ports", "net.ipv4.ip_local_reserved_ports = 1-65000", "harmful", "reserved"),
    ("some ports", "net.ipv4.ip_local_reserved_ports = 80,8080-8090", "fine", None),
    ("larger than numbers", "kernel.shmmax = 18446744073692774399", "fine", "start with"),
    ("a bit", "net.ipv4.tcp_fastopen = 1027", "doubtful", "0x400"),
    ("bbr", "net.ipv4.tcp_congestion_control = bbr", "fine", "not by loss"),
    (
        "all changes nothing",
        "net.ipv6.conf.all.accept_redirects = 0",
        "pointless",
        "INTERFACE alone",
    ),
    (
        "a default of all",
        "net.ipv6.conf.all.accept_ra = 1",
        "pointless",
        "conf.all changes nothing",
    ),
    ("all brings the rest along", "net.ipv6.conf.all.forwarding = 0", "fine", None),
    (
        "above a default",
        "net.ipv4.neigh.default.gc_thresh2 = 2048",
        "doubtful",
        "1024, the default",
    ),
    ("caches", "vm.drop_caches = 3", "doubtful", "action"),
    ("comment", "vm.swappiness = 10  # low", "doubtful", "comment"),
    ("comment in a word", "net.core.default_qdisc = fq # fair", "invalid", "comment"),
    ("secret", "net.ipv4.tcp_fastopen_key = 0-0-0-0", "doubtful", "secret"),
    ("action", "net.ipv4.route.flush = 1", "doubtful", "action"),
    ("outside", "dev.raid.speed_limit_max = 4", "unknown", "outside"),
    ("typo", "net.ipv4.tcp_rmen = 4", "unknown", "not judged"),
    ("other pattern", "net.ipv4.tcp_* = 4", "unknown", "pattern"),
    ("no number", "net.ipv4.tcp_fin_timeout = abc", "invalid", "decimal"),
    ("one field of three", "net.ipv4.tcp_rmem = 4096", "invalid", None),
    ("empty", "net.core.somaxconn =", "invalid", None),
    ("no assignment", "hello", "invalid", "no key = value"),
    ("path trick", "net.ipv4.. = 1", "invalid", None),
]


@pytest.mark.parametrize(
    ("line", "verdict", "word"), [row[1:] for row in LINES], ids=[row[0] for row in LINES]
)
def test_each_line_has_its_verdict(
    tmp_path: Path, line: str, verdict: str, word: str | None
) -> None:
    file = tmp_path / "vendor.conf"
    file.write_text(f"# head\n{line}\n")
    got = answer("judge", file)
    (row,) = got["lines"]
    assert (row["verdict"], row["line"], row["file"]) == (verdict, 2, str(file))
    assert word is None or word in row["text"]
    assert got["counts"][verdict] == 1
    codes = {"fine": OK, "unjudged": OK, "harmful": PROFILE, "invalid": PROFILE}
    code = codes.get(verdict, DRIFT)
    assert got["exit"] == tune("judge", file).returncode == code
    assert tune("judge", "--strict", file).returncode == (OK if code == OK else PROFILE)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("net.core.somaxconn = 1024", "net.core.somaxconn = 4096"),
        ("net.ipv4.ip_forward = 1", "net.ipv4.conf.all.forwarding = 0"),
        ("net.netfilter.nf_conntrack_max = 1", "net.nf_conntrack_max = 65536"),
    ],
)
def test_of_two_lines_for_one_variable_the_later_holds(
    tmp_path: Path, first: str, second: str
) -> None:
    file = tmp_path / "a.conf"
    file.write_text(f"{first}\n\n{second}\n")
    rows = answer("judge", file)["lines"]
    assert rows[0]["verdict"] == "repeated"
    assert f"line 3, as {second.split(' ')[0]}" in rows[0]["text"]
    assert rows[1]["verdict"] != "repeated"


NEIGHBOURS = ["gc_thresh1", "gc_thresh2", "gc_thresh3"]
INVERTED = [
    # The directory, keys that must rise, their values, which of them are at fault.
    ("net.ipv4.neigh.default", NEIGHBOURS, (4096, 2048, 8192), (0, 1)),
    ("net.ipv6.neigh.default", NEIGHBOURS, (4096, 8192, 8192), (1, 2)),
    ("net.ipv6.neigh.*", NEIGHBOURS, (8192, 4096, 2048), (0, 1, 2)),
    ("net.ipv4.neigh.default", NEIGHBOURS, (1024, 2048, 4096), ()),
    ("vm", ["dirty_background_ratio", "dirty_ratio"], (20, 10), (0, 1)),
    ("vm", ["dirty_background_ratio", "dirty_ratio"], (10, 10), (0, 1)),
    ("vm", ["dirty_background_ratio", "dirty_ratio"], (5, 10), ()),
    ("vm", ["dirty_background_bytes", "dirty_bytes"], (67108864, 33554432), (0, 1)),
    ("vm", ["dirty_background_bytes", "dirty_bytes"], (33554432, 67108864), ()),
    # 0 is off, and a ratio holds instead.
    ("vm", ["dirty_background_bytes", "dirty_bytes"], (33554432, 0), ()),
]


@pytest.mark.parametrize(("place", "keys", "values", "wrong"), INVERTED)
def test_numbers_of_several_keys_must_rise(
    tmp_path: Path, place: str, keys: list[str], values: tuple[int, ...], wrong: tuple[int, ...]
) -> None:
    lines = [f"{place}.{key} = {value}\n" for key, value in zip(keys, values, strict=True)]
    file = tmp_path / "a.conf"
    for text in ("".join(lines), "".join(reversed(lines))):
        file.write_text(text)
        rows = {row["key"]: row for row in answer("judge", file)["lines"]}
        for i, key in enumerate(keys):
            row = rows[f"{place}.{key}"]
            assert row["verdict"] == ("doubtful" if i in wrong else "fine"), row
            if i in wrong:
                assert re.search(
                    rf"^{values[i]} is not (below|above) {re.escape(place)}\.", row["text"]
                )
    settings = [f"{place}.{key}: {{value: {v}}}" for key, v in zip(keys, values, strict=True)]
    one = profile(tmp_path / "p.yaml", "\n".join(settings))
    rows = {row["key"]: row for row in answer("judge", one)["lines"]}
    told = {row["key"] for row in answer("lint", one)["remarks"] if row["class"] == "doubtful"}
    assert told == {f"{place}.{keys[i]}" for i in wrong}
    # The author names a risk.
    assert {key for key, row in rows.items() if row["verdict"] == "weighed"} == told


@pytest.mark.parametrize(
    ("second", "third", "wrong"),
    [
        ("at_least: 4096", "at_least: 8192", False),
        ("at_least: 4096", "at_least: 2048", True),
        # What the default of 1024 becomes.
        ("at_least: 4096", "at_most: 100000", True),
        ("at_most: 100000", "at_least: 1024", False),
        ("value: 4096", "range: [2048, 100000]", True),
        ("value: 4096", "value: 2048, or_default: true", True),
    ],
)
def test_of_bounds_counts_what_a_machine_gets(
    tmp_path: Path, second: str, third: str, wrong: bool
) -> None:
    place = "net.ipv4.neigh.default.gc_thresh"
    file = profile(tmp_path / "p.yaml", f"{place}2: {{{second}}}\n{place}3: {{{third}}}")
    rows = [row for row in answer("lint", file)["remarks"] if row["class"] == "doubtful"]
    assert any("is not below" in row["text"] for row in rows) == wrong


def test_lint_names_a_value_of_all_that_changes_nothing(tmp_path: Path) -> None:
    key = "net.ipv6.conf.all.accept_redirects"
    file = profile(tmp_path / "p.yaml", f"{key}: {{value: 0}}")
    (row,) = answer("lint", file)["remarks"]
    assert (row["key"], row["class"], row["severity"]) == (key, "pointless", "warning")
    assert tune("lint", "--strict=pointless", file).returncode == PROFILE
    other = profile(tmp_path / "o.yaml", "net.ipv6.conf.*.accept_redirects: {value: 0}")
    assert answer("lint", other)["remarks"] == []


def test_a_harmful_line_that_a_later_one_replaces_is_not_held_against_the_file(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.conf"
    file.write_text("net.ipv4.tcp_timestamps = 0\nnet.ipv4.tcp_timestamps = 1\n")
    assert tune("judge", file).returncode == DRIFT


def test_a_nul_byte_spoils_its_own_line_only(tmp_path: Path) -> None:
    file = tmp_path / "a.conf"
    file.write_bytes(b"net.core.somaxconn\0 = 1\nnet.core.somaxconn = 4096\n")
    assert [row["verdict"] for row in answer("judge", file)["lines"]] == ["invalid", "fine"]


def test_a_profile_is_judged_by_its_settings(tmp_path: Path) -> None:
    file = tmp_path / "v.yaml"
    file.write_text(
        "name: v\nsummary: s\nsettings:\n  net.ipv4.tcp_timestamps: 0\n"
        "  net.ipv4.tcp_tw_recycle: {unset: true, why: w}\n  net.ipv4.tcp_sack: 1\n"
    )
    done = tune("judge", file, "--format", "tsv")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(row[1], row[2], row[3]) for row in rows] == [
        ("4", "harmful", "net.ipv4.tcp_timestamps"),
        ("5", "fine", "net.ipv4.tcp_tw_recycle"),
        ("6", "fine", "net.ipv4.tcp_sack"),
    ]
    assert done.returncode == PROFILE


@pytest.mark.parametrize("path", sorted((TOP / "tuning/profiles").glob("*.yaml")))
def test_our_own_profiles_hold_nothing_harmful(path: Path) -> None:
    assert tune("judge", path).returncode == OK


@pytest.mark.parametrize("path", DUBIOUS, ids=[path.stem for path in DUBIOUS])
def test_each_line_of_a_guide_has_the_verdict_that_stands_above_it(path: Path) -> None:
    wanted = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("#: "):
            wanted[number + 1] = line.removeprefix("#: ")
    got = answer("judge", path)
    assert {row["line"]: row["verdict"] for row in got["lines"]} == wanted
    assert got["counts"] == {
        name: sum(verdict == name for verdict in wanted.values()) for name in got["counts"]
    }
    for row in got["lines"]:
        assert row["text"] or row["verdict"] == "fine", row


def test_the_guides_hold_a_hundred_dubious_lines_and_more() -> None:
    verdicts = re.findall(r"^#: (\w+)$", "".join(p.read_text() for p in DUBIOUS), re.MULTILINE)
    assert len([v for v in verdicts if v not in ("fine", "unjudged")]) > 100


def test_no_value_is_called_fine_that_nothing_is_known_of(tmp_path: Path) -> None:
    """Of every key that is known, a value that nobody would think of."""
    keys = [row["key"] for row in answer("list", "--keys")["keys"]]
    file = tmp_path / "all.conf"
    file.write_text("".join(f"{key} = 77\n" for key in keys))
    fine = {row["key"] for row in answer("judge", file)["lines"] if row["verdict"] == "fine"}
    (tmp_path / "empty/proc/sys").mkdir(parents=True)
    known = answer("explain", *keys, root=tmp_path / "empty")["answers"]
    said = {row["key"] for row in known if row.get("fine") is not None}
    assert fine - said == set()
    assert len(said) > 150


def test_what_is_not_judged_counts_where_that_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "a.conf"
    file.write_text("net.ipv4.tcp_base_mss = 1200\nnet.core.somaxconn = 4096\n")
    done = tune("judge", file)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (OK, "1 fine, 1 unjudged")
    assert tune("judge", "--strict", file).returncode == OK
    assert tune("judge", "--strict=unjudged", file).returncode == PROFILE
    assert "unjudged" in tune("judge", "-q", file).stdout


def test_a_doubt_whose_risk_is_named_is_weighed_and_told(tmp_path: Path) -> None:
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_tw_reuse: {value: 1}")
    got = answer("judge", file)
    (row,) = got["lines"]
    assert (row["verdict"], got["exit"], got["counts"]["weighed"]) == ("weighed", OK, 1)
    assert "timestamps of both ends" in row["text"]
    assert "the profile says of its risk: r" in row["text"]


@pytest.mark.parametrize(
    ("setting", "verdict"),
    [
        # A bound is doubtful only where everything that meets it is.
        ("net.core.somaxconn: {at_least: 1024}", "unjudged"),
        ("net.core.somaxconn: {at_least: 8192}", "fine"),
        ("net.core.rmem_max: {at_least: 999999999}", "weighed"),
        ("vm.swappiness: {at_most: 0}", "weighed"),
        ("net.ipv4.tcp_keepalive_time: {range: [60, 600]}", "fine"),
        ("net.ipv4.tcp_mtu_probing: {one_of: [0, 2]}", "weighed"),
        ("net.ipv4.ip_local_reserved_ports: {contains: [listening]}", "fine"),
        ("net.ipv4.tcp_base_mss: {value: 1200}", "unjudged"),
    ],
)
def test_constraints_are_judged_by_what_they_allow(
    tmp_path: Path, setting: str, verdict: str
) -> None:
    (row,) = answer("judge", profile(tmp_path / "p.yaml", setting))["lines"]
    assert row["verdict"] == verdict, row


def test_several_files_are_told_apart_and_quiet_hides_what_is_fine(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text("net.core.somaxconn = 4096\n")
    (tmp_path / "b.conf").write_text("net.ipv4.tcp_timestamps = 0\n")
    done = tune("judge", "-q", tmp_path / "a.conf", tmp_path / "b.conf")
    assert "b.conf:1: harmful" in done.stdout
    assert "a.conf" not in done.stdout
    assert done.stdout.splitlines()[-1] == "1 fine, 1 harmful"


def test_what_cannot_be_judged_is_told(tmp_path: Path) -> None:
    assert tune("judge").returncode == USAGE
    missing = tune("judge", tmp_path / "none.conf", "-f", "json")
    assert (missing.returncode, json.loads(missing.stdout)["exit"]) == (SYSTEM, SYSTEM)
    assert tune("judge", tmp_path / "none.yaml").returncode == PROFILE
    (tmp_path / "empty.conf").write_text("")
    done = tune("judge", tmp_path / "empty.conf")
    assert (done.returncode, done.stdout) == (OK, "no settings\n")
