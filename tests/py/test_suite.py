"""What makes the run of this suite cheap, and has it end."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]


def test_the_collector_does_not_look_through_what_was_there_before_the_first_test() -> None:
    assert gc.isenabled()
    known = gc.get_freeze_count()
    found = gc.get_objects()
    assert known > 10_000
    assert not any(one is os.__dict__ or one is gc.__dict__ for one in found)


def test_nor_through_what_a_file_has_brought_before_the_next(
    request: pytest.FixtureRequest,
) -> None:
    conftest = request.config.pluginmanager.get_plugin(str(TOP / "tests/conftest.py"))
    assert conftest is not None
    other = type("Other", (), {"path": TOP})
    for following, is_left_alone in ((request.node, False), (other, True), (None, True)):
        brought = [object]
        run = conftest.pytest_runtest_protocol(request.node, following)
        next(run)
        with pytest.raises(StopIteration):
            run.send(None)
        assert all(one is not brought for one in gc.get_objects()) == is_left_alone


def test_make_has_interpreters_keep_their_bytecode() -> None:
    argv = ["make", "-s", "--eval", "told:; @printenv", "told"]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    told = subprocess.run(argv, cwd=TOP, env=env, check=True, capture_output=True, text=True)
    assert "PATH=" in told.stdout
    assert "PYTHONDONTWRITEBYTECODE" not in told.stdout


def test_a_test_that_fails_does_not_wait_for_a_program_without_an_end() -> None:
    with (
        pytest.raises(LookupError, match="failed"),
        subprocess.Popen(["sleep", "infinity"]) as process,
    ):
        raise LookupError("failed")
    assert process.returncode == -signal.SIGKILL
