"""What tests have measured, told at the end of a run.

A test says it with ``record_property(name, value)``. pytest keeps that to its XML (``--junitxml``), and
nothing of a test that passes is seen: a run that is looked at the next morning would tell no number.
"""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each property of each test."""
    reports = [each for kind in terminalreporter.stats.values() for each in kind]
    lines = [
        f"{report.nodeid}: {name}: {value}"
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
    ]
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.line(line)
