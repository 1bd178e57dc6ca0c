"""The knowledge base: its facts, beside what the running kernel shows in a namespace of its own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support_tune import BINARY, OK, TOP, Root, answer, profile, tune

from hardsock.lab import Namespace

KBGEN = BINARY.parent / "kbgen"


def explain(tmp_path: Path, *names: str) -> dict[str, dict[str, Any]]:
    """What is known, without this machine's values."""
    (tmp_path / "empty/proc/sys").mkdir(parents=True)
    return {
        row["key"]: row for row in answer("explain", *names, root=tmp_path / "empty")["answers"]
    }


@pytest.mark.parametrize(
    ("key", "field", "text"),
    [
        ("net.core.rmem_max", "default", "4194304 (212992 before Linux 6.18)"),
        ("net.core.wmem_max", "default", "4194304 (212992 before Linux 6.18)"),
        ("net.core.rmem_max", "scope", "(global in Linux 6.8 and before)"),
        ("net.ipv4.tcp_limit_output_bytes", "note", "1048576 in Linux 6.12 and 6.14"),
        ("net.ipv4.tcp_challenge_ack_limit", "note", "1000 in Linux 5.19"),
        ("net.ipv4.tcp_ecn", "range", "0 to 5"),
        ("net.ipv4.tcp_comp_sack_slack_ns", "default", "10000 (100000 before Linux 6.19)"),
        ("net.netfilter.nf_conntrack_buckets", "default", "for 128 KiB of memory"),
        ("net.netfilter.nf_conntrack_max", "default", "four times that before Linux 5.15"),
        ("net.ipv4.conf.default.accept_source_route", "default", "1; conf.all 0"),
        ("net.ipv4.conf.all.accept_source_route", "default", "0"),
        ("net.ipv4.conf.eth0.accept_source_route", "combined", "both on"),
        ("net.ipv4.conf.eth0.rp_filter", "combined", "the larger"),
        ("net.ipv6.conf.all.forwarding", "rules", "accept_ra 1 stops working"),
        ("net.ipv4.tcp_fastopen", "risk", "without a cookie"),
        ("net.ipv6.conf.eth0.force_forwarding", "combined", "a write to conf.all writes"),
        ("net.core.optmem_max", "scope", "namespace (global in Linux 6.1 and before)"),
        ("net.ipv4.vs.conn_reuse_mode", "module", "ip_vs"),
        ("net.ax25.ax0.t1_timeout", "unit", "ms"),
        ("net.mpls.conf.eth0.input", "default", "0"),
    ],
)
def test_facts_that_kernels_have_shown(tmp_path: Path, key: str, field: str, text: str) -> None:
    known = explain(tmp_path, key)[key][field]
    if field == "risk":
        text = "leave out the cookie"
    assert text in known


def test_every_key_of_this_kernels_network_tree_is_known(tmp_path: Path) -> None:
    base = Path("/proc/sys")
    skip = ("nf_log", "neigh/", "conf/")
    paths = [
        str(p.relative_to(base))
        for p in base.joinpath("net").rglob("*")
        if p.is_file() and not any(s in str(p) for s in skip) and p.name != "flush"
    ]
    paths += [
        str(p.relative_to(base))
        for family in ("ipv4", "ipv6")
        for place in ("conf/default", "conf/all", "neigh/default")
        for p in base.joinpath("net", family, place).glob("*")
    ]
    rows = explain(tmp_path, *paths)
    unknown = [key for key, row in rows.items() if not row.get("meaning")]
    # A kernel newer than those that were looked at has more; what is here must not shrink.
    assert len(unknown) <= len(rows) // 50, unknown


KINDS = (
    "by ",
    "random",
    "what is",
    "empty",
    "as ",
    "memory",
    "reno",
    "at least",
    "half",
    "that of",
)


