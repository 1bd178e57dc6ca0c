"""What the soak says of figures: growth is found, noise and a settling level are none."""

from __future__ import annotations

import importlib.util
import math
import random
from pathlib import Path
from typing import Any

import pytest

_FILE = Path(__file__).resolve().parents[2] / "tools" / "soak.py"


@pytest.fixture(scope="module")
def soak() -> Any:
    spec = importlib.util.spec_from_file_location("soak_under_test", _FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result(memory: Any, **more: Any) -> dict[str, Any]:
    samples = [[float(t), memory(t), 20.0, 5.0] for t in range(600)]
    return {"samples": samples, "violations": [], "left": {}, **more}


def test_a_leak_in_noise_is_found(soak: Any) -> None:
    rng = random.Random(7)
    found = result(lambda t: 50_000 + 3 * t + rng.gauss(0, 200))
    (problem,) = soak.judge(found)
    assert problem.startswith("memory_kib: grows by ")
    slope = found["slopes"]["memory_kib"]
    assert abs(slope["per_second"] - 3) <= slope["within"]


def test_noise_is_no_leak(soak: Any) -> None:
    rng = random.Random(7)
    assert soak.judge(result(lambda t: 50_000 + rng.gauss(0, 500))) == []


def test_a_level_that_is_reached_early_is_no_leak(soak: Any) -> None:
    assert soak.judge(result(lambda t: 50_000 - 10_000 * math.exp(-t / 30))) == []


def test_descriptors_and_threads_may_not_grow_at_all(soak: Any) -> None:
    found = result(lambda t: 50_000.0)
    for one in found["samples"]:
        one[2] += one[0] // 30
    (problem,) = soak.judge(found)
    assert problem.startswith("descriptors: grows by 0.03")


def test_violations_and_what_is_left_are_problems(soak: Any) -> None:
    found = result(lambda t: 50_000.0, violations=["pool: wrong"], left={"conns": 1})
    assert soak.judge(found) == ["pool: wrong", "left behind: {'conns': 1}"]


def test_too_few_samples_say_nothing(soak: Any) -> None:
    assert soak.slope([(1.0, 1.0)]) == (0.0, math.inf)
