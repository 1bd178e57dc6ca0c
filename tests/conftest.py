"""What every test gets: a check that it left nothing behind, and a warmed-up main thread."""

from __future__ import annotations

import pytest

import hardsock as hs

pytest_plugins = ["support.plugin"]


@pytest.fixture(scope="session", autouse=True)
def thread_waker() -> None:
    """Open the main thread's eventfd, which lives as long as the thread, before tests are compared."""
    hs.CancelToken().wait(0)