def test_defaults_are_those_of_a_new_namespace(ns: Namespace, tmp_path: Path) -> None:
    """Only for the version that the entries say they were seen on."""
    lines = ns.exec([str(BINARY), "explain", *known_names(), "-f", "tsv"]).stdout
    rows: dict[str, dict[str, str]] = {}
    for line in lines.splitlines():
        key, field, text = line.split("\t")[:3]
        rows.setdefault(key, {})[field] = text
    here = Path("/proc/sys/kernel/osrelease").read_text()
    wrong = []
    for key, row in rows.items():
        running = re.search(r"(?:^|running )([0-9.]+)$", row.get("verified", ""))
        if "value" not in row or running is None or not here.startswith(running[1]):
            continue
        if row.get("scope") != "namespace" or " before " in row["default"]:
            continue
        if row["default"].startswith(KINDS) or not row["default"][0].isdigit():
            continue
        if row["value"] not in re.split(r" \(|;|, which", row["default"]):
            wrong.append((key, row["value"], row["default"]))
    assert wrong == []


def at_version(default: str, kernel: str) -> str:
    """What the text of a default says of one kernel."""
    number = [int(n) for n in kernel.split(".")]
    found = default.split(" (")[0]
    for value, before in re.findall(r"(?:\(|, )([^(),]+) before Linux ([0-9.]+)", default):
        if number < [int(n) for n in before.split(".")]:
            found = value
    return found


def test_defaults_are_those_that_booted_kernels_showed(tmp_path: Path) -> None:
    """What differs from the newest must be told: by its version, or in the note."""
    wrong = []
    for key, row in explain(tmp_path, *known_names()).items():
        if not row.get("seen") or not key.startswith("net.") or row["default"] is None:
            continue
        for values, first in re.findall(r"(.*?) \(([0-9.]+)(?: to [0-9.]+)?\),? ?", row["seen"]):
            if ";" in values:
                break
            said = at_version(row["default"], first)
            told = values == "not there" or values in f"{said} {row.get('note') or ''}"
            # Worked out from memory, the clock or modules: words, or a last number that is less.
            worded = said != "empty" and (not said[0].isdigit() or "memory" in said)
            smaller = key.endswith(("tcp_rmem", "tcp_wmem"))
            if not (told or worded or smaller):
                wrong.append((key, first, values, said))
    assert wrong == []


def known_names() -> list[str]:
    names = []
    for file in (TOP / "tuning/kb").glob("*.yaml"):
        if file.stem == "risks":  # Of keys that the others have, several in one entry.
            continue
        for line in file.read_text().splitlines():
            name = line.strip().strip('":').rstrip(":").strip('"')
            if line.startswith("  ") and line[2] != " " and name.startswith("net."):
                names.append(name.replace("*", "default"))
    assert len(names) > 400
    return names


RISK = "keys: {net.ipv4.x: {meaning: m, source: s, default: 1, verified: v}}\nrisks: {net.ipv4.x: "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("keys: {net.ipv4.x: {meaning: m, nonsense: 1}}", "nonsense: is no field of a key"),
        ("keys: {net.ipv4.x: {meaning: m}}", "has no source"),
        ("keys: {net.ipv4.x: {source: s}}", "has no meaning"),
        ("keys: {net.ipv4.x: {meaning: m, source: s}}", "has no default"),
        ("keys: {net.ipv4.x: {meaning: m, source: s, default: 1}}", "has no verified"),
        ("keys: {net.ipv4.x: {meaning: m, source: s, default: 1, combine: max}}", "rule_source"),
        ("keys: {net.ipv4.x: {meaning: m, type: float}}", "is not one of the words"),
        ("keys: {net.ipv4.x: {meaning: m, range: [2, 1]}}", "is no range"),
        ("keys: {net.ipv4.x: {meaning: m, before: {'5.4': 1, '6.1': 2}}}", "newest version"),
        ("keys: {net.ipv4.x: {meaning: m, harmful: {'1': t}}}", "is no field of a key"),
        ("risks: {net.ipv4.no: {harmful: {'1': t}, source: s}}", "has risks, but is no key"),
        (RISK + "{harmful: {'<x': t}, source: s}}", "number"),
        (RISK + "{harmful: {'9..1': t}, source: s}}", "is no range"),
        (RISK + "{harmful: {'1': ''}, source: s}}", "does not say why"),
        (RISK + "{harmful: {'1': t}}}", "no source"),
        (RISK + "{source: s}}", "has no cases"),
        (RISK + "{fine: {'1': ''}, harmful: {'0': t}, source: s}}", "in this order"),
        (RISK + "{nonsense: {'1': t}, source: s}}", "is not harmful"),
        ("keys: {net.ipv4.x.*.a.b*: {meaning: m, source: s, scope: none}}", "fourth part"),
        ("keys: {net.ipv4.x: {meaning: m, source: s, scope: none, twin: net.y}}", "no key"),
        ("keys: {net.ipv4.x: {meaning: m, source: s, scope: none, absent: '1'}}", "belong together"),
        ("symptoms: {E: {message: m, meaning: x}}", "a symptom has"),
        ("symptoms: {E: {message: m, meaning: x, keys: net.no}}", "is no key"),
        ("seen: {net.ipv4.no: x}", "was seen, but is no key"),
        ("nonsense: 1", "is not common, keys, symptoms, risks, seen, agreed or differs"),
    ],
)  # fmt: skip
def test_a_wrong_entry_stops_the_build_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "k.yaml"
    file.write_text(text + "\n")
    done = subprocess.run([KBGEN, file], capture_output=True, text=True)
    assert (done.returncode, done.stdout, said in done.stderr) == (1, "", True), done.stderr


