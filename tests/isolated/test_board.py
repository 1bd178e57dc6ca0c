"""`make board`: the page says what the JSON says, misses too; each worker lives several times.

And the bench behind it: all its programs compile, and every row has somebody who does it.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

from bench import __main__ as bench  # noqa: E402
from bench import board, model, report, runner, works  # noqa: E402


def _spread(median: float) -> dict[str, float]:
    return {"median": median, "q1": median * 0.9, "q3": median * 1.1, "rounds": 60}


def _row(
    name: str, cost: float | None, *goals: dict[str, Any], work: str = "echo"
) -> dict[str, Any]:
    return {
        "work": work, "implementation": name, "version": "1", "measure": "rate", "unit": "ns",
        "absent": None if cost else "skipped: not installed",
        "cost": _spread(cost) if cost else None,
        "ratio_to_c": _spread(cost / 1000) if cost and name != "c" else None,
        "ratio_to_stdlib": None, "goals": list(goals),
    }  # fmt: skip


def _goal(met: bool | None, at_most: float = 1.1, against: str | None = "c") -> dict[str, Any]:
    measured = None if met is None else _spread(1.2)
    return {"text": f"{at_most} of {against}", "against": against, "at_most": at_most,
            "measured": measured, "met": met}  # fmt: skip


@pytest.fixture
def document() -> dict[str, Any]:
    return {
        "format": 1,
        "machine": {
            "time": "2026-01-02T03:04:05+00:00", "machine": "x86_64", "kernel": "Linux 6.1",
            "cpu": "A <CPU>", "cpus": 2, "memory_bytes": 1 << 30, "load_before": 0.1,
            "sysctl": {"net.core.somaxconn": "4096"}, "versions": {"python": "3.11\nmore", "go": None},
            "source": {"commit": "abc", "changed": False},
        },
        "plan": {"quick": False, "echo": {"rounds": 60, "lives": 6}},
        "results": [
            _row("hardsock", 1200.0, _goal(False), _goal(True, 2000, None), _goal(None, 1.0, "gone")),
            _row("c", 1000.0),
            _row("uvloop", None),
            _row("c", 5.0, work="other"),
        ],
    }  # fmt: skip


def test_the_page_has_what_was_met_missed_and_not_measured(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    made = board.write(document, tmp_path)
    text = made[0].read_text()
    assert "1 met, 1 missed, 1 not measured." in text
    assert "| echo | hardsock | 1.1 of c | **missed**: 1.20 (1.08 to 1.32) |" in text
    assert "| echo | hardsock | 1.0 of gone | not measured |" in text
    assert "| uvloop | skipped: not installed |  |  |" in text
    assert "| hardsock | 1.20 us | 1.20 (1.08 to 1.32) |  |" in text
    assert "Do not quote" not in text
    assert [path.name for path in made[1:]] == ["echo-rate.svg"]


def test_a_goal_that_is_an_amount_is_judged_in_its_unit(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    goal = _goal(True, 25_000_000, None) | {"text": "<= 25 ms", "measured": _spread(17_328_931.5)}
    document["results"].append(_row("hardsock", 17_328_931.5, goal, work="import_time"))
    text = board.write(document, tmp_path)[0].read_text()
    assert "| import_time | hardsock | <= 25 ms | met: 17.3 ms (15.6 to 19.1) |" in text


def test_a_picture_is_an_svg_with_a_bar_for_each_and_a_line_for_each_goal(
    document: dict[str, Any],
) -> None:
    svg = board.picture("echo <x>", document["results"][:3])
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}rect")) == 2
    kinds = [path.get("class") for path in root.findall(f"{space}path")]
    assert (kinds.count("spread"), kinds.count("goal")) == (2, 2)


def test_a_run_that_is_not_to_be_quoted_says_so(tmp_path: Path, document: dict[str, Any]) -> None:
    document["plan"]["quick"] = True
    document["plan"]["echo"]["load_before"] = 7.0
    text = board.write(document, tmp_path)[0].read_text()
    assert "Do not quote its numbers" in text
    assert "load up to 7.0" in text
    other = {"commit": "def", "changed": True}
    document["plan"] = {
        "quick": False,
        "echo": {"lives": 1},
        "other": {"lives": 1, "source": other, "time": "2026-12-31"},
    }
    text = board.write(document, tmp_path)[0].read_text()
    assert f"| when | {document['machine']['time']} to 2026-12-31 |" in text
    assert "one process only" in text
    assert "| source | abc |\n| source | def, changed |" in text


def test_pictures_of_works_that_have_gone_go(tmp_path: Path, document: dict[str, Any]) -> None:
    board.write(document, tmp_path)
    document["results"] = [_row("c", 1.0)]
    board.write(document, tmp_path)
    assert list((tmp_path / "benchmarks").iterdir()) == []


def test_without_a_run_there_is_no_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert board.main([str(tmp_path / "none.json")]) == 1
    assert "make bench" in capsys.readouterr().err


def test_the_command_reads_the_file_that_it_is_given(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    source = tmp_path / "latest.json"
    source.write_text(json.dumps(document))
    assert board.main([str(source), str(tmp_path)]) == 0
    assert "# Benchmarks" in (tmp_path / "benchmarks.md").read_text()


def test_what_compare_kept_beside_it_is_a_table(tmp_path: Path, document: dict[str, Any]) -> None:
    source = tmp_path / "latest.json"
    source.write_text(json.dumps(document))
    kept = {
        "title": "Pools", "time": "2026-01-02T03:04:05+00:00", "versions": {"ours": "1", "theirs": "2"},
        "columns": ["ours", "theirs"],
        "rows": [{"case": "closed | idle", "cells": {"ours": "lives", "theirs": "! dead | gone"}},
                 {"case": "new", "cells": {"ours": "counted"}}],
    }  # fmt: skip
    (tmp_path / "compare-pool.json").write_text(json.dumps(kept))
    assert board.main([str(source), str(tmp_path)]) == 0
    text = (tmp_path / "benchmarks.md").read_text()
    assert "### Pools\n\n`make compare`, 2026-01-02T03:04:05+00:00; ours 1, theirs 2.\n" in text
    assert "| case | ours | theirs |\n|---|---|---|\n" in text
    assert "| closed \\| idle | lives | ! dead \\| gone |\n| new | counted |  |\n" in text


def test_what_was_measured_is_kept_work_by_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = tmp_path / "latest.json"
    monkeypatch.setattr(bench, "LATEST", latest)
    short = ["--quick", "--repeat", "1", "--impl", "hardsock"]
    assert bench.main([*short, "--only", "request_reply"]) == 0
    assert bench.main([*short, "--add", "--only", "connect_close"]) == 0
    document = json.loads(latest.read_text())
    assert list(dict.fromkeys(row["work"] for row in document["results"])) == [
        "connect_close",
        "request_reply",
    ]
    assert all(p["source"] for name, p in document["plan"].items() if name != "quick")
    document["machine"]["kernel"] = "another"
    latest.write_text(json.dumps(document))
    assert bench.main([*short, "--add", "--only", "connect_close"]) == 1


def test_each_life_of_a_worker_warms_up_and_all_rounds_are_kept() -> None:
    work = next(w for w in works.ALL if w.name == "connect_close")
    seen = list(runner.turns(work, runner.Plan(rounds=61, lives=6)))
    assert [turn for _, turn, _ in seen].count(0) == 6
    assert [keep for _, _, keep in seen].count(True) == 61
    assert all(keep == (turn > 0) for _, turn, keep in seen)
    assert [done for done, _, keep in seen if keep] == list(range(61))
    assert len(list(runner.turns(work, runner.Plan(rounds=2, lives=6)))) == 4


def test_a_worker_that_is_fresh_for_each_slice_needs_no_lives() -> None:
    work = next(w for w in works.ALL if w.fresh_worker)
    assert list(runner.turns(work, runner.Plan(rounds=2, lives=6))) == [(0, 0, True), (1, 1, True)]


# ---- The bench

_PROGRAMS = sorted(p for f in ("floors", "peers", "core") for p in (ROOT / "bench" / f).glob("*.c"))


def test_every_program_that_a_work_names_is_there() -> None:
    floors = {program for w in works.ALL for program, _variant in w.c_programs.values()}
    assert {w.peer_program for w in works.ALL} | floors <= {p.stem for p in _PROGRAMS}


@pytest.mark.parametrize("program", _PROGRAMS, ids=lambda path: path.name)
def test_every_program_of_the_bench_compiles(program: Path) -> None:
    flags = ("-fsyntax-only", "-std=c11", "-D_GNU_SOURCE", "-Icsrc/include")
    done = subprocess.run(
        ["cc", *flags, str(program)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def _names_of(module: Path) -> set[str]:
    """What a module defines or is given, without importing it: its library may not be there."""
    found: set[str] = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {
                name.id for t in node.targets for name in ast.walk(t) if isinstance(name, ast.Name)
            }
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("work", works.ALL, ids=lambda work: work.name)
def test_every_implementation_of_a_work_can_do_it(work: model.Work) -> None:
    assert all((ROOT / "bench/floors" / f"{p}.c").exists() for p, _ in work.c_programs.values())
    assert (ROOT / "bench/peers" / f"{work.peer_program}.c").exists()
    lacking = []
    for name in work.implementations:
        if name not in work.c_programs and name != "go":
            driver = ROOT / "bench/drivers" / f"{name.replace('-', '_')}.py"
            if (work.function or work.name) not in _names_of(driver):
                lacking.append(name)
    assert lacking == []


@pytest.mark.parametrize("work", works.ALL, ids=lambda work: work.name)
def test_goals_are_about_implementations_of_their_work(work: model.Work) -> None:
    named = {n for g in work.goals for n in (g.of, g.against, g.beside) if n is not None}
    assert named - set(work.implementations) == set()


def _series(name: str, *costs: float) -> runner.Series:
    return runner.Series(name, costs=list(costs))


def test_what_is_allowed_besides_is_taken_from_each_round() -> None:
    goal = model.Goal(text="", of="ours", against="lock", beside="poll", at_most=2.0)
    mine = _series("ours", 500.0, 600.0, 400.0)
    others = {
        "lock": _series("lock", 100.0, 100.0, 100.0),
        "poll": _series("poll", 300.0, 450.0, 100.0),
    }
    verdict = report.judge(goal, mine, others)
    assert verdict.value is not None
    assert (verdict.value.median, verdict.met) == (2.0, True)
    assert report.judge(goal, mine, {"lock": others["lock"]}).met is None


def test_a_picture_draws_what_is_allowed_besides() -> None:
    goal = {**_goal(True, 2.0, "lock"), "beside": "poll"}
    rows = [_row("ours", 500.0, goal), _row("lock", 100.0), _row("poll", 300.0)]
    assert board.limit_of(rows, goal) == 500.0
    assert board.limit_of(rows[:2], goal) is None
