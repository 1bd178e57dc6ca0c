"""What people type: errors that they saw, names with a letter wrong, files without a slash."""

from __future__ import annotations

import errno
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from support_tune import BINARY, DRIFT, OK, PROFILE, TOP, USAGE, Root, answer, tune


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
    ("line", "symptom"),
    [
        ("[ 12.3] TCP: request_sock_TCP: Possible SYN flooding on port 80. Sending cookies.",
         "SYN-FLOODING"),
        ("nf_conntrack: nf_conntrack: table full, dropping packet", "CONNTRACK-FULL"),
        ("neighbour: arp_cache: neighbor table overflow!", "NEIGHBOURS-FULL"),
        ("TCP: out of memory -- consider tuning tcp_mem", "TCP-MEMORY"),
        ("OSError: [Errno 99] Cannot assign requested address", "EADDRNOTAVAIL"),
        ("accept4: Too many open files in system", "ENFILE"),
        ("accept4: too many open files", "EMFILE"),
        ("syn-flooding", "SYN-FLOODING"),
    ],
)  # fmt: skip
def test_a_line_of_a_log_is_answered(line: str, symptom: str) -> None:
    (row,) = answer("explain", line)["answers"]
    assert row["symptom"] == symptom


@pytest.mark.parametrize(
    "name",
    ["ECONNABORTED", "EPIPE", "EHOSTUNREACH", "ENETUNREACH", "EPERM", "EACCES", "ECONNRESET",
     "ECONNREFUSED", "ETIMEDOUT", "EADDRINUSE", "EADDRNOTAVAIL", "EMFILE", "ENFILE", "ENOBUFS",
     "ENOSPC", "EAGAIN", "ENOMEM"],
)  # fmt: skip
def test_an_error_is_known_by_its_name_and_by_what_strerror_says(name: str) -> None:
    message = os.strerror(getattr(errno, name))
    for seen in (name, message, f"write: {message}"):
        (row,) = answer("explain", seen)["answers"]
        assert (row["symptom"], row["message"]) == (name, message), seen
    assert name in {row["symptom"] for row in answer("list", "--symptoms")["symptoms"]}


def test_every_symptom_is_listed_and_names_known_keys() -> None:
    rows = answer("list", "--symptoms")["symptoms"]
    assert len(rows) > 15
    shown = tune("list", "--symptoms").stdout
    for row in rows:
        assert row["symptom"] in shown
        for key in row["keys"].split():
            done = tune("explain", key.replace("*", "default"), "-f", "json")
            assert '"meaning"' in done.stdout, key


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
    done = tune(*(reversed(words) if order else words), env={"COLUMNS": "80"})
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[0].startswith(f"usage: hardsock-tune {name}")) == (OK, True)
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    (example,) = [line.removeprefix("example: ") for line in lines if line.startswith("example")]
    assert example.startswith(f"hardsock-tune {name}")
    manual = (TOP / "tuning/man/hardsock-tune.8").read_text()
    for option in re.findall(r"^ {2,}(?:-\w, )?--([a-z-]+)", done.stdout, re.MULTILINE):
        assert f"Fl -{option}" in manual, option


@pytest.mark.parametrize("name", COMMANDS.split())
def test_the_help_names_the_format_where_one_is_taken(name: str, root: Root) -> None:
    """A command without its arguments says so, in the format that was asked for."""
    said = root.tune(name, "--format", "json").stdout
    assert said.startswith("{")
    assert ("--format" in tune(name, "--help").stdout) == ("in no other --format" not in said)


def test_the_help_fits_a_screen_and_names_every_command_and_exit_code() -> None:
    text = tune("--help").stdout
    lines = text.splitlines()
    assert len(lines) <= 23, "a screen has 24, and the prompt takes one"
    assert max(map(len, lines)) <= 80
    for name in COMMANDS.split():
        assert f"\n  {name} " in text
    for code in range(11):
        assert re.search(rf"\b{code} [a-z]", text), code


def test_the_manual_names_every_column_of_import(tmp_path: Path) -> None:
    file = tmp_path / "a.conf"
    file.write_text("-net.ipv4.tcp_sack = 1\n")
    row = tune("import", file, "-f", "tsv").stdout.rstrip("\n").split("\t")
    text = (TOP / "tuning/man/hardsock-tune.8").read_text()
    told = re.search(r"^\.Cm import :\n((?:.*\n)*?)For$", text, re.MULTILINE)
    assert told is not None
    columns = told[1].replace("and\n.Cm ", "").split(", ")
    assert len(columns) == len(row), (columns, row)
    assert columns[-1].startswith(row[-1])