HARMFUL = [
    ("net.ipv4.tcp_syncookies", "0"),
    ("net.ipv4.tcp_timestamps", "0"),
    ("net.ipv4.tcp_sack", "0"),
    ("net.ipv4.tcp_window_scaling", "0"),
    ("net.ipv4.tcp_abort_on_overflow", "1"),
    ("net.ipv4.tcp_moderate_rcvbuf", "0"),
]


@pytest.mark.parametrize(("key", "value"), HARMFUL)
def test_lint_names_harm_also_where_a_risk_is_given(tmp_path: Path, key: str, value: str) -> None:
    file = profile(tmp_path / "p.yaml", f"{key}: {{value: {value}}}")
    done = tune("lint", file, "--strict")
    assert (done.returncode == OK, "[harmful]" in done.stderr) == (False, True)


@pytest.mark.parametrize("risk", [None, "Not stated there.", "known"])
def test_a_doubtful_value_is_told_and_a_risk_that_is_named_makes_it_a_note(
    tmp_path: Path, risk: str | None
) -> None:
    file = tmp_path / "p.yaml"
    tail = "" if risk is None else f", risk: {risk}"
    file.write_text(
        "name: t\nsummary: s\nsettings:\n"
        f"  net.ipv4.ip_local_port_range: {{value: 1024 65535, why: w{tail}}}\n"
    )
    named = risk == "known"
    told = tune("lint", file).stderr
    assert "[doubtful]" in told
    assert ("note: net.ipv4.ip_local_port_range" in told) == named
    assert ("the profile says of its risk: known" in told) == named
    assert ("[risk]" in told) != named
    assert (tune("lint", "--strict", file).returncode == OK) == named


def reserving(tmp_path: Path, reserved: bool) -> Path:
    file = tmp_path / "p.yaml"
    more = f"{{contains: [{'listening' if reserved else 8080}], why: w, risk: r}}"
    file.write_text(
        "name: t\nsummary: s\nsettings:\n"
        "  net.ipv4.ip_local_port_range: {value: 1024 65535, why: w, risk: r}\n"
        f"  net.ipv4.ip_local_reserved_ports: {more}\n"
    )
    return file


@pytest.mark.parametrize("reserved", [False, True])
def test_the_doubt_of_a_port_range_is_answered_by_its_reservation_alone(
    tmp_path: Path, root: Root, reserved: bool
) -> None:
    """Wherever a value leaves this tool, the doubt goes with it."""
    file = reserving(tmp_path, reserved)
    doubt = "takes in the ports of services"
    assert (doubt in tune("lint", file).stderr) != reserved
    for target in ("sysctl.d", "kubernetes", "ansible", "tuned", "nixos"):
        done = tune("export", "--to", target, file)
        assert (doubt in done.stderr) != reserved, target
        comment = [line for line in done.stdout.splitlines() if doubt in line]
        assert bool(comment) != reserved, target
        assert all(line.lstrip().startswith("#") for line in comment)
    (root.path / "etc/sysctl.d").mkdir(parents=True)
    done = root.tune("persist", file)
    written = (root.path / "etc/sysctl.d/90-hardsock.conf").read_text()
    assert (doubt in done.stderr) != reserved
    assert ("# note: net.ipv4.ip_local_port_range" in written) != reserved


