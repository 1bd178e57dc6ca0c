"""What people type: errors that they saw, names with a letter wrong, files without a slash."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support_tune import BINARY, OK, PROFILE, USAGE, Root, answer, tune


@pytest.mark.parametrize(
    "seen", ["EADDRNOTAVAIL", "eaddrnotavail", "Cannot assign requested address"]
)
def test_an_error_is_answered_with_the_settings_behind_it(seen: str) -> None:
    done = tune("explain", seen)
    assert done.returncode == OK
    assert "net.ipv4.ip_local_port_range" in done.stdout
    (row,) = answer("explain", seen)["answers"]
    assert row["symptom"] == "EADDRNOTAVAIL"
    for key in row["keys"].split():
        assert tune("explain", key.replace("*", "default")).returncode == OK


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("explain", "tcp_rmen"), USAGE, "did you mean tcp_rmem?"),
        (("explain", "net.ipv4.tcp_rmme"), USAGE, "did you mean net.ipv4.tcp_rmem?"),
        (("explain", "net.core.tcp_rmem"), USAGE, "did you mean net.ipv4.tcp_rmem?"),
        (("explain", "zzzzzzzz"), USAGE, "nor to this kernel\n"),
        (("explaim", "tcp_rmem"), USAGE, "did you mean explain?"),
        (("x",), USAGE, "no command 'x'. See"),
        (("q" * 300,), USAGE, "no command"),
        (("check", "busy-sever"), PROFILE, "did you mean busy-server?"),
        (("check", "nothing-like-it"), PROFILE, "'nothing-like-it'; `hardsock-tune list`"),
    ],
)
def test_a_wrong_letter_is_told(args: tuple[str, ...], code: int, said: str) -> None:
    done = tune(*args)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_a_key_without_an_entry_that_is_there_is_no_error(root: Root) -> None:
    root.put("net/ipv4/brand_new", "1")
    assert root.tune("explain", "net.ipv4.brand_new").returncode == OK
    assert root.tune("explain", "net.ipv4.brand_old").returncode == USAGE


def test_a_file_without_a_slash_is_told_apart_from_a_name(tmp_path: Path) -> None:
    (tmp_path / "vendor.yaml").write_text("name: v\nsummary: s\nsettings: {}\n")
    done = subprocess.run(
        [BINARY, "check", "vendor.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, "write ./vendor.yaml" in done.stderr) == (PROFILE, True)


def test_list_keys_names_every_known_setting() -> None:
    lines = tune("list", "--keys", "-f", "tsv").stdout.splitlines()
    assert len(lines) > 500
    assert all(len(line.split("\t")) == 2 for line in lines)
    keys = [row["key"] for row in answer("list", "--keys")["keys"]]
    assert keys == [line.split("\t")[0] for line in lines]
    assert "net.ipv4.conf.*.rp_filter" in tune("list", "--keys").stdout


COMMANDS = "check explain list show lint judge recommend diff apply revert status persist unpersist conflicts export import"


@pytest.mark.parametrize("name", COMMANDS.split())
@pytest.mark.parametrize("order", [0, 1])
def test_help_of_a_command_is_about_it_with_an_example(name: str, order: int) -> None:
    words = [name, "--help"]
    done = tune(*(reversed(words) if order else words))
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[0].startswith(f"usage: hardsock-tune {name}")) == (OK, True)
    assert len(lines) < 12
    (example,) = [line.removeprefix("example:  ") for line in lines if line.startswith("example")]
    assert example.startswith(f"hardsock-tune {name}")
    everything = tune("--help").stdout
    for option in done.stdout.split("options:")[1].split("example:")[0].split():
        assert option in everything


def test_no_option_that_is_told_is_refused(root: Root) -> None:
    told = tune("check", "--help").stdout
    assert "--strict" in told
    assert root.tune("check", "--strict", "baseline").returncode == OK
    assert tune("nonsense", "--help").returncode == USAGE
