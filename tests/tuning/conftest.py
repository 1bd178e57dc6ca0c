"""The program is built once, before the first test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from support_tune import BINARY, TOP, ns, root

__all__ = ["ns", "root"]


@pytest.fixture(scope="session", autouse=True)
def program() -> None:
    """Build it, unless HARDSOCK_TUNE names one."""
    if "HARDSOCK_TUNE" not in os.environ:
        done = subprocess.run(
            ["make", "-s", "-C", str(TOP / "tuning")], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert BINARY.exists()