def test_each_risk_names_where_it_stands_written() -> None:
    entries = re.findall(
        r'^    source: "(.*)"$', (TOP / "tuning/kb/risks.yaml").read_text(), re.MULTILINE
    )
    assert len(entries) > 200
    place = re.compile(
        r"Documentation/[\w./-]+\.rst|(?:net|fs|kernel|ipc|mm|include)/[\w/.]+\.[ch]|RFC \d+|\w+\(7\)"
    )
    for source in entries:
        assert place.search(source), source


def test_keys_that_people_set_are_judged(tmp_path: Path) -> None:
    lines = {
        "net.ipv4.neigh.default.gc_interval = 30": "pointless",
        "net.ipv6.neigh.default.gc_stale_time = 2": "doubtful",
        "net.ipv4.neigh.default.proxy_qlen = 96": "fine",
        "net.core.dev_weight = 4096": "doubtful",
        "net.netfilter.nf_conntrack_tcp_timeout_syn_sent = 5": "doubtful",
        "net.netfilter.nf_conntrack_tcp_timeout_syn_recv = 30": "fine",
        "net.ipv4.tcp_shrink_window = 1": "doubtful",
        "net.ipv4.tcp_plb_enabled = 1": "doubtful",
        "net.ipv4.tcp_pingpong_thresh = 1": "fine",
        "net.ipv4.tcp_rcvbuf_low_rtt = 1000": "fine",
        "net.ipv4.tcp_ecn_option = 0": "doubtful",
        "net.ipv4.tcp_comp_sack_rtt_percent = 100": "doubtful",
    }
    file = tmp_path / "x.conf"
    file.write_text("\n".join(lines) + "\n")
    said = [line for line in tune("judge", file).stdout.splitlines() if line.startswith(str(file))]
    assert [line.split()[1] for line in said] == list(lines.values())


def test_the_type_of_a_key_is_explained() -> None:
    types = {
        "net.core.somaxconn": "number",
        "net.ipv4.tcp_rmem": "3 numbers",
        "net.ipv4.ip_local_reserved_ports": "ports",
        "net.ipv4.tcp_congestion_control": "word",
        "net.ipv4.tcp_allowed_congestion_control": "words",
    }
    rows = answer("explain", *types)["answers"]
    assert {row["key"]: row["type"] for row in rows} == types
    assert "\n  type       3 numbers\n" in tune("explain", "tcp_rmem").stdout


@pytest.mark.parametrize(("kib", "reserve"), [(456320, 14260), (16777216, 131072)])
def test_the_reserve_of_users_follows_memory(root: Root, kib: int, reserve: int) -> None:
    """14260 is what a booted Linux 6.12 started with: a 32nd of what was free then."""
    (root.path / "proc/meminfo").write_text(f"MemTotal: {kib} kB\n")
    (row,) = root.answer("explain", "vm.user_reserve_kbytes")["answers"]
    assert row["computed"].startswith(f"about {reserve} on this machine: ")


def test_what_is_open_is_counted_right_in_the_docs() -> None:
    families = [yaml.safe_load(p.read_text()) for p in (TOP / "tuning/kb").glob("*.yaml")]
    keys = {key: fact for family in families for key, fact in family.get("keys", {}).items()}
    (risks,) = [family["risks"] for family in families if "risks" in family]
    (agreed,) = [family["agreed"] for family in families if "agreed" in family]
    judged = {key for names in risks for key in names.split()}
    computed = [key for key, fact in keys.items() if "near" in fact or "computed" in fact]
    words = [k for k, f in keys.items() if "memory" in str(f.get("default")) and k not in computed]
    ranged = [key for key, fact in keys.items() if "range" in fact]
    ruled = [key for key, fact in keys.items() if "combine" in fact]
    told = {
        question: sum(question in agreed.get(key, "") for key in of)
        for question, of in (("range", ranged), ("rule", ruled))
    }
    page = (TOP / "docs/internals/tune.md").read_text()
    for text in (
        f"Of {len(keys)} keys, {len(judged)} have values",
        f"worked out for {len(computed)} keys",
        f"Of {len(ranged)} keys with a range, booted kernels confirmed {told['range']}",
        f"Of {len(ruled)} keys of interfaces with a rule, booted kernels showed for {told['rule']}",
    ):
        assert text in page, text
    for key in words:
        assert f"`{key}`" in page, key
