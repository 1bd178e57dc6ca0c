"""Every command's JSON is an object that the published schema describes, to the last member."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support_tune import TOP, Root, profile, tune

SCHEMA = json.loads((TOP / "tuning/schema/hardsock-tune.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def check(text: str, command: str, kind: str) -> dict[str, Any]:
    """Validate against the whole schema, and against the part that the command should use."""
    got = json.loads(text)
    VALIDATOR.validate(got)
    part = {"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]}
    jsonschema.Draft202012Validator(part).validate(got)
    assert got["command"] == command
    assert isinstance(got, dict)
    return got


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert list(VALIDATOR.iter_errors([])), "no bare list passes"
    assert list(VALIDATOR.iter_errors({"version": 1}))


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "golden").glob("*.json")))
def test_every_golden_output_is_as_the_schema_says(path: Path) -> None:
    VALIDATOR.validate(json.loads(path.read_text()))


# Every command has its document, and `nothing` is for what failed before it began.
COMMANDS = {
    "check", "explain", "list", "show", "lint", "judge", "recommend", "diff", "apply", "revert",
    "status", "persist", "unpersist", "conflicts", "export", "import",
}  # fmt: skip

CASES: list[tuple[str, list[str]]] = [
    ("report", ["check"]),
    ("report", ["check", "all", "--strict"]),
    ("report", ["check", "-q"]),
    ("report", ["diff", "busy-server"]),
    ("answers", ["explain", "tcp_rmem", "EADDRNOTAVAIL", "tcp_tw_recycle", "net.ipv4.tcp_mem"]),
    ("answers", ["explain", "net.ipv4.tcp_fastopen_key", "net.ipv4.conf.all.rp_filter"]),
    ("answers", ["explain", "net.ipv4.brand_new"]),
    ("profiles", ["list"]),
    ("keys", ["list", "--keys"]),
    ("symptoms", ["list", "--symptoms"]),
    *[("shown", ["show", p.stem]) for p in sorted((TOP / "tuning/profiles").glob("*.yaml"))],
    ("changes", ["apply", "-n", "busy-server"]),
    ("changes", ["revert"]),
    ("transactions", ["status"]),
    ("persisted", ["persist", "-n", "busy-server"]),
    ("unpersisted", ["unpersist", "-n"]),
    ("recommended", ["recommend"]),
    ("conflicts", ["conflicts", "busy-server"]),
    ("linted", ["lint", "baseline"]),
    ("linted", ["lint", "--strict", "high-churn-client", "no-such-profile"]),
    *[
        ("exported", ["export", "--to", to, "high-churn-client", "kubernetes-node"])
        for to in ("sysctl.d", "kubernetes", "ansible", "tuned", "nixos")
    ],
    ("nothing", ["export", "--to", "sysctl.d", "no-such-profile"]),
    ("nothing", ["check", "no-such-profile"]),
    ("nothing", ["explain"]),
    ("nothing", ["judge", "/no/such/file"]),
]


@pytest.mark.parametrize(("kind", "args"), CASES, ids=[" ".join(c[1]) for c in CASES])
def test_each_command_is_as_the_schema_says(root: Root, kind: str, args: list[str]) -> None:
    root.listen(40000)
    root.put("net/ipv4/conf/all/rp_filter", "1")
    root.put("net/ipv4/brand_new", "1")
    root.put("net/ipv4/tcp_sack", "0")
    done = root.tune(*args, "--format", "json")
    got = check(done.stdout, args[0], kind)
    assert got["exit"] == done.returncode


def test_every_command_has_a_document_of_its_own() -> None:
    told = set(re.findall(r"^  ([a-z]+) ", tune("--help").stdout, re.MULTILINE))
    assert told == COMMANDS
    described = set()
    for name, part in SCHEMA["$defs"].items():
        command = part.get("properties", {}).get("command", {})
        if name != "nothing":
            described |= {command["const"]} if "const" in command else set(command.get("enum", []))
    assert described == COMMANDS


def test_what_lint_says_stands_in_fields(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "name: p\nsummary: s\nsettings:\n"
        "  net.ipv4.tcp_sack: {value: 0, why: w, risk: r}\n"
        "  net.ipv4.tcp_tw_reuse: {value: 1, why: w, risk: old packets}\n"
        "  net.ipv4.nonsense: 1\n"
    )
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: p\nsummary: s\nsettings:\n  net.ipv4.tcp_sack: {value: x, why: w}\n")
    got = check(tune("lint", file, bad, "-f", "json").stdout, "lint", "linted")
    rows = [(r["line"], r["severity"], r["class"], r["key"], r["value"]) for r in got["remarks"]]
    assert rows == [
        (4, "warning", "harmful", "net.ipv4.tcp_sack", "0"),
        (5, "note", "doubtful", "net.ipv4.tcp_tw_reuse", "1"),
        (6, "warning", "unknown", "net.ipv4.nonsense", None),
        (4, "error", "profile", None, None),
    ]
    assert [r["file"] for r in got["remarks"]] == [str(file)] * 3 + [str(bad)]
    lines = [line.split("\t") for line in tune("lint", file, "-f", "tsv").stdout.splitlines()]
    assert [(line[1], line[3], line[4]) for line in lines] == [
        ("4", "warning", "harmful"), ("5", "note", "doubtful"), ("6", "warning", "unknown"),
    ]  # fmt: skip


def test_what_export_writes_stands_in_fields() -> None:
    done = tune("export", "--to", "sysctl.d", "high-churn-client", "-f", "json")
    got = check(done.stdout, "export", "exported")
    (one,) = got["profiles"]
    by_key = {s["key"]: s for s in one["settings"]}
    assert by_key["net.ipv4.tcp_tw_reuse"]["value"] == "1"
    assert "[doubtful]" in by_key["net.ipv4.tcp_tw_reuse"]["doubt"]
    left_out = by_key["net.ipv4.ip_local_port_range"]
    assert (left_out["value"], left_out["doubt"]) == (None, None)
    assert "ip_local_reserved_ports" in left_out["left_out"]
    plain = tune("export", "--to", "sysctl.d", "high-churn-client").stdout
    for key, setting in by_key.items():
        assert (f"\n{key} = {setting['value']}\n" in plain) == (setting["value"] is not None)
    assert tune("export", "--to", "sysctl.d", "baseline", "-f", "tsv").returncode == 2


def test_transactions_and_their_way_back_are_as_the_schema_says(root: Root) -> None:
    check(root.tune("apply", "busy-server", "-f", "json").stdout, "apply", "changes")
    root.put("net/core/somaxconn", "1000")
    got = check(root.tune("status", "-f", "json").stdout, "status", "transactions")
    assert {s["status"] for s in got["transactions"][0]["settings"]} >= {"ok", "changed"}
    check(root.tune("revert", "-f", "json").stdout, "revert", "changes")


def test_files_are_as_the_schema_says(root: Root, tmp_path: Path) -> None:
    conf = tmp_path / "a.conf"
    conf.write_text("net.ipv4.tcp_sack = 0\nnonsense\nnet.core.somaxconn = 4096 # x\n-net.ipv4.x\n")
    check(tune("judge", conf, "-f", "json").stdout, "judge", "judged")
    check(tune("import", conf, "-f", "json").stdout, "import", "imported")


def test_waivers_and_a_history_are_as_the_schema_says(root: Root, tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("waivers:\n  net.ipv4.tcp_sack: {reason: r, until: 2999-01-01}\n")
    root.put("net/ipv4/tcp_sack", "0")
    bad = profile(tmp_path / "p.yaml", "net.ipv4.tcp_sack: {value: 1}")
    args = ("check", bad, "--waivers", file, "--history", tmp_path / "h", "-f", "json")
    for n in (5, 9):
        (root.path / "proc/net/netstat").write_text(f"TcpExt: ListenOverflows\nTcpExt: {n}\n")
        got = check(root.tune(*args).stdout, "check", "report")
    assert got["profiles"][0]["settings"][0]["status"] == "waived"
    assert got["findings"][0]["more"] == 4
