"""The manual page and the completions of ``hardsock`` say what its parser knows."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hardsock.cli.main import _make_parser, main
from hardsock.lab.servers.process import clean_environment, find_program
from support.require import available

SHARE = Path(__file__).parents[2] / "share"
PAGE = SHARE / "man/man1/hardsock.1"
COMPLETIONS = {
    "bash": SHARE / "bash-completion/completions/hardsock",
    "zsh": SHARE / "zsh/site-functions/_hardsock",
    "fish": SHARE / "fish/vendor_completions.d/hardsock.fish",
}


def run(argv: list[str | Path], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A program of others: what is preloaded into this one is not for it."""
    environment = clean_environment()
    return subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=cwd)


def our_python() -> str:
    """For such a program, which calls ours: a sanitizer's extension cannot be loaded without it."""
    preloaded = os.environ.get("LD_PRELOAD")
    return shlex.join([*(["env", f"LD_PRELOAD={preloaded}"] if preloaded else []), sys.executable])


def commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = (
        action
        for action in _make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return dict(found.choices)


def options(command: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in command._actions:
        if action.option_strings and action.help != argparse.SUPPRESS:
            yield action


def section(name: str) -> str:
    """What the page says about a command."""
    text = PAGE.read_text()
    begin = re.search(rf"^\.It Cm {name}\b", text, re.MULTILINE)
    assert begin is not None, name
    rest = text[begin.end() :]
    following = [rest.find(f"\n.It Cm {other}") for other in commands() if other != name]
    ends = [end for end in (*following, rest.find("\n.Sh ")) if end >= 0]
    return rest[: min(ends)]


@pytest.mark.parametrize("name", sorted(commands()))
def test_the_page_describes_each_command_and_option(name: str) -> None:
    told = section(name)
    known = {one.removeprefix("--") for a in options(commands()[name]) for one in a.option_strings}
    described = set(re.findall(r"^\.It Fl -([a-z-]+)", told, re.MULTILINE))
    assert described == known - {"help", "-h"}
    text = PAGE.read_text()
    assert re.search(rf"^\.Dl \$ hardsock {name}\b", text, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(commands()))
def test_the_page_names_each_choice(name: str) -> None:
    told = section("top" if name == "ps" else name)
    for action in options(commands()[name]):
        for choice in action.choices or ():
            assert re.search(rf"\b{choice}\b", told), choice


def test_the_page_is_well_formed() -> None:
    with available():
        mandoc = find_program("mandoc")
    done = run([mandoc, "-Tlint", "-W", "warning", PAGE])
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("shell", sorted(COMPLETIONS))
def test_completions_know_each_command_option_and_choice(shell: str) -> None:
    text = COMPLETIONS[shell].read_text()
    for name, command in commands().items():
        assert re.search(rf"\b{name}\b", text), name
        for action in options(command):
            for option in action.option_strings:
                if option == "-h":
                    continue
                word = f"-l {option[2:]} " if shell == "fish" else option
                assert word in text, (name, option)
            for choice in action.choices or ():
                assert re.search(rf"\b{choice}\b", text), choice


@pytest.mark.parametrize("shell", sorted(COMPLETIONS))
def test_completions_offer_no_option_that_is_refused(shell: str) -> None:
    text = COMPLETIONS[shell].read_text()
    text = "\n".join(line for line in text.splitlines() if not line.startswith("set "))
    pattern = r" -l ([a-z-]+)" if shell == "fish" else r"(?<![\w-])--([a-z][a-z-]*)"
    known = {"--help", "--version"}
    known |= {o for c in commands().values() for a in options(c) for o in a.option_strings}
    assert {f"--{one}" for one in re.findall(pattern, text)} <= known


COMPLETE = """
. {file}
hardsock() {{ {python} -m hardsock "$@"; }}
COMP_WORDS=(hardsock {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_hardsock; printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "some"),
    [
        ("exp", "explain"),
        ("explain --ad", "--adapters"),
        ("top --view wait", "waiters"),
        ("ps --format j", "json"),
        ("demo dri", "drip"),
        ("run --dead", "--deadline"),
        ("run --signal US", "USR2"),
    ],
)
def test_bash_completes_words(words: str, some: str) -> None:
    script = COMPLETE.format(file=COMPLETIONS["bash"], words=words, python=our_python())
    done = run(["bash", "-c", script])
    assert (done.stderr, some in done.stdout.split()) == ("", True), done.stdout


def test_bash_leaves_the_arguments_of_a_program_alone(tmp_path: Path) -> None:
    (tmp_path / "input.txt").touch()
    script = COMPLETE.format(
        file=COMPLETIONS["bash"], words="run --deadline 3 app.py inp", python=our_python()
    )
    done = run(["bash", "-c", script], cwd=tmp_path)
    assert done.stdout.split() == ["input.txt"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_shell_can_read_its_completion(shell: str) -> None:
    with available():
        program = find_program(shell)
    done = run([program, "-n", COMPLETIONS[shell]])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "some"),
    [
        ("exp", "explain"),
        ("explain --ad", "--adapters"),
        ("top --view wait", "waiters"),
        ("ps --format j", "json"),
        ("demo dri", "drip"),
        ("run --dead", "--deadline"),
    ],
)
def test_fish_completes_words(words: str, some: str, tmp_path: Path) -> None:
    with available():
        program = find_program("fish")
    script = (
        f"function hardsock; {our_python()} -m hardsock $argv; end; "
        f"source {COMPLETIONS['fish']}; complete -C 'hardsock {words}'"
    )
    done = subprocess.run(
        [program, "--no-config", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    offered = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert (done.stderr, some in offered) == ("", True), done.stdout


def test_without_a_word_the_command_shows_what_there_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(f"    {name} " in shown.err for name in commands())


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["explainz"], "explain"), (["lab", "rnu"], "run"), (["top", "--view", "poolz"], "pools")],
)
def test_of_a_word_that_it_does_not_know_it_asks_which_was_meant(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(words)
    assert raised.value.code == 2
    assert re.search(rf"meant? '?{meant}\b", capsys.readouterr().err)


def test_of_a_word_like_no_other_it_asks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["xyzzy"])
    assert "mean" not in capsys.readouterr().err
