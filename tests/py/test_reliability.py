"""The page of what the library was put through says what was found, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

_FILE = Path(__file__).resolve().parents[2] / "tools" / "reliability.py"


@pytest.fixture(scope="module")
def reliability() -> Any:
    spec = importlib.util.spec_from_file_location("reliability_under_test", _FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_was_kept(reliability: Any) -> None:
    """Else: python tools/reliability.py write."""
    made = reliability.page(
        reliability.read_kept(), reliability.of_experiments(reliability.EXPERIMENTS)
    )
    assert reliability.PAGE.read_text() == made


def test_no_violation_is_on_the_page(reliability: Any) -> None:
    for name, row in reliability.read_kept().items():
        assert row["violations"] == 0, name
    assert reliability.of_experiments(reliability.EXPERIMENTS).violations == 0


@pytest.mark.parametrize(
    ("status", "output", "want"),
    [
        (0, "100%: Checks: 41, Failures: 0, Errors: 0\n", (41, 41, 0)),
        (1, "95%: Checks: 41, Failures: 1, Errors: 1\n", (41, 39, 2)),
        (2, "make: no such target\n", (1, 0, 1)),
    ],
    ids=["all good", "two bad", "nothing ran"],
)
def test_a_program_that_ran_no_test_has_not_survived(
    reliability: Any, status: int, output: str, want: tuple[int, int, int]
) -> None:
    row = reliability.of_program("torture", status, output)
    assert (row.cases, row.survived, row.violations) == want


def test_an_experiment_that_shows_nothing_is_a_violation_and_an_invalid_one_no_survivor(
    reliability: Any, tmp_path: Path
) -> None:
    for name, verdict in (("a", "shown"), ("b", "not shown"), ("c", "INVALID")):
        (tmp_path / f"{name}.json").write_text(json.dumps({"verdict": verdict}))
    row = reliability.of_experiments(tmp_path)
    assert (row.cases, row.survived, row.violations) == (3, 1, 1)


def test_growth_in_a_soak_is_a_violation(reliability: Any) -> None:
    slopes = {"per_second": 2.0, "within": 0.1}
    row = reliability.of_soak(
        {
            "outcomes": {"pool: answered": 90, "pool: Reset": 10},
            "violations": [],
            "problems": ["rests.in_use_kib: grows"],
            "slopes": {"rests.in_use_kib": slopes, "samples.memory_kib": slopes},
            "minutes": 60,
            "seed": 1,
            "faults": 7,
            "disturbed": {"servers": 1, "changes": 2},
        }
    )
    assert (row.cases, row.violations) == (100, 1)
    assert "90 answers right" in row.note
