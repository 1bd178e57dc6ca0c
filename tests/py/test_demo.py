"""The demo: played once as a user plays it, and how it judges and counts."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hardsock.__main__ import main
from hardsock.demo import measure, runner
from hardsock.demo.scene import Bound, Outcome, Scene
from hardsock.demo.scenes import SCENES, rst_storm
from hardsock.lab import Namespace, Unavailable
from hardsock.lab.servers.process import PeerMissing, find_program
from support.require import need_module

ROOT = Path(__file__).resolve().parents[2]

PATIENCE = 30
"""Here other tests are busy at the same time; `make demo` alone holds it to its bounds."""

COMMAND = [sys.executable, "-m", "hardsock", "demo"]
IN_NAMESPACES = {"three-black-holes", "dead-dns", "tune"}


def missing_here() -> set[str]:
    """The scenes that this machine cannot play."""
    missing = set()
    programs = (("nginx", "nginx"), ("redis", "redis-server"), ("tls-stall", "openssl"))
    for scene, program in programs:
        try:
            find_program(program)
        except PeerMissing:
            missing.add(scene)
    try:
        with Namespace():
            pass
    except Unavailable:
        missing |= IN_NAMESPACES
    return missing


def names_after(word: str, summary: str) -> set[str]:
    """The names in ``2 skipped (nginx, redis)``."""
    found = re.search(rf"(\d+) {word}(?: \(([^)]*)\))?", summary)
    assert found is not None, summary
    names = set((found[2] or "").split(", ")) - {""}
    assert int(found[1]) == len(names)
    return names


@pytest.mark.slow
@pytest.mark.parametrize(
    "patience",
    [
        pytest.param(1, marks=[pytest.mark.nightly, pytest.mark.timing], id="alone"),
        pytest.param(PATIENCE, id="busy"),
    ],
)
def test_whole_demo_passes_and_skips_only_what_is_missing_here(patience: int) -> None:
    command = [*COMMAND, "--patience", str(patience)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600.0)

    output = done.stdout + done.stderr
    summary = done.stdout.splitlines()[-1]
    skipped = names_after("skipped", summary)
    assert (0, "") == (done.returncode, done.stderr), output
    assert set() == names_after("failed", summary), output
    assert missing_here() == skipped, output
    assert f"{len(SCENES) + 1 - len(skipped)} passed" in summary
    if os.environ.get("CI") == "true":
        assert set() == skipped, output
    for scene in SCENES:
        assert scene.title.split()[0] in output
    assert re.search(r"in [\d.]+ s$", summary)


def test_every_scene_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["demo", "--list"])

    listed = capsys.readouterr().out
    assert len(SCENES) == len({scene.name for scene in SCENES})
    assert all(scene.name in listed and scene.shows in listed for scene in SCENES)


def test_unknown_scene_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main(["demo", "cancel", "no-such-scene"])

    assert "no scene is called no-such-scene" in capsys.readouterr().err


def on_terminal(arguments: list[str], **environment: str) -> tuple[int, str]:
    """Run the demo with a terminal as its output; status and what was shown."""
    ours, theirs = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    env |= {"TERM": "xterm", "COLUMNS": "120", **environment}
    command = [*COMMAND, "--patience", str(PATIENCE), *arguments]
    process = subprocess.Popen(command, stdout=theirs, env=env)
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:
        pass  # EIO: nobody has the other end any more.
    finally:
        os.close(ours)
    return process.wait(120.0), shown.decode()


GREEN = "\x1b[32m"


def test_terminal_gets_colours() -> None:
    status, shown = on_terminal(["black-hole", "--plain"])

    assert (0, True) == (status, GREEN in shown)


def test_no_color_is_respected() -> None:
    status, shown = on_terminal(["black-hole", "--plain"], NO_COLOR="1")

    assert (0, False) == (status, "\x1b" in shown)


def test_rich_table_on_a_terminal() -> None:
    need_module("rich")
    status, shown = on_terminal(["black-hole"])

    assert (0, True, True) == (status, GREEN in shown, "2 passed" in shown)


def test_rich_table_without_colour() -> None:
    need_module("rich")
    status, shown = on_terminal(["black-hole"], NO_COLOR="1")

    assert (0, False, True) == (status, "\x1b[3" in shown, "2 passed" in shown)


SHORTCOMINGS = {
    "truncated": r"600 bytes, taken for whole; .* 600 bytes and a clean end",
    "half-close": r"shutdown\(\): 20 of 20 .* close\(\): 0, though 20 sends went well; .*: 0$",
    "tls-stall": r"0 of 19 others served within 4 s; accept\(\) blocked for [1-9]",
    "rst-storm": r"close\(\): 0 of 50 answers arrive, 0 bytes; \d\d resets",
}


@pytest.mark.parametrize("name", SHORTCOMINGS)
def test_endings_go_wrong_with_sockets_and_not_with_hardsock(name: str) -> None:
    played = next(scene for scene in SCENES if scene.name == name)

    assert re.search(SHORTCOMINGS[name], played.stdlib().text)
    outcome = played.hardsock()
    assert [] == played.missed(outcome, PATIENCE), outcome


def test_resets_are_counted_by_the_clients_where_there_are_no_namespaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise Unavailable("no namespaces here")

    monkeypatch.setattr(rst_storm, "run_in_namespace", refuse)

    text = rst_storm.SCENE.stdlib().text
    found = re.fullmatch(
        r"close\(\): (\d+) of 50 answers arrive, .*; (\d+) resets seen by the clients", text
    )
    assert found is not None, text
    arrived, resets = map(int, found.groups())
    assert arrived + resets == 50  # On a busy machine a client may read before it is reset.
    assert resets > 0
    outcome = rst_storm.SCENE.hardsock()
    assert [] == rst_storm.SCENE.missed(outcome, PATIENCE), outcome


def scene(
    hardsock: Callable[[], Outcome], stdlib: Callable[[], Outcome] = lambda: Outcome("slow")
) -> Scene:
    bounds = (Bound(of="time", at_most=0.5, unit="s"),)
    return Scene(
        name="made-up",
        title="A scene",
        shows="Something.",
        stdlib=stdlib,
        hardsock=hardsock,
        bounds=bounds,
    )


def play(
    made_up: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    monkeypatch.setattr(runner, "SCENES", (made_up,))
    monkeypatch.setenv("COLUMNS", "160")
    status = main(["demo"])
    return status, capsys.readouterr().out


def test_kept_bound_passes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, shown = play(scene(lambda: Outcome("fast", {"time": 0.4})), monkeypatch, capsys)

    assert (0, True) == (status, "2 passed, 0 failed, 0 skipped" in shown)


@pytest.mark.parametrize("measured", [{"time": 0.6}, {}, {"time": float("nan")}])
def test_missed_bound_fails(
    measured: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, shown = play(scene(lambda: Outcome("slow", measured)), monkeypatch, capsys)

    assert (1, True) == (status, "1 passed, 1 failed (made-up), 0 skipped" in shown)
    assert "MISSED" in shown


def test_times_may_be_longer_with_patience_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    time, tried = Bound(of="time", at_most=0.5, unit="s"), Bound(of="tried", at_most=3)
    outcome = Outcome("", {"time": 4.9, "tried": 4})
    assert [time.kept_by(outcome), time.kept_by(outcome, 10)] == [False, True]
    assert not tried.kept_by(outcome, 10)
    for wrong in ("0.5", "nan", "much"):
        with pytest.raises(SystemExit):
            main(["demo", "--patience", wrong])
        assert "--patience" in capsys.readouterr().err


def test_no_limit_inside_of_a_scene_ends_before_that_of_its_column() -> None:
    """Where a column has more time, as in the trial of a wheel, a busy machine may take it."""
    trial = (ROOT / "packaging/try_wheel.py").read_text()
    (patience,) = re.findall(r'"--patience",\s*"(\d+)"', trial)
    assert measure.LIMIT > runner._COLUMN_LIMIT * int(patience)
    waits = r"(?:\b(?:ns|namespace)\.(?:start|run)|run_in_namespace|\w\.wait|readable)\(.*\)"
    found = [
        f"{path.name}: {call}"
        for path in (ROOT / "python/hardsock/demo").rglob("*.py")
        for call in re.findall(waits, path.read_text())
    ]
    assert len(found) > 10
    assert [call for call in found if "LIMIT" not in call] == []


def raises(error: Exception) -> Callable[[], Outcome]:
    def column() -> Outcome:
        raise error

    return column


@pytest.mark.parametrize("which", ["stdlib", "hardsock"])
def test_missing_privilege_skips_and_says_so(
    which: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = {"hardsock": lambda: Outcome("fast", {"time": 0.1})}
    columns[which] = raises(Unavailable("no namespaces here"))
    status, shown = play(scene(**columns), monkeypatch, capsys)

    assert (0, True) == (status, "1 passed, 0 failed, 1 skipped (made-up)" in shown)
    assert "no namespaces here" in shown


@pytest.mark.parametrize("which", ["stdlib", "hardsock"])
def test_broken_column_fails(
    which: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = {"hardsock": lambda: Outcome("fast", {"time": 0.1})}
    columns[which] = raises(OSError("no such luck"))
    status, shown = play(scene(**columns), monkeypatch, capsys)

    assert (1, True) == (status, "no such luck" in shown)


def test_leftover_descriptor_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "_SETTLE", 0.05)
    kept = []

    def leak() -> Outcome:
        kept.extend(os.pipe())
        return Outcome("fast", {"time": 0.1})

    try:
        status, shown = play(scene(leak), monkeypatch, capsys)
    finally:
        for fd in kept:
            os.close(fd)

    assert (1, True) == (status, "1 passed, 1 failed (leftovers)" in shown)
    assert f"made-up: descriptor {kept[0]} left open" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (Bound(of="time", at_most=0.5, unit="s"), "time <= 0.5 s"),
        (Bound(of="tried", at_least=3), "tried >= 3"),
        (Bound(of="return", at_least=0.3, at_most=0.4, unit="s"), "return 0.3 to 0.4 s"),
        (Bound(of="pongs", at_least=9, at_most=9), "pongs = 9"),
    ],
)
def test_bound_in_words(bound: Bound, expected: str) -> None:
    assert expected == str(bound)
