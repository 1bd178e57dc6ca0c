"""How experiments judge what they measured: a difference is shown, none is not, doubt is INVALID."""

from __future__ import annotations

import errno
from types import ModuleType
from typing import Any

import pytest

from hardsock.lab.experiments import (
    broken_service,
    dial_storm,
    endless_line,
    fin_timeout,
    held_ports,
    keepalive_workers,
    linger_zero,
    sleepy_reader,
    stale_keepalive,
    tuned_together,
    wide_range,
)
from hardsock.lab.experiments.page import verdict_of

BAD_AND_GOOD: list[tuple[ModuleType, Any, Any]] = [
    (
        keepalive_workers,
        {"answered": [0.1] * 8 + [1.0] * 56, "first_left": 0.8, "stood_still": 0.0},
        {"answered": [0.1] * 64, "first_left": 0.8, "stood_still": 0.0},
    ),
    (stale_keepalive, [True, False] * 10, [True] * 20),
    (wide_range, [False] * 10, [True] * 10),
    (sleepy_reader, {"late": [0.002] * 60, "empty": 90}, {"late": [0.0001] * 60, "empty": 0}),
    (
        broken_service,
        {"took": [0.2] * 30, "reached": 30},
        {"took": [0.2] * 5 + [0.0] * 25, "reached": 5},
    ),
    (
        dial_storm,
        {"entered": [0.1] * 80, "logins": 900},
        {"entered": [0.1] * 200, "logins": 200},
    ),
]


def verdict(module: ModuleType, found: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(module, "run_in_namespace", lambda *_args, **_kwargs: found)
    return verdict_of(module._measure())


@pytest.mark.parametrize(
    ("module", "bad", "good"), BAD_AND_GOOD, ids=lambda one: getattr(one, "__name__", "")[29:]
)
def test_only_a_failure_of_the_one_and_not_of_the_other_is_shown(
    module: ModuleType, bad: Any, good: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verdict(module, {"plain": bad, "hardsock": good}, monkeypatch) == "shown"
    assert verdict(module, {"plain": bad, "hardsock": bad}, monkeypatch) == "not shown"
    assert verdict(module, {"plain": good, "hardsock": good}, monkeypatch) == "not shown"


def test_clients_that_stood_still_say_nothing_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    _, bad, good = BAD_AND_GOOD[0]
    late = {**good, "stood_still": 0.9}
    assert verdict(keepalive_workers, {"plain": bad, "hardsock": late}, monkeypatch) == "INVALID"


def test_a_machine_that_is_late_itself_says_nothing_of_readers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = {"late": [0.02] * 60, "empty": 90}
    assert verdict(sleepy_reader, {"plain": late, "hardsock": late}, monkeypatch) == "INVALID"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"zero": (100, True), "close": (400_000, False)}, "shown"),
        ({"zero": (400_000, True), "close": (400_000, False)}, "not shown"),
        ({"zero": (100, True), "close": (100, True)}, "not shown"),
    ],
)
def test_only_a_reset_that_destroys_is_shown(
    found: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verdict(linger_zero, {**found, "hardsock": (400_000, False)}, monkeypatch) == expected


@pytest.mark.parametrize(
    ("time_wait", "fin_wait2", "pooled", "expected"),
    [
        (60.0, 5.0, 0, "shown"),
        (5.0, 5.0, 0, "not shown"),
        (60.0, 60.0, 0, "not shown"),
        (60.0, 5.0, 20, "not shown"),
    ],
)
def test_only_a_time_wait_that_stays_is_shown(
    time_wait: float,
    fin_wait2: float,
    pooled: int,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {
        "time_wait_60": 60.0,
        "fin_wait2_60": 60.0,
        "time_wait_5": time_wait,
        "fin_wait2_5": fin_wait2,
        "pooled": pooled,
    }
    assert verdict(fin_timeout, found, monkeypatch) == expected


@pytest.mark.parametrize(
    ("failed", "ours", "expected"),
    [
        ((200, errno.EADDRNOTAVAIL), 0, "shown"),
        ((200, errno.EADDRNOTAVAIL), 190, "not shown"),
        ((300, 0), 0, "not shown"),
        ((200, errno.ECONNREFUSED), 0, "not shown"),
    ],
)
def test_only_a_lack_of_ports_that_one_side_has_is_shown(
    failed: tuple[int, int], ours: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"plain": [(0, 0), (200, 200)], "hardsock": [(0, 0), (300, ours)], "failed": failed}
    assert verdict(held_ports, found, monkeypatch) == expected


@pytest.mark.parametrize(
    ("plain", "ours", "expected"),
    [(60.0, 0.5, "shown"), (60.0, 60.0, "not shown"), (1.0, 0.5, "not shown")],
)
def test_only_memory_that_one_side_keeps_is_shown(
    plain: float, ours: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = {"plain": plain, "hardsock": ours}

    def found(_target: Any, side: str, **_kwargs: Any) -> Any:
        return {"memory": [(0, 0.0), (64, grown[side])], "said": "FrameTooLarge"}

    monkeypatch.setattr(endless_line, "run_in_namespace", found)
    assert verdict_of(endless_line._measure()) == expected


@pytest.mark.parametrize(
    ("alone", "together", "said", "expected"),
    [
        (129, 600, ["less"], "shown"),
        (600, 600, ["less"], "not shown"),
        (129, 129, ["less"], "not shown"),
        (129, 600, [], "not shown"),
    ],
)
def test_only_settings_that_do_nothing_alone_and_a_word_of_that_are_shown(
    alone: int, together: int, said: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {"one": alone, "other": 129}
    found = {"plain": plain, "warned": (129, said), "hardsock": (together, [])}
    assert verdict(tuned_together, found, monkeypatch) == expected
