"""What tests have measured is told at the end of a run, also of those that pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.inner import alone

TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch)


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_what_a_test_records_is_told(pytester: pytest.Pytester, workers: list[str]) -> None:
    pytester.makeconftest(f"""
        import sys

        sys.path.insert(0, {str(TESTS)!r})
        from support.measured import pytest_terminal_summary
        """)
    pytester.makepyfile("""
        def test_passes(record_property):
            record_property("drops", 3)

        def test_fails(record_property):
            record_property("drops", 4)
            raise AssertionError

        def test_measures_nothing():
            pass
        """)
    result = pytester.runpytest_subprocess(*workers)
    result.stdout.fnmatch_lines_random(
        ["*== measured ==*", "*::test_passes: drops: 3", "*::test_fails: drops: 4"]
    )
    result.assert_outcomes(passed=2, failed=1)


def test_who_measures_nothing_says_nothing(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(f"""
        import sys

        sys.path.insert(0, {str(TESTS)!r})
        from support.measured import pytest_terminal_summary
        """)
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess()
    result.stdout.no_fnmatch_line("*measured*")
