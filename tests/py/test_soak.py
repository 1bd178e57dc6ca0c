"""What the soak says of figures: growth is found, noise and a settling level are none."""

from __future__ import annotations

import importlib.util
import math
import random
import sys
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


def result(memory: Any, series: str = "samples", **more: Any) -> dict[str, Any]:
    """Of a run of an hour in which all stands still but for the memory (or *series*' own)."""
    flat = [[float(t), 50_000.0, 4_000.0, 90_000.0, 20.0, 5.0] for t in range(600)]
    found = {one: [list(row) for row in flat] for one in ("samples", "rests", "server")}
    for row in found[series]:
        row[1 if series == "samples" else 2] = memory(row[0])
    return {
        **found,
        "minutes": 60,
        "violations": [],
        "left": {},
        "cycles": 0,
        "server_cycles": 0,
        **more,
    }


def test_a_leak_in_noise_is_found(soak: Any) -> None:
    rng = random.Random(7)
    found = result(lambda t: 50_000 + 3 * t + rng.gauss(0, 200))
    (problem,) = soak.judge(found)
    assert problem.startswith("samples.memory_kib: grows by ")
    slope = found["slopes"]["samples.memory_kib"]
    assert abs(slope["per_second"] - 3) <= slope["within"]


def test_a_small_leak_is_found_at_rest(soak: Any) -> None:
    rng = random.Random(7)
    found = result(lambda t: 4_000 + 0.1 * t + rng.gauss(0, 2), "rests")
    (problem,) = soak.judge(found)
    assert problem.startswith("rests.in_use_kib: grows by 0.")


def test_a_short_run_says_nothing_of_what_the_kernel_counts(soak: Any) -> None:
    assert soak.judge(result(lambda t: 50_000 + 3 * t, minutes=4)) == []


def test_noise_is_no_leak(soak: Any) -> None:
    rng = random.Random(7)
    assert soak.judge(result(lambda t: 50_000 + rng.gauss(0, 500))) == []


def test_a_level_that_is_reached_early_is_no_leak(soak: Any) -> None:
    assert soak.judge(result(lambda t: 50_000 - 10_000 * math.exp(-t / 30))) == []


def test_descriptors_and_threads_may_not_grow_at_all(soak: Any) -> None:
    found = result(lambda t: 50_000.0)
    for one in found["samples"]:
        one[4] += one[0] // 30
    (problem,) = soak.judge(found)
    assert problem.startswith("samples.descriptors: grows by 0.03")


def test_violations_cycles_and_what_is_left_are_problems(soak: Any) -> None:
    found = result(lambda t: 50_000.0, violations=["pool: wrong"], left={"conns": 1}, cycles=7)
    assert soak.judge(found) == ["pool: wrong", "left: {'conns': 1}", "cycles: 7"]


def test_too_few_samples_say_nothing(soak: Any) -> None:
    assert soak.slope([(1.0, 1.0)]) == (0.0, math.inf)


def test_samples_of_a_process_are_no_growth_of_it(soak: Any) -> None:
    samples = soak.Samples(60.0)
    samples.take()
    grown: list[int] = []
    # Other threads of this process have blocks of their own, and a free-threaded one frees later.
    while min(grown, default=25) >= 25:
        assert len(grown) < 100, grown
        before = sys.getallocatedblocks()
        for _ in range(50):
            samples.take()
        grown.append(sys.getallocatedblocks() - before)
    (first, *_, last) = samples.rows()
    assert len(first) == len(soak.COLUMNS)
    assert last[0] > first[0]


def test_samples_count_what_malloc_has_given_out(soak: Any) -> None:
    samples = soak.Samples(60.0)
    samples.take()
    (row,) = samples.rows()
    assert row[soak.COLUMNS.index("in_use_kib")] > 0


def test_pictures_say_by_how_much_it_grows_and_within_what(soak: Any) -> None:
    found = result(lambda t: 50_000 + t / 10)
    soak.judge(found)
    grows = soak.line_of(found, "samples", "memory_kib", "at work", "plain")
    assert grows.label == "at work: +0.1000 \u00b1 0.0000 a second"
    assert grows.points[3] == (3.0, 50_000.3)
    assert soak.line_of(found, "samples", "in_use_kib", "at work", "plain").label == "at work"
