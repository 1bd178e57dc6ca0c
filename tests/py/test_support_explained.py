"""The explanation of a failed comparison takes no time that grows with the cube of its lines."""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable
from typing import Any

import pytest

Explain = Callable[[object, object], str]


@pytest.fixture
def explain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Explain:
    monkeypatch.setenv("CI", "true")  # Where all of it is shown.

    def explain(left: object, right: object) -> str:
        hook = request.config.hook.pytest_assertrepr_compare
        (lines,) = hook(config=request.config, op="==", left=left, right=right)
        return "\n".join(lines)

    return explain


@pytest.mark.parametrize("kind", ["bytes", "text", "list"])
def test_similar_lines_of_large_values_are_not_looked_for(
    explain: Explain, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks_for_them(*_args: object) -> None:
        raise AssertionError("each line is compared with each")

    monkeypatch.setattr(difflib.Differ, "compare", looks_for_them)
    noise = random.Random(1)
    made: dict[str, Callable[[], Any]] = {
        "bytes": lambda: noise.randbytes(100_000),
        "text": lambda: "\n".join(noise.randbytes(20).hex() for _ in range(1000)),
        "list": lambda: [noise.random() for _ in range(1000)],
    }
    text = explain(made[kind](), made[kind]())
    assert "\n+" in text
    assert "\n-" in text
    assert "representation of details failed" not in text


def test_of_small_ones_the_place_is_shown(explain: Explain) -> None:
    text = explain(["the quick brown fox"] * 3, ["the quick brown fax"] * 3)
    assert "? " in text
    assert "^" in text
