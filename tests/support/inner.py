"""Runs of pytest inside of a test."""

from __future__ import annotations

import pytest


def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an inner run do without plugins that no test of ours is about: they are most of its time."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:anyio -p no:hypothesispytest")