@pytest.mark.parametrize("name", COMMANDS.split())
def test_the_manual_has_an_example_of_each_command(name: str) -> None:
    text = (TOP / "tuning/man/hardsock-tune.8").read_text()
    examples = text[text.index(".Sh EXAMPLES") :]
    assert re.search(rf"^\.Dl .*hardsock-tune {name}\b", examples, re.MULTILINE)


def sections() -> dict[str, str]:
    """The part of the manual page about each command."""
    text = (TOP / "tuning/man/hardsock-tune.8").read_text()
    commands = text[text.index(".Sh COMMANDS") : text.index(".Sh OPTIONS")]
    parts = re.split(r"^\.Ss ", commands, flags=re.MULTILINE)[1:]
    return {part.split("\n", 1)[0]: part for part in parts}


# What each example ends with on a machine that has nothing but defaults.
EXAMPLES = {
    "check": DRIFT, "explain": OK, "list": OK, "show": OK, "lint": PROFILE, "judge": PROFILE,
    "recommend": OK, "diff": DRIFT, "apply": OK, "revert": OK, "status": OK, "persist": OK,
    "unpersist": OK, "conflicts": OK, "export": DRIFT, "import": DRIFT,
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS.split())
def test_each_command_has_a_section_whose_example_runs(
    name: str, root: Root, tmp_path: Path
) -> None:
    section = sections()[name]
    assert re.search(rf"^\.Nm\n\.Cm {name}\b", section, re.MULTILINE)
    (example,) = re.findall(r"^\.Dl (hardsock-tune .*)$", section, re.MULTILINE)
    assert f"example: {example}" in tune(name, "--help").stdout, "the help has the same one"
    (tmp_path / "vendor.conf").write_text("net.ipv4.tcp_timestamps = 0\nnonsense\n")
    (tmp_path / "vendor.yaml").write_text(
        "name: v\nsummary: s\nsettings:\n  net.ipv4.tcp_timestamps: 0\n"
    )
    (root.path / "etc/sysctl.d").mkdir(parents=True)
    # What is no file of this machine, and no machine but the made one.
    command, _, into = example.partition(" > ")
    words = shlex.split(command.replace("/etc/sysctl.conf", "vendor.conf"))
    assert words[:2] == ["hardsock-tune", name]
    more = ["--root", str(root.path)] if "--root" in tune(name, "--help").stdout else []
    done = subprocess.run(
        [BINARY, *words[1:], *more], cwd=tmp_path, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
    )  # fmt: skip
    assert done.returncode == EXAMPLES[name], done.stderr
    assert done.stdout or done.stderr
    assert not into or done.stdout, "what is kept in a file is not empty"


@pytest.mark.parametrize("shell", ["hardsock-tune", "_hardsock-tune"])
def test_completions_know_every_command_and_option(shell: str) -> None:
    text = (TOP / "tuning/completion" / shell).read_text()
    for name in COMMANDS.split():
        assert re.search(rf"\b{name}\b", text), name
        told = tune(name, "--help").stdout
        for option in re.findall(r"^ {2,}(?:-\w, )?(--[a-z-]+)", told, re.MULTILINE):
            assert option in text, option


COMPLETE = """
. {file}
COMP_WORDS=(hardsock-tune {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
PATH={path}:$PATH
_hardsock_tune; printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "some"),
    [
        ("jud", "judge"),
        ("check --hist", "--history"),
        ("check high", "high-churn-client"),
        ("explain net.ipv4.tcp_rm", "net.ipv4.tcp_rmem"),
        ("check -f prom", "prometheus"),
        ("export --to ans", "ansible"),
    ],
)
def test_bash_completes_keys_profiles_and_words(words: str, some: str) -> None:
    script = COMPLETE.format(
        file=TOP / "tuning/completion/hardsock-tune", words=words, path=BINARY.parent
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.stderr, some in done.stdout.split()) == ("", True), done.stdout


def test_no_option_that_is_told_is_refused(root: Root) -> None:
    told = tune("check", "--help").stdout
    assert "--strict" in told
    assert root.tune("check", "--strict", "baseline").returncode == OK
    assert tune("nonsense", "--help").returncode == USAGE
