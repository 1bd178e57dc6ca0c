"""Rules from YAML, and the command that tries them on another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hardsock as hs
from hardsock import guard
from hardsock.guard.rules_file import RulesError, parse_rules, read_rules

GOOD = """\
rules:
  - name: too many
    when: connections_share > 0.9
    clear: 0.75
    for: 30
    then:
      - close_idle: {over: 60, at_most: 0.05, per: 60}
      - diagnose
  - name: slow
    when: [connections > 10, gil_stall_p99 > 0.5]
    then: {user_timeout: {seconds: 15}}
"""


def test_rules_are_read() -> None:
    many, slow = parse_rules(GOOD)
    assert many.name == "too many"
    assert many.when == ((guard.connections_share > 0.9).until(0.75),)
    assert many.for_ == 30
    assert many.then == (guard.CloseIdle(over=60, at_most=0.05, per=60), guard.Diagnose())
    assert slow.when == (guard.connections > 10, guard.gil_stall_p99 > 0.5)
    assert slow.then == (guard.UserTimeout(seconds=15),)


ONE = "rules:\n  - name: a\n    when: connections > 5\n    then: diagnose\n"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "f", "nothing in it"),
        ("rules: 1", "f:1:8", "rules must be a list"),
        ("- 1", "f:1:1", "the file must be a mapping"),
        ("rulez: []", "f:1:1", "unknown key 'rulez'"),
        ("rules: [\n", "f:2:1", "expected"),
        ("rules:\n\t- a", "f:2:1", "cannot start any token"),
        (ONE + "    wen: 1\n", "f:5:5", "unknown key 'wen' in a rule"),
        (ONE + "    then: diagnose\n", "f:5:5", "'then' is there twice"),
        (ONE.replace("    then: diagnose\n", ""), "f:2:5", "the rule has no 'then'"),
        (ONE.replace("connections", "conns"), "f:3:11", "there is no quantity 'conns'"),
        (ONE.replace("> 5", "is 5"), "f:3:11", "when must be as"),
        (ONE.replace("> 5", "> many"), "f:3:11", "'many' is no number"),
        (ONE.replace("> 5", "> nan"), "f:3:11", "finite"),
        (ONE + "    clear: 6\n", "f:5:12", "clear must be not above 5"),
        (ONE + "    clear: yes\n", "f:5:12", "clear must be a number"),
        (ONE + "    for: -1\n", "f:5:10", "for_ must be in"),
        (ONE.replace("diagnose", "explode"), "f:4:11", "there is no action 'explode'"),
        (ONE.replace("diagnose", "{close_idle: {ovr: 1}}"), "f:4:25", "unknown key 'ovr'"),
        (ONE.replace("diagnose", "{close_idle: {over: x}}"), "f:4:31", "over must be a number"),
        (ONE.replace("diagnose", "{close_idle: {over: -1}}"), "f:4:12", "over must be in"),
        (ONE.replace("diagnose", "[[a]]"), "f:4:12", "an action must be a single value"),
        (ONE.replace("name: a", "name: 5"), "f:2:5", "name must be a str"),
    ],
)
def test_what_is_wrong_is_told_with_line_and_column(text: str, where: str, what: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse_rules(text, "f")
    assert str(caught.value).startswith(f"{where}: ")
    assert what in str(caught.value)


@given(st.text(max_size=200) | st.builds(lambda at, put: GOOD[:at] + put + GOOD[at:],
       st.integers(0, len(GOOD)), st.text(max_size=3)))  # fmt: skip
def test_any_text_is_rules_or_an_error_that_says_where(text: str) -> None:
    try:
        parse_rules(text, "f")
    except RulesError as exc:
        told = str(exc)
    else:
        told = "f"
    assert told.startswith("f")


def test_without_pyyaml_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ImportError, match=r"hardsock\[guard\]"):
        parse_rules(GOOD)


def test_hardsock_itself_needs_no_pyyaml_and_imports_no_guard() -> None:
    code = (
        "import hardsock, sys; print([n for n in ('yaml', 'hardsock.guard') if n in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hardsock", "guard", *arguments],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_command_prints_decisions_and_how_the_rules_stand(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(ONE.replace("> 5", "< 5").replace("diagnose", "[diagnose, close_idle]"))
    assert len(read_rules(path)) == 1
    done = run("--dry-run", str(os.getpid()), "--rules", str(path), "--count", "1")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["action"], one["outcome"]) for one in lines] == [
        ("rule", "armed"),
        ("Diagnose", "done"),
    ]
    assert "rule 'a' is on: connections is 0 (connections < 5)" in done.stderr
    assert done.returncode == 0


def test_the_command_has_the_articles_rules_by_default() -> None:
    done = run("--dry-run", str(os.getpid()), "--count", "2", "--every", "0.1")
    assert done.stdout == ""
    assert "rule 'many and old' is off" in done.stderr
    assert done.returncode == 0


def test_the_command_says_what_it_cannot_do(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("rules: 1")
    done = run("--dry-run", str(os.getpid()), "--rules", str(path))
    assert (done.returncode, done.stderr) == (
        3,
        f"hardsock: {path}:1:8: rules must be a list of rules\n",
    )
    assert run(str(os.getpid())).returncode == 2
    done = run("--dry-run", str(2**22 + 5))
    assert (done.returncode, done.stderr) == (1, "hardsock: there is no process 4194309\n")
    path.write_text(ONE.replace("diagnose", "refuse_new"))
    done = run("--dry-run", str(os.getpid()), "--rules", str(path))
    assert done.returncode == 1
    assert "RefuseNew cannot be done to Foreign" in done.stderr


def test_rules_from_a_file_are_rules_of_a_guard() -> None:
    one = hs.Guard(None, *parse_rules(ONE), log=lambda line: None)
    one.tick()
    assert one.failure is None
