"""Hostile and careless YAML: every file ends in one clear error, with its place, quickly."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest
from support_tune import BINARY, DRIFT, OK, PROFILE, Root, profile, tune

HEAD = "name: t\nsummary: s\nsettings:\n"
KEY = "  net.core.somaxconn:\n"

# What is wrong, the file, where, and a word of the message.
CASES: list[tuple[str, bytes, str, str]] = [
    ("anchor", b"name: &x t\n", ":1:7:", "anchors"),
    ("alias", b"name: *x\n", ":1:7:", "aliases"),
    ("tag", b"name: !!str t\n", ":1:7:", "tags"),
    ("merge key", b"<<: {a: 1}\n", ":1:1:", "merge"),
    ("duplicate", b"name: t\nname: u\n", ":2:1:", "twice"),
    (
        "duplicate in the other spelling",
        (HEAD + "  net.core.somaxconn: {value: 1, why: w}\n  net/core/somaxconn: {value: 1, why: w}\n").encode(),
        ":5:3:",
        "twice",
    ),
    ("depth", b"[" * 60000, ":1:9:", "deeply"),
    ("depth of maps", b"{a: " * 10000, ":1:", "deeply"),
    ("too many nodes", b"[" + b"1," * 30000 + b"]", ":1:", "too many"),
    ("NUL by escape", b'name: "a\\0b"\n', ":1:7:", "NUL"),
    ("control by escape", b'name: "a\\x1bb"\n', ":1:7:", "control"),
    ("raw NUL", b"name: a\0b\n", ":1:8:", "control"),
    ("bad UTF-8", b"name: t\nsummary: \xff\n", ":2:10:", "UTF-8"),
    ("UTF-16", "name: t\n".encode("utf-16"), ": ", "UTF-8"),
    ("second document", b"name: t\nsummary: s\n---\nname: u\n", ":3:1:", "second document"),
    ("YAML 2.0", b"%YAML 2.0\n---\nname: t\n", ":1:1:", "incompatible"),
    ("complex key", b"? [x, y]\n: 1\n", ":1:3:", "plain word"),
    ("too large", b"#" * 70000, ": ", "larger"),
    ("empty", b"", ": ", "empty"),
    ("a list", b"- 1\n", ":1:1:", "mapping"),
    ("no name", b"summary: s\n", ":1:1:", "needs name"),
    ("unknown field", b"title: t\n", ":1:1:", "unknown field 'title'"),
    ("unknown field of a setting", (HEAD + KEY + "    wanted: 1\n").encode(), ":5:5:", "wanted"),
    ("unknown requirement", b"name: t\nrequires: {os: bsd}\n", ":2:12:", "os"),
    ("too many parents", b"name: t\nsummary: s\nextends: [" + b"baseline," * 2000 + b"]\n", ":3:83:", "more than 8"),
    ("two constraints", (HEAD + KEY + "    value: 1\n    at_least: 1\n").encode(), ":6:15:", "one of"),
    ("no reason", (HEAD + KEY + "    value: 1\n").encode(), ":5:5:", "why"),
    ("bad version", (HEAD + KEY + "    value: 1\n    since: new\n").encode(), ":6:12:", "version"),
    ("boolean", (HEAD + KEY + "    value: on\n    why: w\n").encode(), ":5:12:", "disagree"),
    ("null", (HEAD + KEY + "    value: ~\n    why: w\n").encode(), ":5:12:", "disagree"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "data", "place", "word"), CASES, ids=[c[0] for c in CASES])
def test_bad_file_is_refused_with_its_place(
    tmp_path: Path, what: str, data: bytes, place: str, word: str
) -> None:
    file = tmp_path / "p.yaml"
    file.write_bytes(data)
    done = tune("lint", file)
    assert done.returncode == PROFILE
    assert done.stderr.startswith(f"hardsock-tune: {file}{place}")
    assert word in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "value",
    ["010", "0x1e", "0o17", "1_000", "30.5", "1e3", "60s", "+30", "30abc", '""', '" "', "12:30:45",
     "99999999999999999999", '"30 31"', "[30, 31]", "{a: 1}", "[]", "[[1]]"],
)  # fmt: skip
def test_a_number_is_one_plain_decimal_number(tmp_path: Path, value: str) -> None:
    file = profile(tmp_path / "p.yaml", f"net.ipv4.tcp_fin_timeout: {{value: {value}}}")
    assert tune("lint", file).returncode == PROFILE


@pytest.mark.parametrize("value", ["4096", "[4096, 16384]", "[1, 2, 3, 4]", "[3, 2, 1]"])
def test_the_number_of_fields_is_exact_and_they_rise(tmp_path: Path, value: str) -> None:
    file = profile(tmp_path / "p.yaml", f"net.ipv4.tcp_rmem: {{value: {value}}}")
    assert tune("lint", file).returncode == PROFILE


@pytest.mark.parametrize("value", ["65536", "80-", "90-80", "80;90", "a", "-1", "80 - 90"])
def test_a_port_list_is_one(tmp_path: Path, value: str) -> None:
    file = profile(tmp_path / "p.yaml", f'net.ipv4.ip_local_reserved_ports: {{value: "{value}"}}')
    assert tune("lint", file).returncode == PROFILE


def test_a_block_scalar_loses_its_newline(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(HEAD + "  net.ipv4.tcp_sack:\n    value: |\n      1\n    why: w\n    risk: r\n")
    assert tune("lint", file, "--strict").returncode == OK


def test_a_value_without_sense_is_a_warning_and_strict_makes_it_an_error(tmp_path: Path) -> None:
    file = profile(tmp_path / "p.yaml", "net.ipv4.tcp_mtu_probing: {value: 255}")
    assert tune("lint", file).returncode == OK
    assert "range that makes sense" in tune("lint", file).stderr
    assert tune("lint", file, "--strict").returncode == PROFILE


@pytest.mark.parametrize("kind", ["fifo", "directory", "missing", "device"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    import os

    path = tmp_path / "p.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    assert tune("lint", path).returncode == PROFILE


@pytest.mark.timing
@pytest.mark.parametrize(("what", "data", "place", "word"), CASES, ids=[c[0] for c in CASES])
def test_hostile_file_costs_little(
    tmp_path: Path, what: str, data: bytes, place: str, word: str
) -> None:
    file = tmp_path / "p.yaml"
    file.write_bytes(data)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (16 * 2**20, 16 * 2**20))

    # Processor time: what it costs, however busy the machine is with others.
    best = 1.0
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([BINARY, "lint", file], capture_output=True, preexec_fn=limit)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == PROFILE
    assert best < 0.05


@pytest.mark.parametrize(
    "name", ["x\\nkernel.core_pattern = |/tmp/evil", "x\\nend", "a b", "x" * 65]
)
def test_a_name_that_could_write_lines_of_its_own_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(f'name: "{name}"\nsummary: s\nsettings: {{net.ipv4.tcp_sack: {{value: 1}}}}\n')
    done = tune("lint", file)
    assert done.returncode == PROFILE
    assert "a name is 1 to 64 letters" in done.stderr


def test_unset_of_an_unknown_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("name: n\nsummary: s\nsettings: {net.ipv4.unknown_x: {unset: true, why: w}}\n")
    assert tune("lint", file).returncode == PROFILE


def test_a_value_alone_is_a_setting_without_a_reason(root: Root, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "name: t\nsummary: s\nsettings:\n  net.ipv4.tcp_sack: 0\n"
        '  net.ipv4.tcp_rmem: "4096 131072 6291456"\n'
    )
    done = tune("lint", file)
    assert (done.returncode, done.stderr.count("does not say why [why]")) == (OK, 2)
    assert tune("lint", "--strict", file).returncode == PROFILE
    for form in ("pretty", "tsv", "json", "prometheus", "junit", "sarif"):
        assert root.tune("check", file, "-f", form).returncode == DRIFT
    for to in ("sysctl.d", "kubernetes", "ansible", "tuned", "nixos"):
        assert "net.ipv4.tcp_sack" in tune("export", "--to", to, file).stdout
    assert root.tune("show", file).returncode == OK
    assert root.tune("apply", file).returncode == OK
    assert root.get("net/ipv4/tcp_rmem") == "4096 131072 6291456"


@pytest.mark.parametrize("value", ["", "~", "[1, 2]", '""'])
def test_nothing_alone_is_no_setting(tmp_path: Path, value: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(f"name: t\nsummary: s\nsettings:\n  net.ipv4.tcp_sack: {value}\n")
    assert tune("lint", file).returncode == PROFILE
