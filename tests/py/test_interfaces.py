"""What packaging/interfaces.py takes for a change that breaks somebody's program."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).resolve().parents[2] / "packaging" / "interfaces.py"


@pytest.fixture(scope="module")
def interfaces() -> ModuleType:
    spec = importlib.util.spec_from_file_location("interfaces", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("python f(a, *, b=1)", "python f(a, *, b=1, c=None)"),
        ("python f(a, *, b=1)", "python f(a, *, c=None, b=1)"),
        ("python f(a, *, b=1)", "python f(a, c=None, *, b=1)"),
        ("python f(a, b=(1, 2))", "python f(a, b=(1, 2), c='(', *, d={})"),
        ("python f()", "python f(*, a=<sentinel>)"),
        ("python C(a)", "python C(a, *, b=1)"),
    ],
)
def test_a_parameter_that_can_be_left_out_takes_nothing_away(
    interfaces: ModuleType, before: str, after: str
) -> None:
    assert interfaces.differences([before], [after]) == ([], [], [(before, after)])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("python f(a)", "python f(a, b)"),
        ("python f(a)", "python f(a, *, b)"),
        ("python f(a, b=1)", "python f(a, c=None, b=1)"),
        ("python f(a, b=1)", "python f(a, *, b=1)"),
        ("python f(a, b=1)", "python f(a, b=2)"),
        ("python f(a, b=1)", "python f(a)"),
        ("python f(a)", "python f"),
        ("python f", "python f(a=1)"),
        ("python f(a)", "python g(a)"),
    ],
)
def test_what_a_call_of_before_would_feel_is_a_change(
    interfaces: ModuleType, before: str, after: str
) -> None:
    assert interfaces.differences([before], [after]) == ([before], [after], [])


def test_every_line_of_the_table_is_taken_apart_and_is_its_own_growth(
    interfaces: ModuleType,
) -> None:
    lines = interfaces.TABLE.read_text().splitlines()
    assert len(lines) > 1000
    assert interfaces.differences(lines, lines) == ([], [], [])
    for line in lines:
        if line.startswith("python ") and "(" in line and "(..." not in line:
            name, parameters = interfaces.split(line)
            assert f"{name}({', '.join(parameters)})" == line
